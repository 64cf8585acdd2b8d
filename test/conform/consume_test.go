package conform

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestTheServerMakesAConsumerTagIfThereIsNone(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.2")
	tag, _ := shortString(c.raw().call(basicConsume(c.queue("q", nil), "", 0, nil), 60, 21).rest)
	if !strings.HasPrefix(tag, "amq.ctag-") {
		t.Errorf("got %q", tag)
	}
}

func TestTheSameConsumerTagIsFineOnAnotherChannel(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.2")
	conn, q := c.conn(), c.queue("q", nil)
	c.linkOn(conn).consume(q, "tag", true, nil)
	c.linkOn(conn).consume(q, "tag", true, nil)
}

func TestAConsumerTagMayBeUsedAgainAfterCancel(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.5")
	q := c.queue("q", nil)
	r := c.raw()
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
	r.call(basicCancel("tag"), 60, 31)
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
}

func TestCancelOfAnUnknownTagIsAnswered(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.8.3.5").raw()
	tag, _ := shortString(r.call(basicCancel("nobody"), 60, 31).rest)
	equal(t, "tag", tag, "nobody")
}

func TestConsumeOkComesBeforeTheFirstDelivery(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.4")
	q := c.queue("q", nil)
	c.link().texts("", q, "1", "2")
	r := c.raw()
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
	r.want(60, 60)
}

func TestADeliveryTellsItsConsumerTagExchangeAndKey(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.8")
	x := c.exchange("x", "topic", nil)
	q := c.bound("q", x, "#", nil)
	d := c.link().consume(q, "tag", true, nil)
	c.link().texts(x, "a.key", "m")
	got := next(t, d)
	equal(t, "consumer", got.ConsumerTag, "tag")
	equal(t, "exchange", got.Exchange, x)
	equal(t, "key", got.RoutingKey, "a.key")
	equal(t, "redelivered", got.Redelivered, false)
	equal(t, "delivery tag", got.DeliveryTag, 1)
}

func TestDeliveryTagsCountFromOneOnEachChannelForAllItsConsumersAndGets(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.1.1")
	a, b := c.queue("a", nil), c.queue("b", nil)
	l := c.link()
	l.texts("", b, "m")
	equal(t, "first", l.fetch(b, false).DeliveryTag, 1)
	d := l.consume(a, "", false, nil)
	c.link().texts("", a, "m", "m")
	equal(t, "second", next(t, d).DeliveryTag, 2)
	equal(t, "third", next(t, d).DeliveryTag, 3)
}

func TestConsumersOfAQueueTakeTurns(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §3.1.4")
	q := c.queue("q", nil)
	a := c.link().consume(q, "", true, nil)
	b := c.link().consume(q, "", true, nil)
	l := c.link()
	for i := range 10 {
		l.texts("", q, fmt.Sprint(i))
	}
	for range 5 {
		next(t, a)
		next(t, b)
	}
}

func TestPrefetchHoldsBackWhatIsBeyondIt(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	q := c.queue("q", nil)
	c.link().texts("", q, "1", "2", "3")
	d := c.link().prefetch(2).consume(q, "", false, nil)
	first := next(t, d)
	next(t, d)
	quiet(t, d)
	c.must(first.Ack(false))
	equal(t, "after an ack", string(next(t, d).Body), "3")
}

func TestPrefetchIsForEachConsumer(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	a, b := c.queue("a", nil), c.queue("b", nil)
	c.link().texts("", a, "1", "2")
	c.link().texts("", b, "1", "2")
	l := c.link().prefetch(1)
	da, db := l.consume(a, "", false, nil), l.consume(b, "", false, nil)
	next(t, da)
	next(t, db)
	quiet(t, da)
	quiet(t, db)
}

func TestPrefetchOfLaterQosIsForLaterConsumers(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	q := c.queue("q", nil)
	l := c.link().prefetch(1)
	d := l.consume(q, "", false, nil)
	l.prefetch(3)
	c.link().texts("", q, "1", "2")
	next(t, d)
	if differs(t, false, true, "without global, consumers with ack take the new count at once") {
		next(t, d)
		return
	}
	quiet(t, d)
}

func TestPrefetchDoesNotHoldBackConsumersWithoutAcks(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	q := c.queue("q", nil)
	c.link().texts("", q, "1", "2", "3")
	d := c.link().prefetch(1).consume(q, "", true, nil)
	for range 3 {
		next(t, d)
	}
}

func TestPrefetchDoesNotHoldBackGet(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	q := c.queue("q", nil)
	l := c.link().prefetch(1)
	l.texts("", q, "1", "2")
	l.fetch(q, false)
	l.fetch(q, false)
}

func TestGlobalPrefetchIsForTheChannel(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Prefetch"`)
	a, b := c.queue("a", nil), c.queue("b", nil)
	c.link().texts("", a, "1", "2")
	c.link().texts("", b, "1", "2")
	l := c.link()
	c.must(l.Qos(3, 0, true))
	da, db := l.consume(a, "", false, nil), l.consume(b, "", false, nil)
	either := func() {
		t.Helper()
		select {
		case <-da:
		case <-db:
		case <-time.After(patience):
			t.Fatal("nothing came")
		}
	}
	for range 3 {
		either()
	}
	if differs(t, true, false, "global prefetch is enforced, not ignored") {
		either()
		return
	}
	quiet(t, da)
	quiet(t, db)
}

func TestConsumersWithHigherPriorityComeFirst(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Priorities"`)
	q := c.queue("q", nil)
	low := c.link().consume(q, "", true, amqp.Table{"x-priority": -1})
	high := c.link().prefetch(2).consume(q, "", false, amqp.Table{"x-priority": 10})
	middle := c.link().prefetch(1).consume(q, "", false, nil)
	l := c.link()
	l.texts("", q, "1", "2", "3", "4")
	equal(t, "high", string(next(t, high).Body)+string(next(t, high).Body), "12")
	equal(t, "middle", string(next(t, middle).Body), "3")
	equal(t, "low", string(next(t, low).Body), "4")
}

func TestASingleActiveConsumerGetsAllUntilItGoes(t *testing.T) {
	for name, end := range map[string]func(l *link) error{
		"by cancel":           func(l *link) error { return l.Cancel("first", false) },
		"with its channel":    func(l *link) error { return l.Close() },
		"with its connection": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Consumers": single active consumer`)
			q := c.queue("q", amqp.Table{"x-single-active-consumer": true})
			conn := c.conn()
			first := c.linkOn(conn)
			a := first.consume(q, "first", true, nil)
			b := c.link().consume(q, "second", true, nil)
			l := c.link()
			l.texts("", q, "1", "2")
			next(t, a)
			next(t, a)
			quiet(t, b)
			if end == nil {
				c.must(conn.Close())
			} else {
				c.must(end(first))
			}
			l.texts("", q, "3")
			equal(t, "the second gets", string(next(t, b).Body), "3")
		})
	}
}

func TestTheNextSingleActiveConsumerGetsWhatTheLastHadNotAcked(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumers": single active consumer`)
	q := c.queue("q", amqp.Table{"x-single-active-consumer": true})
	first := c.link()
	a := first.consume(q, "", false, nil)
	b := c.link().consume(q, "", true, nil)
	c.link().texts("", q, "1", "2")
	c.must(next(t, a).Ack(false))
	next(t, a)
	c.must(first.Close())
	again := next(t, b)
	equal(t, "body", string(again.Body), "2")
	equal(t, "redelivered", again.Redelivered, true)
}

func TestASingleActiveConsumerGivesWayToAHigherPriorityOnceItHasAcked(t *testing.T) {
	c := begin(t, `RabbitMQ "Quorum Queues": single active consumer`)
	q := c.queue("q", amqp.Table{"x-single-active-consumer": true, "x-queue-type": "quorum"})
	low := c.link().consume(q, "", false, nil)
	l := c.link()
	l.texts("", q, "1")
	d := next(t, low)
	high := c.link().consume(q, "", true, amqp.Table{"x-priority": 1})
	quiet(t, high)
	c.must(d.Ack(false))
	c.await("a message to the higher one", func() bool {
		l.texts("", q, "2")
		select {
		case <-high:
			return true
		case <-low:
			return false
		}
	})
}

func TestAnExclusiveConsumerLeavesRoomWhenItGoes(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.5")
	q := c.queue("q", nil)
	r := c.raw()
	r.call(basicConsume(q, "one", exclusiveConsume, nil), 60, 21)
	r.call(basicCancel("one"), 60, 31)
	c.link().consume(q, "", true, nil)
}

func TestGetWorksBesideAnExclusiveConsumer(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.5")
	q := c.queue("q", nil)
	r := c.raw()
	r.call(basicConsume(q, "one", exclusiveConsume, nil), 60, 21)
	c.raw().call(basicGet(q, true), 60, 72)
}

func TestACancelledConsumerKeepsWhatItHas(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.5")
	q := c.queue("q", nil)
	c.link().texts("", q, "1")
	l := c.link().prefetch(1)
	d := next(t, l.consume(q, "tag", false, nil))
	c.must(l.Cancel("tag", false))
	c.link().isEmpty(q)
	c.must(d.Ack(false))
	c.must(l.Close())
	c.link().isEmpty(q)
}

func TestAConsumerHearsThatItsQueueWasDeleted(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Cancel Notification"`)
	q := c.queue("q", nil)
	r := c.raw()
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
	_, err := c.link().QueueDelete(q, false, false, false)
	c.must(err)
	tag, _ := shortString(r.want(60, 30).rest)
	equal(t, "tag", tag, "tag")
	r.call(basicQos(0, 1, false), 60, 11)
}

func TestAConsumerThatDoesNotKnowCancelsHearsNothingOfItsQueuesEnd(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Cancel Notification"`)
	q := c.queue("q", nil)
	r := c.rawAs(amqp.Table{})
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
	_, err := c.link().QueueDelete(q, false, false, false)
	c.must(err)
	r.quiet()
	r.call(basicCancel("tag"), 60, 31)
}

func TestAConsumerWithoutWaitingIsThere(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.3.6")
	q := c.queue("q", nil)
	r := c.raw()
	r.send(basicConsume(q, "tag", 8, nil))
	c.link().texts("", q, "m")
	r.want(60, 60)
}

func TestNoLocalIsNotLookedAt(t *testing.T) {
	c := begin(t, `RabbitMQ "Specification": no-local`)
	q := c.queue("q", nil)
	r := c.raw()
	r.call(basicConsume(q, "tag", noLocal|noAck, nil), 60, 21)
	r.publish("", q, 0, text("own"))
	r.want(60, 60)
}

func TestGetTellsHowManyMessagesAreLeft(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.11.5")
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "1", "2", "3")
	equal(t, "left", l.take(q).MessageCount, 2)
	equal(t, "left", l.take(q).MessageCount, 1)
}

func TestGetFromAnEmptyQueueIsEmpty(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.12")
	c.raw().call(basicGet(c.queue("q", nil), true), 60, 72)
}

// replyTo is the queue that stands for a client's own replies.
const replyTo = "amq.rabbitmq.reply-to"

func TestDirectReplyToBringsTheReplyToTheRequester(t *testing.T) {
	c := begin(t, `RabbitMQ "Direct Reply-to"`, "direct reply-to")
	q := c.queue("q", nil)
	client, server := c.link(), c.link()
	replies := client.consume(replyTo, "", true, nil)
	c.must(client.Publish("", q, false, false, amqp.Publishing{ReplyTo: replyTo, CorrelationId: "7", Body: []byte("question")}))
	request := server.take(q)
	if !strings.HasPrefix(request.ReplyTo, replyTo+".") {
		t.Fatalf("reply-to is %q", request.ReplyTo)
	}
	c.must(server.Publish("", request.ReplyTo, false, false, amqp.Publishing{CorrelationId: request.CorrelationId, Body: []byte("answer")}))
	got := next(t, replies)
	equal(t, "reply", string(got.Body)+got.CorrelationId, "answer7")
	equal(t, "exchange", got.Exchange, "")
	equal(t, "routing key", got.RoutingKey, request.ReplyTo)
}

func TestDirectReplyToTellsWhetherTheRequesterIsThere(t *testing.T) {
	c := begin(t, `RabbitMQ "Direct Reply-to"`, "direct reply-to")
	q := c.queue("q", nil)
	client, server := c.link(), c.link()
	client.consume(replyTo, "", true, nil)
	c.must(client.Publish("", q, false, false, amqp.Publishing{ReplyTo: replyTo}))
	to := server.take(q).ReplyTo
	_, err := server.QueueDeclarePassive(to, false, false, false, false, nil)
	c.must(err)
	c.must(client.Close())
	c.await("the end of the requester", func() bool {
		_, err := c.link().QueueDeclarePassive(to, false, false, false, false, nil)
		return err != nil
	})
}

func TestDirectReplyToDropsALateReplyInSilence(t *testing.T) {
	c := begin(t, `RabbitMQ "Direct Reply-to"`, "direct reply-to")
	q := c.queue("q", nil)
	client, server := c.link(), c.link()
	client.consume(replyTo, "", true, nil)
	c.must(client.Publish("", q, false, false, amqp.Publishing{ReplyTo: replyTo}))
	to := server.take(q).ReplyTo
	c.must(client.Close())
	c.must(server.Publish("", to, true, false, text("late")))
	quiet(t, server.returned)
}

func TestWhatAConsumerHoldsTooLongIsTakenBack(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumers": acknowledgement timeout`, "x-consumer-timeout")
	q := c.queue("q", amqp.Table{"x-queue-type": "quorum", "x-consumer-timeout": 1000})
	c.link().texts("", q, "m")
	r := c.raw()
	r.call(basicConsume(q, "tag", 0, nil), 60, 21)
	r.want(60, 60)
	r.content()
	if differs(t, true, false, "a slow message does not end the consumer") {
		r.want(60, 30)
		equal(t, "redelivered", c.link().take(q).Redelivered, true)
		return
	}
	tag, rest := shortString(r.want(60, 60).rest)
	equal(t, "consumer", tag, "tag")
	equal(t, "redelivered", rest[8], 1)
}
