package broker

import (
	"math"
	"slices"

	"warren/amqp/wire"
	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// A queue with a delivery limit or delayed retry counts how often each message came back from a
// consumer, and how many of these attempts failed (RabbitMQ, "Quorum Queues":
// a reject with requeue, and the end of whoever had it; a nack does not say
// so). The leader proposes the counts, and the message stays checked out to it
// until they are committed: it is handed out again with counts that the next
// leader has as well. An attempt that ends together with the leader may not be
// counted.

const (
	// deliveryLimitDefault is the limit of a queue that is declared as a quorum
	// queue and names none (RabbitMQ 4).
	deliveryLimitDefault = 20

	deliveryCount = "x-delivery-count" // header: attempts that failed
	acquiredCount = "x-acquired-count" // header: times that it came back
)

// deliveryLimit is how many attempts may fail; negative means any number.
func deliveryLimit(q *meta.Queue) int64 {
	if n, ok := q.Effective().Int("x-delivery-limit"); ok {
		return n
	}
	if kind, _ := q.Args.String("x-queue-type"); kind == "quorum" {
		return deliveryLimitDefault
	}
	return -1
}

// counts reports whether a queue counts attempts.
func (r *rules) counts() bool { return r.deliveries >= 0 || r.retry.any() }

// exhausted reports whether more attempts have failed than may.
func (r *rules) exhausted(failed uint32) bool {
	return r.deliveries >= 0 && int64(failed) > r.deliveries
}

// giveBack makes what k holds of seqs ready again, counted if the queue counts.
func (s *Shard) giveBack(q *ledQueue, k dispatch.Key, seqs []mq.Seq, failed bool) {
	if !q.rules.counts() {
		q.d.Return(k, seqs)
		return
	}
	s.countBack(q, failed, func(each func(mq.Seq)) { q.d.WithdrawFrom(k, seqs, each) })
}

// recallAll counts all that k holds and has not settled as failed, because k
// has ended.
func (s *Shard) recallAll(q *ledQueue, k dispatch.Key) {
	if q.rules.counts() {
		s.countBack(q, true, func(each func(mq.Seq)) { q.d.WithdrawAll(k, each) })
	}
}

// recallSession is recallAll of all that a node session has.
func (s *Shard) recallSession(q *ledQueue, session mq.SessionID) {
	if !q.rules.counts() {
		return
	}
	for _, k := range q.d.Keys(session) {
		s.recallAll(q, k)
	}
}

// countBack withdraws messages and proposes their counts.
func (s *Shard) countBack(q *ledQueue, failed bool, withdraw func(each func(mq.Seq))) {
	st := s.state.Queue(q.id)
	if st == nil {
		return
	}
	var back []queue.Returned
	rule, nowMs := &q.rules.retry, s.nowMs()
	withdraw(func(seq mq.Seq) {
		n := st.Note(seq)
		r := queue.Returned{Queue: q.id, Seq: seq, Failed: n.Failed, Acquired: n.Acquired}
		if r.Acquired < math.MaxUint32 {
			r.Acquired++
		}
		if failed && r.Failed < math.MaxUint32 {
			r.Failed++
		}
		if ms := rule.delayMs(r.Failed, failed); ms > 0 {
			r.DueMs = nowMs + ms
		}
		back = append(back, r)
	})
	if len(back) == 0 {
		return
	}
	slices.SortFunc(back, func(a, b queue.Returned) int { return int(int64(a.Seq) - int64(b.Seq)) })
	if q.returning == nil {
		q.returning = map[mq.Seq]queue.Returned{}
	}
	for _, r := range back {
		q.returning[r.Seq] = r
	}
	ops := queue.AppendReturn
	if rule.any() {
		ops = queue.AppendReturnLater
	}
	s.lead.proposer.add(part{ops: ops(nil, q.id, back), own: true})
}

// cameBack hears that the counts of a message are committed: it is ready again,
// or waits for that, or has failed too often. What this leader does not wait for is another's, or
// was proposed twice.
func (l *lead) cameBack(s *Shard, r *queue.Returned) {
	q := l.queues[r.Queue]
	if q == nil {
		return
	}
	want, waits := q.returning[r.Seq]
	if !waits || r.Acquired < want.Acquired || r.Failed < want.Failed {
		return
	}
	delete(q.returning, r.Seq)
	switch {
	case q.rules.exhausted(r.Failed): // a policy's limit may have gone meanwhile
		s.leave(q, r.Seq, tooOften)
		s.settleDropped(q)
	case r.DueMs > s.nowMs():
		q.wait(r.Seq, r.DueMs)
	default:
		q.d.Restore(r.Seq)
	}
	l.touch(q)
}

// forgetReturns forgets returns of messages that are gone.
func (q *ledQueue) forgetReturns(first, last mq.Seq) {
	if len(q.returning) == 0 {
		return
	}
	for seq := range q.returning {
		if seq >= first && seq <= last {
			delete(q.returning, seq)
		}
	}
}

// carryOut does what is known of a queue's messages and an earlier leader may
// not have done. What has failed too often is looked at when it is known what
// clients hold: a policy may have lowered the limit under their hands. Runs with
// mu held.
func (s *Shard) carryOut(q *ledQueue, st *queue.Queue) {
	st.EachNote(func(seq mq.Seq, n queue.Note) {
		if n.Buried {
			s.takeOut(q, seq, tooMany)
		}
	})
	s.settleDropped(q)
	q.unjudged = true
	q.noteWaits(st)
}

// judge takes out what has failed too often and nobody holds. Runs with mu
// held, in dispatch.
func (s *Shard) judge(q *ledQueue, st *queue.Queue) {
	q.unjudged = false
	st.EachNote(func(seq mq.Seq, n queue.Note) {
		if !n.Buried && q.rules.exhausted(n.Failed) {
			s.takeOut(q, seq, tooOften)
		}
	})
	s.settleDropped(q)
}

// takeOut makes a message leave that nobody may get, unless it does already.
func (s *Shard) takeOut(q *ledQueue, seq mq.Seq, why reason) {
	if !q.d.Held(seq) {
		s.leave(q, seq, why)
	}
}

// shown is a message as a consumer gets it: with its counts, if it has any.
func (s *Shard) shown(q *ledQueue, seq mq.Seq, redelivered bool, c mq.Content) mq.Content {
	return withCounts(c, s.noteShown(q, seq, redelivered))
}

// shownHead is the head of what shown is, and takes no longer for a large body.
func (s *Shard) shownHead(q *ledQueue, seq mq.Seq, redelivered bool, c mq.Content) mq.Content {
	if head, ok := countedHead(c, s.noteShown(q, seq, redelivered), 0); ok {
		return head
	}
	return c.Head()
}

// noteShown is what a consumer is told of a message's attempts.
func (s *Shard) noteShown(q *ledQueue, seq mq.Seq, redelivered bool) queue.Note {
	if !redelivered || !q.rules.counts() {
		return queue.Note{}
	}
	st := s.state.Queue(q.id)
	if st == nil {
		return queue.Note{}
	}
	return st.Note(seq)
}

// withCounts is a copy of a message with its counts in the headers.
func withCounts(c mq.Content, n queue.Note) mq.Content {
	if n.Acquired == 0 {
		return c
	}
	body := c.Body()
	head, ok := countedHead(c, n, len(body))
	if !ok {
		return c
	}
	return append(head, body...)
}

// countedHead is the head of such a copy, with room for a body; false if
// nothing is changed. What a client has put there under the counts' names goes.
func countedHead(c mq.Content, n queue.Note, room int) (head mq.Content, ok bool) {
	if n.Acquired == 0 {
		return nil, false
	}
	p, err := wire.ParseProperties(c.Properties())
	if err != nil {
		return nil, false // nobody could read its headers anyway
	}
	h := slices.DeleteFunc(slices.Clone(p.Headers), func(f mq.Field) bool {
		return f.Key == acquiredCount || f.Key == deliveryCount
	})
	if n.Failed > 0 {
		h = append(h, mq.Field{Key: deliveryCount, Value: int64(n.Failed)})
	}
	p.Headers = append(h, mq.Field{Key: acquiredCount, Value: int64(n.Acquired)})
	p.Present |= wire.HasHeaders
	return mq.NewContent(string(c.Exchange()), string(c.RoutingKey()), wire.AppendProperties(nil, p), room), true
}
