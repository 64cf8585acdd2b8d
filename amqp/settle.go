package amqp

import (
	"encoding/binary"

	"warren/amqp/wire"
	"warren/mq"
)

// gatheredMax is how many settlements are gathered before the broker hears.
const gatheredMax = 256

// gathered are settlements of one verdict that the broker has not been told.
// The channel's ledger has them marked.
type gathered struct {
	verdict mq.Verdict
	held    []mq.Held
}

// gathers reports whether a frame lets its channel's settlements wait for
// more: acks come between publishes and other acks.
func gathers(f wire.Frame) bool {
	if f.Type != wire.FrameMethod {
		return true
	}
	if len(f.Payload) < 4 || binary.BigEndian.Uint16(f.Payload) != classBasic {
		return false
	}
	switch binary.BigEndian.Uint16(f.Payload[2:]) {
	case methodPublish, methodAck, methodNack, methodReject:
		return true
	}
	return false
}

// settlement handles basic.ack, basic.nack and basic.reject.
func (s *slot) settlement(method uint16, payload []byte) error {
	switch method {
	case methodAck:
		var m wire.BasicAck
		if err := wire.ParseAck(payload, &m); err != nil {
			return err
		}
		return s.settle(mq.Ack, m.DeliveryTag, m.Multiple)
	case methodNack:
		var m wire.BasicNack
		if err := wire.ParseNack(payload, &m); err != nil {
			return err
		}
		return s.settle(verdict(m.Requeue, mq.Requeue), m.DeliveryTag, m.Multiple)
	default:
		var m wire.BasicReject
		if err := wire.ParseReject(payload, &m); err != nil {
			return err
		}
		return s.settle(verdict(m.Requeue, mq.Fail), m.DeliveryTag, false)
	}
}

// verdict is what a nack or a reject says. With requeue the two differ: only a
// reject says that the message failed (RabbitMQ, "Quorum Queues").
func verdict(requeue bool, back mq.Verdict) mq.Verdict {
	if requeue {
		return back
	}
	return mq.Discard
}

// settle marks what the client names and gathers it for the broker.
func (s *slot) settle(v mq.Verdict, tag uint64, multiple bool) error {
	ch, c := s.ch, s.conn
	g := &ch.gathered
	if len(g.held) > 0 && g.verdict != v {
		if err := s.flushSettlements(); err != nil {
			return err
		}
	}
	g.verdict = v
	var ok bool
	if ch.tx != nil {
		return ch.tx.settle(c.out, ch, v, tag, multiple)
	}
	if g.held, ok = c.out.settling(ch, tag, multiple, g.held); !ok {
		return unknownTag(tag)
	}
	if s.away || len(g.held) >= gatheredMax {
		return s.flushSettlements()
	}
	c.gathering = s
	return nil
}

func unknownTag(tag uint64) *mq.Error {
	return mq.Errorf(mq.PreconditionFailed, "unknown delivery tag %d", tag)
}

// flushSettlements tells the broker what was gathered, and only then forgets
// the tags: what the broker was not told, this side still holds.
func (s *slot) flushSettlements() error {
	ch := s.ch
	if ch == nil || len(ch.gathered.held) == 0 {
		return nil
	}
	g, n := &ch.gathered, len(ch.gathered.held)
	s.countSettled(g.verdict, n)
	err := s.conn.session.Settle(s.conn.ctx, mq.Settlement{Verdict: g.verdict, Held: g.held})
	if cap(g.held) > 4096 {
		g.held = nil
	}
	g.held = g.held[:0]
	if err != nil {
		return err
	}
	s.conn.out.settled(ch, n)
	return s.returnOrphans()
}

// settleBeforeLeaving tells the broker what was gathered before an error or a
// close: the client has settled it.
func (s *slot) settleBeforeLeaving() {
	c := s.conn
	if !s.away && c.gathering == s {
		c.gathering = nil
	}
	if err := s.flushSettlements(); err != nil && c.ctx.Err() == nil {
		c.log.Warn("settle for a closing channel", "chan", s.number, "err", err)
	}
}

// returnOrphans gives back what came for consumers that had ended.
func (s *slot) returnOrphans() error {
	orphans := s.conn.out.takeOrphans(s.ch)
	if len(orphans) == 0 {
		return nil
	}
	s.countSettled(mq.Requeue, len(orphans))
	return s.conn.session.Settle(s.conn.ctx, mq.Settlement{Verdict: mq.Requeue, Held: orphans})
}

func (s *slot) countSettled(v mq.Verdict, n int) {
	count := &s.conn.server.count
	switch v {
	case mq.Ack:
		count.acked.Add(uint64(n))
	case mq.Requeue, mq.Fail:
		count.requeued.Add(uint64(n))
	case mq.Discard:
		count.discarded.Add(uint64(n))
	}
}

// recover handles basic.recover and, without an answer, basic.recover-async:
// all that is unsettled on the channel goes back.
func (s *slot) recover(requeue bool, answer wire.Method) error {
	if !requeue {
		return mq.Errorf(mq.NotImplemented, "requeue=false")
	}
	if err := s.flushSettlements(); err != nil {
		return err
	}
	held, _ := s.conn.out.settling(s.ch, 0, true, nil)
	if len(held) > 0 {
		s.countSettled(mq.Requeue, len(held))
		if err := s.conn.session.Settle(s.conn.ctx, mq.Settlement{Verdict: mq.Requeue, Held: held}); err != nil {
			return err
		}
		s.conn.out.settled(s.ch, len(held))
	}
	if answer != nil {
		s.reply(answer)
	}
	return nil
}
