package amqp

import (
	"warren/amqp/wire"
	"warren/mq"
)

func (s *slot) exchangeDeclare(m *wire.ExchangeDeclare) error {
	return s.change(mq.ExchangeDeclare{
		Name: strip(m.Exchange), Type: m.Type,
		Passive: m.Passive, Durable: m.Durable, AutoDelete: m.AutoDelete, Internal: m.Internal,
		Args: m.Arguments,
	}, s.answer(m.NoWait, &wire.ExchangeDeclareOk{}))
}

func (s *slot) exchangeDelete(m *wire.ExchangeDelete) error {
	return s.change(mq.ExchangeDelete{Name: strip(m.Exchange), IfUnused: m.IfUnused},
		s.answer(m.NoWait, &wire.ExchangeDeleteOk{}))
}

func (s *slot) exchangeBind(m *wire.ExchangeBind) error {
	return s.change(mq.ExchangeBind{
		Destination: strip(m.Destination), Source: strip(m.Source), RoutingKey: m.RoutingKey, Args: m.Arguments,
	}, s.answer(m.NoWait, &wire.ExchangeBindOk{}))
}

func (s *slot) exchangeUnbind(m *wire.ExchangeUnbind) error {
	return s.change(mq.ExchangeUnbind{
		Destination: strip(m.Destination), Source: strip(m.Source), RoutingKey: m.RoutingKey, Args: m.Arguments,
	}, s.answer(m.NoWait, &wire.ExchangeUnbindOk{}))
}
