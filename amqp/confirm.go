package amqp

import (
	"warren/amqp/wire"
	"warren/mq"
)

// confirmSelect handles confirm.select; a second one changes nothing.
func (s *slot) confirmSelect(m *wire.ConfirmSelect) error {
	if s.ch.tx != nil {
		return mq.Errorf(mq.PreconditionFailed, "cannot switch from tx to confirm mode")
	}
	if s.ch.confirms == nil {
		s.ch.confirms = newConfirms(s.conn.out, s.ch)
		s.ch.confirming.Store(s.ch.confirms)
	}
	if !m.NoWait {
		s.reply(&wire.ConfirmSelectOk{})
	}
	return nil
}
