package chaos

import (
	"context"
	"errors"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// refusalPatience is how long a declare in the minority may take to be refused.
const refusalPatience = 90 * time.Second

// lateWait is how long a confirm is given to come that must not come.
const lateWait = 2 * time.Second

func TestMinorityRefusesAndHeals(t *testing.T) {
	const queue = "chaos.minority"
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[0], queue)
	conn := connection(t, urls[0])
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	publish := func() *amqp091.DeferredConfirmation {
		t.Helper()
		d, err := ch.PublishWithDeferredConfirmWithContext(t.Context(), "", queue, true, false,
			amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: make([]byte, numberBytes)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if !acked(t, publish()) {
		t.Fatal("a message was rejected with all nodes up")
	}
	c.Node(2).Pause()
	c.Node(3).Pause()
	early := publish() // the leader may still hold its lease
	refused(t, conn)
	late := publish() // now it certainly has none
	pause(t.Context(), lateWait)
	for what, d := range map[string]*amqp091.DeferredConfirmation{"right after the cut": early, "long after it": late} {
		select {
		case <-d.Done():
			if d.Acked() {
				t.Errorf("a message that was published %s was confirmed without a majority", what)
			}
		default:
		}
	}
	c.Node(2).Resume()
	c.Node(3).Resume()
	c.WaitReady()
	kept := 1
	for _, d := range []*amqp091.DeferredConfirmation{early, late, publish()} {
		if acked(t, d) {
			kept++
		}
	}
	if kept < 2 {
		t.Error("after healing, a new message was not confirmed")
	}
	if conn.IsClosed() || ch.IsClosed() {
		t.Error("the connection or the channel was closed")
	}
	declare(t, urls[0], queue+".new")
	if out := drain(t, urls[1], queue); len(out) < kept || len(out) > 4 {
		t.Errorf("%d messages are there, of which %d were confirmed", len(out), kept)
	}
}

// acked waits for a confirm.
func acked(t testing.TB, d *amqp091.DeferredConfirmation) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	ok, err := d.WaitContext(ctx)
	if err != nil {
		t.Fatalf("message %d: neither confirmed nor rejected: %v", d.DeliveryTag, err)
	}
	return ok
}

// refused declares a queue that must not come to be, on a channel of its own.
func refused(t testing.TB, conn *amqp091.Connection) {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	answer := make(chan error, 1)
	go func() {
		_, err := ch.QueueDeclare("chaos.refused", true, false, false, false, nil)
		answer <- err
	}()
	select {
	case err := <-answer:
		var e *amqp091.Error
		if !errors.As(err, &e) {
			t.Fatalf("a declare without a majority was answered with %v, want an AMQP error", err)
		}
		t.Logf("refused after %v: %v", time.Since(began).Round(time.Millisecond), e)
	case <-time.After(refusalPatience):
		t.Fatalf("a declare without a majority got no answer in %v", refusalPatience)
	}
}

func TestClusterGoesOnWhenALeaderHangs(t *testing.T) {
	const queue = "chaos.hang"
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[0], queue)
	leader := c.Leader(1, queue)
	home := leader%3 + 1
	p := newPublisher(t, 1, queue, []string{urls[home-1]}, random(t).Uint64())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	defer func() { stop(); <-done }()
	p.awaitMore(t, 100, "before the leader hangs")
	c.Node(leader).Pause()
	began := time.Now()
	p.awaitMore(t, 2*window+1, "the leader hangs")
	t.Logf("%d confirms %v after the leader froze", 2*window+1, time.Since(began).Round(time.Millisecond))
	c.Node(leader).Resume()
	c.WaitReady()
	p.awaitMore(t, 100, "the old leader is back")
	stop()
	<-done
	check(t, []*publisher{p}, drain(t, urls[leader-1], queue))
}
