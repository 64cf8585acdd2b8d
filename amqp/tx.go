package amqp

import (
	"context"
	"sync/atomic"

	"warren/amqp/wire"
	"warren/mq"
)

// txBytesMax is how much the publishes of one transaction may take.
const txBytesMax = 64 << 20

// tx is what a transactional channel will do at tx.commit. What it settles
// stays marked in the channel's ledger until then.
type tx struct {
	publishes []mq.Publish
	bytes     int
	settles   []mq.Settlement
}

var errNotTransactional = mq.Errorf(mq.PreconditionFailed, "channel is not transactional")

func (s *slot) txSelect() error {
	if s.ch.confirms != nil {
		return mq.Errorf(mq.PreconditionFailed, "cannot switch from confirm to tx mode")
	}
	if s.ch.tx == nil {
		if err := s.flushSettlements(); err != nil {
			return err
		}
		s.ch.tx = &tx{}
		s.ch.transactional.Store(true)
	}
	s.reply(&wire.TxSelectOk{})
	return nil
}

// keep puts a publish off until the commit.
func (t *tx) keep(p *mq.Publish) error {
	t.bytes += len(p.Content) + itemBytes
	if t.bytes > txBytesMax {
		return mq.Errorf(mq.PreconditionFailed, "transaction is larger than %d bytes", txBytesMax)
	}
	t.publishes = append(t.publishes, *p)
	*p = mq.Publish{}
	return nil
}

// settle puts a settlement off until the commit.
func (t *tx) settle(out *outbox, ch *channel, v mq.Verdict, tag uint64, multiple bool) error {
	if n := len(t.settles); n == 0 || t.settles[n-1].Verdict != v {
		t.settles = append(t.settles, mq.Settlement{Verdict: v})
	}
	last := &t.settles[len(t.settles)-1]
	var ok bool
	if last.Held, ok = out.settling(ch, tag, multiple, last.Held); !ok {
		return unknownTag(tag)
	}
	return nil
}

// txCommit hands everything over and answers once all of it is kept. Its
// publishes wait as any others do while an alarm holds publishers back, for as
// long as that lasts; only what comes after that has a limit.
func (s *slot) txCommit() error {
	t := s.ch.tx
	if t == nil {
		return errNotTransactional
	}
	return s.unhurried(func(ctx context.Context) error {
		w := newTally()
		err := s.commit(ctx, t, w)
		settled := 0
		for _, settle := range t.settles {
			settled += len(settle.Held)
		}
		*t = tx{}
		if err != nil {
			return err
		}
		s.conn.out.settled(s.ch, settled) // the broker has them
		s.conn.session.Flush()
		w.Confirm(0, mq.Confirmed) // the tally's own
		ctx, cancel := s.limited(ctx)
		defer cancel()
		select {
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if w.rejected.Load() {
			return mq.Errorf(mq.PreconditionFailed, "partial tx completion")
		}
		if err := s.returnOrphans(); err != nil {
			return err
		}
		s.reply(&wire.TxCommitOk{})
		return nil
	})
}

// commit hands over publishes, then settlements.
func (s *slot) commit(ctx context.Context, t *tx, w *tally) error {
	for i := range t.publishes {
		p := &t.publishes[i]
		p.Confirm = w
		w.left.Add(1)
		outcome, err := s.conn.session.Publish(ctx, p)
		s.conn.goesOn()
		if err != nil {
			return err
		}
		if outcome == mq.Unroutable && p.Mandatory {
			s.conn.out.giveBack(s.ch, p.Content, 0)
		}
		if outcome != mq.Pending {
			w.Confirm(0, outcome)
		}
	}
	for _, settle := range t.settles {
		if len(settle.Held) == 0 {
			continue
		}
		s.countSettled(settle.Verdict, len(settle.Held))
		settle.Confirm = w
		w.left.Add(1)
		if err := s.conn.session.Settle(ctx, settle); err != nil {
			return err
		}
	}
	return nil
}

func (s *slot) txRollback() error {
	if s.ch.tx == nil {
		return errNotTransactional
	}
	*s.ch.tx = tx{}
	s.conn.out.unsettle(s.ch) // they are not delivered again
	s.reply(&wire.TxRollbackOk{})
	return nil
}

// tally waits for a number of outcomes. It starts with one of its own, so that
// it cannot be done before all are under way.
type tally struct {
	left     atomic.Int64
	rejected atomic.Bool
	done     chan struct{} // closed when left is 0
}

func newTally() *tally {
	w := &tally{done: make(chan struct{})}
	w.left.Store(1)
	return w
}

// Confirm implements mq.Confirmer.
func (w *tally) Confirm(_ uint64, o mq.Outcome) {
	if o.Nacked() {
		w.rejected.Store(true)
	}
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}
