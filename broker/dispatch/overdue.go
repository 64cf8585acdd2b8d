package dispatch

import (
	"math"

	"warren/mq"
)

// Some consumers may hold a delivery only for so long. When each message was
// checked out is noted beside the table of what is outstanding, at 4 bytes a
// message, and only once such a consumer is there.

// Time says what time it is, in units of the caller's that count from 1 and do
// not go back. From the first call on the queue notes when it checks out;
// what is checked out already counts from now.
func (q *Queue) Time(now uint32) {
	q.now = max(q.now, now)
	if q.since != nil {
		return
	}
	q.since = &outstanding{}
	q.out.each(0, math.MaxUint64, func(seq mq.Seq, s slot) bool {
		if s >= holders {
			q.since.set(seq, slot(q.now))
		}
		return true
	})
}

// TakeBack makes ready again what a consumer has held for longer than its
// Patience, and calls each with it. What is settling is not waited for any
// more, and a suspended session cannot be told: both are left alone. It
// returns when it has to be called next, or false if there is nothing to wait
// for.
func (q *Queue) TakeBack(each func(Key, mq.Seq)) (next uint32, waits bool) {
	if q.since == nil {
		return 0, false
	}
	q.out.each(0, math.MaxUint64, func(seq mq.Seq, s slot) bool {
		i, held := s.held()
		if !held || s&settling != 0 || q.holders[i].Patience == 0 {
			return true
		}
		h := &q.holders[i]
		// One more, since it may have been checked out at the end of its unit.
		due := uint64(q.since.get(seq)) + uint64(h.Patience) + 1
		switch {
		case due > uint64(q.now):
			next, waits = earlier(next, waits, due)
		case h.suspended:
			next, waits = earlier(next, waits, uint64(q.now)+1)
		default:
			k := h.Key // with its last seq the holder itself may go
			q.giveBack(seq, s)
			each(k, seq)
		}
		return true
	})
	return next, waits
}

// earlier is the first of what was waited for, if anything was, and due.
func earlier(next uint32, waits bool, due uint64) (uint32, bool) {
	if d := uint32(min(due, math.MaxUint32)); !waits || d < next {
		return d, true
	}
	return next, true
}

// noteTime notes that seq is checked out.
func (q *Queue) noteTime(seq mq.Seq) {
	if q.since != nil {
		q.since.set(seq, slot(q.now))
	}
}

// forgetTime notes that seq is checked out no more.
func (q *Queue) forgetTime(seq mq.Seq) {
	if q.since != nil {
		q.since.set(seq, none)
	}
}
