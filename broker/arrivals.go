package broker

import (
	"context"
	"slices"

	"warren/mq"
)

// arrivals are the messages that have come for one client's consumer and have
// not reached its sink: the body of the first one is being fetched, and the
// others wait behind it, whole or not. Link credit bounds them. Whoever has
// them guards them with a mutex of its own.
type arrivals struct {
	line []*arrival
	busy bool // a goroutine hands them on
}

type arrival struct {
	d    mq.Delivery
	body *borrowed // nil: d is whole
	// passing says that it is being handed to the sink. It is in line still, so
	// that nothing overtakes it.
	passing bool
	ctx     context.Context // of its fetch
	cancel  context.CancelFunc
}

func newArrival(d mq.Delivery, body *borrowed) *arrival {
	a := &arrival{d: d, body: body}
	if body != nil {
		a.ctx, a.cancel = context.WithCancel(context.Background())
	}
	return a
}

// bytes is what the message counts for in link credit.
func (a *arrival) bytes() int {
	if a.body != nil {
		return a.body.bytes()
	}
	return len(a.d.Content)
}

// fetch makes the message whole.
func (a *arrival) fetch(b *Broker) (err error) {
	if a.body != nil {
		defer a.cancel()
		a.d.Content, err = b.fetch(a.ctx, a.body)
	}
	return err
}

// forget ends what is done for a message that nobody waits for any more.
func (a *arrival) forget(b *Broker) {
	if a.body != nil {
		a.cancel()
		b.repay(a.body)
	}
}

// add puts a message at the end; start says that a goroutine has to be started.
func (as *arrivals) add(a *arrival) (start bool) {
	as.line = append(as.line, a)
	start, as.busy = !as.busy, true
	return start
}

// first is what comes next, nil if nothing does: then the goroutine ends.
func (as *arrivals) first() *arrival {
	if len(as.line) == 0 {
		as.line, as.busy = nil, false
		return nil
	}
	return as.line[0]
}

// isFirst reports whether a message is still wanted.
func (as *arrivals) isFirst(a *arrival) bool { return len(as.line) > 0 && as.line[0] == a }

// shift takes the first message off.
func (as *arrivals) shift() {
	as.line[0] = nil
	as.line = as.line[1:]
}

// drop takes everything off that is not in the sink's hands.
func (as *arrivals) drop(b *Broker) (dropped []*arrival) {
	return as.dropThose(b, func(*arrival) bool { return true })
}

func (as *arrivals) dropThose(b *Broker, which func(*arrival) bool) (dropped []*arrival) {
	as.line = slices.DeleteFunc(as.line, func(a *arrival) bool {
		if a.passing || !which(a) {
			return false
		}
		a.forget(b)
		dropped = append(dropped, a)
		return true
	})
	return dropped
}

// lent takes a message for a consumer here whose body its leader lends.
func (b *Broker) lent(from mq.NodeID, p *parser) {
	g, term := mq.GroupID(p.Uint()), p.Uint()
	d := mq.Delivery{Group: g, Queue: mq.QueueID(p.Uint()), Consumer: mq.ConsumerID(p.Uint()), Seq: mq.Seq(p.Uint()), Redelivered: p.Bool()}
	body := parseBorrowed(from, p)
	if p.Err() != nil {
		b.slog.Error("malformed delivery dropped", "peer", from, "group", uint64(g))
		return
	}
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if k, ok, _ := b.leaders.of(g); !ok || k.node != from || k.term != term {
		b.repay(body)
		return // as in deliver
	}
	if c := b.consumers.get(d.Consumer); c == nil || !c.borrow(d, body) {
		b.repay(body)
		b.sendReturn(frameReturn, g, from, term, []heldBy{{d.Queue, d.Consumer, []mq.Seq{d.Seq}}})
		b.disown(leftover{g, d.Queue, d.Consumer, true})
	}
}

// borrow is deliver for a message whose body is elsewhere.
func (c *consumer) borrow(d mq.Delivery, body *borrowed) bool {
	b := c.session.broker
	c.mu.Lock()
	waits := len(c.waiting.line) > 0
	c.mu.Unlock()
	if !waits { // and nothing begins to wait: calls do not overlap
		if content, ok := b.own(body); ok {
			d.Content = content
			return c.deliver(d)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.sink == nil {
		return false
	}
	if c.waiting.add(newArrival(d, body)) {
		go c.receive()
	}
	return true
}

// receive hands on what waits, until nothing does.
func (c *consumer) receive() {
	for {
		c.mu.Lock()
		a := c.waiting.first()
		c.mu.Unlock()
		if a == nil {
			return
		}
		if err := a.fetch(c.session.broker); err != nil {
			c.giveUp(a, err)
		} else {
			c.pass(a)
		}
	}
}

// pass hands the first message on, if it is still wanted. Only from now on is it
// held, as one step in the eyes of a new leader.
func (c *consumer) pass(a *arrival) {
	b := c.session.broker
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	c.passing.Lock()
	defer c.passing.Unlock()
	c.mu.Lock()
	wanted := !c.ended && c.waiting.isFirst(a)
	if wanted {
		a.passing = true
		if !c.spec.NoAck {
			c.held.add(a.d.Seq)
		}
	}
	c.mu.Unlock()
	if !wanted {
		return
	}
	c.hand(a.d)
	c.mu.Lock()
	c.waiting.shift()
	c.mu.Unlock()
}

// giveUp ends the wait for a body that cannot be had. The message goes back, and
// with it all that waits behind it, which would overtake it otherwise. What was
// sent without ack is its client's, and of that only the one message is lost, as
// it is with a connection.
func (c *consumer) giveUp(a *arrival, err error) {
	b := c.session.broker
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	c.mu.Lock()
	var back []*arrival
	if c.waiting.isFirst(a) {
		back = c.waiting.dropThose(b, func(x *arrival) bool { return x == a || !c.spec.NoAck })
	}
	c.mu.Unlock()
	if len(back) == 0 {
		return // it is the new leader's
	}
	b.slog.Debug("large message not fetched", "queue", c.queue.Name, "err", err)
	if !c.spec.NoAck {
		b.giveWaitingBack(c, back)
	}
	c.creditBack(back)
}

// creditBack gives back the link credit of what did not come to the sink.
func (c *consumer) creditBack(dropped []*arrival) {
	bytes := 0
	for _, a := range dropped {
		bytes += a.bytes()
	}
	if len(dropped) > 0 {
		c.session.Drained(c.id, len(dropped), bytes)
	}
}

// giveWaitingBack returns to the leader what waited here and is not held. Runs
// with resuming read.
func (b *Broker) giveWaitingBack(c *consumer, what []*arrival) {
	k, ok, _ := b.leaders.of(c.queue.Group)
	if !ok || len(what) == 0 {
		return // the next one is not told of it
	}
	seqs := make([]mq.Seq, len(what))
	for i, a := range what {
		seqs[i] = a.d.Seq
	}
	slices.Sort(seqs)
	b.sendReturn(frameReturn, c.queue.Group, k.node, k.term, []heldBy{{c.queue.ID, c.id, seqs}})
}

// dropWaiting forgets what waits, for a leader that is told what is held here:
// it hands it out again. What was sent without ack it does not have any more.
func (c *consumer) dropWaiting() {
	if c.spec.NoAck {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting.drop(c.session.broker)
}
