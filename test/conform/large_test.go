package conform

import (
	"bytes"
	"crypto/rand"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// largeBytes is far more than what goes into one frame, and below the limit of a
// broker that nobody has set up. Warren keeps 8 MiB of replies that a requester
// has not read: one more has room behind one of these.
const largeBytes = 8<<20 - 12345

// largeBody is one that nothing else looks like.
func largeBody(c *claim) []byte {
	body := make([]byte, largeBytes)
	_, err := rand.Read(body)
	c.must(err)
	return body
}

// isBody checks that a large body has come as it was sent.
func (c *claim) isBody(what string, got amqp.Delivery, want []byte) {
	c.Helper()
	if !bytes.Equal(got.Body, want) {
		c.Errorf("%s: %d bytes have come, want %d and the same", what, len(got.Body), len(want))
	}
	if got.Redelivered {
		c.Errorf("%s: redelivered", what)
	}
}

func TestALargeMessageComesWholeToEveryNode(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6")
	q, body := c.queue("q", nil), largeBody(c)
	from := c.link()
	for range addresses() {
		l := c.link()
		from.send("", q, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent}, text("behind it"))
		got := l.fetch(q, false)
		c.isBody("got", got, body)
		equal(t, "the rest", l.bodies(q, 1)[0], "behind it")
		c.must(got.Nack(false, true))
		ds := l.prefetch(1).consume(q, "", false, nil)
		again := next(t, ds)
		if !again.Redelivered {
			t.Error("not told as redelivered")
		}
		again.Redelivered = false
		c.isBody("delivered", again, body)
		c.must(again.Ack(false))
		from.send("", q, text("next"))
		d := next(t, ds)
		equal(t, "next", string(d.Body), "next")
		c.must(d.Ack(false))
		c.must(l.Close())
	}
	from.isEmpty(q)
}

func TestALargeReplyComesWholeFromEveryNode(t *testing.T) {
	c := begin(t, `RabbitMQ "Direct Reply-to"`, "direct reply-to")
	q, body := c.queue("q", nil), largeBody(c)
	requester := c.link()
	replies := requester.consume(replyTo, "", true, nil)
	for range addresses() {
		requester.send("", q, amqp.Publishing{ReplyTo: replyTo})
		responder := c.link()
		to := responder.take(q).ReplyTo
		responder.send("", to, amqp.Publishing{Body: body}, text("behind it"))
		c.isBody("a reply", next(t, replies), body)
		equal(t, "the next reply", string(next(t, replies).Body), "behind it")
	}
}
