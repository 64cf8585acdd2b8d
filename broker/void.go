package broker

import (
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// What becomes of a batch that the leader cannot read: a fault of a node, or a
// build that is older than it should be. Left unanswered it would hold up all
// that its node ever sends to the group, since no later one is applied before
// it. So its home hears of it, says to those who wait for it that nobody knows,
// and sends an empty batch under its number. What the leader could read of it,
// it takes in.

// void tells a batch's home, if that understands it. Of what the batch settles
// something may be lost with it: the home's consumers get nothing until it has
// said what they hold, which frees that. Runs with mu held.
func (s *Shard) void(from mq.NodeID, o queue.Origin) bool {
	if levelOf(s.topics.View()) < levelFenced {
		return false
	}
	s.suspend(from)
	f := fields.AppendUint([]byte{frameResults}, uint64(s.group))
	f = fields.AppendUint(fields.AppendUint(fields.AppendUint(f, s.lead.term), uint64(o.Session)), o.Seq)
	s.lane.Send(from, fields.AppendUint(append(f, batchVoid), 0))
	return true
}

// suspend keeps everything from a node's consumers until it has resumed, and
// from its gets that wait: their answers would pass by what it says it holds.
func (s *Shard) suspend(id mq.NodeID) {
	l := s.lead
	if session, ok := l.homes[id]; ok {
		delete(l.homes, id)
		for _, q := range l.queues {
			q.askAgain(id)
			q.d.Suspend(session, true)
		}
	}
}

// void hears that a batch cannot be read. Its answer follows, to what is sent
// instead of it.
func (b *outbox) void(seq uint64) {
	b.mu.Lock()
	if len(b.window) == 0 || seq < b.window[0].seq || seq-b.window[0].seq >= uint64(len(b.window)) {
		b.mu.Unlock()
		return
	}
	s := &b.window[seq-b.window[0].seq]
	was := s.batch
	b.forget(s)
	s.batch = batch{}
	if !s.answered {
		b.transmit(s)
	}
	// If it had a part, the state machine may miss that: then it refuses the end.
	b.feed()
	b.send(false)
	b.room.Broadcast()
	b.mu.Unlock()
	tell(was.settleWait, mq.Rejected)
	tell(was.messageWait, mq.Rejected)
}
