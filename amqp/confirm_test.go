package amqp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// confirming is a client with channel 1 in confirm mode and the queue "q".
func confirming(t *testing.T, b *amqptest.Broker) *amqptest.Client {
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
	c.Declare(1, "q")
	c.Send(1, &wire.ConfirmSelect{})
	amqptest.Expect[wire.ConfirmSelectOk](c)
	return c
}

func publish(c *amqptest.Client, key, body string) {
	c.Publish(1, wire.BasicPublish{RoutingKey: []byte(key)}, wire.Properties{}, body)
}

// RabbitMQ's confirms: tags count from 1, what is decided in order goes out as
// "multiple", what is decided early goes out alone once there is time.
func TestConfirmsAreCoalescedInTagOrder(t *testing.T) {
	b := amqptest.New()
	b.HoldConfirms()
	c := confirming(t, b)
	for n := range 5 {
		publish(c, "q", fmt.Sprint(n))
	}
	await(t, "five publishes", func() bool { return b.Waiting() == 5 })
	b.Decide(3, mq.Confirmed)
	if m := amqptest.Expect[wire.BasicAck](c); *m != (wire.BasicAck{DeliveryTag: 3}) {
		t.Errorf("got %+v", m)
	}
	b.Decide(1, mq.Confirmed)
	if m := amqptest.Expect[wire.BasicAck](c); *m != (wire.BasicAck{DeliveryTag: 1}) {
		t.Errorf("got %+v", m)
	}
	b.Decide(5, mq.Rejected)
	if m := amqptest.Expect[wire.BasicNack](c); m.DeliveryTag != 5 || m.Multiple {
		t.Errorf("got %+v", m)
	}
	b.Decide(4, mq.Confirmed)
	if m := amqptest.Expect[wire.BasicAck](c); *m != (wire.BasicAck{DeliveryTag: 4}) {
		t.Errorf("got %+v", m)
	}
	b.Decide(2, mq.Confirmed)
	if m := amqptest.Expect[wire.BasicAck](c); *m != (wire.BasicAck{DeliveryTag: 2}) {
		t.Errorf("got %+v: 3 to 5 have been told", m)
	}
	c.ExpectNothing(2)
}

// RabbitMQ: basic.return comes before the ack of what is returned (§1.8.3.9
// and the confirms extension).
func TestAReturnComesBeforeItsAck(t *testing.T) {
	b := amqptest.New()
	c := confirming(t, b)
	props := wire.Properties{Present: wire.HasMessageID, MessageID: "m1"}
	c.Publish(1, wire.BasicPublish{RoutingKey: []byte("nowhere"), Mandatory: true}, props, "body")
	m, got := amqptest.ExpectContent[wire.BasicReturn](c)
	if m.ReplyCode != mq.NoRoute || m.ReplyText != "NO_ROUTE" || string(m.RoutingKey) != "nowhere" || got.Body != "body" || got.Properties.MessageID != "m1" {
		t.Errorf("got %+v %+v", m, got)
	}
	if ack := amqptest.Expect[wire.BasicAck](c); ack.DeliveryTag != 1 {
		t.Errorf("got %+v", ack)
	}
	publish(c, "nowhere", "") // not mandatory: acked
	if ack := amqptest.Expect[wire.BasicAck](c); ack.DeliveryTag != 2 {
		t.Errorf("got %+v", ack)
	}
}

// A publish to a missing exchange closes the channel, and nothing is confirmed
// after that.
func TestNothingIsConfirmedAfterAChannelCloses(t *testing.T) {
	b := amqptest.New()
	b.HoldConfirms()
	c := confirming(t, b)
	publish(c, "q", "1")
	c.Publish(1, wire.BasicPublish{Exchange: []byte("missing")}, wire.Properties{}, "")
	c.ExpectClose(1, mq.NotFound)
	b.Decide(1, mq.Confirmed)
	c.ExpectNothing(2)
}

// §1.9 (tx): nothing is published before the commit, and commit-ok waits for
// all of it.
func TestCommitWaitsForEveryPublish(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
	c.Declare(1, "q")
	c.Send(1, &wire.TxSelect{})
	amqptest.Expect[wire.TxSelectOk](c)
	b.HoldConfirms()
	publish(c, "q", "a")
	publish(c, "q", "b")
	c.ExpectNothing(2)
	if n := b.Ready("q"); n != 0 {
		t.Errorf("%d published before the commit", n)
	}
	c.Send(1, &wire.TxCommit{})
	await(t, "the publishes", func() bool { return b.Waiting() == 2 })
	b.Decide(0, mq.Confirmed)
	c.ExpectNothing(2)
	b.Decide(0, mq.Confirmed)
	amqptest.Expect[wire.TxCommitOk](c)
}

// A commit during an alarm waits as a publisher does, however long it takes.
func TestACommitHasAllTheTimeThatItsPublishesWait(t *testing.T) {
	b := amqptest.New()
	var limited atomic.Bool
	b.Before = func(ctx context.Context, call string) error {
		if _, is := ctx.Deadline(); is && call == "publish" {
			limited.Store(true)
		}
		return nil
	}
	goOn := make(chan struct{})
	b.Alarm = func(waits func(string)) { waits("low on disk"); <-goOn }
	s := amqptest.Serve(t, b, amqp.Config{})
	c := s.Dial(t).Open(1)
	c.Declare(1, "q")
	c.Send(1, &wire.TxSelect{})
	amqptest.Expect[wire.TxSelectOk](c)
	publish(c, "q", "a")
	publish(c, "q", "b")
	c.Send(1, &wire.TxCommit{})
	for range 2 {
		amqptest.Expect[wire.ConnectionBlocked](c)
		goOn <- struct{}{}
		amqptest.Expect[wire.ConnectionUnblocked](c)
	}
	amqptest.Expect[wire.TxCommitOk](c)
	if limited.Load() {
		t.Error("a publish of the commit has a deadline")
	}
	if n := b.Ready("q"); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestAPartialCommitIsAnError(t *testing.T) {
	for _, outcome := range []mq.Outcome{mq.Rejected, mq.Refused} {
		b := amqptest.New()
		c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
		c.Declare(1, "q")
		c.Send(1, &wire.TxSelect{})
		amqptest.Expect[wire.TxSelectOk](c)
		b.HoldConfirms()
		publish(c, "q", "a")
		c.Send(1, &wire.TxCommit{})
		await(t, "the publish", func() bool { return b.Waiting() == 1 })
		b.Decide(0, outcome)
		if closed := c.ExpectClose(1, mq.PreconditionFailed); closed.ReplyText != "PRECONDITION_FAILED - partial tx completion" {
			t.Errorf("got %q", closed.ReplyText)
		}
	}
}

func TestRefusedByAFullQueueIsNacked(t *testing.T) {
	b := amqptest.New()
	b.HoldConfirms()
	c := confirming(t, b)
	publish(c, "q", "a")
	await(t, "the publish", func() bool { return b.Waiting() == 1 })
	b.Decide(1, mq.Refused)
	if m := amqptest.Expect[wire.BasicNack](c); m.DeliveryTag != 1 || m.Multiple {
		t.Errorf("got %+v", m)
	}
}

// §1.9.2.5 (tx): a rollback forgets publishes and settlements; what was acked
// is unacked again and not redelivered.
func TestRollbackForgetsPublishesAndAcks(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	publish(c, "q", "a")
	c.Send(1, &wire.TxSelect{})
	amqptest.Expect[wire.TxSelectOk](c)
	c.Send(1, &wire.BasicGet{Queue: "q"})
	got := amqptest.Expect[wire.BasicGetOk](c)
	c.Send(1, &wire.BasicAck{DeliveryTag: got.DeliveryTag})
	publish(c, "q", "b")
	c.Send(1, &wire.TxRollback{})
	amqptest.Expect[wire.TxRollbackOk](c)
	if n := b.Ready("q"); n != 0 || len(b.Settled()) != 0 {
		t.Errorf("ready %d, settled %v", n, b.Settled())
	}
	c.Send(1, &wire.BasicAck{DeliveryTag: got.DeliveryTag}) // again, and now for good
	c.Send(1, &wire.TxCommit{})
	amqptest.Expect[wire.TxCommitOk](c)
	if got := b.Settled(); len(got) != 1 || got[0] != mq.Ack {
		t.Errorf("settled %v", got)
	}
}

// An error that is not for clients is 541 and closes the channel only.
func TestAnUnknownErrorSaysLittle(t *testing.T) {
	b := amqptest.New()
	b.Before = func(context.Context, string) error { return fmt.Errorf("secret detail") }
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
	c.Send(1, &wire.QueueDeclare{Queue: "q"})
	closed := c.ExpectClose(1, mq.InternalError)
	if closed.ReplyText != "INTERNAL_ERROR - operation queue.declare failed, see the broker's log" {
		t.Errorf("got %q", closed.ReplyText)
	}
	c.ExpectNothing(2)
}

// RabbitMQ checks and routes at once and only keeps the message back: of what
// came before nothing is done either.
func TestABadPublishOfATransactionIsRefusedAtOnce(t *testing.T) {
	for _, bad := range []struct {
		exchange string
		p        wire.Properties
		code     mq.Code
	}{
		{"missing", wire.Properties{}, mq.NotFound},
		{"", wire.Properties{Present: wire.HasExpiration, Expiration: "soon"}, mq.PreconditionFailed},
	} {
		b := amqptest.New()
		c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
		c.Declare(1, "q")
		c.Send(1, &wire.TxSelect{})
		amqptest.Expect[wire.TxSelectOk](c)
		publish(c, "q", "good")
		c.Publish(1, wire.BasicPublish{Exchange: []byte(bad.exchange), RoutingKey: []byte("q")}, bad.p, "bad")
		c.ExpectClose(1, bad.code)
		c.Send(2, &wire.QueueDeclare{Queue: "q", Passive: true})
		if got := amqptest.Expect[wire.QueueDeclareOk](c); got.MessageCount != 0 {
			t.Errorf("%d messages of a transaction that failed are there", got.MessageCount)
		}
	}
}
