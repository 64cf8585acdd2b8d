package broker

import (
	"context"

	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// PeerUp hears that frames can be exchanged with a node (again).
func (b *Broker) PeerUp(id mq.NodeID) {
	b.meta.peerUp(id)
	if id != b.lane.Self() {
		b.tellAlarm(id)
	}
	for _, s := range b.allShards() {
		s.peerUp(id)
	}
}

// PeerDown hears that the connection to a node is lost, with all that was on
// its way.
func (b *Broker) PeerDown(id mq.NodeID) {
	b.meta.peerDown(id)
	for _, s := range b.allShards() {
		s.peerDown(id)
	}
	for _, g := range b.leaders.lost(id) {
		if o := b.knownOutbox(g); o != nil {
			o.leaderless(id)
		}
	}
	b.calls.lost(id)
	if id != b.lane.Self() { // whose lane to itself can be cut, too
		b.alarms.set(id, "")
	}
	b.replyLinks.lost(id)
	b.loans.lost(id) // last: no shard here sends anything to that node by now
}

// Frame takes one frame from a node. Frames of one node come one at a time.
func (b *Broker) Frame(from mq.NodeID, frame []byte) {
	p := &parser{fields.Read(frame)}
	switch kind := p.Byte(); kind {
	case frameLead:
		b.leadHeard(from, mq.GroupID(p.Uint()), p)
	case frameAgain:
		b.again(from, mq.GroupID(p.Uint()), p)
	case frameBatch:
		if s := b.Shard(mq.GroupID(p.Uint())); s != nil {
			s.batch(from, p)
		}
	case frameResults:
		b.results(from, p)
	case frameDeliver:
		b.deliver(from, p)
	case frameLent:
		b.lent(from, p)
	case frameRepaid:
		b.repaid(from, p)
	case frameRecall:
		b.recalled(from, p)
	case frameCredit:
		if s := b.Shard(mq.GroupID(p.Uint())); s != nil {
			s.credit(p)
		}
	case frameReturn, frameFail, frameReject:
		if s := b.Shard(mq.GroupID(p.Uint())); s != nil {
			s.returned(kind, p)
		}
	case frameResume:
		if s := b.Shard(mq.GroupID(p.Uint())); s != nil {
			s.resume(from, p)
		}
	case frameApplied:
		b.meta.applied(from, p)
	case frameAlarm:
		b.alarmHeard(from, p)
	case frameCall:
		b.serve(from, p)
	case frameReply:
		b.calls.replied(p)
	case frameDirect:
		b.directReply(from, len(frame), p)
	case frameDirectLent:
		b.directLent(from, len(frame), p)
	case frameDirectTaken:
		b.replyLinks.taken(from, p)
	default:
		p.Fail()
		b.slog.Warn("frame of unknown kind dropped", "peer", from, "kind", kind)
	}
}

// serve answers a question of another node.
func (b *Broker) serve(from mq.NodeID, p *parser) {
	a := asked{lane: b.lane, from: from, id: p.Uint()}
	kind, g := p.Byte(), mq.GroupID(p.Uint())
	if p.Err() != nil {
		b.slog.Warn("malformed call dropped", "peer", from)
		return
	}
	switch {
	case kind == callRequester:
		a.ok(fields.AppendBool(nil, b.parseRequester(p) != nil))
		return
	case kind == callMilestones:
		b.tellMilestones(a, p)
		return
	case kind == callFetch:
		b.loans.serve(a, p)
		return
	case kind == callTally:
		b.serveTally(a, p)
		return
	case g == metaGroup:
		b.meta.serve(a, kind, p)
		return
	}
	if s := b.Shard(g); s != nil {
		s.serve(a, kind, p)
		return
	}
	a.notLead()
}

// leadHeard takes a leader's announcement: what is unanswered is sent to it,
// and it is told of the consumers here and of what they hold. All of that is
// on its way before anybody here asks it anything.
func (b *Broker) leadHeard(from mq.NodeID, g mq.GroupID, p *parser) {
	term := p.Uint()
	if p.Err() != nil {
		return
	}
	b.resuming.Lock()
	defer b.resuming.Unlock()
	if !b.leaders.newer(g, term) {
		return
	}
	if g != metaGroup {
		if o := b.knownOutbox(g); o != nil {
			o.lead(from, term)
		}
		b.sendResume(g, from, term)
	}
	b.leaders.heard(g, from, term)
	if g == metaGroup {
		b.reportApplied(b.View().Index())
	}
}

// again sends to the present leader of a group all that is unanswered.
func (b *Broker) again(from mq.NodeID, g mq.GroupID, p *parser) {
	term := p.Uint()
	b.resuming.Lock()
	defer b.resuming.Unlock()
	k, ok, _ := b.leaders.of(g)
	if p.Err() != nil || !ok || k.node != from || k.term != term {
		return
	}
	if o := b.knownOutbox(g); o != nil {
		o.lead(from, term)
	}
}

// resume tells a known leader again what this node has.
func (b *Broker) resume(g mq.GroupID, to mq.NodeID) {
	b.resuming.Lock()
	defer b.resuming.Unlock()
	if k, ok, _ := b.leaders.of(g); ok && k.node == to && g != metaGroup {
		b.sendResume(g, to, k.term)
	}
}

// sendResume runs with resuming held.
func (b *Broker) sendResume(g mq.GroupID, to mq.NodeID, term uint64) {
	b.resumes[g]++
	_, session := b.run()
	f := fields.AppendUint([]byte{frameResume}, uint64(g))
	f = fields.AppendUint(f, term)
	f = fields.AppendUint(f, uint64(session))
	var attach, holds []byte
	attached, holders := 0, 0
	for _, c := range b.consumers.of(g) {
		c.dropWaiting()
		on, seqs := c.state()
		if on {
			attach = appendAttached(fields.AppendUint(attach, uint64(c.queue.ID)), c)
			attached++
		}
		if len(seqs) > 0 {
			holds = appendHeld(holds, c.queue.ID, c.id, seqs)
			holders++
		}
	}
	f = append(fields.AppendUint(f, uint64(attached)), attach...)
	f = append(fields.AppendUint(f, uint64(holders)), holds...)
	b.lane.Send(to, f)
}

// results hears which batches are committed.
func (b *Broker) results(from mq.NodeID, p *parser) {
	g, term := mq.GroupID(p.Uint()), p.Uint()
	o := b.knownOutbox(g)
	missed, behind := false, uint64(0) // in one frame all that is missed is missed once
	for p.More() {
		session, seq := mq.SessionID(p.Uint()), p.Uint()
		code, last := p.Byte(), p.Uint()
		var refused []queue.Run
		if code&someRefused != 0 {
			refused = p.runs()
		}
		if p.Err() != nil {
			b.slog.Warn("malformed results dropped")
			return
		}
		switch {
		case o == nil || o.origin.Session != session:
		case queue.Code(code) == queue.Gap:
			missed, behind = true, last
		case code == batchVoid:
			o.void(seq)
			b.resume(g, from)
		default:
			o.result(seq, queue.Code(code&^someRefused), refused)
		}
	}
	if missed {
		o.missed(term, behind)
	}
}

// deliver hands messages to the consumers here. What no consumer here wants
// goes back.
func (b *Broker) deliver(from mq.NodeID, p *parser) {
	g, term := mq.GroupID(p.Uint()), p.Uint()
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if k, ok, _ := b.leaders.of(g); !ok || k.node != from || k.term != term {
		return // an earlier leader's: the present one was told that nobody here holds them
	}
	var unwanted []heldBy
	var c *consumer
	for p.More() {
		q, id, seq := mq.QueueID(p.Uint()), mq.ConsumerID(p.Uint()), mq.Seq(p.Uint())
		redelivered, content := p.Bool(), p.Bytes()
		body, sound := mq.ParseContent(content)
		if p.Err() != nil || !sound {
			b.slog.Error("malformed delivery dropped", "peer", from, "group", uint64(g))
			return
		}
		if c == nil || c.id != id {
			c = b.consumers.get(id)
		}
		d := mq.Delivery{Consumer: id, Group: g, Queue: q, Seq: seq, Redelivered: redelivered, Content: body}
		if c == nil || !c.deliver(d) {
			unwanted = append(unwanted, heldBy{q, id, []mq.Seq{seq}})
			b.disown(leftover{g, q, id, true})
		}
	}
	if len(unwanted) > 0 {
		b.sendReturn(frameReturn, g, from, term, unwanted)
	}
}

// disown tells a leader that a consumer has ended that it still delivers to:
// its detach was given up, or is on its way.
func (b *Broker) disown(x leftover) {
	if _, asking := b.disowned.LoadOrStore(x.consumer, true); asking {
		return
	}
	go func() { // ends after changeWait at the latest
		defer b.disowned.Delete(x.consumer)
		if err := b.detach(context.Background(), x, true); err != nil {
			b.slog.Debug("consumer not detached", "group", uint64(x.group), "err", err)
		}
	}()
}

// sendReturn gives messages back to the leader that handed them out, with a
// frameReturn, a frameFail or a frameReject.
func (b *Broker) sendReturn(kind byte, g mq.GroupID, to mq.NodeID, term uint64, what []heldBy) {
	_, session := b.run()
	f := fields.AppendUint([]byte{kind}, uint64(g))
	f = fields.AppendUint(f, term)
	f = fields.AppendUint(f, uint64(session))
	f = fields.AppendUint(f, uint64(len(what)))
	for _, h := range what {
		f = appendHeld(f, h.queue, h.consumer, h.seqs)
	}
	b.lane.Send(to, f)
}
