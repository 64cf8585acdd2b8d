package amqp

import (
	"context"

	"warren/amqp/wire"
	"warren/mq"
)

func (s *slot) queueDeclare(m *wire.QueueDeclare) error {
	return s.change(mq.QueueDeclare{
		Name:    strip(m.Queue),
		Passive: m.Passive, Durable: m.Durable, Exclusive: m.Exclusive, AutoDelete: m.AutoDelete,
		Args: m.Arguments,
	}, func(r mq.Reply) {
		s.ch.current = r.Queue
		if !m.Passive {
			s.conn.server.count.queuesDeclared.Add(1)
		}
		if !m.NoWait {
			s.reply(&wire.QueueDeclareOk{Queue: r.Queue, MessageCount: r.Messages, ConsumerCount: r.Consumers})
		}
	})
}

func (s *slot) queueBind(m *wire.QueueBind) error {
	name, key, err := s.bindingNames(m.Queue, m.RoutingKey)
	if err != nil {
		return err
	}
	return s.change(mq.QueueBind{Queue: name, Exchange: strip(m.Exchange), RoutingKey: key, Args: m.Arguments},
		s.answer(m.NoWait, &wire.QueueBindOk{}))
}

func (s *slot) queueUnbind(m *wire.QueueUnbind) error {
	name, key, err := s.bindingNames(m.Queue, m.RoutingKey)
	if err != nil {
		return err
	}
	return s.change(mq.QueueUnbind{Queue: name, Exchange: strip(m.Exchange), RoutingKey: key, Args: m.Arguments},
		s.answer(false, &wire.QueueUnbindOk{})) // it has no no-wait
}

// bindingNames is queueName for bindings, where an empty routing key together
// with an empty queue name means the current queue's name too (§1.7.2.3).
func (s *slot) bindingNames(queue, key string) (string, string, error) {
	name, err := s.queueName(queue)
	if err == nil && strip(queue) == "" && key == "" {
		key = name
	}
	return name, key, err
}

func (s *slot) queuePurge(m *wire.QueuePurge) error {
	name, err := s.queueName(m.Queue)
	if err != nil {
		return err
	}
	return s.change(mq.QueuePurge{Name: name}, func(r mq.Reply) {
		if !m.NoWait {
			s.reply(&wire.QueuePurgeOk{MessageCount: r.Messages})
		}
	})
}

func (s *slot) queueDelete(m *wire.QueueDelete) error {
	name, err := s.queueName(m.Queue)
	if err != nil {
		return err
	}
	ch := s.ch
	return s.slowly(func(ctx context.Context) error {
		s.conn.out.holdCancels(ch)
		defer s.conn.out.tellCancels(ch)
		r, err := s.conn.session.Change(ctx, mq.QueueDelete{Name: name, IfUnused: m.IfUnused, IfEmpty: m.IfEmpty})
		if err == nil && !m.NoWait {
			s.reply(&wire.QueueDeleteOk{MessageCount: r.Messages})
		}
		return err
	})
}
