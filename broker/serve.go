package broker

import (
	"slices"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// This file is what a leading shard does with the frames of the nodes. Frames
// for a term that this shard does not lead are dropped: whoever sent them
// hears of the new leader and sends again.

// batch takes one batch of an outbox in: its settlements give credit back at
// once, and all of it is proposed.
func (s *Shard) batch(from mq.NodeID, p *parser) {
	term := p.Uint()
	node := p.Uint()
	o := queue.Origin{Node: uint32(node), Session: mq.SessionID(p.Uint()), Seq: p.Uint()}
	if p.Err() != nil {
		s.slog.Warn("malformed batch dropped", "peer", from)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil || l.term != term {
		return
	}
	if l.heldUp > 0 && l.mustWait(from, o, p.Rest()) {
		// Its home does not list among what it holds what it has settled.
		_ = queue.CheckOps(p.Rest(), func(op queue.Op) { // admit tells what cannot be read
			if op.Kind == queue.Settle {
				s.settling(op, o.Session)
			}
		})
		s.dispatch()
		return
	}
	s.admit(from, o, p.Rest(), node&hurried != 0)
	s.dispatch()
}

// admit proposes a batch. With hurry somebody waits for it, also if it is
// settlements alone. Runs with mu held.
func (s *Shard) admit(from mq.NodeID, o queue.Origin, ops []byte, hurry bool) {
	// Checked before it is proposed: a bad peer must not get bytes into the
	// log that no replica can apply.
	x := part{origin: o, ops: ops, idle: !hurry}
	flags := uint8(0)
	err := queue.CheckOps(ops, func(op queue.Op) {
		if op.Kind == queue.Settle {
			s.settling(op, o.Session)
		} else {
			x.idle = false
			flags |= op.Flags
		}
	})
	if err != nil {
		s.slog.Error("batch that cannot be applied refused", "peer", from, "seq", o.Seq, "err", err)
		if !s.void(from, o) {
			return
		}
		x.ops = queue.SoundPart(ops) // what it settles has been taken note of
	}
	s.lead.origins[o.Node] = from
	x.refusable = flags&refusable != 0
	if !s.lead.holdBack(x) {
		s.takeIn(x)
	}
}

// settlerOf holds what a session settles although nobody here knows of its
// delivery: an earlier leader handed it out. Consumers count from 1.
func settlerOf(session mq.SessionID) dispatch.Key { return dispatch.Key{Session: session} }

// settling gives credit back for a range whose settlement has come in and is
// not committed yet. What an earlier leader handed out counts as checked out
// until then, or it would be handed out once more. A range can name more than
// is there (a node decides what it sends): only what is live counts.
func (s *Shard) settling(op queue.Op, session mq.SessionID) {
	st := s.state.Queue(op.Queue)
	q := s.lead.queues[op.Queue]
	if q == nil {
		rec := s.topics.View().QueueByID(op.Queue)
		if rec == nil {
			return
		}
		q = s.queue(rec)
	}
	if st == nil {
		return
	}
	var unknown []mq.Seq
	for seq, ok := st.Next(op.First); ok && seq <= op.Last; seq, ok = st.Next(seq + 1) {
		if !q.d.Held(seq) {
			unknown = append(unknown, seq)
			continue
		}
		q.d.Settling(seq)
	}
	if len(unknown) > 0 {
		q.d.Claim(settlerOf(session), unknown, st)
		for _, seq := range unknown {
			q.d.Settling(seq)
		}
	}
	s.lead.touch(q)
}

// resume takes in what a node's clients are waiting for and what they hold.
func (s *Shard) resume(from mq.NodeID, p *parser) {
	term, session := p.Uint(), mq.SessionID(p.Uint())
	consumers := parseAttached(p)
	held := parseHeld(p)
	if p.Err() != nil {
		s.slog.Warn("malformed resume dropped", "peer", from)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil || l.term != term {
		return
	}
	s.welcome(from, session)
	view := s.topics.View()
	named := map[dispatch.Key]bool{}
	for _, a := range consumers {
		rec := view.QueueByID(a.queue)
		if rec == nil {
			continue // deleted: its home finds out from its own metadata
		}
		a.Session = session
		named[a.Key] = true
		if err := l.attach(s.queue(rec), a.Consumer); err != nil {
			s.slog.Error("consumer cannot be attached again", "queue", rec.Name, "peer", from, "err", err)
		}
	}
	holding := map[mq.QueueID]map[mq.ConsumerID][]mq.Seq{}
	for _, h := range held {
		if rec := view.QueueByID(h.queue); rec != nil {
			s.queue(rec)
			if holding[h.queue] == nil {
				holding[h.queue] = map[mq.ConsumerID][]mq.Seq{}
			}
			holding[h.queue][h.consumer] = h.seqs
		}
	}
	for id, q := range l.queues {
		q.askAgain(from) // before reconciling: what a get takes later, its node could not list
		s.reconcile(q, session, named, holding[id])
		s.noticeUnused(q)
	}
	delete(l.awaiting, from)
	s.openIfResumed()
	s.dispatch()
}

// welcome notes that a node is back, and drops what its earlier session held.
func (s *Shard) welcome(from mq.NodeID, session mq.SessionID) {
	l := s.lead
	for old, node := range l.nodeOf {
		if node == from && old != session {
			s.dropSession(old)
		}
	}
	l.homes[from], l.nodeOf[session] = session, from
	for _, q := range l.queues {
		q.d.Suspend(session, false)
	}
}

// reconcile brings one queue in line with what a node says: consumers that it
// does not name are gone, what it does not list goes back to its place, what
// it lists stays checked out.
func (s *Shard) reconcile(q *ledQueue, session mq.SessionID, named map[dispatch.Key]bool, held map[mq.ConsumerID][]mq.Seq) {
	st := s.state.Queue(q.id)
	for _, k := range q.d.Keys(session) {
		if k == settlerOf(session) {
			continue // its settlements are on their way through the log
		}
		if !named[k] {
			q.d.Detach(k, false)
		}
		q.d.Reconcile(k, held[k.Consumer])
	}
	if st != nil {
		for consumer, seqs := range held {
			q.d.Claim(dispatch.Key{Session: session, Consumer: consumer}, seqs, st)
		}
	}
	q.d.Suspend(session, false)
	s.lead.touch(q)
}

// dropSession ends what a node session had here: it has ended for good.
func (s *Shard) dropSession(session mq.SessionID) {
	l := s.lead
	delete(l.nodeOf, session)
	for _, q := range l.queues {
		before := q.d.Consumers()
		s.recallSession(q, session)
		q.d.DropSession(session)
		l.touch(q)
		q.left = q.left || q.d.Consumers() < before
		s.noticeUnused(q)
	}
}

// sessionEnded hears from the metadata that a node session is over.
func (s *Shard) sessionEnded(session mq.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return
	}
	if node, ok := s.lead.nodeOf[session]; ok && s.lead.homes[node] == session {
		delete(s.lead.homes, node)
	}
	s.dropSession(session)
	s.dispatch()
}

// noticeUnused says so when the last consumer of an auto-delete queue has gone.
// A node that has not resumed yet may have others. One that expires starts
// anew.
func (s *Shard) noticeUnused(q *ledQueue) {
	if q.rec.AutoDelete && q.left && !q.unused && q.d.Consumers() == 0 && s.knowsAll() {
		s.goUnused(q)
	}
	if q.used && q.d.Consumers() == 0 {
		q.used = false
		s.renew(q)
	}
}

// knowsAll reports whether every node has said what consumers it has.
func (s *Shard) knowsAll() bool {
	v := s.topics.View()
	for _, n := range v.Nodes() {
		if session, ok := v.Session(n.ID); ok && s.lead.nodeOf[session] != n.ID {
			return false
		}
	}
	return s.lead.opened
}

// unusedDone hears that a queue that nobody uses has been deleted on every node,
// or that it could not be: then it goes on, and is deleted the next time.
func (s *Shard) unusedDone(l *lead, q *ledQueue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == l {
		s.goOn(q)
		s.dispatch()
	}
}

// returned takes unsettled messages back to their place in the queue, with
// frameFail as failed attempts, or with frameReject, out of it.
func (s *Shard) returned(kind byte, p *parser) {
	term, session := p.Uint(), mq.SessionID(p.Uint())
	held := parseHeld(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if p.Err() != nil || l == nil || l.term != term {
		return // the next resume tells
	}
	for _, h := range held {
		q := l.queues[h.queue]
		if q == nil {
			continue
		}
		k := dispatch.Key{Session: session, Consumer: h.consumer}
		switch kind {
		case frameReject:
			q.d.WithdrawFrom(k, h.seqs, func(seq mq.Seq) { s.leave(q, seq, rejected) })
		default:
			s.giveBack(q, k, h.seqs, kind == frameFail)
			s.stats.Returned += uint64(len(h.seqs))
		}
		s.settleDropped(q)
		l.touch(q)
	}
	s.dispatch()
}

// credit hears that clients' sockets took deliveries.
func (s *Shard) credit(p *parser) {
	term, session := p.Uint(), mq.SessionID(p.Uint())
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	for p.More() && p.Err() == nil {
		id, c := mq.QueueID(p.Uint()), mq.ConsumerID(p.Uint())
		messages, bytes := int(p.Uint()), int(p.Uint())
		if p.Err() != nil || l == nil || l.term != term {
			return
		}
		if q := l.queues[id]; q != nil {
			q.d.Link(dispatch.Key{Session: session, Consumer: c}, messages, bytes)
			l.touch(q)
		}
	}
	s.dispatch()
}

// serve answers a question about this group.
func (s *Shard) serve(a asked, kind byte, p *parser) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		a.notLead()
		return
	}
	id := mq.QueueID(p.Uint())
	view := s.topics.View()
	rec := view.QueueByID(id)
	switch {
	case p.Err() != nil:
		a.fail(errFrame)
	case rec == nil && uint64(id)>>12 > view.Index():
		a.tryAgain() // declared, but not yet applied here
	case rec == nil:
		a.fail(mq.Errorf(mq.NotFound, "queue was deleted"))
	case rec.Keeper != meta.NoKeeper:
		s.serveKept(a, kind, rec, p)
	case kind == callAttach:
		s.attach(a, rec, p)
	case kind == callDetach:
		s.detach(a, rec, p)
	case kind == callGet:
		s.get(a, rec, p)
	case kind == callStat:
		if q := s.lead.queues[id]; q != nil && q.unused {
			a.tryAgain() // until it is deleted: then whoever declares it makes a new one
			return
		}
		if p.More() && p.Bool() { // somebody declares it again
			s.renew(s.queue(rec))
		}
		st := s.stat(id)
		answer := fields.AppendUint(fields.AppendUint(fields.AppendUint(nil, st.Ready), st.Unacked), uint64(st.Consumers))
		a.ok(fields.AppendUint(fields.AppendUint(answer, uint64(st.active.Session)), uint64(st.active.Consumer)))
	case kind == callPurge:
		s.purge(a, rec)
	case kind == callRemove:
		s.remove(a, rec, p)
	default:
		a.fail(errFrame)
	}
}

func (s *Shard) attach(a asked, rec *meta.Queue, p *parser) {
	session := mq.SessionID(p.Uint())
	at := parseAttachedOne(p)
	resize := p.More() && p.Bool()
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	if s.lead.homes[a.from] != session || !s.lead.opened {
		a.tryAgain() // a resume is still on the way: this node's would not know this consumer, another's may have a claim to the queue for itself
		return
	}
	at.Session = session
	q := s.queue(rec)
	if q.unused {
		a.tryAgain() // it is being deleted
		return
	}
	if resize {
		q.d.Resize(at.Key, at.Prefetch)
		s.lead.reschedule(q, at.Key, at.Patience)
	} else if err := s.lead.attach(q, at.Consumer); err != nil {
		a.fail(inExclusiveUse(rec))
		return
	}
	a.ok(nil)
	s.lead.touch(q)
	s.dispatch()
}

func (s *Shard) detach(a asked, rec *meta.Queue, p *parser) {
	k := dispatch.Key{Session: mq.SessionID(p.Uint()), Consumer: mq.ConsumerID(p.Uint())}
	requeue, attached := p.Bool(), p.Bool()
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	if rec.AutoDelete && !s.lead.opened {
		a.tryAgain() // not known yet whether it was the last one
		return
	}
	q := s.queue(rec)
	if requeue {
		s.recallAll(q, k)
	}
	existed := q.d.Detach(k, requeue)
	q.left = q.left || existed || attached // attached: under an earlier leader
	s.noticeUnused(q)
	if q.unused {
		s.lead.farewells[q.id] = append(s.lead.farewells[q.id], a) // answered when the queue is gone everywhere
	} else {
		a.ok(nil)
	}
	s.lead.touch(q)
	s.dispatch()
}

// getRequest is a basic.get that waits for its turn in dispatch.
type getRequest struct {
	asked asked
	key   dispatch.Key
	noAck bool
}

func (s *Shard) get(a asked, rec *meta.Queue, p *parser) {
	g := getRequest{asked: a, key: dispatch.Key{Session: mq.SessionID(p.Uint()), Consumer: mq.ConsumerID(p.Uint())}, noAck: p.Bool()}
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	if s.lead.homes[a.from] != g.key.Session {
		a.tryAgain()
		return
	}
	q := s.queue(rec)
	if q.unused {
		a.tryAgain() // it is being deleted
		return
	}
	s.renew(q)
	q.gets = append(q.gets, g)
	s.lead.touch(q)
	s.dispatch()
}

// askAgain turns the waiting gets of one node away: it asks again if it still
// wants to know.
func (q *ledQueue) askAgain(node mq.NodeID) {
	q.gets = slices.DeleteFunc(q.gets, func(g getRequest) bool {
		if g.asked.from == node {
			g.asked.tryAgain()
		}
		return g.asked.from == node
	})
}

// purge proposes to drop what is ready: everything up to now that is not
// checked out.
func (s *Shard) purge(a asked, rec *meta.Queue) {
	l, st := s.lead, s.state.Queue(rec.ID)
	switch {
	case !l.opened:
		a.tryAgain() // not known yet what is checked out
		return
	case st == nil:
		a.ok(fields.AppendUint(nil, 0))
		return
	}
	l.tokens++
	l.purges[l.tokens] = a
	ops := queue.AppendPurge(nil, rec.ID, st.Last(), s.queue(rec).d.HeldSeqs(), l.tokens)
	l.proposer.add(part{ops: ops, own: true})
}

// queueDeleted hears from the metadata that a queue is gone.
func (s *Shard) queueDeleted(id mq.QueueID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return
	}
	q := s.lead.queues[id]
	s.forgetQueue(id)
	s.lead.proposer.add(part{ops: queue.AppendDelete(nil, id), own: true, last: true})
	if q != nil {
		s.letGo(q)
		s.dispatch()
	}
}

// sweep deletes queues that the metadata no longer has: a queue can be left
// behind when its deletion and a change of leader meet. It also drops what has
// come of large messages whose senders have ended.
func (s *Shard) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return
	}
	view := s.topics.View()
	for _, id := range s.state.Queues() {
		if view.QueueByID(id) == nil && uint64(id)>>12 <= view.Index() {
			s.forgetQueue(id)
			s.lead.proposer.add(part{ops: queue.AppendDelete(nil, id), own: true, last: true})
		}
	}
	s.state.EachStaged(func(node uint32, session mq.SessionID) {
		if _, ok := view.SessionNode(session); !ok && uint64(session) <= view.Index() {
			s.lead.proposer.add(part{ops: queue.AppendUnstage(nil, node, session), own: true})
		}
	})
}
