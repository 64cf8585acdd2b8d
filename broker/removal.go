package broker

import (
	"context"
	"errors"
	"time"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// queue.delete with if-unused or if-empty. The leader of the queue holds up
// whatever could make the answer untrue: consumers, gets and declares are asked
// to come again, and batches with messages for the queue wait. Then it commits
// an entry that does nothing, behind all that it had let in before; it looks;
// and it has the metadata deleted. What waited goes on when that is done or has
// failed. If the leadership ends in between, nothing is held up any more: the
// next leader lets in what comes, and it goes with the queue if the deletion
// was on its way.

// removeWait is how long a queue is held up for the metadata at most. Later the
// outcome is unknown, and the client is told that there was no answer.
const removeWait = 5 * time.Second

// removal is a conditional deletion under way.
type removal struct {
	asked             asked
	token             uint64 // of its entry
	q                 *ledQueue
	ifUnused, ifEmpty bool
	looked            bool   // its entry is committed
	ready             uint64 // messages that go with the queue
}

// heldBatch is a batch of a home node that waits, since it or one before it
// has messages for a queue that is held up.
type heldBatch struct {
	origin queue.Origin
	ops    []byte
}

// remove begins a conditional deletion. Runs with mu held.
func (s *Shard) remove(a asked, rec *meta.Queue, p *parser) {
	l := s.lead
	r := &removal{asked: a, ifUnused: p.Bool(), ifEmpty: p.Bool()}
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	if !l.opened || r.ifUnused && !s.knowsAll() {
		a.tryAgain() // not known yet what is checked out, or who consumes
		return
	}
	r.q = s.queue(rec)
	if r.q.unused {
		a.tryAgain() // it is being deleted, or that is being tried
		return
	}
	if e := s.objection(r); e != nil {
		a.fail(e)
		return
	}
	r.q.unused, r.q.heldUp = true, true
	l.heldUp++
	l.tokens++
	r.token = l.tokens
	l.removals[r.token] = r
	l.proposer.add(part{ops: queue.AppendPurge(nil, rec.ID, 0, nil, r.token), own: true})
}

// objection says why a queue must not be deleted, nil if nothing speaks against it.
func (s *Shard) objection(r *removal) *mq.Error {
	st := s.stat(r.q.id)
	r.ready = st.Ready
	switch {
	case r.ifUnused && st.Consumers > 0:
		return inUse(r.q.rec)
	case r.ifEmpty && (st.Ready > 0 || r.q.d.Deferred() > 0): // what waits is nobody's but the queue's
		return notEmpty(r.q.rec)
	}
	return nil
}

// removeNow hears that all that had been let in is in the queue.
func (s *Shard) removeNow(l *lead, r *removal) {
	r.looked = true
	e := s.objection(r)
	switch {
	case l.queues[r.q.id] != r.q: // somebody else has deleted it
		delete(l.removals, r.token)
		r.asked.ok(fields.AppendUint(fields.AppendUint(nil, 0), 0))
		s.goOn(r.q)
	case e != nil:
		delete(l.removals, r.token)
		r.asked.fail(e)
		s.goOn(r.q)
	default:
		s.topics.Delete(r.q.rec, removeWait, func(err error) { s.removed(l, r, err) })
	}
}

// removed hears what became of a removal. Whoever asked is told so also by a
// node that does not lead any more: the next leader would look at the queue
// once more while it is going.
func (s *Shard) removed(l *lead, r *removal, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		r.asked.fail(err)
	} else {
		r.asked.ok(fields.AppendUint(fields.AppendUint(nil, r.ready), s.topics.View().Index()))
	}
	if s.lead != l {
		return
	}
	delete(l.removals, r.token)
	s.goOn(r.q)
	s.dispatch()
}

// goOn ends the deletion of a queue, which has succeeded or failed. Runs with
// mu held.
func (s *Shard) goOn(q *ledQueue) {
	q.unused = false
	s.letGo(q)
	if s.lead.queues[q.id] == q {
		s.renew(q)
		s.noticeUnused(q)
	}
	if !q.unused {
		s.farewell(q.id)
	}
}

// farewell answers those who ended the last consumer of a queue and waited for
// its deletion.
func (s *Shard) farewell(id mq.QueueID) {
	for _, a := range s.lead.farewells[id] {
		a.ok(nil)
	}
	delete(s.lead.farewells, id)
}

// mustWait keeps a batch back if it has messages for a queue that is held up,
// or comes after one that is kept back: a node's batches have an order. What
// waits is bounded by what a node's outbox may owe.
func (l *lead) mustWait(from mq.NodeID, o queue.Origin, ops []byte) bool {
	waiting := l.heldBatches[from]
	if len(waiting) == 0 && !l.forHeldUp(ops) {
		return false
	}
	if n := len(waiting); n == 0 || waiting[n-1].origin.Session != o.Session || waiting[n-1].origin.Seq < o.Seq { // or it is a copy
		l.heldBatches[from] = append(waiting, heldBatch{o, ops})
	}
	return true
}

// forHeldUp reports whether operations put a message into a queue that is held up.
func (l *lead) forHeldUp(ops []byte) (hit bool) {
	err := queue.CheckOps(ops, func(op queue.Op) {
		for _, id := range op.Queues {
			if q := l.queues[id]; q != nil && q.heldUp {
				hit = true
			}
		}
	})
	return hit && err == nil
}

// letGo ends the holding up of a queue; dispatch follows. Messages that waited and whose queue is
// gone come too late: they are dropped with what they left of it.
func (s *Shard) letGo(q *ledQueue) {
	l := s.lead
	if !q.heldUp {
		return
	}
	q.heldUp = false
	l.heldUp--
	waiting := l.heldBatches
	l.heldBatches = map[mq.NodeID][]heldBatch{}
	for node, batches := range waiting {
		for _, b := range batches {
			if l.heldUp == 0 || !l.mustWait(node, b.origin, b.ops) {
				s.admit(node, b.origin, b.ops, false) // if it is in a hurry, it has waited for longer than company takes
			}
		}
	}
	if len(waiting) > 0 && l.queues[q.id] != q {
		l.proposer.add(part{ops: queue.AppendDelete(nil, q.id), own: true, last: true})
	}
}

// Delete deletes a queue by the decision of its leader, which is this node.
func (b *Broker) Delete(q *meta.Queue, patience time.Duration, done func(error)) {
	go func() { // ends after patience at the latest
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := b.Propose(ctx, meta.QueueDelete{IfID: q.ID})
		if err != nil && !b.isClosed() {
			b.slog.Warn("queue not deleted", "vhost", q.VHost, "queue", q.Name, "err", err)
		}
		done(err)
	}()
}

// DeleteIf deletes a queue if nobody consumes from it, or nothing is ready in
// it, or both, and returns how many messages went with it.
func (b *Broker) DeleteIf(ctx context.Context, q *meta.Queue, unused, empty bool) (uint64, error) {
	if err := b.answered(ctx, q.Group); err != nil {
		return 0, err
	}
	body := fields.AppendBool(fields.AppendBool(fields.AppendUint(nil, uint64(q.ID)), unused), empty)
	r, err := b.callLeader(ctx, callRemove, q.Group, body)
	var e *mq.Error
	if errors.As(err, &e) && e.Code == mq.NotFound {
		return 0, nil // somebody else was faster, or the same question came twice
	}
	if err != nil {
		return 0, err
	}
	p := parser{fields.Read(r)}
	ready, index := p.Uint(), p.Uint()
	if p.Err() != nil {
		return 0, p.Err()
	}
	return ready, b.explain(ctx, metaGroup, b.meta.await(ctx, index))
}
