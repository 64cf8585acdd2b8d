package conform

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

const singleActiveSource = `RabbitMQ "Consumers": single active consumer`

func TestTheNextSingleActiveConsumerDoesNotWaitForWhatACancelledOneHolds(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			c := begin(t, singleActiveSource)
			q := c.queue("q", amqp.Table{"x-single-active-consumer": true, "x-queue-type": kind})
			first, l := c.link(), c.link()
			a := first.consume(q, "first", false, nil)
			b := c.link().consume(q, "second", true, nil)
			l.texts("", q, "1")
			held := next(t, a)
			c.must(first.Cancel("first", false))
			l.texts("", q, "2")
			equal(t, "the second gets", string(next(t, b).Body), "2")
			c.must(held.Reject(true)) // it still is the first's to settle
			again := next(t, b)
			equal(t, "what the first gave back", string(again.Body), "1")
			equal(t, "redelivered", again.Redelivered, true)
		})
	}
}

func TestAConsumerThatComesBackToItsQueueIsTheLastInTurnToBeActive(t *testing.T) {
	c := begin(t, singleActiveSource)
	q := c.queue("q", amqp.Table{"x-single-active-consumer": true})
	first, l := c.link(), c.link()
	a := first.consume(q, "first", true, nil)
	b := c.link().consume(q, "second", true, nil)
	c.must(first.Cancel("first", false))
	again := first.consume(q, "first", true, nil)
	l.texts("", q, "1")
	equal(t, "the second gets", string(next(t, b).Body), "1")
	quiet(t, again)
	quiet(t, a)
}
