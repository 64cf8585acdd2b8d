package conform

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const dlxSource = `RabbitMQ "Dead Letter Exchanges"`

// to has dead letters go to a queue.
func to(queue string, more ...amqp.Table) amqp.Table {
	args := amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
	for _, m := range more {
		maps.Copy(args, m)
	}
	return args
}

// deaths shows x-death but for its times, which it checks.
func deaths(t testing.TB, d amqp.Delivery) string {
	t.Helper()
	entries, _ := d.Headers["x-death"].([]any)
	var all []string
	for _, e := range entries {
		e, _ := e.(amqp.Table)
		at, ok := e["time"].(time.Time)
		if !ok || time.Since(at).Abs() > time.Hour {
			t.Errorf("time of death is %v", e["time"])
		}
		var fields []string
		for _, key := range slices.Sorted(maps.Keys(e)) {
			if key != "time" {
				fields = append(fields, fmt.Sprintf("%s=%v(%T)", key, e[key], e[key]))
			}
		}
		all = append(all, strings.Join(fields, " "))
	}
	return strings.Join(all, "; ")
}

// death is how deaths shows one.
func death(count int, exchange, queue, reason string, keys ...any) string {
	return fmt.Sprintf("count=%d(int64) exchange=%s(string) queue=%s(string) reason=%s(string) routing-keys=%v([]interface {})",
		count, exchange, queue, reason, keys)
}

func TestDeadLetters(t *testing.T) {
	reject := func(c *claim, q string) { c.must(c.link().fetch(q, false).Reject(false)) }
	for _, f := range []struct {
		name, reason string
		args         amqp.Table
		kill         func(c *claim, q string)
	}{
		{"of reject", "rejected", nil, reject},
		{"of nack", "rejected", nil, func(c *claim, q string) { c.must(c.link().fetch(q, false).Nack(false, false)) }},
		{"of a queue's TTL", "expired", amqp.Table{"x-message-ttl": 50}, func(*claim, string) {}},
		{"of a length limit", "maxlen", amqp.Table{"x-max-length": 1}, func(c *claim, q string) { c.link().texts("", q, "next") }},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := begin(t, dlxSource)
			dead := c.queue("dead", nil)
			q := c.queue("q", to(dead, f.args))
			c.link().texts("", q, "m")
			f.kill(c, q)
			d := c.link().take(dead)
			equal(t, "body", string(d.Body), "m")
			equal(t, "x-death", deaths(t, d), death(1, "", q, f.reason, q))
			for _, which := range []string{"first", "last"} {
				equal[any](t, which+" reason", d.Headers["x-"+which+"-death-reason"], f.reason)
				equal[any](t, which+" queue", d.Headers["x-"+which+"-death-queue"], q)
				equal[any](t, which+" exchange", d.Headers["x-"+which+"-death-exchange"], "")
			}
			equal(t, "exchange", d.Exchange, "")
			equal(t, "routing key", d.RoutingKey, dead)
			again := false
			if f.name == "of reject" {
				again = differs(t, true, false, "it was not handed out from there")
			}
			equal(t, "redelivered", d.Redelivered, again)
			equal(t, "headers", len(d.Headers), 7)
		})
	}
}

func TestADeadLetterKeepsItsRoutingKeyIfNoneIsSet(t *testing.T) {
	c := begin(t, dlxSource)
	dlx := c.exchange("dlx", "direct", nil)
	x := c.exchange("x", "fanout", nil)
	q := c.queue("q", amqp.Table{"x-dead-letter-exchange": dlx})
	c.bind(q, x, "", nil)
	dead := c.bound("dead", dlx, "the.key", nil)
	l := c.link()
	l.texts(x, "the.key", "m")
	c.must(l.fetch(q, false).Reject(false))
	d := l.take(dead)
	equal(t, "exchange", d.Exchange, dlx)
	equal(t, "routing key", d.RoutingKey, "the.key")
	equal(t, "x-death", deaths(t, d), death(1, x, q, "rejected", "the.key"))
}

func TestADeadLetterLosesItsExpirationAndTellsIt(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead))
	l := c.link()
	l.send("", q, lasting("m", "50"))
	d := l.take(dead)
	equal(t, "expiration", d.Expiration, "")
	entry := strings.Replace(death(1, "", q, "expired", q), "queue=", "original-expiration=50(string) queue=", 1)
	equal(t, "x-death", deaths(t, d), entry)
}

func TestADeadLetterKeepsItsOtherPropertiesAndHeaders(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead))
	l := c.link()
	p := text("m")
	p.MessageId, p.ContentType, p.Priority, p.Headers = "id", "text/plain", 3, amqp.Table{"mine": "kept"}
	l.send("", q, p)
	c.must(l.fetch(q, false).Reject(false))
	d := l.take(dead)
	equal(t, "properties", fmt.Sprint(d.MessageId, d.ContentType, d.Priority, d.DeliveryMode, d.Headers["mine"]), "idtext/plain3 2kept")
}

func TestAnXDeathThatAClientSendsDoesNotCount(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead))
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(false))
	d := l.take(dead)
	back := text("m")
	back.Headers = d.Headers
	l.send("", q, back)
	c.must(l.fetch(q, false).Reject(false))
	equal(t, "x-death", deaths(t, l.take(dead)), death(1, "", q, "rejected", q))
}

func TestDeathsInSeveralQueuesAreToldTheLastFirst(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	second := c.queue("second", to(dead, amqp.Table{"x-message-ttl": 50}))
	first := c.queue("first", to(second))
	l := c.link()
	l.texts("", first, "m")
	c.must(l.fetch(first, false).Reject(false))
	d := l.take(dead)
	equal(t, "x-death", deaths(t, d), death(1, "", second, "expired", second)+"; "+death(1, "", first, "rejected", first))
	equal[any](t, "first", d.Headers["x-first-death-queue"], first)
	equal[any](t, "last", d.Headers["x-last-death-queue"], second)
	equal[any](t, "first reason", d.Headers["x-first-death-reason"], "rejected")
	equal[any](t, "last reason", d.Headers["x-last-death-reason"], "expired")
}

func TestACircleOfDeathsWithoutARejectionEnds(t *testing.T) {
	c := begin(t, dlxSource)
	other := c.name("other")
	q := c.queue("q", to(other, amqp.Table{"x-message-ttl": 50}))
	c.declare(other, to(q, amqp.Table{"x-message-ttl": 50}))
	l := c.link()
	l.texts("", q, "m")
	empty := 0 // looks in a row: it may be on its way from one to the other
	c.await("the end of the message", func() bool {
		if empty++; l.depth(q)+l.depth(other) > 0 {
			empty = 0
		}
		return empty > 10
	})
	quiet(t, l.consume(q, "", true, nil))
	quiet(t, l.consume(other, "", true, nil))
}

func TestACircleOfDeathsWithARejectionGoesOn(t *testing.T) {
	c := begin(t, dlxSource)
	other := c.name("other")
	q := c.queue("q", to(other))
	c.declare(other, to(q, amqp.Table{"x-message-ttl": 20}))
	l := c.link()
	l.texts("", q, "m")
	for i := range 3 {
		d := l.fetch(q, false)
		if i == 2 {
			equal(t, "x-death", deaths(t, d), death(2, "", other, "expired", other)+"; "+death(2, "", q, "rejected", q))
		}
		c.must(d.Reject(false))
	}
}

func TestAQueueMayDeadLetterToItself(t *testing.T) {
	c := begin(t, dlxSource)
	q := c.name("q")
	c.declare(q, to(q))
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(false))
	equal(t, "x-death", deaths(t, l.take(q)), death(1, "", q, "rejected", q))
}

func TestDeadLettersToAnExchangeThatIsNotThereAreDropped(t *testing.T) {
	c := begin(t, dlxSource)
	q := c.queue("q", amqp.Table{"x-dead-letter-exchange": c.name("none")})
	l := c.link()
	l.texts("", q, "1", "2")
	c.must(l.fetch(q, false).Reject(false))
	equal(t, "the next", string(l.take(q).Body), "2")
	l.isEmpty(q)
}

func TestRejectedMessagesAreDroppedWithoutADeadLetterExchange(t *testing.T) {
	c := begin(t, dlxSource)
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(false))
	l.isEmpty(q)
}

func TestARequeuedMessageIsNotDeadLettered(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead))
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(true))
	equal(t, "body", string(l.take(q).Body), "m")
	l.isEmpty(dead)
}

func TestPurgedAndDeletedMessagesAreNotDeadLettered(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead))
	l := c.link()
	l.texts("", q, "1")
	_, err := l.QueuePurge(q, false)
	c.must(err)
	l.texts("", q, "2")
	_, err = l.QueueDelete(q, false, false, false)
	c.must(err)
	quiet(t, l.consume(dead, "", true, nil))
}

func TestDeadLettersGoThroughAlternateExchanges(t *testing.T) {
	c := begin(t, dlxSource)
	ae := c.exchange("ae", "fanout", nil)
	dlx := c.exchange("dlx", "direct", amqp.Table{"alternate-exchange": ae})
	dead := c.bound("dead", ae, "", nil)
	q := c.queue("q", amqp.Table{"x-dead-letter-exchange": dlx})
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(false))
	equal(t, "body", string(l.take(dead).Body), "m")
}

func TestDeadLettersKeepTheirOrder(t *testing.T) {
	c := begin(t, dlxSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", to(dead, amqp.Table{"x-message-ttl": 50}))
	l := c.link()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
	}
	l.texts("", q, want...)
	equal(t, "order", fmt.Sprint(c.link().bodies(dead, 20)), fmt.Sprint(want))
}

func TestDeadLettersKeepCCButNotBCC(t *testing.T) {
	c := begin(t, dlxSource, "CC and BCC")
	dlx := c.exchange("dlx", "topic", nil)
	dead := c.bound("dead", dlx, "cc", nil)
	x := c.exchange("x", "fanout", nil)
	q := c.queue("q", amqp.Table{"x-dead-letter-exchange": dlx})
	c.bind(q, x, "", nil)
	l := c.link()
	p := text("m")
	p.Headers = amqp.Table{"CC": []any{"cc"}, "BCC": []any{"bcc"}}
	l.send(x, "key", p)
	c.must(l.fetch(q, false).Reject(false))
	equal(t, "x-death", deaths(t, l.take(dead)), death(1, x, q, "rejected", "key", "cc"))
}

func TestAtLeastOnceDeadLettersArrive(t *testing.T) {
	c := begin(t, dlxSource, "at-least-once")
	dead := c.queue("dead", amqp.Table{"x-queue-type": "quorum"})
	q := c.queue("q", to(dead, amqp.Table{"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}))
	l := c.link()
	l.texts("", q, "m")
	c.must(l.fetch(q, false).Reject(false))
	d := l.take(dead)
	equal(t, "body", string(d.Body), "m")
	equal(t, "x-death", deaths(t, d), death(1, "", q, "rejected", q))
}
