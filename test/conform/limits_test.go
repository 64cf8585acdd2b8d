package conform

import (
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	ttlSource      = `RabbitMQ "Time-to-Live"`
	limitSource    = `RabbitMQ "Queue Length Limit"`
	prioritySource = `RabbitMQ "Priority Queues"`
)

// lasting is a message with a time to live.
func lasting(body, ms string) amqp.Publishing {
	p := text(body)
	p.Expiration = ms
	return p
}

// runsEmpty waits until a queue is empty.
func (c *claim) runsEmpty(queue string) {
	c.Helper()
	l := c.link()
	c.await("the end of what is in "+queue, func() bool { return l.depth(queue) == 0 })
	l.isEmpty(queue)
}

func TestTimeToLiveOfAQueueEndsItsMessages(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 100})
	c.link().texts("", q, "1", "2")
	c.runsEmpty(q)
}

func TestTimeToLiveOfAMessageEndsIt(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", nil)
	c.link().send("", q, lasting("m", "100"))
	c.runsEmpty(q)
}

func TestTimeToLiveOfTheQueueCountsIfItIsShorter(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 100})
	c.link().send("", q, lasting("m", "600000"))
	c.runsEmpty(q)
}

func TestTimeToLiveOfTheMessageCountsIfItIsShorter(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 600000})
	c.link().send("", q, lasting("m", "100"))
	c.runsEmpty(q)
}

func TestTimeToLiveDoesNotEndWhatIsUnacknowledged(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 5000})
	marker := c.queue("marker", amqp.Table{"x-message-ttl": 5500})
	l := c.link()
	l.texts("", q, "m")
	d := l.fetch(q, false)
	l.texts("", marker, "m")
	c.runsEmpty(marker)
	c.must(d.Ack(false))
	c.must(l.Close())
	c.link().isEmpty(q)
}

func TestTimeToLiveEndsWhatIsGivenBackAfterIt(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 5000})
	marker := c.queue("marker", amqp.Table{"x-message-ttl": 5500})
	l := c.link()
	l.texts("", q, "m")
	d := l.fetch(q, false)
	l.texts("", marker, "m")
	c.runsEmpty(marker)
	c.must(d.Nack(false, true))
	c.runsEmpty(q)
}

func TestTimeToLiveOfZeroDeliversToWhoWaits(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 0})
	d := c.link().consume(q, "", true, nil)
	c.link().texts("", q, "m")
	equal(t, "body", string(next(t, d).Body), "m")
}

func TestTimeToLiveOfZeroDropsWhatNobodyWaitsFor(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", amqp.Table{"x-message-ttl": 0})
	c.link().texts("", q, "m")
	c.runsEmpty(q)
}

func TestTimeToLiveOfAMessageOfZeroDropsItLikewise(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", nil)
	c.link().send("", q, lasting("m", "0"))
	c.runsEmpty(q)
}

func TestTimeToLiveWaitsBehindALongerOne(t *testing.T) {
	c := begin(t, ttlSource)
	q, marker := c.queue("q", nil), c.queue("marker", nil)
	l := c.link()
	l.texts("", q, "forever")
	l.send("", q, lasting("short", "50"))
	l.send("", marker, lasting("m", "300"))
	c.runsEmpty(marker)
	equal(t, "counted", l.depth(q), 2)
	equal(t, "first", string(l.take(q).Body), "forever")
	c.runsEmpty(q)
}

func TestTimeToLiveKeepsTheExpirationPropertyOfWhatLives(t *testing.T) {
	c := begin(t, ttlSource)
	q := c.queue("q", nil)
	l := c.link()
	l.send("", q, lasting("m", "600000"))
	equal(t, "expiration", l.take(q).Expiration, "600000")
}

func TestLengthLimitsDropTheHead(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 2})
	l := c.link()
	l.texts("", q, "1", "2", "3", "4")
	equal(t, "left", fmt.Sprint(l.bodies(q, 2)), "[3 4]")
	l.isEmpty(q)
}

func TestLengthLimitsInBytesCountBodies(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length-bytes": 20})
	l := c.link()
	p := text(strings.Repeat("a", 10))
	p.Headers = amqp.Table{"long": strings.Repeat("x", 100)}
	l.send("", q, p, p)
	equal(t, "both fit", l.depth(q), 2)
	l.texts("", q, "b")
	equal(t, "one had to go", l.depth(q), 2)
}

func TestLengthLimitsBothCount(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 10, "x-max-length-bytes": 5})
	l := c.link()
	l.texts("", q, "aaa", "bbb")
	equal(t, "left", l.depth(q), 1)
}

func TestLengthLimitsOfZeroKeepNothing(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 0})
	l := c.link()
	l.texts("", q, "m")
	c.await("an empty queue", func() bool { return l.depth(q) == 0 })
}

func TestLengthLimitsOfZeroDeliverToWhoWaits(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 0})
	d := c.link().consume(q, "", true, nil)
	c.link().texts("", q, "m")
	equal(t, "body", string(next(t, d).Body), "m")
}

func TestLengthLimitsDoNotCountWhatIsUnacknowledged(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 1})
	l := c.link()
	l.texts("", q, "1")
	l.fetch(q, false)
	l.texts("", q, "2")
	equal(t, "body", string(l.take(q).Body), "2")
}

func TestLengthLimitsDropWhatARequeueMakesTooMuch(t *testing.T) {
	c := begin(t, limitSource)
	q := c.queue("q", amqp.Table{"x-max-length": 1})
	l := c.link()
	l.texts("", q, "1")
	d := l.fetch(q, false)
	l.texts("", q, "2")
	c.must(d.Nack(false, true))
	c.await("one message", func() bool { return l.depth(q) == 1 })
	equal(t, "left", string(l.take(q).Body), "2")
}

func TestLengthLimitsDeadLetterWhatTheyDrop(t *testing.T) {
	c := begin(t, limitSource)
	dead := c.queue("dead", nil)
	q := c.queue("q", amqp.Table{"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	l := c.link()
	l.texts("", q, "1", "2")
	d := l.take(dead)
	equal(t, "dropped", string(d.Body), "1")
	equal[any](t, "reason", d.Headers["x-first-death-reason"], "maxlen")
}

func TestLengthLimitsRejectPublishes(t *testing.T) {
	c := begin(t, limitSource, "reject-publish")
	q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	l := c.link()
	equal(t, "first", l.try("", q, text("1")), true)
	equal(t, "second", l.try("", q, text("2")), false)
	equal(t, "left", string(l.take(q).Body), "1")
	equal(t, "third", l.try("", q, text("3")), true)
}

func TestLengthLimitsRejectPublishesInSilenceWithoutConfirms(t *testing.T) {
	c := begin(t, limitSource, "reject-publish")
	q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	c.link().texts("", q, "1")
	r := c.raw()
	r.publish("", q, 0, text("2"))
	r.quiet()
	equal(t, "depth", c.link().depth(q), 1)
}

func TestLengthLimitsRejectWhatOneOfSeveralQueuesHasNoRoomFor(t *testing.T) {
	c := begin(t, limitSource, "reject-publish")
	x := c.exchange("x", "fanout", nil)
	full := c.queue("full", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	c.link().texts("", full, "1")
	c.bind(full, x, "", nil)
	roomy := c.bound("roomy", x, "", nil)
	l := c.link()
	equal(t, "confirmed", l.try(x, "", text("2")), false)
	equal(t, "in the other", string(l.take(roomy).Body), "2")
}

func TestLengthLimitsRejectPublishesAndDeadLetterThem(t *testing.T) {
	c := begin(t, limitSource, "reject-publish-dlx")
	dead := c.queue("dead", nil)
	q := c.queue("q", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish-dlx",
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	l := c.link()
	equal(t, "first", l.try("", q, text("1")), true)
	equal(t, "second", l.try("", q, text("2")), false)
	d := l.take(dead)
	equal(t, "dead", string(d.Body), "2")
	equal[any](t, "reason", d.Headers["x-first-death-reason"], "maxlen")
}

// inOrder sends messages with these priorities, and returns their numbers in
// the order in which they come.
func inOrder(c *claim, queue string, priorities ...uint8) string {
	c.Helper()
	l := c.link()
	for i, p := range priorities {
		m := text(fmt.Sprint(i))
		m.Priority = p
		l.send("", queue, m)
	}
	return fmt.Sprint(l.bodies(queue, len(priorities)))
}

func TestPrioritiesGoFirst(t *testing.T) {
	c := begin(t, prioritySource, "x-max-priority")
	equal(t, "order", inOrder(c, c.queue("q", amqp.Table{"x-max-priority": 5}), 0, 1, 5, 3), "[2 3 1 0]")
}

func TestPrioritiesKeepTheOrderAmongEquals(t *testing.T) {
	c := begin(t, prioritySource, "x-max-priority")
	equal(t, "order", inOrder(c, c.queue("q", amqp.Table{"x-max-priority": 5}), 1, 2, 1, 2), "[1 3 0 2]")
}

func TestPrioritiesAboveTheMaximumAreTheMaximum(t *testing.T) {
	c := begin(t, prioritySource, "x-max-priority")
	equal(t, "order", inOrder(c, c.queue("q", amqp.Table{"x-max-priority": 2}), 2, 9, 2), "[0 1 2]")
}

func TestPrioritiesDoNotCountInAQueueWithoutThem(t *testing.T) {
	c := begin(t, prioritySource)
	equal(t, "order", inOrder(c, c.queue("q", nil), 0, 9, 5), "[0 1 2]")
}

func TestPrioritiesComeBackToTheirPlace(t *testing.T) {
	c := begin(t, prioritySource, "x-max-priority")
	q := c.queue("q", amqp.Table{"x-max-priority": 5})
	l := c.link()
	high := text("high")
	high.Priority = 5
	l.texts("", q, "low")
	l.send("", q, high)
	c.must(l.fetch(q, false).Nack(false, true))
	equal(t, "order", fmt.Sprint(l.bodies(q, 2)), "[high low]")
}

func TestPrioritiesThatAreHighestAreTheHeadThatALengthLimitDrops(t *testing.T) {
	c := begin(t, prioritySource, "x-max-priority")
	q := c.queue("q", amqp.Table{"x-max-priority": 5, "x-max-length": 1})
	l := c.link()
	high := text("high")
	high.Priority = 5
	l.send("", q, high)
	l.texts("", q, "low")
	equal(t, "left", string(l.take(q).Body), "low")
}
