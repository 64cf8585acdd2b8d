package conform

import (
	"context"
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// patience is how long a test waits for what must come.
	patience = time.Minute
	// quietTime is how long a test waits for what must not come.
	quietTime = 250 * time.Millisecond
	// pollTime is between two questions to a broker.
	pollTime = 20 * time.Millisecond
)

// conn is a connection of its own, to the next node.
func (c *claim) conn() *amqp.Connection {
	c.Helper()
	conn, err := amqp.Dial(c.address())
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

// link is a channel on a connection of its own, with the claim's patience.
type link struct {
	*amqp.Channel
	c        *claim
	closed   chan *amqp.Error
	returned chan amqp.Return
	sure     bool // the channel is in confirm mode
}

// link is a channel on a connection of its own, to the next node.
func (c *claim) link() *link {
	c.Helper()
	return c.linkOn(c.conn())
}

func (c *claim) linkOn(conn *amqp.Connection) *link {
	c.Helper()
	ch, err := conn.Channel()
	if err != nil {
		c.Fatal(err)
	}
	l := &link{Channel: ch, c: c}
	l.closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	l.returned = ch.NotifyReturn(make(chan amqp.Return, 16))
	return l
}

// queue declares a durable queue with a name of the test's own.
func (c *claim) queue(what string, args amqp.Table) string {
	c.Helper()
	name := c.name(what)
	c.declare(name, args)
	return name
}

func (c *claim) declare(name string, args amqp.Table) {
	c.Helper()
	if _, err := c.link().QueueDeclare(name, true, false, false, false, args); err != nil {
		c.Fatalf("declare %s with %v: %v", name, args, err)
	}
	c.queues = append(c.queues, name)
}

// exchange declares a durable exchange with a name of the test's own.
func (c *claim) exchange(what, kind string, args amqp.Table) string {
	c.Helper()
	name := c.name(what)
	if err := c.link().ExchangeDeclare(name, kind, true, false, false, false, args); err != nil {
		c.Fatalf("declare %s with %v: %v", name, args, err)
	}
	c.exchanges = append(c.exchanges, name)
	return name
}

// bound declares a queue and binds it.
func (c *claim) bound(what, exchange, key string, args amqp.Table) string {
	c.Helper()
	q := c.queue(what, nil)
	c.bind(q, exchange, key, args)
	return q
}

func (c *claim) bind(queue, exchange, key string, args amqp.Table) {
	c.Helper()
	if err := c.link().QueueBind(queue, key, exchange, false, args); err != nil {
		c.Fatalf("bind %s to %s by %q with %v: %v", queue, exchange, key, args, err)
	}
}

// text is a persistent message.
func text(body string) amqp.Publishing {
	return amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
}

// send publishes and waits until the broker has the messages.
func (l *link) send(exchange, key string, ps ...amqp.Publishing) {
	l.c.Helper()
	for _, p := range ps {
		if !l.try(exchange, key, p) {
			l.c.Fatalf("%q to %q by %q was not confirmed", p.Body, exchange, key)
		}
	}
}

// try publishes one message and tells whether it was confirmed with an ack.
func (l *link) try(exchange, key string, p amqp.Publishing) bool {
	l.c.Helper()
	return l.publish(exchange, key, false, p)
}

// isThere finds out whether a queue is there without being a use of it, as a
// declare would be: by a mandatory message.
func (l *link) isThere(queue string) bool {
	l.c.Helper()
	l.publish("", queue, true, text("are you there?"))
	select {
	case <-l.returned:
		return false
	default:
		return true
	}
}

func (l *link) publish(exchange, key string, mandatory bool, p amqp.Publishing) (acked bool) {
	l.c.Helper()
	if !l.sure {
		l.c.must(l.Confirm(false))
		l.sure = true
	}
	ctx, cancel := context.WithTimeout(l.c.Context(), patience)
	defer cancel()
	d, err := l.PublishWithDeferredConfirm(exchange, key, mandatory, false, p)
	if err != nil {
		l.c.Fatal(err)
	}
	acked, err = d.WaitContext(ctx)
	if err != nil {
		l.c.Fatalf("wait for the confirm of %q: %v", p.Body, err)
	}
	return acked
}

// texts sends messages with these bodies.
func (l *link) texts(exchange, key string, bodies ...string) {
	l.c.Helper()
	for _, b := range bodies {
		l.send(exchange, key, text(b))
	}
}

// take gets one message from a queue without having to ack it, waiting for it.
func (l *link) take(queue string) amqp.Delivery {
	l.c.Helper()
	return l.fetch(queue, true)
}

// fetch gets one message from a queue, waiting for it.
func (l *link) fetch(queue string, autoAck bool) amqp.Delivery {
	l.c.Helper()
	var d amqp.Delivery
	l.c.await("a message in "+queue, func() bool {
		got, ok, err := l.Get(queue, autoAck)
		if err != nil {
			l.c.Fatalf("get from %s: %v", queue, err)
		}
		d = got
		return ok
	})
	return d
}

// bodies takes n messages and returns their bodies in order.
func (l *link) bodies(queue string, n int) (all []string) {
	l.c.Helper()
	for range n {
		all = append(all, string(l.take(queue).Body))
	}
	return all
}

// isEmpty checks that nothing can be got from a queue now.
func (l *link) isEmpty(queue string) {
	l.c.Helper()
	if d, ok, err := l.Get(queue, true); err != nil || ok {
		l.c.Errorf("got %q, %v from %s, want nothing", d.Body, err, queue)
	}
}

// depth is the number of ready messages that a passive declare tells.
func (l *link) depth(queue string) int {
	l.c.Helper()
	q, err := l.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		l.c.Fatalf("declare %s passively: %v", queue, err)
	}
	return q.Messages
}

// consume starts a consumer.
func (l *link) consume(queue, tag string, autoAck bool, args amqp.Table) <-chan amqp.Delivery {
	l.c.Helper()
	ds, err := l.Consume(queue, tag, autoAck, false, false, false, args)
	if err != nil {
		l.c.Fatalf("consume from %s: %v", queue, err)
	}
	return ds
}

// prefetch limits the consumers to come.
func (l *link) prefetch(n int) *link {
	l.c.Helper()
	if err := l.Qos(n, 0, false); err != nil {
		l.c.Fatal(err)
	}
	return l
}

// next is the next thing from a Go channel, waiting for it.
func next[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatal("the Go channel is closed, want another value")
		}
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came within %v", patience)
	}
	return v
}

// quiet checks that nothing comes.
func quiet[T any](t testing.TB, from <-chan T) {
	t.Helper()
	select {
	case v, ok := <-from:
		if ok {
			t.Errorf("got %v, want nothing", v)
		}
	case <-time.After(quietTime):
	}
}

// await asks until the answer is yes.
func (c *claim) await(what string, ask func() bool) {
	c.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for !ask() {
		if time.Now().After(deadline) {
			c.Fatalf("waited %v in vain for %s", patience, what)
		}
		<-tick.C
	}
}

// must stops a test at an error that it is not about.
func (c *claim) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// equal compares.
func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// refusedWith checks the code of a refusal.
func refusedWith(t testing.TB, err error, code int) {
	t.Helper()
	var e *amqp.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want a refusal with %d", err, code)
	}
}
