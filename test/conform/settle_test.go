package conform

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// taken is three messages that a channel holds unacknowledged.
func (c *claim) taken() (queue string, l *link, held []amqp.Delivery) {
	c.Helper()
	queue = c.queue("q", nil)
	l = c.link()
	l.texts("", queue, "1", "2", "3")
	for range 3 {
		held = append(held, l.fetch(queue, false))
	}
	return queue, l, held
}

func TestAcks(t *testing.T) {
	for _, f := range []struct {
		name string
		do   func(l *link, held []amqp.Delivery) error
		left []string // after the channel closes
	}{
		{"one", func(_ *link, h []amqp.Delivery) error { return h[1].Ack(false) }, []string{"1", "3"}},
		{"all up to one", func(_ *link, h []amqp.Delivery) error { return h[1].Ack(true) }, []string{"3"}},
		{"all by tag 0", func(l *link, _ []amqp.Delivery) error { return l.Ack(0, true) }, nil},
		{"none", func(*link, []amqp.Delivery) error { return nil }, []string{"1", "2", "3"}},
		{"reject one without requeue", func(_ *link, h []amqp.Delivery) error { return h[1].Reject(false) }, []string{"1", "3"}},
		{"reject one with requeue", func(_ *link, h []amqp.Delivery) error { return h[1].Reject(true) }, []string{"1", "2", "3"}},
		{"nack one without requeue", func(_ *link, h []amqp.Delivery) error { return h[0].Nack(false, false) }, []string{"2", "3"}},
		{"nack all up to one without requeue", func(_ *link, h []amqp.Delivery) error { return h[1].Nack(true, false) }, []string{"3"}},
		{"nack all by tag 0 without requeue", func(l *link, _ []amqp.Delivery) error { return l.Nack(0, true, false) }, nil},
		{"nack all by tag 0 with requeue", func(l *link, _ []amqp.Delivery) error { return l.Nack(0, true, true) }, []string{"1", "2", "3"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §1.8.3.13")
			q, l, held := c.taken()
			c.must(f.do(l, held))
			c.must(l.Close())
			other := c.link()
			equal(t, "left", fmt.Sprint(other.bodies(q, len(f.left))), fmt.Sprint(f.left))
			other.isEmpty(q)
		})
	}
}

func TestMultipleAckOfTagZeroIsFineWhenNothingIsHeld(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.13.1")
	r := c.raw()
	r.send(basicAck(0, true))
	r.call(basicQos(0, 1, false), 60, 11)
}

func TestARequeuedMessageGoesBackToItsPlace(t *testing.T) {
	c := begin(t, `RabbitMQ "Negative Acknowledgements"`)
	q, l, held := c.taken()
	l.texts("", q, "4")
	for _, i := range []int{2, 0, 1} {
		c.must(held[i].Nack(false, true))
	}
	equal(t, "order", fmt.Sprint(l.bodies(q, 4)), "[1 2 3 4]")
}

func TestRedeliveredIsSetOnWhatWasDeliveredBefore(t *testing.T) {
	for name, f := range map[string]func(l *link, d amqp.Delivery) error{
		"after nack":                  func(_ *link, d amqp.Delivery) error { return d.Nack(false, true) },
		"after reject":                func(_ *link, d amqp.Delivery) error { return d.Reject(true) },
		"after the end of a channel":  func(l *link, _ amqp.Delivery) error { return l.Close() },
		"but not on what comes first": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §1.1.1: redelivered")
			q := c.queue("q", nil)
			l := c.link()
			l.texts("", q, "m")
			if f != nil {
				d := l.fetch(q, false)
				equal(t, "at first", d.Redelivered, false)
				c.must(f(l, d))
			}
			equal(t, "redelivered", c.link().take(q).Redelivered, f != nil)
		})
	}
}

func TestTheEndOfAConnectionGivesItsMessagesBack(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3")
	q := c.queue("q", nil)
	conn := c.conn()
	l := c.linkOn(conn)
	l.texts("", q, "1", "2")
	d := l.consume(q, "", false, nil)
	next(t, d)
	next(t, d)
	c.must(conn.Close())
	equal(t, "order", fmt.Sprint(c.link().bodies(q, 2)), "[1 2]")
}

func TestASocketThatIsCutGivesItsMessagesBack(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	r := c.raw()
	r.call(basicGet(q, false), 60, 71)
	r.nc.Close()
	equal(t, "redelivered", c.link().take(q).Redelivered, true)
}

func TestRecoverGivesAllOfTheChannelBackAndIsAnswered(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.16")
	q := c.queue("q", nil)
	c.link().texts("", q, "1", "2")
	r := c.raw()
	r.call(basicGet(q, false), 60, 71)
	r.content()
	r.call(basicGet(q, false), 60, 71)
	r.content()
	r.call(basicRecover(true), 60, 111)
	l := c.link()
	for _, want := range []string{"1", "2"} {
		d := l.take(q)
		equal(t, "body", string(d.Body), want)
		equal(t, "redelivered", d.Redelivered, true)
	}
}

func TestRecoverAsyncIsNotAnswered(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.15")
	r := c.raw()
	r.send(basicRecoverAsync(true))
	r.call(basicQos(0, 1, false), 60, 11)
}

func TestAckWithoutConsumersIsNotNeededAfterAutoAck(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.4")
	q := c.queue("q", nil)
	conn := c.conn()
	l := c.linkOn(conn)
	d := l.consume(q, "", true, nil)
	l.texts("", q, "m")
	next(t, d)
	c.must(conn.Close())
	c.link().isEmpty(q)
}

func TestARequeuedMessageGoesToAnotherConsumerIfThisOneIsFull(t *testing.T) {
	c := begin(t, `RabbitMQ "Negative Acknowledgements"`)
	q := c.queue("q", nil)
	a := c.link().prefetch(2).consume(q, "", false, nil)
	l := c.link()
	l.texts("", q, "1", "2")
	first := next(t, a)
	next(t, a)
	b := c.link().prefetch(1).consume(q, "", false, amqp.Table{"x-priority": 5})
	c.must(first.Nack(false, true))
	equal(t, "the other gets", string(next(t, b).Body), "1")
}

func TestADeliveryLimitDropsWhatComesBackTooOften(t *testing.T) {
	c := begin(t, `RabbitMQ "Quorum Queues": poison messages`, "x-delivery-limit")
	q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 2})
	l := c.link()
	l.texts("", q, "m")
	for range 3 {
		c.must(l.fetch(q, false).Reject(true))
	}
	c.await("the end of the message", func() bool { _, ok, err := l.Get(q, false); c.must(err); return !ok })
}

func TestADeliveryLimitDeadLetters(t *testing.T) {
	c := begin(t, `RabbitMQ "Quorum Queues": poison messages`, "x-delivery-limit")
	dead := c.queue("dead", nil)
	q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 1,
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	l := c.link()
	l.texts("", q, "m")
	for range 2 {
		c.must(l.fetch(q, false).Reject(true))
	}
	equal[any](t, "reason", l.take(dead).Headers["x-first-death-reason"], "delivery_limit")
}

func TestDeliveryCount(t *testing.T) {
	for _, f := range []struct {
		name string
		back func(l *link, d amqp.Delivery) error
		want any
	}{
		{"after reject", func(_ *link, d amqp.Delivery) error { return d.Reject(true) }, int64(1)},
		{"after the end of a channel", func(l *link, _ amqp.Delivery) error { return l.Close() }, int64(1)},
		{"after nack", func(_ *link, d amqp.Delivery) error { return d.Nack(false, true) }, nil},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Quorum Queues": poison messages`, "x-delivery-limit")
			q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 5})
			l := c.link()
			l.texts("", q, "m")
			d := l.fetch(q, false)
			equal[any](t, "at first", d.Headers["x-delivery-count"], nil)
			c.must(f.back(l, d))
			again := c.link().take(q)
			equal(t, "x-delivery-count", again.Headers["x-delivery-count"], f.want)
			equal(t, "redelivered", again.Redelivered, true)
		})
	}
}

func TestNacksDoNotCountForADeliveryLimit(t *testing.T) {
	c := begin(t, `RabbitMQ "Quorum Queues": poison messages`, "x-delivery-limit")
	q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 1})
	l := c.link()
	l.texts("", q, "m")
	for range 4 {
		c.must(l.fetch(q, false).Nack(false, true))
	}
	equal(t, "body", string(l.take(q).Body), "m")
}

func TestDelayedRetryHoldsBackWhatComesBack(t *testing.T) {
	const delay = 6 * time.Second // nothing else takes as long
	for _, f := range []struct {
		kind           string
		reject, delays bool
	}{
		{"all", true, true}, {"all", false, true},
		{"failed", true, true}, {"failed", false, false},
		{"returned", true, false}, {"returned", false, true},
	} {
		name := f.kind + " on nack"
		if f.reject {
			name = f.kind + " on reject"
		}
		t.Run(name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Quorum Queues": delayed retry`, "delayed retry")
			q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-delayed-retry-type": f.kind,
				"x-delayed-retry-min": delay.Milliseconds(), "x-delayed-retry-max": delay.Milliseconds()})
			l := c.link()
			l.texts("", q, "m")
			d := l.fetch(q, false)
			begun := time.Now().Truncate(time.Millisecond) // as brokers count
			if f.reject {
				c.must(d.Reject(true))
			} else {
				c.must(d.Nack(false, true))
			}
			if f.delays {
				l.isEmpty(q)
			}
			again := l.take(q)
			equal(t, "redelivered", again.Redelivered, true)
			equal(t, "delayed", time.Since(begun) >= delay, f.delays)
		})
	}
}
