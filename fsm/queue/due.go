package queue

import (
	"cmp"
	"slices"

	"warren/mq"
)

// A message that came back may have to wait until it is due: a wall clock time
// that its leader computed. The state only remembers it, with the note that
// counts the return, so that the next leader lets the message wait until the
// same time.

// dueMax is the latest due time: far, and nothing overflows that adds to it.
const dueMax = 1 << 62

// Due is when a message may be handed out again, in milliseconds since 1970; 0
// if it never had to wait, or not since its last return. What is past stays
// noted until then.
func (q *Queue) Due(seq mq.Seq) int64 {
	if c, k := q.noted(seq); c != nil && c.due != nil {
		return c.due[k]
	}
	return 0
}

// EachDue calls f with every message that has a due time, in the order of seqs.
func (q *Queue) EachDue(f func(seq mq.Seq, dueMs int64)) {
	q.eachNote(func(seq mq.Seq, _ Note, dueMs int64) {
		if dueMs != 0 {
			f(seq, dueMs)
		}
	})
}

// postpone notes the due time of a return. The return that is the latest by
// its count says it, and of two that say the same count the later time counts:
// so it makes no difference how often a return is applied, nor whether an
// older one comes after it, and every replica ends with the same.
func (q *Queue) postpone(seq mq.Seq, dueMs int64, noted, acquired uint32) {
	switch cmp.Compare(acquired, noted) {
	case 1:
		q.setDue(seq, dueMs)
	case 0:
		q.setDue(seq, max(dueMs, q.Due(seq)))
	}
}

// setDue notes a due time, or with 0 that there is none, with a note that exists.
func (q *Queue) setDue(seq mq.Seq, dueMs int64) {
	c, k := q.noted(seq)
	if c.due == nil && dueMs != 0 {
		c.due = make([]int64, len(c.notes), cap(c.notes))
	}
	if c.due != nil {
		c.due[k] = dueMs
	}
}

// hasDue reports whether any message has a due time.
func (q *Queue) hasDue() bool {
	return q.notes != nil && slices.ContainsFunc(q.notes.chunks, func(c noteChunk) bool {
		return slices.ContainsFunc(c.due, func(dueMs int64) bool { return dueMs != 0 })
	})
}

// dueTime splits a due time off b. The rest is nil if it is not there.
func dueTime(b []byte) (dueMs int64, rest []byte) {
	n, b := uvarint(b)
	if b == nil || n > dueMax {
		return 0, nil
	}
	return int64(n), b
}
