package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// stampBytes is the head of a body: u32 publisher | u64 number | i64 when it
// was due, in ns on the run's clock.
const stampBytes = 20

// startConsumers starts them all; each takes from every queue whose number is
// its own, counted round the consumers (or the queues, if those are fewer).
func (r *benchRun) startConsumers() error {
	for i := range r.benchOptions.consumers {
		ch, err := r.connect(r.publishers+i, fmt.Sprintf("warren bench consumer %d", i))
		if err != nil {
			return err
		}
		if err := ch.Qos(r.prefetch, 0, false); err != nil {
			return fmt.Errorf("set prefetch: %w", err)
		}
		for q := i % r.queues; q < r.queues; q += r.benchOptions.consumers {
			deliveries, err := ch.Consume(r.queue(q), fmt.Sprintf("%d-%d", i, q), r.autoAck, false, false, false, nil)
			if err != nil {
				return fmt.Errorf("consume from %s: %w", r.queue(q), err)
			}
			r.consumers.Go(func() { r.consume(deliveries) })
		}
	}
	return nil
}

// ackPause is how long an acknowledgement may wait for others to go with.
const ackPause = 5 * time.Millisecond

// consume takes deliveries until the channel ends. A consumer that has its
// channel for itself acknowledges many at once.
func (r *benchRun) consume(deliveries <-chan amqp091.Delivery) {
	batch := 1
	if r.queues <= r.benchOptions.consumers {
		batch = 64
		if r.prefetch > 0 {
			batch = max(1, min(batch, r.prefetch/4))
		}
	}
	tick := time.NewTicker(ackPause)
	defer tick.Stop()
	var last amqp091.Delivery // of those that wait for their acknowledgement
	held := 0
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return
			}
			r.delivered(d.Body)
			last, held = d, held+1
			if held < batch {
				continue
			}
		case <-tick.C:
		}
		if held > 0 && !r.autoAck && last.Ack(batch > 1) != nil {
			return // the connection is going
		}
		held = 0
	}
}

func (r *benchRun) delivered(body []byte) {
	if len(body) < stampBytes {
		r.tally.withoutSender.Add(1)
		return
	}
	due := time.Duration(binary.BigEndian.Uint64(body[12:]))
	r.endToEnd.add(r.tally.sinceStart() - due)
	r.tally.seen(int(binary.BigEndian.Uint32(body)), binary.BigEndian.Uint64(body[4:]))
}

// publish runs the publishers until the time is up.
func (r *benchRun) publish(ctx context.Context, begin time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, begin.Add(r.time))
	defer cancel()
	start := begin.Sub(r.tally.begin)
	errs := make([]error, r.publishers)
	var all sync.WaitGroup
	for i := range r.publishers {
		all.Go(func() { errs[i] = r.publisher(ctx, i, start) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// publisher is one publisher, from its connection to its last confirm. start
// is when its first message was due.
func (r *benchRun) publisher(ctx context.Context, id int, start time.Duration) error {
	ch, err := r.connect(id, fmt.Sprintf("warren bench publisher %d", id))
	if err != nil {
		return err
	}
	var w *window
	if r.window > 0 {
		if w, err = openWindow(ch, r, id); err != nil {
			return err
		}
	}
	msg := amqp091.Publishing{Body: make([]byte, r.sizeBytes), DeliveryMode: amqp091.Transient}
	if r.durable {
		msg.DeliveryMode = amqp091.Persistent
	}
	pace := r.rate / float64(r.publishers) // 0 is no limit
	for number := uint64(0); ctx.Err() == nil; number++ {
		due := r.tally.sinceStart()
		if pace > 0 {
			due = start + time.Duration(float64(number)/pace*float64(time.Second))
			if !r.awaitDue(ctx, due) {
				break
			}
		}
		if w != nil && !w.enter(ctx, due) {
			break
		}
		binary.BigEndian.PutUint32(msg.Body, uint32(id))
		binary.BigEndian.PutUint64(msg.Body[4:], number)
		binary.BigEndian.PutUint64(msg.Body[12:], uint64(due))
		queue := r.queue((id + int(number)*r.publishers) % r.queues)
		if err := ch.PublishWithContext(context.WithoutCancel(ctx), "", queue, false, false, msg); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		r.tally.sent(id)
	}
	if w == nil {
		return nil
	}
	return w.wait()
}

// awaitDue waits until a message is due; false means that the time is up.
func (r *benchRun) awaitDue(ctx context.Context, due time.Duration) bool {
	wait := due - r.tally.sinceStart()
	if wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// confirmPatience is how long after the last publish the confirms may take.
const confirmPatience = 30 * time.Second

// window holds the messages of one publisher that wait for their confirms.
type window struct {
	waiting chan time.Duration // when each was due, oldest first; full blocks the publisher
	done    chan struct{}      // the confirms have ended
}

// openWindow puts ch in confirm mode. The client hands confirms out in order,
// one for each message.
func openWindow(ch *amqp091.Channel, r *benchRun, id int) (*window, error) {
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("select confirm mode: %w", err)
	}
	w := &window{waiting: make(chan time.Duration, r.window), done: make(chan struct{})}
	confirms := ch.NotifyPublish(make(chan amqp091.Confirmation, r.window))
	go func() {
		defer close(w.done)
		for c := range confirms {
			r.confirm.add(r.tally.sinceStart() - <-w.waiting)
			r.tally.confirmed(id, c.DeliveryTag-1, c.Ack)
		}
	}()
	return w, nil
}

// enter takes a place in the window; false means that the time was up first.
func (w *window) enter(ctx context.Context, due time.Duration) bool {
	select {
	case w.waiting <- due:
		return true
	case <-ctx.Done():
		return false
	case <-w.done:
		return true // the connection has gone; publishing says why
	}
}

// wait returns when every message has its confirm.
func (w *window) wait() error {
	patience := time.NewTimer(confirmPatience)
	defer patience.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for len(w.waiting) > 0 {
		select {
		case <-tick.C:
		case <-w.done:
			return fmt.Errorf("the connection ended with %d messages unconfirmed", len(w.waiting))
		case <-patience.C:
			return fmt.Errorf("%d messages were not confirmed after %v", len(w.waiting), confirmPatience)
		}
	}
	return nil
}
