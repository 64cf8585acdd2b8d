package broker

import (
	"math"
	"time"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
	"warren/storage/segment"
)

const (
	// deliverBytes is how large a frame of deliveries grows before it is sent.
	deliverBytes = 64 << 10
	// leaseRetry is how soon a leader without a lease looks again.
	leaseRetry = 50 * time.Millisecond
	// reserveStep is how far dispatch goes on before more of the delivered
	// high-water mark is reserved.
	reserveStep = 512
)

// dispatch hands out what can be handed out on every queue that something
// happened to. Runs with mu held.
func (s *Shard) dispatch() {
	l := s.lead
	if !l.opened || len(l.dirty) == 0 {
		return
	}
	if !s.log.Lease() {
		// Another node may lead by now. Delivering would break the order that
		// single active consumers rely on.
		s.dispatchLater(l)
		return
	}
	for _, q := range l.dirty {
		q.dirty = false
		if l.queues[q.id] != q {
			continue // deleted meanwhile
		}
		s.dispatchQueue(q)
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	for node, f := range l.frames {
		s.lane.Send(node, f)
		delete(l.frames, node)
	}
	l.expiries.arm(s, l)
}

func (s *Shard) dispatchLater(l *lead) {
	if l.retrying {
		return
	}
	l.retrying = true
	time.AfterFunc(leaseRetry, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.retrying = false
		if s.lead == l {
			s.dispatch()
		}
	})
}

func (s *Shard) dispatchQueue(q *ledQueue) {
	st := s.state.Queue(q.id)
	if st == nil {
		s.answerGets(q, nil)
		return
	}
	if q.rec.Keeper != meta.NoKeeper {
		s.dispatchKept(q, st)
		return
	}
	if q.shortest > 0 {
		q.d.Time(s.lead.clock())
	}
	if q.unjudged {
		s.judge(q, st)
	}
	if q.waits != nil {
		s.endWaits(q, st)
	}
	s.reserve(q, st)
	s.answerGets(q, st)
	now := s.nowMs()
	paged := s.bodies.Paged(uint64(q.id))
	for q.d.Withdrawn() < withdrawnMax { // or rejections that cannot arrive anywhere pile up
		if paged && q.d.Able() && !s.headHere(q, st) {
			break // touched when it is
		}
		seq, k, noAck, redelivered, ok := q.d.Next(st, st.HighWater())
		if !ok {
			break
		}
		rec := s.record(q, seq)
		if expired(rec.ExpiryMs, now, redelivered) {
			q.d.Link(k, 1, 0) // picked for it, but not sent
			if !s.expire(q, k, seq) {
				break
			}
			continue
		}
		s.deliver(q, k, seq, redelivered, rec.Body)
		if noAck {
			q.drop(seq)
		}
	}
	s.removeHeads(q, st, now)
	q.d.Trim(st)
	s.reserve(q, st)
	s.settleDropped(q)
	if q.shortest > 0 {
		s.watch(q)
	}
}

// record is the message at seq, which headHere has seen to. The state machine
// says that it is live, so a missing body means that this replica is broken.
func (s *Shard) record(q *ledQueue, seq mq.Seq) segment.Record {
	rec, ok := s.bodies.Get(uint64(q.id), uint64(seq))
	if !ok {
		panic("live message without a body")
	}
	return rec
}

// deliver sends one message on its way to its consumer's node.
func (s *Shard) deliver(q *ledQueue, k dispatch.Key, seq mq.Seq, redelivered bool, c mq.Content) {
	node, bytes := s.lead.nodeOf[k.Session], 0
	if len(c) > lendAbove && s.lends(node) {
		bytes = s.sendLent(node, q, k, seq, redelivered, c)
	} else {
		bytes = s.gather(node, q, k, seq, redelivered, s.shown(q, seq, redelivered, c))
	}
	q.d.Sent(k, bytes)
	s.stats.Delivered++
	if redelivered {
		s.stats.Redelivered++
	}
}

// sendLent sends a large message without its body, behind what has gathered for
// the same node.
func (s *Shard) sendLent(node mq.NodeID, q *ledQueue, k dispatch.Key, seq mq.Seq, redelivered bool, c mq.Content) (bytes int) {
	l := s.lead
	if gathered := l.frames[node]; gathered != nil {
		s.lane.Send(node, gathered)
		delete(l.frames, node)
	}
	head, bodyBytes := s.shownHead(q, seq, redelivered, c), len(c.Body())
	f := fields.AppendUint(append(make([]byte, 0, 64+len(head)), frameLent), uint64(s.group))
	f = fields.AppendUint(f, l.term)
	f = fields.AppendUint(f, uint64(q.id))
	f = fields.AppendUint(f, uint64(k.Consumer))
	f = fields.AppendUint(f, uint64(seq))
	f = fields.AppendBool(f, redelivered)
	number := s.loans.lend(node, c)
	if !s.lane.Send(node, appendLent(f, head, bodyBytes, number)) {
		s.loans.over(node, number)
	}
	return len(head) + bodyBytes
}

// gather adds one message to the frame for a node.
func (s *Shard) gather(node mq.NodeID, q *ledQueue, k dispatch.Key, seq mq.Seq, redelivered bool, content []byte) (bytes int) {
	l := s.lead
	f := l.frames[node]
	if f == nil {
		f = make([]byte, 0, min(deliverBytes+4096, 4096+len(content)))
		f = fields.AppendUint(append(f, frameDeliver), uint64(s.group))
		f = fields.AppendUint(f, l.term)
	}
	f = fields.AppendUint(f, uint64(q.id))
	f = fields.AppendUint(f, uint64(k.Consumer))
	f = fields.AppendUint(f, uint64(seq))
	f = fields.AppendBool(f, redelivered)
	f = fields.AppendBytes(f, content)
	if len(f) >= deliverBytes {
		s.lane.Send(node, f)
		delete(l.frames, node)
		return len(content)
	}
	l.frames[node] = f
	return len(content)
}

// answerGets serves basic.get in the order of arrival.
func (s *Shard) answerGets(q *ledQueue, st *queue.Queue) {
	for len(q.gets) > 0 {
		g := q.gets[0]
		var seq mq.Seq
		var redelivered, ok bool
		if st != nil {
			if s.bodies.Paged(uint64(q.id)) && !s.headHere(q, st) {
				break // touched when it is
			}
			seq, redelivered, ok = q.d.Take(st, st.HighWater(), g.key, g.noAck)
		}
		if !ok && s.stat(q.id).Ready > 0 {
			return // waits for the high-water mark to be committed
		}
		q.gets = q.gets[1:]
		if !ok {
			g.asked.ok([]byte{gotNothing})
			continue
		}
		rec := s.record(q, seq)
		if expired(rec.ExpiryMs, s.nowMs(), redelivered) {
			q.gets = append([]getRequest{g}, q.gets...)
			if !s.expire(q, g.key, seq) {
				break
			}
			continue
		}
		if g.noAck {
			q.drop(seq)
		}
		s.stats.Delivered++
		s.answerGet(q, g.asked, seq, redelivered, rec.Body)
	}
	s.settleDropped(q)
}

// answerGet answers with a message, or where its body is.
func (s *Shard) answerGet(q *ledQueue, a asked, seq mq.Seq, redelivered bool, c mq.Content) {
	kind, content := byte(gotWhole), mq.Content(nil)
	if len(c) > lendAbove && s.lends(a.from) {
		kind, content = gotLent, s.shownHead(q, seq, redelivered, c)
	} else {
		content = s.shown(q, seq, redelivered, c)
	}
	b := append(make([]byte, 0, 64+len(content)), kind)
	b = fields.AppendUint(b, uint64(seq))
	b = fields.AppendBool(b, redelivered)
	b = fields.AppendUint(b, min(s.stat(q.id).Ready, math.MaxUint32))
	if kind == gotWhole {
		a.ok(append(b, content...))
		return
	}
	number := s.loans.lend(a.from, c)
	if !a.ok(appendLent(b, content, len(c.Body()), number)) {
		s.loans.over(a.from, number)
	}
}

// drop notes a message that the leader itself settles.
func (q *ledQueue) drop(seq mq.Seq) {
	if n := len(q.dropped); n > 0 && q.dropped[n-1].last+1 == seq {
		q.dropped[n-1].last = seq
		return
	}
	q.dropped = append(q.dropped, seqRange{seq, seq})
}

// settleDropped proposes to settle what was handed out without ack. Settling
// twice is settling once, so a failed proposal is simply repeated.
func (s *Shard) settleDropped(q *ledQueue) {
	if len(q.dropped) == 0 {
		return
	}
	var ops []byte
	for _, r := range q.dropped {
		ops = queue.AppendDrop(ops, q.id, r.first, r.last)
	}
	q.dropped = q.dropped[:0]
	s.lead.proposer.add(part{ops: ops, own: true, idle: true})
}

// reserve commits the delivered high-water mark ahead of dispatch, so that
// after a failure every message that may have been handed out is told as
// redelivered. Dispatch never passes the committed mark.
func (s *Shard) reserve(q *ledQueue, st *queue.Queue) {
	if q.d.Consumers() == 0 && len(q.gets) == 0 {
		return
	}
	want := q.d.WantReserve()
	if want < q.asked+reserveStep {
		return
	}
	q.asked = want
	s.lead.proposer.add(part{ops: queue.AppendReserve(nil, q.id, want), own: true})
}
