package dispatch

import (
	"cmp"
	"slices"

	"warren/mq"
)

// slot says what is with a seq that was handed out: nothing (any more), ready
// again, put off, or who holds it and whether its settlement is on the way.
type slot uint32

const (
	none     slot = 0
	returned slot = 1 // ready again; redelivered when handed out
	deferred slot = 2 // nobody's, and not ready: see Defer
	settling slot = 1 << 31
	holders  slot = 3 // holder h is slot holders+h
)

// held returns the holder.
func (s slot) held() (holder int32, ok bool) {
	return int32(s&^settling) - int32(holders), s&^settling >= holders
}

// Limits of the ring: the table keeps up to slotsKept when nothing is
// outstanding, and grows to slotsMax (256 KiB) before the oldest seqs move out.
const (
	slotsMin  = 16
	slotsKept = 4096
	slotsMax  = 1 << 16
)

// outstanding is a table of slots by seq. The seqs in use are close together,
// so they are in a ring; a seq that stays behind moves to a sorted list. None
// of it allocates in steady state.
type outstanding struct {
	ring []slot // of the seqs base..base+len-1, at seq modulo len; a power of two
	base mq.Seq
	n    int // slots in use in the ring
	old  []oldSlot
	dead int // of old, that are none by now
}

// oldSlot is a seq below base.
type oldSlot struct {
	seq mq.Seq
	slot
}

func (o *outstanding) get(seq mq.Seq) slot {
	if seq >= o.base {
		if seq-o.base < mq.Seq(len(o.ring)) {
			return o.ring[int(seq)&(len(o.ring)-1)]
		}
		return none
	}
	if i, ok := o.findOld(seq); ok {
		return o.old[i].slot
	}
	return none
}

// set changes the slot of seq; none removes it.
func (o *outstanding) set(seq mq.Seq, s slot) {
	if s == none {
		o.remove(seq)
		return
	}
	if o.n == 0 && (seq >= o.base || len(o.old) == 0) {
		o.base = seq
	}
	if seq < o.base {
		o.setOld(seq, s)
		return
	}
	if seq-o.base >= mq.Seq(len(o.ring)) {
		o.reach(seq)
	}
	at := &o.ring[int(seq)&(len(o.ring)-1)]
	if *at == none {
		o.n++
	}
	*at = s
}

// reach makes the ring cover seq: by moving on over what is free, by growing,
// or by moving the oldest out.
func (o *outstanding) reach(seq mq.Seq) {
	for o.n > 0 && o.ring[int(o.base)&(len(o.ring)-1)] == none {
		o.base++
	}
	if o.n == 0 {
		o.base = seq
	}
	need := seq - o.base + 1
	if need <= mq.Seq(len(o.ring)) {
		return
	}
	size := max(slotsMin, len(o.ring))
	for mq.Seq(size) < need && size < slotsMax {
		size *= 2
	}
	if size > len(o.ring) {
		ring := make([]slot, size)
		for i := range mq.Seq(len(o.ring)) {
			ring[int(o.base+i)&(size-1)] = o.ring[int(o.base+i)&(len(o.ring)-1)]
		}
		o.ring = ring
	}
	for o.base+mq.Seq(size) <= seq {
		if o.n == 0 {
			o.base = seq
			return
		}
		if at := &o.ring[int(o.base)&(size-1)]; *at != none {
			o.setOld(o.base, *at)
			*at = none
			o.n--
		}
		o.base++
	}
}

func (o *outstanding) remove(seq mq.Seq) {
	if seq < o.base {
		if i, ok := o.findOld(seq); ok && o.old[i].slot != none {
			o.old[i].slot = none
			o.dead++
			if o.dead > 32 && o.dead > len(o.old)/2 {
				o.old = slices.DeleteFunc(o.old, func(s oldSlot) bool { return s.slot == none })
				o.dead = 0
			}
		}
		return
	}
	if seq-o.base >= mq.Seq(len(o.ring)) {
		return
	}
	at := &o.ring[int(seq)&(len(o.ring)-1)]
	if *at == none {
		return
	}
	*at = none
	o.n--
	if o.n == 0 && len(o.ring) > slotsKept {
		o.ring = nil
	}
}

func (o *outstanding) setOld(seq mq.Seq, s slot) {
	i, ok := o.findOld(seq)
	switch {
	case !ok:
		o.old = slices.Insert(o.old, i, oldSlot{seq, s})
	case o.old[i].slot == none:
		o.dead--
		fallthrough
	default:
		o.old[i].slot = s
	}
}

func (o *outstanding) findOld(seq mq.Seq) (int, bool) {
	if n := len(o.old); n == 0 || o.old[n-1].seq < seq {
		return n, false
	}
	return slices.BinarySearchFunc(o.old, seq, func(s oldSlot, seq mq.Seq) int { return cmp.Compare(s.seq, seq) })
}

// each calls f with every slot in use between first and last, in order of seq,
// until f returns false. f may set the slot that it is called with to none or
// to another value, and no other.
func (o *outstanding) each(first, last mq.Seq, f func(mq.Seq, slot) bool) {
	if first < o.base && len(o.old) > 0 {
		at, _ := o.findOld(first)
		for at < len(o.old) && o.old[at].seq <= last {
			s := o.old[at]
			if s.slot != none && !f(s.seq, s.slot) {
				return
			}
			if at < len(o.old) && o.old[at].seq == s.seq {
				at++
			} else { // f's removal packed the list
				at, _ = o.findOld(s.seq)
			}
		}
	}
	left := o.n
	for seq := max(first, o.base); left > 0 && seq <= last && seq-o.base < mq.Seq(len(o.ring)); seq++ {
		s := o.ring[int(seq)&(len(o.ring)-1)]
		if s == none {
			continue
		}
		if left--; !f(seq, s) {
			return
		}
	}
}
