package conform

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lasting is a message with a time to live.
func lasting(body, ms string) amqp.Publishing {
	p := text(body)
	p.Expiration = ms
	return p
}

func TestTimeToLive(t *testing.T) {
	const source = `RabbitMQ "Time-to-Live"`
	gone := func(c *claim, q string) {
		l := c.link()
		c.await("the end of what is in "+q, func() bool { return l.depth(q) == 0 })
		l.isEmpty(q)
	}
	t.Run("of a queue ends its messages", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 100})
		c.link().texts("", q, "1", "2")
		gone(c, q)
	})
	t.Run("of a message ends it", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", nil)
		c.link().send("", q, lasting("m", "100"))
		gone(c, q)
	})
	t.Run("of the queue counts if it is shorter", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 100})
		c.link().send("", q, lasting("m", "600000"))
		gone(c, q)
	})
	t.Run("of the message counts if it is shorter", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 600000})
		c.link().send("", q, lasting("m", "100"))
		gone(c, q)
	})
	t.Run("does not end what is unacknowledged", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 1000})
		marker := c.queue("marker", amqp.Table{"x-message-ttl": 1500})
		l := c.link()
		l.texts("", q, "m")
		d := l.fetch(q, false)
		l.texts("", marker, "m")
		gone(c, marker)
		c.must(d.Ack(false))
		c.must(l.Close())
		c.link().isEmpty(q)
	})
	t.Run("ends what is given back after it", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 1000})
		marker := c.queue("marker", amqp.Table{"x-message-ttl": 1500})
		l := c.link()
		l.texts("", q, "m")
		d := l.fetch(q, false)
		l.texts("", marker, "m")
		gone(c, marker)
		c.must(d.Nack(false, true))
		gone(c, q)
	})
	t.Run("of zero delivers to who waits", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 0})
		d := c.link().consume(q, "", true, nil)
		c.link().texts("", q, "m")
		equal(t, "body", string(next(t, d).Body), "m")
	})
	t.Run("of zero drops what nobody waits for", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-message-ttl": 0})
		c.link().texts("", q, "m")
		gone(c, q)
	})
	t.Run("of a message of zero drops it likewise", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", nil)
		c.link().send("", q, lasting("m", "0"))
		gone(c, q)
	})
	t.Run("waits behind a longer one", func(t *testing.T) {
		c := begin(t, source)
		q, marker := c.queue("q", nil), c.queue("marker", nil)
		l := c.link()
		l.texts("", q, "forever")
		l.send("", q, lasting("short", "50"))
		l.send("", marker, lasting("m", "300"))
		gone(c, marker)
		equal(t, "counted", l.depth(q), 2)
		equal(t, "first", string(l.take(q).Body), "forever")
		gone(c, q)
	})
	t.Run("keeps the expiration property of what lives", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", nil)
		l := c.link()
		l.send("", q, lasting("m", "600000"))
		equal(t, "expiration", l.take(q).Expiration, "600000")
	})
}

func TestLengthLimits(t *testing.T) {
	const source = `RabbitMQ "Queue Length Limit"`
	t.Run("drop the head", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 2})
		l := c.link()
		l.texts("", q, "1", "2", "3", "4")
		equal(t, "left", fmt.Sprint(l.bodies(q, 2)), "[3 4]")
		l.isEmpty(q)
	})
	t.Run("in bytes count bodies", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length-bytes": 20})
		l := c.link()
		p := text(strings.Repeat("a", 10))
		p.Headers = amqp.Table{"long": strings.Repeat("x", 100)}
		l.send("", q, p, p)
		equal(t, "both fit", l.depth(q), 2)
		l.texts("", q, "b")
		equal(t, "one had to go", l.depth(q), 2)
	})
	t.Run("both count", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 10, "x-max-length-bytes": 5})
		l := c.link()
		l.texts("", q, "aaa", "bbb")
		equal(t, "left", l.depth(q), 1)
	})
	t.Run("of zero keep nothing", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 0})
		l := c.link()
		l.texts("", q, "m")
		c.await("an empty queue", func() bool { return l.depth(q) == 0 })
	})
	t.Run("of zero deliver to who waits", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 0})
		d := c.link().consume(q, "", true, nil)
		c.link().texts("", q, "m")
		equal(t, "body", string(next(t, d).Body), "m")
	})
	t.Run("do not count what is unacknowledged", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 1})
		l := c.link()
		l.texts("", q, "1")
		l.fetch(q, false)
		l.texts("", q, "2")
		equal(t, "body", string(l.take(q).Body), "2")
	})
	t.Run("drop what a requeue makes too much", func(t *testing.T) {
		c := begin(t, source)
		q := c.queue("q", amqp.Table{"x-max-length": 1})
		l := c.link()
		l.texts("", q, "1")
		d := l.fetch(q, false)
		l.texts("", q, "2")
		c.must(d.Nack(false, true))
		c.await("one message", func() bool { return l.depth(q) == 1 })
		equal(t, "left", string(l.take(q).Body), "2")
	})
	t.Run("dead-letter what they drop", func(t *testing.T) {
		c := begin(t, source)
		dead := c.queue("dead", nil)
		q := c.queue("q", amqp.Table{"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
		l := c.link()
		l.texts("", q, "1", "2")
		d := l.take(dead)
		equal(t, "dropped", string(d.Body), "1")
		equal[any](t, "reason", d.Headers["x-first-death-reason"], "maxlen")
	})
	t.Run("reject publishes", func(t *testing.T) {
		c := begin(t, source, "reject-publish")
		q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		l := c.link()
		equal(t, "first", l.try("", q, text("1")), true)
		equal(t, "second", l.try("", q, text("2")), false)
		equal(t, "left", string(l.take(q).Body), "1")
		equal(t, "third", l.try("", q, text("3")), true)
	})
	t.Run("reject publishes in silence without confirms", func(t *testing.T) {
		c := begin(t, source, "reject-publish")
		q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		c.link().texts("", q, "1")
		r := c.raw()
		r.publish("", q, 0, text("2"))
		r.quiet()
		equal(t, "depth", c.link().depth(q), 1)
	})
	t.Run("reject what one of several queues has no room for", func(t *testing.T) {
		c := begin(t, source, "reject-publish")
		x := c.exchange("x", "fanout", nil)
		full := c.queue("full", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		c.link().texts("", full, "1")
		c.bind(full, x, "", nil)
		roomy := c.bound("roomy", x, "", nil)
		l := c.link()
		equal(t, "confirmed", l.try(x, "", text("2")), false)
		equal(t, "in the other", string(l.take(roomy).Body), "2")
	})
	t.Run("reject publishes and dead-letter them", func(t *testing.T) {
		c := begin(t, source, "reject-publish-dlx")
		dead := c.queue("dead", nil)
		q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish-dlx",
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
		l := c.link()
		equal(t, "first", l.try("", q, text("1")), true)
		equal(t, "second", l.try("", q, text("2")), false)
		d := l.take(dead)
		equal(t, "dead", string(d.Body), "2")
		equal[any](t, "reason", d.Headers["x-first-death-reason"], "maxlen")
	})
}

func TestPriorities(t *testing.T) {
	const source, feature = `RabbitMQ "Priority Queues"`, "x-max-priority"
	order := func(c *claim, q string, priorities ...uint8) string {
		l := c.link()
		for i, p := range priorities {
			m := text(fmt.Sprint(i))
			m.Priority = p
			l.send("", q, m)
		}
		return fmt.Sprint(l.bodies(q, len(priorities)))
	}
	t.Run("go first", func(t *testing.T) {
		c := begin(t, source, feature)
		equal(t, "order", order(c, c.queue("q", amqp.Table{"x-max-priority": 5}), 0, 1, 5, 3), "[2 3 1 0]")
	})
	t.Run("keep the order among equals", func(t *testing.T) {
		c := begin(t, source, feature)
		equal(t, "order", order(c, c.queue("q", amqp.Table{"x-max-priority": 5}), 1, 2, 1, 2), "[1 3 0 2]")
	})
	t.Run("above the maximum are the maximum", func(t *testing.T) {
		c := begin(t, source, feature)
		equal(t, "order", order(c, c.queue("q", amqp.Table{"x-max-priority": 2}), 2, 9, 2), "[0 1 2]")
	})
	t.Run("do not count in a queue without them", func(t *testing.T) {
		c := begin(t, source)
		equal(t, "order", order(c, c.queue("q", nil), 0, 9, 5), "[0 1 2]")
	})
	t.Run("come back to their place", func(t *testing.T) {
		c := begin(t, source, feature)
		q := c.queue("q", amqp.Table{"x-max-priority": 5})
		l := c.link()
		high := text("high")
		high.Priority = 5
		l.texts("", q, "low")
		l.send("", q, high)
		c.must(l.fetch(q, false).Nack(false, true))
		equal(t, "order", fmt.Sprint(l.bodies(q, 2)), "[high low]")
	})
	t.Run("that are highest are the head that a length limit drops", func(t *testing.T) {
		c := begin(t, source, feature)
		q := c.queue("q", amqp.Table{"x-max-priority": 5, "x-max-length": 1})
		l := c.link()
		high := text("high")
		high.Priority = 5
		l.send("", q, high)
		l.texts("", q, "low")
		equal(t, "left", string(l.take(q).Body), "low")
	})
}
