package broker

import (
	"context"
	"math"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// Consume starts a consumer.
func (s *Session) Consume(ctx context.Context, spec mq.ConsumeSpec, to mq.Sink) (mq.ConsumerID, error) {
	if err := s.refuseReply(spec.Queue, mq.PreconditionFailed, "only creator channel may consume from queue '%s' in vhost '%s'"); err != nil {
		return 0, err
	}
	for {
		q, err := s.topology.Readable(ctx, spec.Queue)
		if err != nil {
			return 0, err
		}
		if kind, _ := q.Args.String("x-queue-type"); spec.Exclusive && singleActive(q) && kind != "quorum" { // as RabbitMQ: there are to be others
			return 0, inExclusiveUse(q)
		}
		timeoutMs, err := timeoutOf(&spec, q)
		if err != nil {
			return 0, err
		}
		id, err := s.attach(ctx, &consumer{session: s, queue: q, spec: spec, prefetch: spec.Prefetch, sink: to, timeoutMs: timeoutMs})
		if !s.topology.vanished(q, err) {
			return id, err
		} // perhaps it was declared again meanwhile
	}
}

func inExclusiveUse(q *meta.Queue) *mq.Error {
	return mq.Errorf(mq.AccessRefused, "queue '%s' in vhost '%s' in exclusive use", q.Name, q.VHost)
}

// attach makes a consumer known here and to its queue's leader.
func (s *Session) attach(ctx context.Context, c *consumer) (mq.ConsumerID, error) {
	b := s.broker
	b.consumers.add(c)
	if q := b.View().QueueByID(c.queue.ID); q != nil {
		c.reschedule(q) // who changes its policies from now on finds the consumer
	}
	s.mu.Lock()
	s.consumers[c.id] = c
	s.mu.Unlock()
	err := b.askAttach(ctx, c, false)
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if err == nil && !closed {
		return c.id, nil
	}
	s.forget(c)
	if err == nil {
		err = errSessionClosed
	}
	b.disown(c.leftover()) // nobody knows whether it was attached
	return 0, err
}

// askAttach asks the leader to attach a consumer, or if it is one already, to
// resize it. A leader that is told of
// this node's consumers while the answer is on its way is not told of this
// one, which is not sure to be one yet: then it is asked again.
func (b *Broker) askAttach(ctx context.Context, c *consumer, resize bool) error {
	for {
		_, session := b.run()
		b.resuming.RLock()
		before := b.resumes[c.queue.Group]
		b.resuming.RUnlock()
		body := fields.AppendUint(fields.AppendUint(nil, uint64(c.queue.ID)), uint64(session))
		body = fields.AppendBool(appendAttached(body, c), resize)
		if _, err := b.callLeader(ctx, callAttach, c.queue.Group, body); err != nil {
			return err
		}
		b.resuming.RLock()
		sure := b.resumes[c.queue.Group] == before
		if sure {
			c.take()
		}
		b.resuming.RUnlock()
		if sure {
			return nil
		}
	}
}

// Resize changes how many deliveries a consumer's client may hold unsettled.
// If its leader does not answer, the next one is told of it with the consumer.
func (s *Session) Resize(ctx context.Context, id mq.ConsumerID, prefetch uint32) {
	s.mu.Lock()
	c := s.consumers[id]
	s.mu.Unlock()
	if c == nil {
		return // its queue was deleted
	}
	c.resize(prefetch)
	if err := s.broker.askAttach(ctx, c, true); err != nil {
		s.broker.slog.Debug("consumer not resized", "queue", c.queue.Name, "err", err)
	}
}

// forget ends a consumer on this node, and says whether it was this call that did.
func (s *Session) forget(c *consumer) bool {
	ended, _ := c.end()
	s.broker.consumers.remove(c)
	s.mu.Lock()
	delete(s.consumers, c.id)
	if s.getters[c.queue.ID] == c {
		delete(s.getters, c.queue.ID)
	}
	s.mu.Unlock()
	return ended
}

// leftover is a consumer that has ended here, and that its leader may still have.
type leftover struct {
	group    mq.GroupID
	queue    mq.QueueID
	consumer mq.ConsumerID
	attached bool // it certainly was a consumer of the queue
}

// detach tells the leader that a consumer has ended. With requeue what it
// holds goes back; what was settled before is on its way by then.
func (b *Broker) detach(ctx context.Context, x leftover, requeue bool) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	if o := b.knownOutbox(x.group); o != nil && requeue {
		o.sendAll()
	}
	_, session := b.run()
	body := fields.AppendUint(fields.AppendUint(nil, uint64(x.queue)), uint64(session))
	body = fields.AppendBool(fields.AppendBool(fields.AppendUint(body, uint64(x.consumer)), requeue), x.attached)
	_, err := b.callLeader(ctx, callDetach, x.group, body)
	return err
}

// Cancel ends a consumer; what its client holds stays with it until settled.
func (s *Session) Cancel(ctx context.Context, id mq.ConsumerID) error {
	s.mu.Lock()
	c := s.consumers[id]
	s.mu.Unlock()
	if c == nil {
		s.dropRequester(id) // or its queue was deleted: it has ended already
		return nil
	}
	c.leave()
	err := s.broker.detach(ctx, c.leftover(), false)
	s.broker.endWaiting(c)
	s.tidy(c)
	if e, ok := err.(*mq.Error); ok && e.Code == mq.NotFound {
		return nil
	}
	return err
}

// endWaiting ends a consumer that was detached, and gives back what it still
// waited for: the client will never settle that.
func (b *Broker) endWaiting(c *consumer) {
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if _, waited := c.end(); !c.spec.NoAck {
		b.giveWaitingBack(c, waited)
	}
}

// tidy forgets a cancelled consumer once nothing is held by it.
func (s *Session) tidy(c *consumer) {
	if c.idle() {
		s.forget(c)
	}
}

// Get takes one message.
func (s *Session) Get(ctx context.Context, queue string, noAck bool) (d mq.Delivery, ok bool, err error) {
	if err := s.refuseReply(queue, mq.NotImplemented, "basic.get not supported by volatile queue '%s' in vhost '%s'"); err != nil {
		return d, false, err
	}
	q, err := s.topology.Readable(ctx, queue)
	if err != nil {
		return d, false, err
	}
	if singleActive(q) {
		return d, false, mq.Errorf(mq.ResourceLocked, "cannot obtain access to locked queue '%s' in vhost '%s'. basic.get operations are not supported by queues with single active consumer", q.Name, q.VHost)
	}
	if err := s.broker.published(ctx, q.Group); err != nil {
		return d, false, err
	}
	for {
		t, err := s.take(ctx, q, noAck)
		if err != nil || !t.ok {
			return mq.Delivery{}, false, err
		}
		if err := s.complete(ctx, &t, noAck); err != nil {
			if ctx.Err() != nil {
				return mq.Delivery{}, false, s.broker.explain(ctx, q.Group, ctx.Err())
			}
			continue // lost with a connection; it is at its place again
		}
		if s.traced.Load() {
			s.traceOut(q.Name, &t.d)
		}
		return t.d, true, nil
	}
}

// What a leader answers to basic.get.
const (
	gotNothing = iota
	gotWhole   // a message
	gotLent    // one whose body is to be fetched
)

// taken is that answer.
type taken struct {
	ok   bool // there was a message
	d    mq.Delivery
	body *borrowed // nil: d is whole
}

// take asks for one message, and holds it.
func (s *Session) take(ctx context.Context, q *meta.Queue, noAck bool) (t taken, err error) {
	b, c := s.broker, s.getter(q)
	_, session := b.run()
	body := fields.AppendUint(fields.AppendUint(nil, uint64(q.ID)), uint64(session))
	body = fields.AppendBool(fields.AppendUint(body, uint64(c.id)), noAck)
	var unsound error
	_, err = b.askLeader(ctx, callGet, q.Group, body, &ears{
		heard: func(from mq.NodeID, r []byte) bool {
			t, unsound = c.got(from, r)
			kept := !t.ok || noAck || b.keep(c, from, t.d.Seq)
			if !kept && t.body != nil {
				b.repay(t.body)
			}
			return kept
		},
		late: func(from mq.NodeID, r []byte) {
			if t, err := c.got(from, r); err == nil { // nobody has taken it
				b.putBack(c, &t, noAck)
			}
		},
	})
	if err == nil {
		err = unsound
	}
	if err != nil {
		return taken{}, err
	}
	return t, nil
}

// complete fetches the body of what was taken, if it is elsewhere. What cannot
// be had goes back; without ack it is lost, as answers are with a connection.
func (s *Session) complete(ctx context.Context, t *taken, noAck bool) (err error) {
	if t.body == nil {
		return nil
	}
	if t.d.Content, err = s.broker.fetch(ctx, t.body); err != nil {
		s.broker.slog.Debug("large message not fetched", "err", err)
		s.broker.putBack(s.broker.consumers.get(t.d.Consumer), t, noAck)
	}
	return err
}

// putBack gives back what basic.get took for nobody.
func (b *Broker) putBack(c *consumer, t *taken, noAck bool) {
	if t.body != nil {
		b.repay(t.body)
	}
	if t.ok && !noAck {
		b.giveBack(frameReturn, c, t.d.Held(), t.d.Held())
	}
}

// keep notes what basic.get took, as one step in the eyes of a leader that is
// told what is held here: it may hand out again what it is not told of. false if
// another node leads by now, which was told that nobody here holds it. (From the
// same node no answer of an earlier term comes after its later announcement.)
func (b *Broker) keep(c *consumer, from mq.NodeID, seq mq.Seq) bool {
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if k, _, _ := b.leaders.of(c.queue.Group); k.node != from {
		return false
	}
	c.keep(seq)
	return true
}

// got reads a leader's answer to basic.get.
func (c *consumer) got(from mq.NodeID, reply []byte) (t taken, err error) {
	p := parser{fields.Read(reply)}
	kind := p.Byte()
	if kind == gotNothing {
		return t, p.Err()
	}
	t.d = mq.Delivery{Consumer: c.id, Group: c.queue.Group, Queue: c.queue.ID, Seq: mq.Seq(p.Uint()), Redelivered: p.Bool(), Remaining: uint32(min(p.Uint(), math.MaxUint32))}
	if kind == gotLent {
		t.body = parseBorrowed(from, &p)
	} else {
		content, sound := mq.ParseContent(p.Rest())
		if !sound {
			p.Fail()
		}
		t.d.Content = content
	}
	if p.Err() != nil {
		return taken{}, errFrame
	}
	t.ok = true
	return t, nil
}

// getter is the holder of what this session takes from q by basic.get.
func (s *Session) getter(q *meta.Queue) *consumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.getters[q.ID]; c != nil {
		return c
	}
	c := &consumer{session: s, queue: q}
	s.broker.consumers.add(c)
	s.getters[q.ID] = c
	s.consumers[c.id] = c
	return c
}

// Drained gives link credit back to the leader.
func (s *Session) Drained(id mq.ConsumerID, messages, bytes int) {
	b := s.broker
	c := b.consumers.get(id)
	if c == nil {
		if r := b.requesters.get(id); r != nil {
			r.drained(messages, bytes)
		}
		return
	}
	k, ok, _ := b.leaders.of(c.queue.Group)
	if !ok {
		return // attached again, it starts with full credit
	}
	_, session := b.run()
	f := fields.AppendUint(append(make([]byte, 0, 48), frameCredit), uint64(c.queue.Group))
	f = fields.AppendUint(f, k.term)
	f = fields.AppendUint(f, uint64(session))
	f = fields.AppendUint(f, uint64(c.queue.ID))
	f = fields.AppendUint(f, uint64(id))
	f = fields.AppendUint(f, uint64(messages))
	b.lane.Send(k.node, fields.AppendUint(f, uint64(bytes)))
}
