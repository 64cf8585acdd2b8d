package amqp

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// Ids of class channel and of the hot methods of class basic.
const (
	classChannel         = 20
	methodOpen           = 10
	methodClose          = 40
	methodChannelCloseOk = 41

	methodPublish = 40
	methodAck     = 80
	methodReject  = 90
	methodNack    = 120
)

// channel is one opened channel. Its fields belong to whoever has its slot's
// baton, but the ledger, which outbox.mu guards.
type channel struct {
	number   uint16
	current  string    // the queue that an empty name means: the last one declared
	prefetch uint16    // for consumers to come
	confirms *confirms // nil unless confirm.select
	tx       *tx       // nil unless tx.select
	replies  *consumer // of direct replies; nil if there is none
	replyTo  string    // the name under which replies reach it
	gathered gathered
	ledger   ledger

	// The same for operators, who look from other goroutines.
	confirming    atomic.Pointer[confirms]
	transactional atomic.Bool
	shownPrefetch atomic.Uint32
}

// run carries out a method that is not of the hot path.
func (s *slot) run(m wire.Method) error {
	if !s.away {
		s.conn.unanswered = false
	}
	switch m := m.(type) {
	case *wire.ChannelOpen:
		return s.open()
	case *wire.ChannelClose:
		s.close()
	case *wire.ChannelCloseOk:
		return nil // of a close that has been answered otherwise
	case *wire.ChannelFlow:
		if !m.Active {
			return mq.Errorf(mq.NotImplemented, "active=false")
		}
		s.reply(&wire.ChannelFlowOk{Active: true})
	case *wire.ChannelFlowOk:
		return nil
	case *wire.AccessRequest:
		s.reply(&wire.AccessRequestOk{Ticket: 1})

	case *wire.ExchangeDeclare:
		return s.exchangeDeclare(m)
	case *wire.ExchangeDelete:
		return s.exchangeDelete(m)
	case *wire.ExchangeBind:
		return s.exchangeBind(m)
	case *wire.ExchangeUnbind:
		return s.exchangeUnbind(m)

	case *wire.QueueDeclare:
		return s.queueDeclare(m)
	case *wire.QueueBind:
		return s.queueBind(m)
	case *wire.QueueUnbind:
		return s.queueUnbind(m)
	case *wire.QueuePurge:
		return s.queuePurge(m)
	case *wire.QueueDelete:
		return s.queueDelete(m)

	case *wire.BasicQos:
		return s.qos(m)
	case *wire.BasicConsume:
		return s.consume(m)
	case *wire.BasicCancel:
		return s.cancelConsumer(m)
	case *wire.BasicCancelOk:
		return nil // some clients answer our basic.cancel
	case *wire.BasicGet:
		return s.get(m)
	case *wire.BasicRecover:
		return s.recover(m.Requeue, &wire.BasicRecoverOk{})
	case *wire.BasicRecoverAsync:
		return s.recover(m.Requeue, nil)

	case *wire.ConfirmSelect:
		return s.confirmSelect(m)
	case *wire.TxSelect:
		return s.txSelect()
	case *wire.TxCommit:
		return s.txCommit()
	case *wire.TxRollback:
		return s.txRollback()
	default: // a method of the server, or of channel 0
		return mq.Errorf(mq.CommandInvalid, "unimplemented method")
	}
	return nil
}

func (s *slot) open() error {
	if s.ch != nil {
		return mq.Errorf(mq.ChannelError, "second 'channel.open' seen")
	}
	if err := s.conn.session.OpenChannel(s.conn.ctx); err != nil {
		return err
	}
	s.ch, s.left = &channel{number: s.number}, time.Time{}
	s.conn.list(s.ch)
	s.conn.server.count.channelsOpened.Add(1)
	s.conn.channels.Add(1)
	s.reply(&wire.ChannelOpenOk{})
	return nil
}

// close ends the channel as the client asked.
func (s *slot) close() {
	ch := s.ch
	s.settleBeforeLeaving()
	s.leave(ch, func() {
		s.left = time.Now()
		s.conn.out.closing(ch, &wire.ChannelCloseOk{})
	})
}

// leave takes a channel out of the slot: its consumers end, and what its client
// holds goes back to the queues. answer runs when that is done.
func (s *slot) leave(ch *channel, answer func()) {
	c := s.conn
	consumers := c.out.allConsumers(ch)
	for _, k := range consumers {
		c.out.leaving(k)
	}
	finish := func(ctx context.Context) error {
		defer answer()
		for _, k := range consumers {
			if err := c.session.Cancel(ctx, k.id); err != nil {
				c.log.Warn("cancel consumer of a closed channel", "chan", ch.number, "err", err)
			}
			c.out.endConsumer(k)
		}
		held := c.out.drainLedger(ch)
		if len(held) == 0 {
			return nil
		}
		c.server.count.requeued.Add(uint64(len(held)))
		if err := c.session.Settle(ctx, mq.Settlement{Verdict: mq.Fail, Held: held}); err != nil && c.ctx.Err() == nil {
			c.log.Warn("requeue for a closed channel", "chan", ch.number, "messages", len(held), "err", err)
		}
		return nil
	}
	s.ch = nil
	c.session.CloseChannel()
	c.unlist(ch)
	c.server.count.channelsClosed.Add(1)
	c.channels.Add(-1)
	// Neither way can fail: finish answers nil.
	if len(consumers) > 0 {
		_ = s.slowly(finish)
		return
	}
	_ = finish(c.ctx)
}

// reply sends a method on the channel.
func (s *slot) reply(m wire.Method) { s.conn.out.reply(s.ch, m) }

// change carries out a topology change and then calls done with the answer.
func (s *slot) change(op mq.Op, done func(mq.Reply)) error {
	return s.slowly(func(ctx context.Context) error {
		r, err := s.conn.session.Change(ctx, op)
		if err == nil {
			done(r)
		}
		return err
	})
}

// answer is a done for change: it replies with m unless the client waits for
// nothing.
func (s *slot) answer(noWait bool, m wire.Method) func(mq.Reply) {
	return func(mq.Reply) {
		if !noWait {
			s.reply(m)
		}
	}
}

// queueName returns the name that a queue argument means: an empty one is the
// last queue declared on the channel (§1.7.2.3).
func (s *slot) queueName(name string) (string, error) {
	if name = strip(name); name != "" {
		return name, nil
	}
	if s.ch.current == "" {
		return "", mq.Errorf(mq.NotFound, "no previously declared queue")
	}
	return s.ch.current, nil
}

// strip takes CR and LF out of a name, as RabbitMQ does.
func strip(name string) string {
	if !strings.ContainsAny(name, "\r\n") {
		return name
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(name)
}
