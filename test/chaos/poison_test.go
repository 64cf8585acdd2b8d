package chaos

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

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
	go rejectAll(t, ctx, channel(t, urls[home-1]), queue)
	out := channel(t, urls[home-1])
	deaths, err := out.Consume(dead, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	arrived := map[uint32]bool{}
	deadline := time.After(harness.Patience)
	for len(arrived) < messages {
		select {
		case d := <-deaths:
			if why := d.Headers["x-last-death-reason"]; why != "delivery_limit" {
				t.Fatalf("died of %v", why)
			}
			arrived[read(t, amqp091.Delivery{Body: d.Body}).number] = true
			if len(arrived) == messages/5 {
				c.Node(leader).Kill()
			}
		case <-deadline:
			t.Fatalf("%d of %d arrived", len(arrived), messages)
		}
	}
	q, err := out.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil || q.Messages != 0 {
		t.Errorf("%d are ready; %v", q.Messages, err)
	}
}

// rejectAll is a consumer that fails at every message.
func rejectAll(t *testing.T, ctx context.Context, ch *amqp091.Channel, queue string) {
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
	}
}
