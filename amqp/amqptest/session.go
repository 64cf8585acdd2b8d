package amqptest

import (
	"context"
	"fmt"
	"slices"

	"warren/mq"
)

type session struct {
	broker    *Broker
	user      string
	forced    func(*mq.Error)
	consumers map[mq.ConsumerID]*consumer // guarded by Broker.mu
	closed    bool                        // likewise
}

// queue is guarded by Broker.mu.
type queue struct {
	broker    *Broker
	name      string
	id        mq.QueueID
	owner     *session // of an exclusive queue
	last      mq.Seq
	ready     []message // by seq
	out       map[mq.Seq]unsettled
	consumers []*consumer
}

type message struct {
	seq         mq.Seq
	redelivered bool
	content     mq.Content
}

type unsettled struct {
	message
	consumer *consumer // nil: basic.get
	session  *session
}

type consumer struct {
	id      mq.ConsumerID
	session *session
	queue   *queue
	spec    mq.ConsumeSpec
	to      mq.Sink
	holds   int
}

func (s *session) before(ctx context.Context, call string) error {
	if s.broker.Before == nil {
		return nil
	}
	return s.broker.Before(ctx, call)
}

func (s *session) Change(ctx context.Context, op mq.Op) (mq.Reply, error) {
	if err := s.before(ctx, "change"); err != nil {
		return mq.Reply{}, err
	}
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	return s.broker.change(s, op)
}

func (s *session) Publish(ctx context.Context, p *mq.Publish) (mq.Outcome, error) {
	if err := s.before(ctx, "publish"); err != nil {
		return 0, err
	}
	if err := s.Check(ctx, p); err != nil {
		return 0, err
	}
	b := s.broker
	if b.Alarm != nil {
		b.Alarm(p.Waits)
	}
	b.mu.Lock()
	to, err := b.route(string(p.Content.Exchange()), string(p.Content.RoutingKey()))
	for _, q := range to {
		q.last++
		q.ready = append(q.ready, message{seq: q.last, content: p.Content})
		q.dispatch()
	}
	hold := b.hold && p.Confirm != nil && len(to) > 0
	if hold {
		b.held = append(b.held, heldConfirm{p.Confirm, p.Tag})
	}
	b.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case len(to) == 0:
		return mq.Unroutable, nil
	case !hold && p.Confirm != nil:
		p.Confirm.Confirm(p.Tag, mq.Confirmed)
	}
	return mq.Pending, nil
}

// Check knows faults and exchanges that are not there.
func (s *session) Check(_ context.Context, p *mq.Publish) error {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	_, err := s.broker.route(string(p.Content.Exchange()), string(p.Content.RoutingKey()))
	if err == nil && p.Fault != nil {
		err = p.Fault
	}
	return err
}

func (s *session) Flush() {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	s.broker.flushes++
}

func (s *session) Get(ctx context.Context, name string, noAck bool) (mq.Delivery, bool, error) {
	if err := s.before(ctx, "get"); err != nil {
		return mq.Delivery{}, false, err
	}
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	q, err := s.broker.queue(name)
	if err != nil || len(q.ready) == 0 {
		return mq.Delivery{}, false, err
	}
	d := q.take(s, nil, noAck)
	d.Remaining = uint32(len(q.ready))
	return d, true, nil
}

func (s *session) Consume(ctx context.Context, spec mq.ConsumeSpec, to mq.Sink) (mq.ConsumerID, error) {
	if err := s.before(ctx, "consume"); err != nil {
		return 0, err
	}
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	q, err := b.queue(spec.Queue)
	if err != nil {
		return 0, err
	}
	b.nextID++
	c := &consumer{id: mq.ConsumerID(b.nextID), session: s, queue: q, spec: spec, to: to}
	s.consumers[c.id] = c
	q.consumers = append(q.consumers, c)
	q.dispatch() // before consume-ok, as the seam allows
	return c.id, nil
}

// Replies gives names that nobody but this Broker knows.
func (s *session) Replies(to mq.Sink) (mq.ConsumerID, string, error) {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nextID++
	name := fmt.Sprintf("amq.rabbitmq.reply-to.%d", b.nextID)
	q := &queue{broker: b, name: name, id: mq.QueueID(b.nextID), out: map[mq.Seq]unsettled{}}
	c := &consumer{id: mq.ConsumerID(b.nextID), session: s, queue: q, spec: mq.ConsumeSpec{NoAck: true}, to: to}
	s.consumers[c.id], q.consumers, b.queues[name] = c, []*consumer{c}, q
	return c.id, name, nil
}

func (s *session) Resize(_ context.Context, id mq.ConsumerID, prefetch uint32) {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	if c := s.consumers[id]; c != nil {
		c.spec.Prefetch = prefetch
		c.queue.dispatch()
	}
}

func (s *session) Cancel(_ context.Context, id mq.ConsumerID) error {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	if c := s.consumers[id]; c != nil {
		delete(s.consumers, id)
		c.queue.consumers = slices.DeleteFunc(c.queue.consumers, func(k *consumer) bool { return k == c })
	}
	return nil
}

func (s *session) Settle(_ context.Context, t mq.Settlement) error {
	b := s.broker
	b.mu.Lock()
	for _, h := range t.Held {
		b.settled = append(b.settled, t.Verdict)
		for _, q := range b.queues {
			if q.id == h.Queue {
				q.settle(h.Seq, t.Verdict)
				q.dispatch()
			}
		}
	}
	b.mu.Unlock()
	if t.Confirm != nil {
		t.Confirm.Confirm(t.Tag, mq.Confirmed)
	}
	return nil
}

func (s *session) Drained(_ mq.ConsumerID, messages, _ int) {
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	s.broker.drained += messages
}

// OpenChannel counts nothing: every user may have any number.
func (s *session) OpenChannel(context.Context) error { return nil }
func (s *session) CloseChannel()                     {}

func (s *session) Close() error {
	b := s.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.closed {
		panic("session closed twice")
	}
	s.closed = true
	delete(b.sessions, s)
	for _, q := range b.queues {
		q.consumers = slices.DeleteFunc(q.consumers, func(c *consumer) bool { return c.session == s })
		for seq, u := range q.out {
			if u.session == s {
				q.settle(seq, mq.Requeue)
			}
		}
		if q.owner == s {
			_ = b.deleteQueue(q) // never fails
		} else {
			q.dispatch()
		}
	}
	return nil
}

// dispatch delivers while there is a consumer with room, round robin.
func (q *queue) dispatch() {
	for len(q.ready) > 0 {
		at := slices.IndexFunc(q.consumers, func(c *consumer) bool {
			return c.spec.NoAck || c.spec.Prefetch == 0 || c.holds < int(c.spec.Prefetch)
		})
		if at < 0 {
			return
		}
		c := q.consumers[at]
		q.consumers = append(slices.Delete(q.consumers, at, at+1), c)
		c.to.Deliver(q.take(c.session, c, c.spec.NoAck))
	}
}

// take takes the first ready message out of the queue.
func (q *queue) take(s *session, c *consumer, noAck bool) mq.Delivery {
	m := q.ready[0]
	q.ready = q.ready[1:]
	d := mq.Delivery{Queue: q.id, Seq: m.seq, Redelivered: m.redelivered, Content: m.content}
	if c != nil {
		d.Consumer = c.id
	}
	if !noAck {
		q.out[m.seq] = unsettled{m, c, s}
		if c != nil {
			c.holds++
		}
	}
	return d
}

func (q *queue) settle(seq mq.Seq, v mq.Verdict) {
	u, ok := q.out[seq]
	if !ok {
		return
	}
	delete(q.out, seq)
	if u.consumer != nil {
		u.consumer.holds--
	}
	if v != mq.Requeue && v != mq.Fail {
		return
	}
	u.redelivered = true
	at, _ := slices.BinarySearchFunc(q.ready, seq, func(m message, s mq.Seq) int { return int(m.seq) - int(s) })
	q.ready = slices.Insert(q.ready, at, u.message)
}
