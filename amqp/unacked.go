package amqp

import (
	"slices"
	"sort"

	"warren/mq"
)

// unackedKept is for how many entries an empty unacked keeps room.
const unackedKept = 1024

// unacked holds what a channel's client has been given and not settled, by
// delivery tag. Tags only grow, and most settlements take the oldest, so it is
// a slice in tag order that is eaten from the front. Guarded by outbox.mu.
type unacked struct {
	entries []unackedEntry // [head:] in use
	head    int
	gone    int // entries in [head:] that were settled out of order
	// counted is how many entries that are not gone came from consumers; the
	// channel-wide prefetch limit is about these.
	counted int
	taken   []uint64 // tags marked by take, until sweep or untake
	// recalled is the highest tag that the broker took back. What is not
	// outstanding up to it may be such a one, and to settle it is no error.
	recalled uint64
}

type unackedEntry struct {
	tag     uint64
	held    mq.Held
	counted bool
	state   unackedState
}

type unackedState uint8

const (
	stateLive  unackedState = iota
	stateTaken              // settled by the client; the broker does not know yet
	stateGone
)

func (u *unacked) push(tag uint64, h mq.Held, counted bool) {
	if u.head > 64 && u.head > len(u.entries)/2 {
		u.entries = append(u.entries[:0], u.entries[u.head:]...)
		u.head = 0
	}
	u.entries = append(u.entries, unackedEntry{tag: tag, held: h, counted: counted})
	if counted {
		u.counted++
	}
}

// find returns the index of tag. Tags are consecutive unless deliveries
// without ack lie between, so the first guess is nearly always right.
func (u *unacked) find(tag uint64) (int, bool) {
	if u.head == len(u.entries) || tag < u.entries[u.head].tag {
		return 0, false
	}
	if at := tag - u.entries[u.head].tag; at < uint64(len(u.entries)-u.head) && u.entries[u.head+int(at)].tag == tag {
		return u.head + int(at), true
	}
	at := u.head + sort.Search(len(u.entries)-u.head, func(i int) bool { return u.entries[u.head+i].tag >= tag })
	return at, at < len(u.entries) && u.entries[at].tag == tag
}

// take marks what a settlement names (tag 0 with multiple: everything) and
// appends it to dst. False means that tag is not outstanding.
func (u *unacked) take(tag uint64, multiple bool, dst []mq.Held) ([]mq.Held, bool) {
	first, last := u.head, len(u.entries)-1
	if tag != 0 || !multiple {
		at, ok := u.find(tag)
		switch {
		case ok && u.entries[at].state == stateLive:
			last = at
		case tag == 0 || tag > u.recalled || ok && u.entries[at].state == stateTaken:
			return dst, false
		default: // all before it, with multiple
			last = at - 1
		}
		if !multiple {
			first = at
		}
	}
	for i := first; i <= last; i++ {
		if e := &u.entries[i]; e.state == stateLive {
			e.state = stateTaken
			u.taken = append(u.taken, e.tag)
			dst = append(dst, e.held)
		}
	}
	return dst, true
}

// sweep forgets the n that were taken last: the broker has them.
func (u *unacked) sweep(n int) {
	from := max(len(u.taken)-n, 0)
	for _, tag := range u.taken[from:] {
		at, ok := u.find(tag)
		if !ok {
			continue
		}
		u.forget(at)
	}
	u.taken = u.taken[:from]
	u.tidy()
}

// forget marks one entry as gone.
func (u *unacked) forget(at int) {
	e := &u.entries[at]
	e.state = stateGone
	u.gone++
	if e.counted {
		u.counted--
	}
	for u.head < len(u.entries) && u.entries[u.head].state == stateGone {
		u.head++
		u.gone--
	}
}

// tidy gives room back.
func (u *unacked) tidy() {
	if u.head == len(u.entries) {
		u.entries, u.head = u.entries[:0], 0
		if cap(u.entries) > unackedKept {
			u.entries, u.taken = nil, nil
		}
		return
	}
	if u.gone > 64 && u.gone > (len(u.entries)-u.head)/2 {
		live := slices.DeleteFunc(u.entries[u.head:], func(e unackedEntry) bool { return e.state == stateGone })
		u.entries, u.gone = u.entries[:u.head+len(live)], 0
	}
}

// recall forgets what a consumer has of seqs, which are sorted, unless its
// client has settled it: the broker took it back.
func (u *unacked) recall(c mq.ConsumerID, seqs []mq.Seq) {
	for at := u.head; at < len(u.entries); at++ {
		e := &u.entries[at]
		if e.state != stateLive || e.held.Consumer != c {
			continue
		}
		if _, found := slices.BinarySearch(seqs, e.held.Seq); found {
			u.recalled = max(u.recalled, e.tag)
			u.forget(at)
		}
	}
	u.tidy()
}

// untake makes what was taken outstanding again (tx.rollback).
func (u *unacked) untake() {
	for _, tag := range u.taken {
		if at, ok := u.find(tag); ok {
			u.entries[at].state = stateLive
		}
	}
	u.taken = u.taken[:0]
}

// drain empties u and returns all that was in it, taken or not, oldest first.
func (u *unacked) drain() []mq.Held {
	var held []mq.Held
	for _, e := range u.entries[u.head:] {
		if e.state != stateGone {
			held = append(held, e.held)
		}
	}
	*u = unacked{}
	return held
}

func (u *unacked) empty() bool { return u.head == len(u.entries) }
