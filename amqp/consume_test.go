package amqp_test

import (
	"fmt"
	"strings"
	"testing"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

func consume(c *amqptest.Client, m wire.BasicConsume) string {
	c.Send(1, &m)
	return amqptest.Expect[wire.BasicConsumeOk](c).ConsumerTag
}

// The broker may deliver before its answer to consume; the client hears
// consume-ok first (§1.8.3.3).
func TestConsumeOkComesBeforeTheFirstDelivery(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	publish(c, "q", "early")
	tag := consume(c, wire.BasicConsume{}) // the current queue
	if !strings.HasPrefix(tag, "amq.ctag-") {
		t.Errorf("got tag %q", tag)
	}
	d, got := amqptest.ExpectContent[wire.BasicDeliver](c)
	if d.ConsumerTag != tag || d.DeliveryTag != 1 || d.Redelivered || got.Body != "early" {
		t.Errorf("got %+v %q", d, got.Body)
	}
	await(t, "link credit", func() bool { return b.Drained() == 1 })
}

func TestABodyOfManyFramesArrivesWhole(t *testing.T) {
	c := amqptest.Serve(t, amqptest.New(), amqp.Config{}).Dial(t).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{NoAck: true})
	body := strings.Repeat("0123456789", 400_000)
	publish(c, "q", body)
	if _, got := amqptest.ExpectContent[wire.BasicDeliver](c); got.Body != body {
		t.Errorf("got %d bytes", len(got.Body))
	}
}

// §1.8.3.13: single, multiple and tag 0.
func TestAcksSettleWhatTheyName(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{})
	for n := range 6 {
		publish(c, "q", fmt.Sprint(n))
		amqptest.Expect[wire.BasicDeliver](c)
	}
	c.Send(1, &wire.BasicAck{DeliveryTag: 2})
	c.Send(1, &wire.BasicReject{DeliveryTag: 1})
	c.Send(1, &wire.BasicAck{DeliveryTag: 4, Multiple: true})
	c.ExpectNothing(1)
	if got, want := fmt.Sprint(b.Settled()), fmt.Sprint([]mq.Verdict{mq.Ack, mq.Discard, mq.Ack, mq.Ack}); got != want {
		t.Errorf("got %v want %v", got, want)
	}
	c.Send(1, &wire.BasicAck{Multiple: true})
	c.Send(1, &wire.BasicAck{Multiple: true}) // of nothing: no error, as in RabbitMQ
	c.ExpectNothing(1)
	if got := b.Settled(); len(got) != 6 {
		t.Errorf("got %v", got)
	}
	c.Send(1, &wire.BasicAck{DeliveryTag: 5}) // twice
	c.ExpectClose(1, mq.PreconditionFailed)
}

// A delivery that the broker took back is not the client's any more: what it
// says of it later is no error, and settles nothing, neither the same message
// that came again.
func TestLateSettlementsOfWhatWasTakenBackAreIgnored(t *testing.T) {
	for _, late := range []struct {
		name string
		send wire.Method
	}{
		{"ack", &wire.BasicAck{DeliveryTag: 1}},
		{"reject", &wire.BasicReject{DeliveryTag: 2}},
		{"nack with requeue", &wire.BasicNack{DeliveryTag: 2, Requeue: true}},
		{"multiple", &wire.BasicAck{DeliveryTag: 2, Multiple: true}},
	} {
		t.Run(late.name, func(t *testing.T) {
			b := amqptest.New()
			c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
			c.Declare(1, "q")
			consume(c, wire.BasicConsume{})
			for n := range 2 {
				publish(c, "q", fmt.Sprint(n))
				amqptest.Expect[wire.BasicDeliver](c)
			}
			b.TakeBack("q")
			for tag := uint64(3); tag <= 4; tag++ {
				if d := amqptest.Expect[wire.BasicDeliver](c); d.DeliveryTag != tag || !d.Redelivered {
					t.Fatalf("got %+v", d)
				}
			}
			c.Send(1, late.send)
			c.ExpectNothing(1)
			if got := b.Settled(); len(got) != 0 {
				t.Errorf("settled %v of tags 3 and 4, which are the same messages again", got)
			}
			c.Send(1, &wire.BasicAck{DeliveryTag: 4, Multiple: true})
			c.ExpectNothing(1)
			if n := len(b.Settled()); n != 2 {
				t.Errorf("%d settled in the end, want 2", n)
			}
			c.Send(1, &wire.BasicAck{DeliveryTag: 5})
			c.ExpectClose(1, mq.PreconditionFailed)
		})
	}
}

func TestTakenBackMakesRoomUnderTheChannelsLimit(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Send(1, &wire.BasicQos{PrefetchCount: 1, Global: true})
	amqptest.Expect[wire.BasicQosOk](c)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{})
	publish(c, "q", "a")
	publish(c, "q", "b") // parked: the client never gets this delivery of it
	amqptest.Expect[wire.BasicDeliver](c)
	c.Declare(1, "q") // once that is answered, the broker has "b"
	b.TakeBack("q")
	for _, want := range []string{"a", "b"} {
		d, got := amqptest.ExpectContent[wire.BasicDeliver](c)
		if got.Body != want || !d.Redelivered {
			t.Errorf("got %q, redelivered: %v; want %q", got.Body, d.Redelivered, want)
		}
		c.Send(1, &wire.BasicAck{DeliveryTag: d.DeliveryTag})
	}
	c.ExpectNothing(1)
	await(t, "link credit of four, of which the client got three", func() bool { return b.Drained() == 4 })
}

// §1.8.3.16: recover gives everything back, and it comes again as redelivered.
func TestRecoverRedelivers(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{})
	publish(c, "q", "x")
	amqptest.Expect[wire.BasicDeliver](c)
	c.Send(1, &wire.BasicRecoverAsync{Requeue: true})
	if d := amqptest.Expect[wire.BasicDeliver](c); d.DeliveryTag != 2 || !d.Redelivered {
		t.Errorf("got %+v", d)
	}
}

// §1.8.3.1: prefetch with global counts for the whole channel; RabbitMQ does
// not count consumers without ack.
func TestGlobalQosLimitsTheChannel(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
	c.Send(1, &wire.BasicQos{PrefetchCount: 2, Global: true})
	amqptest.Expect[wire.BasicQosOk](c)
	c.Declare(1, "q")
	c.Declare(1, "r")
	consume(c, wire.BasicConsume{Queue: "q", ConsumerTag: "q"})
	consume(c, wire.BasicConsume{Queue: "r", ConsumerTag: "r"})
	for n := range 6 {
		publish(c, []string{"q", "r"}[n%2], fmt.Sprint(n))
	}
	for range 2 {
		amqptest.Expect[wire.BasicDeliver](c)
	}
	c.ExpectNothing(2)
	c.Send(1, &wire.BasicAck{DeliveryTag: 1})
	amqptest.Expect[wire.BasicDeliver](c)
	c.ExpectNothing(2)
	c.Send(1, &wire.BasicQos{PrefetchCount: 3, Global: true}) // live
	if _, got := c.Next(); got.Body != "3" {
		t.Errorf("got %+v", got)
	}
	amqptest.Expect[wire.BasicQosOk](c)
	c.Send(1, &wire.BasicCancel{ConsumerTag: "q"}) // what was kept back goes back
	amqptest.Expect[wire.BasicCancelOk](c)
	if n := b.Ready("q"); n != 1 {
		t.Errorf("got %d ready", n)
	}
}

func TestAClosedChannelGivesBackWhatItHeld(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	c := s.Dial(t).Open(2)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{})
	for n := range 3 {
		publish(c, "q", fmt.Sprint(n))
		amqptest.Expect[wire.BasicDeliver](c)
	}
	c.Send(1, &wire.BasicAck{DeliveryTag: 1})
	c.Send(1, &wire.ChannelClose{})
	c.Send(1, &wire.ChannelOpen{}) // without waiting for close-ok
	amqptest.Expect[wire.ChannelCloseOk](c)
	amqptest.Expect[wire.ChannelOpenOk](c)
	if n := b.Ready("q"); n != 2 {
		t.Errorf("got %d ready", n)
	}
	c.Send(1, &wire.BasicGet{Queue: "q", NoAck: true})
	m, got := amqptest.ExpectContent[wire.BasicGetOk](c)
	if m.DeliveryTag != 1 || !m.Redelivered || m.MessageCount != 1 || got.Body != "1" {
		t.Errorf("got %+v %q", m, got.Body)
	}
	if st := s.Stats(); st.Consumers != 0 || st.Channels != 2 {
		t.Errorf("got %+v", st)
	}
	c.Close()
	await(t, "the end", func() bool { return s.Stats().Connections == 0 })
}

// RabbitMQ's consumer_cancel_notify.
func TestADeletedQueueCancelsItsConsumers(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c, other := s.Dial(t).Open(1), s.Dial(t).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{ConsumerTag: "t"})
	other.Send(1, &wire.QueueDelete{Queue: "q"})
	amqptest.Expect[wire.QueueDeleteOk](other)
	if m := amqptest.Expect[wire.BasicCancel](c); m.ConsumerTag != "t" || !m.NoWait {
		t.Errorf("got %+v", m)
	}
	c.Send(1, &wire.BasicCancel{ConsumerTag: "t"}) // crossed: answered all the same
	amqptest.Expect[wire.BasicCancelOk](c)
}

// §1.7.2.3, and RabbitMQ's names.
func TestNamesAsRabbitMQTakesThem(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(1)
	c.Send(1, &wire.QueueDeclare{Queue: "a\r\nb"})
	if ok := amqptest.Expect[wire.QueueDeclareOk](c); ok.Queue != "ab" {
		t.Errorf("got %q", ok.Queue)
	}
	c.Send(1, &wire.QueueDeclare{})
	generated := amqptest.Expect[wire.QueueDeclareOk](c).Queue
	c.Send(1, &wire.QueueBind{Exchange: "amq.direct"}) // current queue, and its name as key
	amqptest.Expect[wire.QueueBindOk](c)
	c.Publish(1, wire.BasicPublish{Exchange: []byte("amq.direct"), RoutingKey: []byte(generated)}, wire.Properties{}, "x")
	c.Send(1, &wire.BasicGet{NoAck: true})
	amqptest.Expect[wire.BasicGetOk](c)
	c.Send(1, &wire.BasicGet{NoAck: true})
	amqptest.Expect[wire.BasicGetEmpty](c)
	c.Send(1, &wire.AccessRequest{})
	if ok := amqptest.Expect[wire.AccessRequestOk](c); ok.Ticket != 1 {
		t.Errorf("got %+v", ok)
	}
}

// §1.4.2.9: exclusive queues are gone when the client hears close-ok.
func TestCloseOkComesAfterTheSessionsEnd(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	c, other := s.Dial(t).Open(1), s.Dial(t).Open(1)
	c.Send(1, &wire.QueueDeclare{Queue: "mine", Exclusive: true})
	amqptest.Expect[wire.QueueDeclareOk](c)
	other.Send(1, &wire.QueueDeclare{Queue: "mine", Passive: true})
	other.ExpectClose(1, mq.ResourceLocked)
	c.Close()
	if n := b.Sessions(); n != 1 {
		t.Errorf("got %d sessions", n)
	}
}

// Celery adapts the prefetch count of its consumers this way.
func TestQosResizesLiveConsumers(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Send(1, &wire.BasicQos{PrefetchCount: 1})
	amqptest.Expect[wire.BasicQosOk](c)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{})
	for n := range 4 {
		publish(c, "q", fmt.Sprint(n))
	}
	amqptest.Expect[wire.BasicDeliver](c)
	c.ExpectNothing(1)
	c.Send(1, &wire.BasicQos{PrefetchCount: 3})
	for range 2 { // while the channel waits for the broker
		amqptest.Expect[wire.BasicDeliver](c)
	}
	amqptest.Expect[wire.BasicQosOk](c)
	c.ExpectNothing(1)
	c.Send(1, &wire.BasicQos{PrefetchCount: 1})
	amqptest.Expect[wire.BasicQosOk](c)
	c.Send(1, &wire.BasicAck{DeliveryTag: 2, Multiple: true})
	c.ExpectNothing(1)
	c.Send(1, &wire.BasicAck{DeliveryTag: 3})
	amqptest.Expect[wire.BasicDeliver](c)
}

// RabbitMQ, "Quorum Queues": of what goes back, a reject and the end of the
// channel say that it failed, a nack and a recover do not.
func TestWhatGoesBackSaysWhetherItFailed(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	for n := range 4 {
		publish(c, "q", fmt.Sprint(n))
	}
	get := func() uint64 {
		c.Send(1, &wire.BasicGet{Queue: "q"})
		return amqptest.Expect[wire.BasicGetOk](c).DeliveryTag
	}
	c.Send(1, &wire.BasicNack{DeliveryTag: get(), Requeue: true})
	c.Send(1, &wire.BasicReject{DeliveryTag: get(), Requeue: true})
	get()
	c.Send(1, &wire.BasicRecover{Requeue: true})
	amqptest.Expect[wire.BasicRecoverOk](c)
	get()
	c.Send(1, &wire.ChannelClose{})
	amqptest.Expect[wire.ChannelCloseOk](c)
	if got, want := fmt.Sprint(b.Settled()), fmt.Sprint([]mq.Verdict{mq.Requeue, mq.Fail, mq.Requeue, mq.Fail}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
