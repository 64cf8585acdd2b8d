package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// routeCacheMax is how many routes a session keeps.
const routeCacheMax = 1024

// routeCache keeps where a session's messages went, for as long as the
// metadata does not change.
type routeCache struct {
	mu    sync.Mutex
	view  *meta.View
	known map[string][]target // by exchange, NUL, routing key
	key   []byte              // scratch
}

func (c *routeCache) get(v *meta.View, m mq.Content) ([]target, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view != v {
		c.view, c.known = v, nil
		return nil, false
	}
	c.key = append(append(append(c.key[:0], m.Exchange()...), 0), m.RoutingKey()...)
	t, ok := c.known[string(c.key)]
	return t, ok
}

func (c *routeCache) put(v *meta.View, m mq.Content, t []target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view != v {
		return
	}
	if len(c.known) >= routeCacheMax || c.known == nil {
		c.known = map[string][]target{}
	}
	c.known[string(m.Exchange())+"\x00"+string(m.RoutingKey())] = t
}

// Publish routes a message and puts it into the outbox of every group that it
// reaches.
func (s *Session) Publish(ctx context.Context, p *mq.Publish) (mq.Outcome, error) {
	targets, more, err := s.route(ctx, p)
	if err != nil {
		return 0, err
	}
	whole := p.Content
	p.Content = more.open(whole)
	if s.traced.Load() {
		s.traceIn(p.Content, targets)
	}
	if hasReplyKey(p.Content, more.keys) {
		if sent, err := s.sendReplies(ctx, p.Content, more.keys); err != nil {
			return 0, err
		} else if sent && len(targets) == 0 {
			return mq.Confirmed, nil
		}
	}
	if len(targets) == 0 {
		return mq.Unroutable, nil
	}
	if s.broker.alarms.any.Load() {
		if err := s.awaitAlarms(ctx, targets, p.Waits); err != nil {
			return 0, err
		}
	}
	m := outgoing{flags: priorityFlag(p.Content), priority: p.Priority, ttlMs: p.ExpirationMs}
	if p.Persistent {
		m.flags |= queue.Persistent
	}
	w := waiter{confirm: p.Confirm, tag: p.Tag}
	nowhere := historyOnly(targets)
	if nowhere {
		w = waiter{} // kept for later, but nobody gets it now
	}
	if len(targets) > 1 && w.confirm != nil {
		w = waiter{confirm: newJoint(len(targets), w)}
	}
	for i := range targets {
		if m.content = p.Content; targets[i].keepMs > 0 {
			m.content = whole // it goes on to the blind copies later
		}
		if len(targets[i].windows) > 0 {
			m.nowMs = s.broker.nowMs()
		}
		if err := s.send(ctx, &targets[i], &m, w); err != nil {
			return 0, err
		}
	}
	if nowhere {
		return mq.Unroutable, nil
	}
	return mq.Pending, nil
}

func (s *Session) send(ctx context.Context, t *target, m *outgoing, w waiter) error {
	o, err := s.broker.outbox(t.group)
	if err == nil && len(m.content) > partBytes {
		s.Flush() // what came before must not wait for this one
	}
	if err == nil {
		err = o.enqueue(ctx, t, m, m.expiry(t, s.broker.nowMs), w)
	}
	if errors.Is(err, errGroupGone) {
		// The node that held the queue ended a moment ago, and the queue with it.
		if w.confirm != nil {
			w.confirm.Confirm(w.tag, mq.Gone)
		}
		return nil
	}
	if err != nil {
		return s.broker.explain(ctx, t.group, err)
	}
	s.touch(o)
	return nil
}

// route answers the groups and queues that a message reaches, and the routing
// keys that its sender added. It checks, in RabbitMQ's order, what the user may
// do, the exchange, and what the message says of itself. That a message that is
// to be returned reaches nothing is confirmed with the metadata leader.
func (s *Session) route(ctx context.Context, p *mq.Publish) (t []target, more senderKeys, err error) {
	v := s.broker.View()
	t, known := s.routes.get(v, p.Content)
	if !known { // else it was admitted as of this very View
		if v, err = s.admit(ctx, v, string(p.Content.Exchange())); err != nil {
			return nil, more, err
		}
	}
	if more, err = s.screen(v, p); err != nil {
		return nil, more, err
	}
	if !known || len(more.keys) > 0 {
		t, err = s.lookUp(v, p.Content, more.keys)
	}
	if err != nil || len(t) > 0 || !p.Mandatory || hasReplyKey(p.Content, more.keys) {
		return t, more, err
	}
	if err := s.broker.ReadIndex(ctx); err != nil {
		return nil, more, err
	}
	if v, err = s.admit(ctx, s.broker.View(), string(p.Content.Exchange())); err != nil {
		return nil, more, err
	}
	t, err = s.lookUp(v, p.Content, more.keys)
	return t, more, err
}

// admit checks that the user may publish to an exchange, and that the exchange
// takes messages from clients: 403 comes before 404. A "not found" is
// confirmed with the metadata leader, and the View in which the exchange is
// there is answered.
func (s *Session) admit(ctx context.Context, v *meta.View, exchange string) (*meta.View, error) {
	if err := s.topology.AllowPublish(v, exchange); err != nil {
		return nil, err
	}
	x := v.Exchange(s.vhost, exchange)
	if x == nil {
		if err := s.broker.ReadIndex(ctx); err != nil {
			return nil, err
		}
		v = s.broker.View()
		if err := s.topology.AllowPublish(v, exchange); err != nil {
			return nil, err
		}
		if x = v.Exchange(s.vhost, exchange); x == nil {
			return nil, meta.NoExchange(s.vhost, exchange)
		}
	}
	if x.Internal {
		return nil, mq.Errorf(mq.AccessRefused, "cannot publish to internal exchange '%s' in vhost '%s'", x.Name, x.VHost)
	}
	return v, nil
}

// Check answers the error that Publish would answer now, for a message that is
// put off until a transaction commits.
func (s *Session) Check(ctx context.Context, p *mq.Publish) error {
	v, err := s.admit(ctx, s.broker.View(), string(p.Content.Exchange()))
	if err != nil {
		return err
	}
	more, err := s.screen(v, p)
	if err != nil {
		return err
	}
	return s.allowTopics(v, p.Content, more.keys)
}

// allowTopics checks the topic permissions for all routing keys of a message
// to a topic exchange. What is found then may be kept for exchange and key.
func (s *Session) allowTopics(v *meta.View, m mq.Content, more [][]byte) error {
	x := v.Exchange(s.vhost, string(m.Exchange()))
	if x == nil || x.Type != "topic" {
		return nil
	}
	err := s.topology.access.AllowTopic(v, "write", x.Name, string(m.RoutingKey()))
	for i := 0; i < len(more) && err == nil; i++ {
		err = s.topology.access.AllowTopic(v, "write", x.Name, string(more[i]))
	}
	return err
}

// lookUp walks from an exchange that is there. more are routing keys beside
// the message's own.
func (s *Session) lookUp(v *meta.View, m mq.Content, more [][]byte) ([]target, error) {
	if err := s.allowTopics(v, m, more); err != nil {
		return nil, err
	}
	w := newWalk(s.broker, v, s.vhost, m, append([][]byte{m.RoutingKey()}, more...))
	if err := w.from(v.Exchange(s.vhost, string(m.Exchange()))); err != nil {
		return nil, err
	}
	if w.byKey && len(more) == 0 {
		s.routes.put(v, m, w.targets)
	}
	return w.targets, nil
}

// joint makes one confirm out of those of several groups. A queue that has ended
// with its node owes nobody anything any more, as in RabbitMQ: what counts are
// the others, if there are any.
type joint struct {
	left     atomic.Int32
	rejected atomic.Bool
	refused  atomic.Bool
	taken    atomic.Bool // by a queue that is there
	to       waiter
}

func newJoint(n int, to waiter) *joint {
	j := &joint{to: to}
	j.left.Store(int32(n))
	return j
}

// Confirm counts one group's answer.
func (j *joint) Confirm(_ uint64, o mq.Outcome) {
	switch o {
	case mq.Rejected:
		j.rejected.Store(true)
	case mq.Refused:
		j.refused.Store(true)
	case mq.Confirmed:
		j.taken.Store(true)
	}
	if j.left.Add(-1) > 0 {
		return
	}
	switch {
	case j.rejected.Load():
		o = mq.Rejected
	case j.refused.Load():
		o = mq.Refused
	case j.taken.Load():
		o = mq.Confirmed
	}
	j.to.confirm.Confirm(j.to.tag, o)
}
