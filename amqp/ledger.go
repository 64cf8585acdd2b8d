package amqp

import (
	"slices"

	"warren/amqp/wire"
	"warren/mq"
)

// ledger is what a channel delivered, and to whom. Guarded by outbox.mu.
type ledger struct {
	lastTag   uint64
	unacked   unacked
	consumers map[string]*consumer // by tag; those that the client knows
	// limit is the channel-wide prefetch count (basic.qos global), 0 for none.
	limit int
	// parked are deliveries that the limit keeps from the client, oldest first.
	// The link credit of their consumers bounds them.
	parked []parkedDelivery
	// orphans came for a channel or a consumer that had ended, and go back to
	// their queues.
	orphans []mq.Held
	closed  bool
	// While the client deletes a queue, the cancels of its consumers are held:
	// what waits for delete-ok does not expect them before it (RabbitMQ's order).
	holds   bool
	cancels []item
}

type parkedDelivery struct {
	consumer *consumer
	delivery mq.Delivery
}

// deliver queues a delivery of a consumer, or keeps it until it may go out.
func (o *outbox) deliver(c *consumer, d *mq.Delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &c.ch.ledger
	switch {
	case l.closed || c.ended:
		if !c.noAck {
			l.orphans = append(l.orphans, d.Held())
		}
	case !c.started: // before basic.consume-ok
		c.early = append(c.early, *d)
	case l.mustPark(c):
		l.parked = append(l.parked, parkedDelivery{c, *d})
	default:
		o.send(c, d)
	}
}

// mustPark reports whether the channel-wide limit keeps a delivery of c back.
// Consumers without ack are not limited.
func (l *ledger) mustPark(c *consumer) bool {
	return !c.noAck && (len(l.parked) > 0 || l.limit > 0 && l.unacked.counted >= l.limit)
}

// send gives a delivery its tag and its place. mu is held.
func (o *outbox) send(c *consumer, d *mq.Delivery) {
	l := &c.ch.ledger
	l.lastTag++
	if !c.noAck {
		l.unacked.push(l.lastTag, d.Held(), true)
	}
	o.add(item{
		kind: itemDeliver, redelivered: d.Redelivered, channel: c.ch.number,
		tag: l.lastTag, link: d.Consumer, content: d.Content, consumer: c,
	})
}

// got queues the answer to basic.get.
func (o *outbox) got(ch *channel, d *mq.Delivery, noAck bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &ch.ledger
	l.lastTag++
	if !noAck {
		l.unacked.push(l.lastTag, d.Held(), false)
	}
	o.add(item{
		kind: itemGetOk, redelivered: d.Redelivered, noAck: noAck, channel: ch.number,
		tag: l.lastTag, content: d.Content, remaining: d.Remaining,
	})
}

// release sends what the channel-wide limit no longer keeps back. mu is held.
func (o *outbox) release(l *ledger) {
	n := 0
	for n < len(l.parked) && !l.closed && (l.limit == 0 || l.unacked.counted < l.limit) {
		o.send(l.parked[n].consumer, &l.parked[n].delivery)
		n++
	}
	clear(l.parked[:n])
	if l.parked = l.parked[n:]; len(l.parked) == 0 {
		l.parked = nil
	}
}

// setLimit changes the channel-wide prefetch limit.
func (o *outbox) setLimit(ch *channel, limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch.ledger.limit = limit
	o.release(&ch.ledger)
}

// settling marks what a settlement names and appends it to dst; false if the
// tag is unknown.
func (o *outbox) settling(ch *channel, tag uint64, multiple bool, dst []mq.Held) ([]mq.Held, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return ch.ledger.unacked.take(tag, multiple, dst)
}

// settled forgets the n that were marked last, which makes room under the limit.
func (o *outbox) settled(ch *channel, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch.ledger.unacked.sweep(n)
	o.release(&ch.ledger)
}

// unsettle takes the marks back (tx.rollback).
func (o *outbox) unsettle(ch *channel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch.ledger.unacked.untake()
}

// recall forgets what the broker took back from a consumer, whether or not the
// client has got it.
func (o *outbox) recall(c *consumer, seqs []mq.Seq) {
	seqs = slices.Sorted(slices.Values(seqs))
	o.mu.Lock()
	defer o.mu.Unlock()
	drop := func(d *mq.Delivery) bool {
		_, found := slices.BinarySearch(seqs, d.Seq)
		if found {
			o.add(item{kind: itemDropped, link: d.Consumer, content: d.Content, consumer: c})
		}
		return found
	}
	l := &c.ch.ledger
	c.early = slices.DeleteFunc(c.early, func(d mq.Delivery) bool { return drop(&d) })
	l.parked = slices.DeleteFunc(l.parked, func(p parkedDelivery) bool { return p.consumer == c && drop(&p.delivery) })
	l.unacked.recall(c.id, seqs)
	o.release(l)
}

// takeOrphans empties the orphans.
func (o *outbox) takeOrphans(ch *channel) []mq.Held {
	o.mu.Lock()
	defer o.mu.Unlock()
	orphans := ch.ledger.orphans
	ch.ledger.orphans = nil
	return orphans
}

// drainLedger returns all that the channel's client holds and all that was on
// its way to it, oldest first, and forgets it.
func (o *outbox) drainLedger(ch *channel) []mq.Held {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &ch.ledger
	held := l.unacked.drain()
	for _, p := range l.parked {
		held = append(held, p.delivery.Held())
	}
	held = append(held, l.orphans...)
	l.parked, l.orphans = nil, nil
	return held
}

// start enters a consumer under its tag and queues basic.consume-ok (unless
// nil), then what came before it.
func (o *outbox) start(c *consumer, id mq.ConsumerID, ok wire.Method) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.ch.ledger.closed {
		return
	}
	l := &c.ch.ledger
	if l.consumers == nil {
		l.consumers = map[string]*consumer{}
	}
	l.consumers[c.tag] = c
	c.id, c.started = id, true
	c.count.Add(1)
	if ok != nil {
		o.add(item{channel: c.ch.number, method: ok})
	}
	for i := range c.early {
		if d := &c.early[i]; l.mustPark(c) {
			l.parked = append(l.parked, parkedDelivery{c, *d})
		} else {
			o.send(c, d)
		}
	}
	c.early = nil
	if c.lost {
		o.lose(c)
	}
}

// leaving notes that the client itself ends a consumer: what the broker says of
// its end until then goes no further.
func (o *outbox) leaving(c *consumer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.leaving = true
}

// lose ends a consumer that the broker ended, and tells a client that
// understands it and did not end it itself. mu is held.
func (o *outbox) lose(c *consumer) {
	o.removeConsumer(c)
	l := &c.ch.ledger
	if l.closed || !c.notify || c.leaving {
		return
	}
	cancel := item{channel: c.ch.number, method: &wire.BasicCancel{ConsumerTag: c.tag, NoWait: true}}
	if l.holds {
		l.cancels = append(l.cancels, cancel)
		return
	}
	o.add(cancel)
}

// holdCancels holds the cancels of a channel's consumers until tellCancels.
func (o *outbox) holdCancels(ch *channel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch.ledger.holds = true
}

func (o *outbox) tellCancels(ch *channel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &ch.ledger
	if !l.closed {
		for _, cancel := range l.cancels {
			o.add(cancel)
		}
	}
	l.holds, l.cancels = false, nil
}

// removeConsumer ends a consumer; deliveries that the client did not get
// become orphans. mu is held.
func (o *outbox) removeConsumer(c *consumer) {
	l := &c.ch.ledger
	if l.consumers[c.tag] == c {
		delete(l.consumers, c.tag)
	}
	if c.started && !c.ended {
		c.count.Add(-1)
	}
	c.ended = true
	for i := range c.early {
		if !c.noAck {
			l.orphans = append(l.orphans, c.early[i].Held())
		}
	}
	c.early = nil
	l.parked = slices.DeleteFunc(l.parked, func(p parkedDelivery) bool {
		if p.consumer == c {
			l.orphans = append(l.orphans, p.delivery.Held())
		}
		return p.consumer == c
	})
}

// hasEnded reports whether a consumer has ended, by whoever's will.
func (o *outbox) hasEnded(c *consumer) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return c.ended
}

// endConsumer is removeConsumer for callers that do not hold mu.
func (o *outbox) endConsumer(c *consumer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.removeConsumer(c)
}

// consumer returns the consumer of a tag, nil if there is none.
func (o *outbox) consumer(ch *channel, tag string) *consumer {
	o.mu.Lock()
	defer o.mu.Unlock()
	return ch.ledger.consumers[tag]
}

// allConsumers returns the channel's consumers, in no order.
func (o *outbox) allConsumers(ch *channel) []*consumer {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]*consumer, 0, len(ch.ledger.consumers))
	for _, c := range ch.ledger.consumers {
		all = append(all, c)
	}
	return all
}
