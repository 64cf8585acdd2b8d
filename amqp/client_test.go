package amqp_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/amqp"
	"warren/amqp/amqptest"
)

// dial connects the Go client that most RabbitMQ users have.
func dial(t *testing.T, s *amqptest.Server) *amqp091.Connection {
	t.Helper()
	c, err := amqp091.Dial("amqp://guest:guest@" + s.Addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func channelOf(t *testing.T, c *amqp091.Connection) *amqp091.Channel {
	t.Helper()
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestTheGoClientPublishesConfirmsConsumesAndGets(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	ch := channelOf(t, dial(t, s))
	q := must[amqp091.Queue](t)(ch.QueueDeclare("", true, false, false, false, nil))
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	const messages = 5000
	var confirms []*amqp091.DeferredConfirmation
	for n := range messages {
		d := must[*amqp091.DeferredConfirmation](t)(ch.PublishWithDeferredConfirm("", q.Name, true, false, amqp091.Publishing{
			Body: fmt.Appendf(nil, "%d", n), Headers: amqp091.Table{"n": int32(n)},
		}))
		confirms = append(confirms, d)
	}
	for _, d := range confirms {
		if ok := must[bool](t)(d.WaitContext(t.Context())); !ok {
			t.Fatalf("%d is not confirmed", d.DeliveryTag)
		}
	}
	if err := ch.Qos(100, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries := must[<-chan amqp091.Delivery](t)(ch.Consume(q.Name, "me", false, false, false, false, nil))
	for n := range messages - 1 {
		d := <-deliveries
		if string(d.Body) != fmt.Sprint(n) || d.Headers["n"] != int32(n) || d.Redelivered {
			t.Fatalf("got %q %v at %d", d.Body, d.Headers, n)
		}
		if n%10 == 9 {
			if err := d.Ack(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := <-deliveries
	if err := ch.Cancel("me", false); err != nil {
		t.Fatal(err)
	}
	if err := last.Nack(false, true); err != nil {
		t.Fatal(err)
	}
	if d, ok, err := ch.Get(q.Name, true); err != nil || !ok || !d.Redelivered || string(d.Body) != fmt.Sprint(messages-1) {
		t.Fatalf("got %q %v %v", d.Body, ok, err)
	}
	if _, ok, err := ch.Get(q.Name, true); ok || err != nil {
		t.Fatalf("got %v %v", ok, err)
	}
}

func TestTheGoClientUsesTransactions(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	ch := channelOf(t, dial(t, s))
	q := must[amqp091.Queue](t)(ch.QueueDeclare("tx", true, false, false, false, nil))
	for _, err := range []error{
		ch.Tx(),
		ch.PublishWithContext(t.Context(), "", q.Name, false, false, amqp091.Publishing{Body: []byte("no")}),
		ch.TxRollback(),
		ch.PublishWithContext(t.Context(), "", q.Name, false, false, amqp091.Publishing{Body: []byte("yes")}),
		ch.TxCommit(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d, ok, err := ch.Get(q.Name, true)
	if err != nil || !ok || string(d.Body) != "yes" || d.MessageCount != 0 {
		t.Fatalf("got %q %v %v", d.Body, ok, err)
	}
}

func TestTheGoClientHearsErrorsAndReturns(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c := dial(t, s)
	ch := channelOf(t, c)
	returns := ch.NotifyReturn(make(chan amqp091.Return, 1))
	if err := ch.PublishWithContext(t.Context(), "", "nowhere", true, false, amqp091.Publishing{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if r := <-returns; r.ReplyCode != 312 || string(r.Body) != "x" {
		t.Errorf("got %+v", r)
	}
	_, err := ch.QueueDeclarePassive("nowhere", false, false, false, false, nil)
	if e, ok := err.(*amqp091.Error); !ok || e.Code != 404 {
		t.Errorf("got %v", err)
	}
	closed := c.NotifyClose(make(chan *amqp091.Error, 1))
	ch = channelOf(t, c)
	_ = ch.Qos(1, 1, false) // prefetch_size
	if e := <-closed; e == nil || e.Code != 540 {
		t.Errorf("got %v", e)
	}
}

// Many channels of many connections at once, with slow methods between the
// fast ones; under -race this looks at who owns what.
func TestManyChannelsAtOnce(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for n := range 4 {
		c := dial(t, s)
		for k := range 8 {
			all.Go(func() {
				if err := pingPong(ctx, c, fmt.Sprintf("q%d-%d", n, k)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	await(t, "every consumer to end", func() bool { return s.Stats().Consumers == 0 })
}

// pingPong publishes to its own queue and consumes, over several channels in turn.
func pingPong(ctx context.Context, c *amqp091.Connection, queue string) error {
	for range 5 {
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(queue, false, true, false, false, nil); err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		var confirms []*amqp091.DeferredConfirmation
		for n := range 100 {
			d, err := ch.PublishWithDeferredConfirm("", queue, false, false, amqp091.Publishing{Body: fmt.Append(nil, n)})
			if err != nil {
				return err
			}
			confirms = append(confirms, d)
		}
		for n := range 100 {
			select {
			case d := <-deliveries:
				if string(d.Body) != fmt.Sprint(n) {
					return fmt.Errorf("%s: got %q at %d", queue, d.Body, n)
				}
				if err := d.Ack(false); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, d := range confirms {
			if ok, err := d.WaitContext(ctx); !ok || err != nil {
				return fmt.Errorf("%s: confirm %v %v", queue, ok, err)
			}
		}
		if err := ch.Close(); err != nil {
			return err
		}
	}
	return nil
}
