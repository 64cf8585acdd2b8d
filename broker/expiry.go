package broker

import (
	"container/heap"
	"time"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// A message's expiry is a wall clock time that its home node computes when it
// routes it; the log only carries it. The leader acts on it, and only at the
// head of the queue, as RabbitMQ does: what is behind a message that lives
// longer stays counted until its turn comes.

const (
	// expiresAtOnce is the expiry of a message with a time to live of 0: the
	// first consumer that can take it gets it, and if there is none at that
	// moment, it expires (RabbitMQ, "Time-To-Live").
	expiresAtOnce int64 = -1
	// expiryWaitMax is how long the timer for expiries sleeps at most.
	expiryWaitMax = time.Hour
	// withdrawnMax is how many messages of a queue may be on their way out by
	// the leader's decision; the next ones wait at the head.
	withdrawnMax = 4096
)

// queueTTL is a queue's x-message-ttl; negative means none.
func queueTTL(q *meta.Queue) int64 { return limit(q, "x-message-ttl") }

// expiry is when m expires in the queues of a target; 0 means never.
func (m *outgoing) expiry(t *target, nowMs func() int64) int64 {
	switch {
	case t.keepMs > 0:
		return max(1, nowMs()+t.keepMs)
	case t.keepMs == keptForGood:
		return 0
	}
	ttlMs := m.ttlMs
	if ttlMs < 0 || t.ttlMs >= 0 && t.ttlMs < ttlMs {
		ttlMs = t.ttlMs
	}
	switch {
	case ttlMs < 0:
		return 0
	case ttlMs == 0:
		return expiresAtOnce
	}
	return max(1, nowMs()+ttlMs)
}

// expired reports whether a message that comes next must not be handed out.
func expired(expiryMs, nowMs int64, redelivered bool) bool {
	if expiryMs == expiresAtOnce {
		return redelivered
	}
	return expiryMs != 0 && expiryMs <= nowMs
}

// expire removes an expired message that was picked for k. If too many are on
// their way out already, it goes back to the head instead, and waits there.
func (s *Shard) expire(q *ledQueue, k dispatch.Key, seq mq.Seq) bool {
	if q.d.Withdrawn() >= withdrawnMax {
		q.d.Return(k, []mq.Seq{seq})
		return false
	}
	s.leave(q, seq, timedOut)
	return true
}

// removeHeads takes expired messages off the heads of a queue, and what is more
// than it may hold off the front. What remains at the heads is watched. Runs
// with mu held, after consumers had what they can take.
func (s *Shard) removeHeads(q *ledQueue, st *queue.Queue, nowMs int64) {
	over := s.excess(q, st)
	if !q.mayExpire && !over.any() {
		return
	}
	// A consumer that gets nothing now waits for the delivered high-water mark
	// to be committed: what is ready is as good as taken.
	able := q.d.Able()
	soonestMs := s.expireHeads(q, st, nowMs, able, &over)
	for over.any() && !able && s.dropHead(q, st, &over) {
		soonestMs = s.expireHeads(q, st, nowMs, able, &over)
	}
	s.lead.expiries.set(q, soonestMs)
}

// expireHeads takes expired messages off the head of each rank (RabbitMQ 4.3,
// "Priority-Aware Message Expiration"), and returns when the first of those
// that remain there expires; 0 if none does.
func (s *Shard) expireHeads(q *ledQueue, st *queue.Queue, nowMs int64, able bool, over *excess) (soonestMs int64) {
	ready := false
	for rank := 0; q.mayExpire; {
		if q.d.Withdrawn() >= withdrawnMax {
			return 0 // looked at again with the next touch, when they are gone
		}
		seq, at, ok := q.d.FirstFrom(st, rank)
		if !ok {
			q.mayExpire = ready || st.Count() > 0
			break
		}
		expiryMs, known := s.bodies.Expiry(uint64(q.id), uint64(seq))
		if known && expired(expiryMs, nowMs, !able) {
			s.leave(q, seq, timedOut)
			over.less(q, seq)
			rank = at
			continue
		}
		// One that is not known is on disk: the queue is touched when it is here.
		if known && expiryMs > 0 && (soonestMs == 0 || expiryMs < soonestMs) {
			soonestMs = expiryMs
		}
		ready, rank = true, at+1
	}
	return soonestMs
}

// dropHead takes one message off the front of a queue that holds too many: as
// in RabbitMQ, what would be handed out next, whatever its priority.
func (s *Shard) dropHead(q *ledQueue, st *queue.Queue, over *excess) bool {
	seq, ok := q.d.First(st)
	if !ok || q.d.Withdrawn() >= withdrawnMax {
		return false
	}
	s.leave(q, seq, tooMany)
	over.less(q, seq)
	return true
}

// findDue finds queues that this leader has not touched and that have an
// expiring head, a limit or notes of messages, or expire themselves. Runs with
// mu held.
func (s *Shard) findDue() {
	view := s.topics.View()
	s.findLeases()
	for _, id := range s.state.Queues() {
		if rec := view.QueueByID(id); rec != nil { // else it is gone, or queuesCreated hears of it
			s.notice(rec)
		}
	}
}

// notice is findDue for one queue.
func (s *Shard) notice(rec *meta.Queue) {
	st := s.state.Queue(rec.ID)
	if st == nil || s.lead.queues[rec.ID] != nil {
		return
	}
	seq, ok := st.Next(1)
	if !ok {
		return
	}
	expiryMs, known := s.bodies.Expiry(uint64(rec.ID), uint64(seq))
	// With priorities there are other heads than the lowest seq.
	heads := s.prioritized[rec.ID] && rankingOf(rec).max > 0
	if !known || expiryMs != 0 || rulesOf(rec).dropsHead() || heads || rec.Keeper != meta.NoKeeper || st.Noted() {
		s.lead.touch(s.queue(rec))
	}
}

// expiries watches the heads of a leader's queues, the leases of those that
// expire themselves, and what waits in others: one timer, for what is due first. Guarded by Shard.mu.
type expiries struct {
	heads   dueHeap
	timer   *time.Timer
	armedMs int64 // when the timer goes off; 0 if it is not set
}

// set notes when the head of q expires; not in the future of any clock (0,
// expiresAtOnce) means that it is not watched.
func (e *expiries) set(q *ledQueue, headMs int64) {
	q.headMs = max(0, headMs)
	e.watch(q)
}

// watch gives q its place.
func (e *expiries) watch(q *ledQueue) {
	watched := q.dueMs != 0
	q.dueMs = q.headMs
	for _, at := range [...]int64{q.leaseMs, q.retryMs} {
		if q.dueMs == 0 || at != 0 && at < q.dueMs {
			q.dueMs = at
		}
	}
	switch {
	case q.dueMs == 0 && watched:
		heap.Remove(&e.heads, q.expiryAt)
	case q.dueMs != 0 && watched:
		heap.Fix(&e.heads, q.expiryAt)
	case q.dueMs != 0:
		heap.Push(&e.heads, q)
	}
}

// arm sets the timer for what is due first. Runs with mu held.
func (e *expiries) arm(s *Shard, l *lead) {
	if len(e.heads) == 0 || e.armedMs != 0 && e.armedMs <= e.heads[0].dueMs {
		return
	}
	now := s.nowMs()
	e.armedMs = min(e.heads[0].dueMs, now+expiryWaitMax.Milliseconds())
	wait := time.Duration(max(0, e.armedMs-now)) * time.Millisecond
	if e.timer == nil {
		e.timer = time.AfterFunc(wait, func() { s.headsDue(l) })
		return
	}
	e.timer.Reset(wait)
}

func (e *expiries) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// headsDue looks at the queues whose heads have expired by now, or which have
// themselves, or whose messages have waited long enough.
func (s *Shard) headsDue(l *lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l {
		return
	}
	e, now := &l.expiries, s.nowMs()
	e.armedMs = 0
	for len(e.heads) > 0 && e.heads[0].dueMs <= now {
		q := e.heads[0]
		if q.headMs != 0 && q.headMs <= now {
			e.set(q, 0)
			l.touch(q)
		}
		if q.retryMs != 0 && q.retryMs <= now {
			e.retry(q, 0)
			l.touch(q)
		}
		if q.leaseMs != 0 && q.leaseMs <= now {
			s.leaseOver(q)
		}
	}
	e.arm(s, l)
	s.dispatch()
}

// dueHeap has the queue that is due first at its top.
type dueHeap []*ledQueue

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].dueMs < h[j].dueMs }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].expiryAt, h[j].expiryAt = i, j
}

// Push and Pop are heap's.
func (h *dueHeap) Push(x any) {
	q := x.(*ledQueue)
	q.expiryAt = len(*h)
	*h = append(*h, q)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	q := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return q
}
