package chaos

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// What nobody can handle goes to the dead letters after as many attempts as it
// may have, also if leaders are killed meanwhile, and no message is lost.
func TestPoisonIsDeadLetteredWhateverIsKilled(t *testing.T) {
	const (
		queue, dead = "chaos.poison", "chaos.dead"
		messages    = 150
		limit       = 4
	)
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[1], dead)
	args := amqp091.Table{"x-delivery-limit": limit, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
	ch := channel(t, urls[0])
	if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(messages) {
		body := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, i)
		d, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: body})
		if err != nil || !d.Wait() {
			t.Fatalf("message %d was not confirmed: %v", i, err)
		}
	}
	leader := c.Leader(1, queue)
	home := leader%3 + 1 // of the consumer: it outlives the leader
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	consumer, out := channel(t, urls[home-1]), channel(t, urls[home-1])
	go rejectAll(t, ctx, consumer, queue, messages, c.Node(leader).Kill)
	count := func(queue string) int {
		q, err := out.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			t.Error(err)
		}
		return q.Messages
	}
	// The killed leader may have handed over letters whose originals it had not
	// dropped yet: these are in the queue once more, and are rejected again.
	harness.Await(t, "every message has died", func() bool {
		return t.Failed() || count(queue) == 0 && count(dead) >= messages
	}, func() string { return fmt.Sprint(count(queue), " ready, ", count(dead), " dead") })
	if n := count(dead); n != messages {
		t.Errorf("%d dead letters of %d messages", n, messages)
	}
	arrived := map[uint32]bool{}
	for len(arrived) < messages && !t.Failed() {
		d, ok, err := out.Get(dead, true)
		if err != nil || !ok {
			t.Fatalf("%d of %d arrived; %v", len(arrived), messages, err)
		}
		if why := d.Headers["x-last-death-reason"]; why != "delivery_limit" {
			t.Errorf("died of %v", why)
		}
		n := read(t, amqp091.Delivery{Body: d.Body}).number
		if arrived[n] {
			t.Errorf("message %d died twice", n)
		}
		arrived[n] = true
	}
}

// rejectAll is a consumer that fails at every message; meanwhile does something
// at one of the failures.
func rejectAll(t *testing.T, ctx context.Context, ch *amqp091.Channel, queue string, at int, meanwhile func()) {
	if err := ch.Qos(20, 0, false); err != nil {
		t.Error(err)
		return
	}
	ds, err := ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
	if err != nil {
		t.Error(err)
		return
	}
	for d := range ds {
		if n, _ := d.Headers["x-delivery-count"].(int64); n > 4 {
			t.Errorf("handed out after %d failures", n)
		}
		if err := d.Reject(true); err != nil {
			return // the test has ended
		}
		if at--; at == 0 {
			meanwhile()
		}
	}
}
