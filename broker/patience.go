package broker

import (
	"context"
	"math"
	"slices"
	"time"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// A consumer with a timeout may hold a delivery only for so long. Then its
// queue's leader takes that one delivery back: it is ready again, at its
// place, and the consumer's home is told, so that a late settlement of it
// counts for nothing. Nothing is proposed, unless it has to wait (retry.go): who holds what is not replicated. A
// settlement that the home sent before it was told is committed as any other.

const consumerTimeout = "x-consumer-timeout"

const (
	// patienceUnit is what dispatch counts time in: 32 bits are 13 years of it.
	patienceUnit = 100 * time.Millisecond
	// A queue is looked through when a delivery may be overdue, but not again
	// within a patienceLook-th of its shortest timeout, or patienceLookMax.
	patienceLook    = 10
	patienceLookMax = time.Second
)

// timeoutOf is how long a consumer may hold a delivery in milliseconds: what
// basic.consume says, or else what its queue says; 0 means for ever.
func timeoutOf(spec *mq.ConsumeSpec, q *meta.Queue) (ms uint64, err error) {
	v, stated := spec.Args.Get(consumerTimeout)
	if stated {
		if fault := isNotNegative(v, nil); fault != "" {
			return 0, mq.Errorf(mq.PreconditionFailed, "invalid arg '%s' for queue '%s' in vhost '%s': %s", consumerTimeout, q.Name, q.VHost, fault)
		}
		if n, _ := mq.Int(v); n > 0 {
			return uint64(n), nil
		}
	}
	return uint64(max(0, limit(q, consumerTimeout))), nil
}

// patience is a timeout in units.
func patience(timeoutMs uint64) uint32 {
	unitMs := uint64(patienceUnit.Milliseconds())
	return uint32(min((min(timeoutMs, math.MaxUint64-unitMs)+unitMs-1)/unitMs, math.MaxUint32-1))
}

// clock is the time for dispatch.
func (l *lead) clock() uint32 {
	return uint32(min(1+time.Since(l.began)/patienceUnit, math.MaxUint32))
}

// attach adds a consumer, or changes one.
func (l *lead) attach(q *ledQueue, c dispatch.Consumer) error {
	err := q.d.Attach(c)
	q.left, q.used = q.left && err != nil, q.used || err == nil
	if err == nil {
		l.await(q, c.Patience)
	}
	return err
}

// await notes that a queue has a consumer with a timeout, if it is not 0. The
// caller touches the queue.
func (l *lead) await(q *ledQueue, patience uint32) {
	if patience == 0 {
		return
	}
	q.d.Time(l.clock())
	if q.shortest == 0 || patience < q.shortest {
		q.shortest = patience
		q.stopWatching() // it may be due sooner
	}
}

// reschedule gives a consumer another timeout.
func (l *lead) reschedule(q *ledQueue, k dispatch.Key, patience uint32) {
	q.d.Reschedule(k, patience)
	l.await(q, patience)
}

// reschedule gives the consumers here the timeouts that queues have by now, as
// RabbitMQ does when a policy changes, and tells their leaders. One that stated
// a timeout keeps it.
func (b *Broker) reschedule(changed map[mq.QueueID]bool) {
	for _, c := range b.consumers.on(changed) {
		if q := b.View().QueueByID(c.queue.ID); q == nil || !c.reschedule(q) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), changeWait)
		if err := b.askAttach(ctx, c, true); err != nil { // the next leader is told with the consumer
			b.slog.Debug("consumer's timeout not changed", "queue", c.queue.Name, "err", err)
		}
		cancel()
	}
}

// reschedule takes the timeout that q gives the consumer, and says whether that
// is another one than it had.
func (c *consumer) reschedule(q *meta.Queue) bool {
	ms, err := timeoutOf(&c.spec, q)
	if err != nil || c.sink == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.timeoutMs
	c.timeoutMs = ms
	return before != ms
}

// watch sets the timer of a queue that has consumers with a timeout. Runs with
// mu held, after they had what they can take.
func (s *Shard) watch(q *ledQueue) {
	if q.overdue == nil && q.d.Unacked() > q.d.Withdrawn() {
		s.lookAgain(q, q.shortest+1)
	}
}

// lookAgain sets the timer of a queue to some units from now, but not beyond
// what the next delivery may have: its consumer's timeout can be the shortest.
func (s *Shard) lookAgain(q *ledQueue, units uint32) {
	l := s.lead
	units = min(units, q.shortest+1)
	wait := max(time.Duration(units)*patienceUnit, min(time.Duration(q.shortest)*patienceUnit/patienceLook, patienceLookMax))
	q.overdue = time.AfterFunc(wait, func() { s.lookForOverdue(l, q) })
}

func (s *Shard) lookForOverdue(l *lead, q *ledQueue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l || l.queues[q.id] != q {
		return
	}
	s.takeBack(q)
	s.dispatch()
}

// takeBack takes back what is overdue, and tells the homes before any of it is
// handed out again. Runs with mu held.
func (s *Shard) takeBack(q *ledQueue) {
	l, now := s.lead, s.lead.clock()
	q.d.Time(now)
	var taken map[dispatch.Key][]mq.Seq
	next, waits := q.d.TakeBack(func(k dispatch.Key, seq mq.Seq) {
		if taken == nil {
			taken = map[dispatch.Key][]mq.Seq{}
		}
		taken[k] = append(taken[k], seq)
	})
	for k, seqs := range taken {
		s.stats.Returned += uint64(len(seqs))
		s.stats.Recalled += uint64(len(seqs))
		s.slog.Warn("consumer timeout, deliveries taken back", "vhost", q.rec.VHost, "queue", q.rec.Name,
			"peer", l.nodeOf[k.Session], "deliveries", len(seqs))
		s.recall(q, k, seqs)
		if q.rules.retry.returned { // else it is ready by now, and nothing has to be written
			s.countBack(q, false, func(each func(mq.Seq)) {
				for _, seq := range seqs {
					q.d.Withdraw(seq)
					each(seq)
				}
			})
		}
		l.touch(q)
	}
	q.stopWatching()
	if waits {
		s.lookAgain(q, next-now)
	}
}

// stopWatching stops the timer.
func (q *ledQueue) stopWatching() {
	if q.overdue != nil {
		q.overdue.Stop()
		q.overdue = nil
	}
}

// recall tells a consumer's home that deliveries were taken back.
func (s *Shard) recall(q *ledQueue, k dispatch.Key, seqs []mq.Seq) {
	f := fields.AppendUint([]byte{frameRecall}, uint64(s.group))
	f = fields.AppendUint(f, s.lead.term)
	f = fields.AppendUint(f, 1)
	s.lane.Send(s.lead.nodeOf[k.Session], appendHeld(f, q.id, k.Consumer, seqs))
}

// recalled hears that this group's leader has taken deliveries back from
// consumers here. A lost frame does no harm: the next resume lists them, and
// they are the consumer's again unless another one has them by then.
func (b *Broker) recalled(from mq.NodeID, p *parser) {
	g, term := mq.GroupID(p.Uint()), p.Uint()
	what := parseHeld(p)
	if p.Err() != nil {
		b.slog.Warn("malformed recall dropped", "peer", from)
		return
	}
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if k, ok, _ := b.leaders.of(g); !ok || k.node != from || k.term != term {
		return // the present leader was told that they are held here
	}
	for _, h := range what {
		c := b.consumers.get(h.consumer)
		if c == nil || c.queue.ID != h.queue {
			continue
		}
		c.recall(h.seqs)
		c.session.tidy(c)
	}
}

// recall forgets deliveries that the leader has taken back, and tells the sink
// of those that the client has not settled. What did not come as far as that
// just goes.
func (c *consumer) recall(seqs []mq.Seq) {
	c.passing.Lock()
	defer c.passing.Unlock()
	c.mu.Lock()
	waited := c.waiting.dropThose(c.session.broker, func(a *arrival) bool { return slices.Contains(seqs, a.d.Seq) })
	gone := make([]mq.Seq, 0, len(seqs))
	for _, seq := range seqs {
		if c.held.remove(seq) {
			gone = append(gone, seq)
		}
	}
	c.mu.Unlock()
	c.creditBack(waited)
	if to, ok := c.sink.(mq.Recaller); ok && len(gone) > 0 {
		to.Recalled(gone)
	}
}
