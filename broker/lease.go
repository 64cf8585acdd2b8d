package broker

import (
	"warren/fsm/meta"
	"warren/mq"
)

// A queue with x-expires is deleted when nobody has used it for so long: it
// has no consumer, nobody asks it for a message, nobody declares it again
// (RabbitMQ, "Queue TTL"). Publishing to it is no use. Its leader keeps the
// time, so a change of leader starts it over.

// leaseRetryMs is how soon a leader looks again at a queue whose time is over
// while a node has not said yet what consumers it has.
const leaseRetryMs = 500

// renew starts the time of a queue over. Runs with mu held.
func (s *Shard) renew(q *ledQueue) {
	if q.rules.expiresMs < 0 || s.lead.queues[q.id] != q {
		return
	}
	s.lead.expiries.lease(q, s.nowMs()+q.rules.expiresMs)
	s.lead.expiries.arm(s, s.lead)
}

// leaseOver looks at a queue whose time is over. One that has consumers gets a
// new lease when the last of them goes.
func (s *Shard) leaseOver(q *ledQueue) {
	s.lead.expiries.lease(q, 0)
	switch {
	case q.unused || q.d.Consumers() > 0:
	case !s.knowsAll():
		s.lead.expiries.lease(q, s.nowMs()+leaseRetryMs)
	default:
		s.goUnused(q)
	}
}

// goUnused has a queue deleted that nobody uses. Until that is done or has
// failed nobody can begin to.
func (s *Shard) goUnused(q *ledQueue) {
	q.left, q.unused = false, true
	for _, g := range q.gets {
		g.asked.tryAgain()
	}
	q.gets = nil
	l := s.lead
	s.topics.Delete(q.rec, changeWait, func(error) { s.unusedDone(l, q) })
}

// findLeases begins the time of queues that this leader has not touched. Runs
// with mu held.
func (s *Shard) findLeases() {
	for rec := range s.topics.View().QueuesOf(s.group) {
		if queueExpires(rec) >= 0 {
			s.queue(rec)
		}
	}
}

// queuesCreated hears from the metadata of queues that nobody may ever touch:
// those that expire, and after a restart of all nodes those that are full. A
// group may have a leader before its node has the metadata again.
func (s *Shard) queuesCreated(recs []*meta.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return
	}
	view := s.topics.View()
	for _, rec := range recs {
		if rec = view.QueueByID(rec.ID); rec == nil {
			continue // gone again; else policies may have changed it
		}
		if queueExpires(rec) >= 0 {
			s.queue(rec)
		}
		if s.lead.opened { // else findDue looks at it
			s.notice(rec)
		}
	}
	s.dispatch()
}

// queueExpires is a queue's x-expires; negative means none.
func queueExpires(q *meta.Queue) int64 { return limit(q, "x-expires") }

// lease notes when the time of a queue is over; 0 means that it does not run.
func (e *expiries) lease(q *ledQueue, overMs int64) {
	q.leaseMs = overMs
	e.watch(q)
}

// forget takes a queue out.
func (e *expiries) forget(q *ledQueue) {
	q.headMs, q.leaseMs, q.retryMs = 0, 0, 0
	e.watch(q)
}

// queuesCreated tells the shards on this node of their new queues.
func (b *Broker) queuesCreated(changes []meta.Change) {
	b.byGroup(changes, (*Shard).queuesCreated, func(c meta.Change) *meta.Queue {
		if c, ok := c.(meta.QueueCreated); ok {
			return c.Queue
		}
		return nil
	})
}

// inUse and notEmpty refuse the deletion of a queue.
func inUse(q *meta.Queue) *mq.Error {
	return mq.Errorf(mq.PreconditionFailed, "queue '%s' in vhost '%s' in use", q.Name, q.VHost)
}

func notEmpty(q *meta.Queue) *mq.Error {
	return mq.Errorf(mq.PreconditionFailed, "queue '%s' in vhost '%s' not empty", q.Name, q.VHost)
}
