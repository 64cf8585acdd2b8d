package amqp

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"sync/atomic"

	"warren/amqp/wire"
	"warren/mq"
)

// consumer is one basic.consume; the broker's Sink. Its fields do not change,
// or outbox.mu guards them, but those that say otherwise.
type consumer struct {
	out    *outbox
	ch     *channel
	tag    string
	noAck  bool
	notify bool          // the client understands basic.cancel
	count  *atomic.Int64 // consumers of the server

	prefetch uint16 // whoever has the slot's baton has it

	id      mq.ConsumerID
	started bool          // basic.consume-ok is queued
	leaving bool          // the client ends it, and needs no word of its end
	ended   bool          // nothing goes out any more
	lost    bool          // Cancelled came before the start
	early   []mq.Delivery // came before the start

	// The writer's: what it wrote and the broker does not know.
	owedID                  mq.ConsumerID
	owedMessages, owedBytes int
}

// Deliver implements mq.Sink.
func (c *consumer) Deliver(d mq.Delivery) { c.out.deliver(c, &d) }

// Recalled implements mq.Recaller.
func (c *consumer) Recalled(seqs []mq.Seq) { c.out.recall(c, seqs) }

// Cancelled implements mq.Sink.
func (c *consumer) Cancelled(error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	switch {
	case c.ended || c.lost:
	case c.started:
		c.out.lose(c)
	default:
		c.lost = true
	}
}

// qos handles basic.qos. Without global it is for each of the channel's
// consumers, those to come and, other than in RabbitMQ, those that are there
// (clients that adapt to their load rely on that), and it ends a channel-wide
// limit; with global it limits the consumers together, at once.
func (s *slot) qos(m *wire.BasicQos) error {
	if m.PrefetchSize != 0 {
		return mq.Errorf(mq.NotImplemented, "prefetch_size!=0 (%d)", m.PrefetchSize)
	}
	limit := 0
	if m.Global {
		limit = int(m.PrefetchCount)
	} else {
		s.ch.prefetch = m.PrefetchCount
		s.ch.shownPrefetch.Store(uint32(m.PrefetchCount))
	}
	s.conn.out.setLimit(s.ch, limit)
	live := s.conn.out.allConsumers(s.ch)
	live = slices.DeleteFunc(live, func(k *consumer) bool { return m.Global || k.noAck || k.prefetch == m.PrefetchCount })
	if len(live) == 0 {
		s.reply(&wire.BasicQosOk{})
		return nil
	}
	prefetch := m.PrefetchCount
	return s.slowly(func(ctx context.Context) error {
		for _, k := range live {
			k.prefetch = prefetch
			s.conn.session.Resize(ctx, k.id, uint32(prefetch))
		}
		s.reply(&wire.BasicQosOk{})
		return nil
	})
}

// consume handles basic.consume.
func (s *slot) consume(m *wire.BasicConsume) error {
	queue, err := s.queueName(m.Queue)
	if err != nil {
		return err
	}
	spec := mq.ConsumeSpec{
		Queue: queue, NoAck: m.NoAck, Exclusive: m.Exclusive, Prefetch: uint32(s.ch.prefetch), Args: m.Arguments,
	}
	if v, ok := m.Arguments.Get("x-priority"); ok {
		n, whole := mq.Int(v)
		if !whole || n != int64(int32(n)) {
			return mq.Errorf(mq.PreconditionFailed, "invalid arg 'x-priority' for queue '%s' in vhost '%s': \"expected integer, got %s\"",
				queue, s.conn.vhost, mq.TypeName(v))
		}
		spec.Priority = int32(n)
	}
	k := &consumer{out: s.conn.out, ch: s.ch, tag: m.ConsumerTag, noAck: m.NoAck, notify: s.conn.caps.consumerCancelNotify,
		count: &s.conn.server.count.consumers}
	k.prefetch = s.ch.prefetch
	if k.tag == "" {
		k.tag = newConsumerTag()
	}
	if s.conn.out.consumer(s.ch, k.tag) != nil {
		return mq.Errorf(mq.NotAllowed, "attempt to reuse consumer tag '%s'", k.tag)
	}
	if queue == replyQueue {
		return s.consumeReplies(m, k)
	}
	return s.slowly(func(ctx context.Context) error {
		id, err := s.conn.session.Consume(ctx, spec, k)
		if err != nil {
			return err
		}
		var ok wire.Method
		if !m.NoWait {
			ok = &wire.BasicConsumeOk{ConsumerTag: k.tag}
		}
		s.conn.out.start(k, id, ok)
		return nil
	})
}

// newConsumerTag makes a tag for a client that chose none.
func newConsumerTag() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "amq.ctag-" + base64.RawURLEncoding.EncodeToString(b[:])
}

// cancelConsumer handles basic.cancel. A tag that nobody has is fine: the
// broker may have cancelled it meanwhile (§1.8.3.5).
func (s *slot) cancelConsumer(m *wire.BasicCancel) error {
	k := s.conn.out.consumer(s.ch, m.ConsumerTag)
	done := func() {
		if !m.NoWait {
			s.reply(&wire.BasicCancelOk{ConsumerTag: m.ConsumerTag})
		}
	}
	if k == nil {
		done()
		return nil
	}
	if k == s.ch.replies {
		s.ch.replies, s.ch.replyTo = nil, ""
	}
	s.conn.out.leaving(k) // its queue may go with it
	return s.slowly(func(ctx context.Context) error {
		if err := s.conn.session.Cancel(ctx, k.id); err != nil && !s.conn.out.hasEnded(k) {
			return err
		}
		s.conn.out.endConsumer(k)
		if err := s.returnOrphans(); err != nil {
			return err
		}
		done()
		return nil
	})
}

// get handles basic.get.
func (s *slot) get(m *wire.BasicGet) error {
	queue, err := s.queueName(m.Queue)
	if err != nil {
		return err
	}
	return s.slowly(func(ctx context.Context) error {
		d, ok, err := s.conn.session.Get(ctx, queue, m.NoAck)
		switch {
		case err != nil:
			return err
		case !ok:
			s.conn.server.count.getEmpty.Add(1)
			s.reply(&wire.BasicGetEmpty{})
		default:
			s.conn.out.got(s.ch, &d, m.NoAck)
		}
		return nil
	})
}
