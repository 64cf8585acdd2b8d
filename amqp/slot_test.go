package amqp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// gate blocks calls of one kind until it is opened.
func gate(b *amqptest.Broker, call string) (entered <-chan struct{}, open func()) {
	in, out := make(chan struct{}, 16), make(chan struct{})
	b.Before = func(ctx context.Context, c string) error {
		if c != call {
			return nil
		}
		in <- struct{}{}
		select {
		case <-out:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in, func() { close(out) }
}

func TestASlowMethodHoldsUpItsChannelOnly(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(2)
	entered, open := gate(b, "change")
	c.Send(1, &wire.QueueDeclare{Queue: "q"})
	<-entered
	for n := range 100 { // behind the declare, in order
		publish(c, "q", fmt.Sprint(n))
	}
	c.Send(1, &wire.BasicConsume{Queue: "q", NoAck: true})
	c.ExpectNothing(2)
	open()
	amqptest.Expect[wire.QueueDeclareOk](c)
	amqptest.Expect[wire.BasicConsumeOk](c)
	for n := range 100 {
		if _, got := amqptest.ExpectContent[wire.BasicDeliver](c); got.Body != fmt.Sprint(n) {
			t.Fatalf("got %q at %d", got.Body, n)
		}
	}
}

// The backlog of a busy channel is bounded: then the socket is not read.
func TestABusyChannelsBacklogIsBounded(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Serve(t, b, amqp.Config{}).Dial(t).Open(1)
	entered, open := gate(b, "change")
	c.Send(1, &wire.QueueDeclare{Queue: "q"})
	<-entered
	body := strings.Repeat("x", 100_000)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 200 { // 20 MB, more than sockets hold
			publish(c, "q", body)
		}
	}()
	select {
	case <-sent:
		t.Error("20 MB were taken for a channel that waits")
	case <-time.After(300 * time.Millisecond):
	}
	open()
	amqptest.Expect[wire.QueueDeclareOk](c)
	<-sent
	await(t, "all of it", func() bool { return b.Ready("q") == 200 })
}

func TestASlowMethodThatTakesTooLongClosesItsChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := amqptest.New()
		c := amqptest.Pipe(t, b, amqp.Config{SlowTimeout: 20 * time.Millisecond}).Open(2)
		gate(b, "consume")
		c.Declare(1, "q")
		c.Send(1, &wire.BasicConsume{Queue: "q"})
		closed := c.ExpectClose(1, mq.InternalError)
		if closed.ReplyText != "INTERNAL_ERROR - operation basic.consume did not complete within 20ms" || closed.MethodID != 20 {
			t.Errorf("got %+v", closed)
		}
		c.ExpectNothing(2)
	})
}

func TestAPanicInASlowMethodEndsItsConnectionOnly(t *testing.T) {
	b := amqptest.New()
	b.Before = func(_ context.Context, call string) error {
		if call == "get" {
			panic("asked for")
		}
		return nil
	}
	s := amqptest.Serve(t, b, amqp.Config{})
	c, other := s.Dial(t).Open(1), s.Dial(t).Open(1)
	c.Declare(1, "q")
	c.Send(1, &wire.BasicGet{Queue: "q"})
	c.ExpectClose(0, mq.InternalError)
	c.Send(0, &wire.ConnectionCloseOk{})
	c.ExpectEOF()
	other.ExpectNothing(1)
	await(t, "its session to end", func() bool { return b.Sessions() == 1 })
}

func TestAConnectionThatGoesEndsItsSlowMethods(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	c := s.Dial(t).Open(1)
	entered, _ := gate(b, "change")
	c.Send(1, &wire.QueueDeclare{Queue: "q"})
	<-entered
	c.Conn.Close()
	await(t, "the connection to end", func() bool { return s.Stats().Connections == 0 })
}

// A client that asks and does not read is not read either.
func TestRepliesThatNobodyReadsAreBounded(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	c := s.Dial(t).Open(1)
	body := strings.Repeat("x", 10_000)
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		m := wire.BasicPublish{RoutingKey: []byte("nowhere"), Mandatory: true}
		frames := wire.AppendMethod(nil, 1, &m)
		frames = wire.AppendHeader(frames, 1, 60, uint64(len(body)), nil)
		frames = wire.AppendBody(frames, 1, []byte(body), 0)
		for range 10_000 { // 100 MB to be returned
			_ = c.Conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Conn.Write(frames); err != nil {
				return
			}
		}
		t.Error("100 MB of returns were taken from a client that does not read")
	}()
	<-stuck
	c.Conn.Close()
	await(t, "the connection to end", func() bool { return s.Stats().Connections == 0 })
}
