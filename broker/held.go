package broker

import (
	"slices"

	"warren/mq"
)

// held is the set of messages of one consumer that its client has not settled.
// Messages mostly come in rising order and are settled from the front, so it
// is a sorted run with holes, trimmed at the front.
type held struct {
	seqs []mq.Seq // sorted; 0 where one was settled
	from int      // what is before it is settled
	live int
}

// add notes a delivered message.
func (h *held) add(seq mq.Seq) {
	h.live++
	if h.from == len(h.seqs) {
		h.seqs, h.from = h.seqs[:0], 0
	}
	if n := len(h.seqs); n == 0 || h.last() < seq {
		if h.from > 64 && h.from > n/2 {
			h.seqs = append(h.seqs[:0], h.seqs[h.from:]...)
			h.from = 0
		}
		h.seqs = append(h.seqs, seq)
		return
	}
	at := h.place(seq) // it came back, or is of a lower priority than those before it
	switch {
	case h.seqs[at] == seq:
		h.live--
	case at == h.from && at > 0:
		h.from--
		h.seqs[h.from] = seq
	case at > h.from && h.seqs[at-1] == 0:
		h.seqs[at-1] = seq
	default:
		h.seqs = slices.Insert(h.seqs, at, seq)
	}
}

// last is the highest seq held, or an upper bound of those settled: holes at
// the end are cut off as they appear.
func (h *held) last() mq.Seq { return h.seqs[len(h.seqs)-1] }

// remove forgets a settled message; false if it was not held.
func (h *held) remove(seq mq.Seq) bool {
	at := h.find(seq)
	if at < 0 {
		return false
	}
	h.seqs[at] = 0
	h.live--
	for h.from < len(h.seqs) && h.seqs[h.from] == 0 {
		h.from++
	}
	for len(h.seqs) > h.from && h.seqs[len(h.seqs)-1] == 0 {
		h.seqs = h.seqs[:len(h.seqs)-1]
	}
	return true
}

// find returns where seq is, or -1.
func (h *held) find(seq mq.Seq) int {
	if h.from < len(h.seqs) && h.seqs[h.from] == seq {
		return h.from
	}
	if at := h.place(seq); at < len(h.seqs) && h.seqs[at] == seq {
		return at
	}
	return -1
}

// place returns where the first seq is that is not below seq. Holes have no
// order of their own: the search steps over them.
func (h *held) place(seq mq.Seq) int {
	lo, hi := h.from, len(h.seqs)
	place := hi
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		at := mid
		for at < hi && h.seqs[at] == 0 {
			at++
		}
		switch {
		case at == hi:
			hi = mid
		case h.seqs[at] < seq:
			lo = at + 1
		default:
			hi, place = mid, at
		}
	}
	return place
}

// each lists what is held, in order.
func (h *held) each(yield func(mq.Seq)) {
	for _, s := range h.seqs[h.from:] {
		if s != 0 {
			yield(s)
		}
	}
}

// all returns a copy of what is held.
func (h *held) all() []mq.Seq {
	out := make([]mq.Seq, 0, h.live)
	h.each(func(s mq.Seq) { out = append(out, s) })
	return out
}
