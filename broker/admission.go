package broker

import (
	"slices"

	"warren/fsm/queue"
	"warren/mq"
)

// A queue with x-overflow=reject-publish refuses a message that would be one
// too many. The leader decides that when a batch comes in, and the entry says
// what was decided. So that a limit holds for batches that come close together,
// what is admitted counts from then on, until its entry has been applied. What
// consumers can take at once needs no room (RabbitMQ hands it out before it
// looks at the next message).

// refusable is the bit of a message's flags that says that one of its queues
// may refuse it. Its home node sets it, so that a leader has nothing to look up
// for all other messages.
const refusable uint8 = 8

// room is what a queue that refuses can take.
type room struct {
	batch           uint64   // which admission this was found for
	messages, bytes int64    // until it is full; bytes are not counted without a limit
	credit          int64    // messages that go straight to consumers
	taken           admitted // by this batch
}

// admitted is what one batch puts into one queue.
type admitted struct {
	id                      mq.QueueID
	messages, bytes, buried int64
}

// decide says which messages of a batch are refused. Runs with mu held, once
// it is known what clients hold.
func (s *Shard) decide(o queue.Origin, ops []byte) (refusals []queue.Refusal) {
	l := s.lead
	if s.state.Seen(o) {
		return nil // answered from memory
	}
	l.discharge(o) // a copy that was not applied
	l.admissions++
	var into []*ledQueue
	message := uint32(0)
	// The batch has been checked: there is no error.
	_ = queue.CheckOps(ops, func(op queue.Op) {
		if op.Kind != queue.Enqueue {
			return
		}
		for place, id := range op.Queues {
			q := s.refusing(id, op.Flags)
			if q == nil {
				continue
			}
			r := &q.room
			if r.batch != l.admissions {
				*r = s.roomIn(q)
				into = append(into, q)
			}
			if r.take(op.BodyBytes(), &q.rules) {
				continue
			}
			x := queue.Refusal{Message: message, Queue: uint32(place), Bury: q.mayBury()}
			if x.Bury {
				r.taken.buried++
			}
			refusals = append(refusals, x)
		}
		message++
	})
	for _, q := range into {
		q.admitted.add(&q.room.taken, 1)
		l.admitted[o] = append(l.admitted[o], q.room.taken)
	}
	return refusals
}

// refusing returns a queue if it is one that refuses.
func (s *Shard) refusing(id mq.QueueID, flags uint8) *ledQueue {
	if flags&refusable == 0 {
		return nil
	}
	q := s.lead.queues[id]
	if q == nil {
		rec := s.topics.View().QueueByID(id)
		if rec == nil {
			return nil // deleted
		}
		q = s.queue(rec)
	}
	if !q.rules.refuse {
		return nil
	}
	return q
}

// roomIn is the room that a batch finds.
func (s *Shard) roomIn(q *ledQueue) room {
	r := room{batch: s.lead.admissions, credit: int64(q.d.Credit()), taken: admitted{id: q.id}}
	ready := q.admitted.messages - int64(q.d.Unacked())
	if st := s.state.Queue(q.id); st != nil {
		ready += int64(st.Count())
	}
	waiting := int64(q.d.Deferred()) // they take room, and no consumer could take them
	ready -= waiting
	r.messages = q.rules.maxLength - waiting - max(0, ready-r.credit)
	r.credit = max(0, r.credit-ready)
	if q.rules.maxBytes >= 0 {
		r.bytes = q.rules.maxBytes - q.readyBytes() - q.admitted.bytes
	}
	return r
}

// take makes a message fit, or says that it does not.
func (r *room) take(bodyBytes int64, limits *rules) bool {
	switch {
	case r.credit > 0:
		r.credit--
		r.taken.messages++
		return true
	case limits.maxLength >= 0 && r.messages < 1, limits.maxBytes >= 0 && r.bytes < bodyBytes:
		return false
	default:
		r.messages--
		r.bytes -= bodyBytes
	}
	r.taken.messages++
	r.taken.bytes += bodyBytes
	return true
}

// mayBury reports whether the next message that is refused goes to the
// dead-letter exchange. If too many are on their way there, it is only refused:
// its publisher knows, and a queue that is full must not grow.
func (q *ledQueue) mayBury() bool {
	return q.rules.bury && int64(q.d.Withdrawn())+q.admitted.buried+q.room.taken.buried < withdrawnMax
}

func (a *admitted) add(b *admitted, sign int64) {
	a.messages += sign * b.messages
	a.bytes += sign * b.bytes
	a.buried += sign * b.buried
}

// discharge ends an admission: its batch was answered, and what is applied of
// it counts in the queue, or it has come again.
func (l *lead) discharge(o queue.Origin) {
	if len(l.admitted) == 0 {
		return
	}
	for _, a := range l.admitted[o] {
		if q := l.queues[a.id]; q != nil {
			q.admitted.add(&a, -1)
		}
	}
	delete(l.admitted, o)
}

// dischargeAll ends all admissions: nobody knows what was committed, and the
// nodes send again.
func (l *lead) dischargeAll() {
	for o := range l.admitted {
		l.discharge(o)
	}
}

// holdBack keeps a batch until it is known what clients hold, if it cannot be
// decided on before that or comes after one that cannot. There are no more of
// them than the nodes' outboxes have unanswered.
func (l *lead) holdBack(x part) bool {
	same := func(y part) bool { return y.origin.Node == x.origin.Node }
	if l.opened || !x.refusable && !slices.ContainsFunc(l.early, same) {
		return false
	}
	if !slices.ContainsFunc(l.early, func(y part) bool { return y.origin == x.origin }) {
		l.early = append(l.early, x)
	}
	return true
}

// takeIn proposes a batch, unless a copy of it waits for that already: a node
// that is slow to hear that it should send again does so for each time.
func (s *Shard) takeIn(x part) {
	if s.lead.proposer.waits(x.origin) {
		return
	}
	if x.refusable {
		x.refusals = s.decide(x.origin, x.ops)
		s.stats.Refused += uint64(len(x.refusals))
	}
	s.lead.proposer.add(x)
}
