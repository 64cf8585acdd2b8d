package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// refuseLimit is how long the queue of this file may be: short enough that it
// is full most of the time.
const refuseLimit = 100

func TestFullQueueSaysTheTruthWhateverIsKilled(t *testing.T) {
	const queue = "chaos.refuse"
	c := harness.Start(t, 3)
	urls := c.URLs()
	limits := amqp091.Table{"x-max-length": refuseLimit, "x-overflow": "reject-publish"}
	if _, err := channel(t, urls[0]).QueueDeclare(queue, true, false, false, false, limits); err != nil {
		t.Fatal(err)
	}
	rnd := random(t)
	publishers := []*publisher{
		newPublisher(t, 1, queue, []string{urls[1], urls[2], urls[0]}, rnd.Uint64()),
		newPublisher(t, 2, queue, []string{urls[2], urls[0], urls[1]}, rnd.Uint64()),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for _, p := range publishers {
		running.Go(func() { p.run(ctx) })
	}
	defer running.Wait()
	defer stop()
	var out []receipt
	for range min(*roundsFlag, 2) {
		for _, i := range []int{1, 2, 3} {
			out = append(out, take(t, urls[rnd.IntN(3)], queue, refuseLimit)...)
			pause(ctx, time.Duration(rnd.Int64N(int64(momentMax))))
			c.Node(i).Kill()
			// What there is room for now comes while a node is down.
			out = append(out, take(t, urls[i%3], queue, refuseLimit/2)...)
			c.Node(i).Start()
			c.WaitReady()
		}
		out = append(out, take(t, urls[0], queue, refuseLimit)...)
		pause(ctx, time.Duration(rnd.Int64N(int64(momentMax))))
		for i := 1; i <= 3; i++ {
			c.Node(i).Kill()
		}
		for _, i := range orders[rnd.IntN(len(orders))] {
			c.Node(i).Start()
		}
		c.WaitReady()
	}
	stop()
	running.Wait()
	if q, err := channel(t, urls[0]).QueueDeclarePassive(queue, true, false, false, false, nil); err != nil || q.Messages > refuseLimit {
		t.Errorf("%d messages in the queue, at most %d may be; %v", q.Messages, refuseLimit, err)
	}
	out = append(out, drain(t, urls[rnd.IntN(3)], queue)...)
	check(t, publishers, out)
	checkRefused(t, publishers, out)
}

// take takes n messages and returns when their acks are kept.
func take(t *testing.T, url, queue string, n int) (out []receipt) {
	t.Helper()
	ch := channel(t, url)
	deadline := time.Now().Add(harness.Patience)
	for len(out) < n {
		d, ok, err := ch.Get(queue, false)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d messages came", len(out), n)
			}
			pause(t.Context(), publishPause)
			continue
		}
		out = append(out, read(t, d))
		if err := d.Ack(false); err != nil {
			t.Fatal(err)
		}
	}
	// It is answered after what came before it.
	if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkRefused looks for messages that were nacked, and that the queue took.
func checkRefused(t *testing.T, publishers []*publisher, out []receipt) {
	t.Helper()
	for _, p := range publishers {
		refused := 0
		for _, f := range p.fates {
			if f == rejected {
				refused++
			}
		}
		t.Logf("publisher %d: %d of %d were refused", p.id, refused, len(p.fates))
		if refused == 0 {
			t.Errorf("publisher %d: the queue was never full", p.id)
		}
		for _, r := range out {
			if r.publisher == p.id && p.fates[r.number] == rejected {
				t.Errorf("publisher %d: number %d was refused, and came out", p.id, r.number)
			}
		}
	}
}
