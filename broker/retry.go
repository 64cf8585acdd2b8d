package broker

import (
	"container/heap"
	"slices"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// A queue with x-delayed-retry-type does not hand out at once what came back to
// it (RabbitMQ 4.3, "Quorum Queues": delayed retry). The leader that takes a
// message back computes a wall clock time, and commits it with the counts of
// the message (attempts.go): so a message waits until the same time, whoever
// leads then. While it waits it is nobody's, and goes with a purge; it
// expires when its wait is over, and not before. Then it is at its place again.

const (
	retryType = "x-delayed-retry-type"
	retryMin  = "x-delayed-retry-min"
	retryMax  = "x-delayed-retry-max"
	// waitsSlack is how many messages that do not wait any more may be among
	// those that do, if they are not more than these.
	waitsSlack = 64
)

// retry says which messages wait that come back to a queue, and for how long:
// minMs for each failed attempt, but not longer than maxMs.
type retry struct {
	failed, returned bool
	minMs, maxMs     int64
}

// retryOf is what the arguments of a queue, or its policies, ask for. Without a
// delay that is positive nothing waits, whatever else they say.
func retryOf(q *meta.Queue) (r retry) {
	minMs := limit(q, retryMin)
	if minMs <= 0 {
		return retry{}
	}
	kind, _ := q.Effective().String(retryType)
	r.failed = kind == "all" || kind == "failed"
	r.returned = kind == "all" || kind == "returned"
	r.minMs, r.maxMs = min(minMs, expiryMsMax), min(minMs, expiryMsMax)
	if n := limit(q, retryMax); n > 0 {
		r.maxMs = min(n, expiryMsMax)
	}
	return r
}

func (r *retry) any() bool { return r.failed || r.returned }

// delayMs is how long a message waits of which so many attempts have failed
// by now, this one or not.
func (r *retry) delayMs(attempts uint32, failed bool) int64 {
	if failed && !r.failed || !failed && !r.returned {
		return 0
	}
	n := max(1, int64(attempts))
	if n > r.maxMs/r.minMs {
		return r.maxMs
	}
	return r.minMs * n
}

// waits are the messages of a queue that wait, by when they are due: 16 bytes
// for each.
type waits struct {
	due    delays
	unread bool // an earlier leader's are not in it yet
}

// wait makes a message wait that this leader has withdrawn.
func (q *ledQueue) wait(seq mq.Seq, dueMs int64) {
	if q.waits == nil {
		q.waits = &waits{}
	}
	q.d.Defer(seq)
	heap.Push(&q.waits.due, delayed{dueMs, seq})
}

// noteWaits notes that an earlier leader let messages wait. Which of them still
// do is looked at when it is known what clients hold.
func (q *ledQueue) noteWaits(st *queue.Queue) {
	st.EachDue(func(mq.Seq, int64) {
		if q.waits == nil {
			q.waits = &waits{unread: true}
		}
	})
}

// endWaits makes ready what is due, and watches what is due next. Runs with mu
// held, in dispatch.
func (s *Shard) endWaits(q *ledQueue, st *queue.Queue) {
	w, nowMs := q.waits, s.nowMs()
	if w.unread {
		w.unread = false
		st.EachDue(func(seq mq.Seq, dueMs int64) {
			if dueMs > nowMs && !q.d.Held(seq) && !q.d.IsDeferred(seq) {
				q.wait(seq, dueMs)
			}
		})
	}
	w.pack(q, st)
	for len(w.due) > 0 {
		next := w.due[0]
		over := next.over(q, st)
		if !over && next.dueMs > nowMs {
			break
		}
		heap.Pop(&w.due)
		if !over {
			q.d.Restore(next.seq)
		}
	}
	if len(w.due) == 0 {
		w.due = nil
		s.lead.expiries.retry(q, 0)
		return
	}
	s.lead.expiries.retry(q, w.due[0].dueMs)
}

// over reports whether a message does not wait for this time any more: it is
// settled or purged, or a client turned out to have it.
func (d delayed) over(q *ledQueue, st *queue.Queue) bool {
	return !q.d.IsDeferred(d.seq) || st.Due(d.seq) != d.dueMs
}

// pack takes out what does not wait any more, if that is most of it.
func (w *waits) pack(q *ledQueue, st *queue.Queue) {
	if n := len(w.due); n <= waitsSlack || n <= 2*q.d.Deferred() {
		return
	}
	w.due = slices.DeleteFunc(w.due, func(d delayed) bool { return d.over(q, st) })
	w.due = slices.Clone(w.due)
	heap.Init(&w.due)
}

// retry notes when the first message that waits in q is due; 0 if none waits.
func (e *expiries) retry(q *ledQueue, dueMs int64) {
	q.retryMs = dueMs
	e.watch(q)
}
