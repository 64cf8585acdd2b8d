package broker

import (
	"context"

	"warren/mq"
)

// Settle settles deliveries.
func (s *Session) Settle(_ context.Context, st mq.Settlement) error {
	w := waiter{}
	if st.Confirm != nil {
		w = waiter{confirm: newJoint(countRuns(st.Held), waiter{confirm: st.Confirm, tag: st.Tag})}
		if len(st.Held) == 0 {
			st.Confirm.Confirm(st.Tag, mq.Confirmed)
			return nil
		}
	}
	for rest := st.Held; len(rest) > 0; {
		n := runOf(rest)
		s.settleRun(st.Verdict, rest[:n], w)
		rest = rest[n:]
	}
	return nil
}

// runOf is how many deliveries at the front are of one consumer with rising,
// gapless places.
func runOf(h []mq.Held) int {
	n := 1
	for n < len(h) && h[n].Consumer == h[0].Consumer && h[n].Queue == h[0].Queue && h[n].Seq == h[n-1].Seq+1 {
		n++
	}
	return n
}

func countRuns(h []mq.Held) (runs int) {
	for len(h) > 0 {
		h = h[runOf(h):]
		runs++
	}
	return runs
}

func (s *Session) settleRun(v mq.Verdict, run []mq.Held, w waiter) {
	first, last := run[0], run[len(run)-1]
	c := s.broker.consumers.get(first.Consumer)
	kind := byte(0)
	switch {
	case v == mq.Requeue:
		kind = frameReturn
	case v == mq.Fail:
		kind = frameFail
	case v == mq.Discard && s.broker.deadLetters(first.Queue):
		kind = frameReject
	}
	if kind != 0 {
		s.broker.giveBack(kind, c, first, last)
		if w.confirm != nil {
			w.confirm.Confirm(w.tag, mq.Confirmed)
		}
	} else {
		s.settleRange(c, first, last, w)
	}
	if c != nil && c.sink != nil && c.idle() {
		s.forget(c)
	}
}

// settleRange puts a range into its group's outbox and forgets it here, as
// one step in the eyes of a new leader: it is told either that the range is
// held, or before that, that it is settled.
func (s *Session) settleRange(c *consumer, first, last mq.Held, w waiter) {
	b := s.broker
	o, err := b.outbox(first.Group)
	b.resuming.RLock()
	taken := err == nil && o.settle(first.Queue, first.Seq, last.Seq, w)
	if c != nil {
		c.release(first.Seq, last.Seq)
	}
	b.resuming.RUnlock()
	switch {
	case taken:
		s.touch(o)
	case w.confirm != nil: // the queue is gone, and all its messages with it
		w.confirm.Confirm(w.tag, mq.Confirmed)
	}
}

// giveBack returns messages to the leader: to their place, or to be
// dead-lettered (frameReject). If there is no leader, or the frame is lost with
// a connection, the next one finds that nobody holds them, and they are ready
// again: also what was rejected is then handed out once more rather than lost.
func (b *Broker) giveBack(kind byte, c *consumer, first, last mq.Held) {
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if c != nil {
		c.release(first.Seq, last.Seq)
	}
	k, ok, _ := b.leaders.of(first.Group)
	if !ok {
		return
	}
	seqs := make([]mq.Seq, 0, last.Seq-first.Seq+1)
	for q := first.Seq; q <= last.Seq; q++ {
		seqs = append(seqs, q)
	}
	b.sendReturn(kind, first.Group, k.node, k.term, []heldBy{{first.Queue, first.Consumer, seqs}})
}
