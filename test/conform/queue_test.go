package conform

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestAQueueDeclaredTwiceAlikeIsFineAndTellsItsCounts(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.2")
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "1", "2")
	again, err := l.QueueDeclare(q, true, false, false, false, nil)
	c.must(err)
	equal(t, "messages", again.Messages, 2)
	equal(t, "consumers", again.Consumers, 0)
	c.link().prefetch(1).consume(q, "", false, nil)
	c.await("1 ready message and 1 consumer", func() bool {
		again, err := l.QueueDeclarePassive(q, true, false, false, false, nil)
		c.must(err)
		return again.Messages == 1 && again.Consumers == 1
	})
}

func TestPassiveDeclareLooksAtTheNameOnly(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.3")
	q := c.queue("q", nil)
	_, err := c.link().QueueDeclarePassive(q, false, true, true, false, amqp.Table{"x-max-length": 5})
	c.must(err)
}

func TestEquivalentArgumentsAreFineWhenAQueueIsDeclaredAgain(t *testing.T) {
	for _, f := range []struct {
		name          string
		first, second amqp.Table
	}{
		{"the same", amqp.Table{"x-max-length": 5, "x-message-ttl": 60000}, amqp.Table{"x-max-length": 5, "x-message-ttl": 60000}},
		{"of other width", amqp.Table{"x-max-length": int32(5)}, amqp.Table{"x-max-length": int64(5)}},
		{"unknown", amqp.Table{"x-mine": 1}, amqp.Table{"x-yours": "2"}},
		{"without a type for classic", amqp.Table{"x-queue-type": "classic"}, nil},
		{"with classic for no type", nil, amqp.Table{"x-queue-type": "classic"}},
		{"without the prefix", amqp.Table{"mine": 1}, nil},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §1.7.2.1")
			q := c.queue("q", f.first)
			_, err := c.link().QueueDeclare(q, true, false, false, false, f.second)
			c.must(err)
		})
	}
}

func TestClassicAndQuorumWhenAQueueIsDeclaredAgain(t *testing.T) {
	c := begin(t, `RabbitMQ "Quorum Queues"`)
	q := c.queue("q", amqp.Table{"x-queue-type": "quorum"})
	_, err := c.link().QueueDeclare(q, true, false, false, false, amqp.Table{"x-queue-type": "classic"})
	if differs(t, true, false, "they are one engine") {
		refusedWith(t, err, 406)
		return
	}
	c.must(err)
}

func TestArgumentsAreTakenAtTheirLimits(t *testing.T) {
	for _, f := range []struct {
		name, feature string
		args          amqp.Table
	}{
		{"a TTL of zero", "", amqp.Table{"x-message-ttl": 0}},
		{"a TTL of ten years", "", amqp.Table{"x-message-ttl": int64(315360000000)}},
		{"a length of zero", "", amqp.Table{"x-max-length": 0}},
		{"a size of a terabyte", "", amqp.Table{"x-max-length-bytes": int64(1) << 40}},
		{"the default overflow", "", amqp.Table{"x-overflow": "drop-head"}},
		{"a dead-letter exchange that is not there", "", amqp.Table{"x-dead-letter-exchange": "nowhere"}},
		{"the default exchange for dead letters", "", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}},
		{"any mode", "", amqp.Table{"x-queue-mode": "eager"}},
		{"a priority of zero", "x-max-priority", amqp.Table{"x-max-priority": 0}},
		{"a priority of 255", "x-max-priority", amqp.Table{"x-max-priority": 255}},
	} {
		t.Run(f.name, func(t *testing.T) {
			var features []string
			if f.feature != "" {
				features = append(features, f.feature)
			}
			begin(t, `RabbitMQ "Queues": optional arguments`, features...).queue("q", f.args)
		})
	}
}

func TestTheServerNamesAQueueWithoutAName(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.2")
	l := c.link()
	a, err := l.QueueDeclare("", false, false, true, false, nil)
	c.must(err)
	b, err := l.QueueDeclare("", false, false, true, false, nil)
	c.must(err)
	if !strings.HasPrefix(a.Name, "amq.gen-") || a.Name == b.Name {
		t.Errorf("got %q and %q", a.Name, b.Name)
	}
}

func TestAServerNamedQueueCanBeDeclaredPassivelyByItsName(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.2")
	l := c.link()
	q, err := l.QueueDeclare("", false, false, true, false, nil)
	c.must(err)
	_, err = l.QueueDeclarePassive(q.Name, false, false, true, false, nil)
	c.must(err)
}

func TestNoNameIsTheQueueThatTheChannelDeclaredLast(t *testing.T) {
	const source = "AMQP 0-9-1 §1.7.2.3.1"
	for name, f := range map[string]func(r *raw, q string){
		"for bind":    func(r *raw, q string) { r.call(queueBind("", "amq.direct", q, nil), 50, 21) },
		"for unbind":  func(r *raw, q string) { r.call(queueUnbind("", "amq.direct", q, nil), 50, 51) },
		"for purge":   func(r *raw, q string) { r.call(queuePurge(""), 50, 31) },
		"for get":     func(r *raw, q string) { r.call(basicGet("", true), 60, 72) },
		"for consume": func(r *raw, q string) { r.call(basicConsume("", "", 0, nil), 60, 21) },
		"for delete": func(r *raw, q string) {
			r.call(queueDelete("", 0), 50, 41)
			r.refused("channel 404 50.10 NOT_FOUND - no queue 'conform-q-ID' in vhost '/'", queueDeclare(q, passive, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, source)
			r, q := c.raw(), c.name("q")
			r.call(queueDeclare(q, exclusive, nil), 50, 11)
			f(r, q)
		})
	}
}

func TestNoNameAndNoKeyInBindAreTheLastQueuesName(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3.3")
	l, q, x := c.link(), c.name("q"), c.exchange("x", "direct", nil)
	_, err := l.QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	c.must(l.QueueBind("", "", x, false, nil))
	c.link().texts(x, q, "m")
	equal(t, "routed", string(l.take(q).Body), "m")
}

func TestPassiveDeclareAlsoSetsTheChannelsLastQueue(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3.1")
	r, q := c.raw(), c.queue("q", nil)
	r.call(queueDeclare(q, passive, nil), 50, 11)
	r.call(queuePurge(""), 50, 31)
}

func TestLineEndsAreTakenOutOfAQueuesName(t *testing.T) {
	c := begin(t, "RabbitMQ: rabbit_channel strip_cr_lf")
	q := c.queue("q", nil)
	got, err := c.link().QueueDeclarePassive(q[:5]+"\r\n"+q[5:], true, false, false, false, nil)
	c.must(err)
	equal(t, "name", got.Name, q)
}

func TestAQueuesNameMayHave255Octets(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.5.3")
	name := c.name("q")
	c.declare(name+strings.Repeat("ü", (255-len(name))/2), nil)
}

func TestATransientQueueIsThereForOtherConnections(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.4")
	q := c.name("q")
	_, err := c.link().QueueDeclare(q, false, false, false, false, nil)
	c.must(err)
	c.queues = append(c.queues, q)
	c.link().texts("", q, "m")
	equal(t, "body", string(c.link().take(q).Body), "m")
}

func TestAnExclusiveQueueGoesWithItsConnection(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.5")
	conn, q := c.conn(), c.name("q")
	_, err := c.linkOn(conn).QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	c.must(conn.Close())
	c.expires(q)
}

func TestAnExclusiveQueueIsForAllChannelsOfItsConnection(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.5")
	conn, q := c.conn(), c.name("q")
	_, err := c.linkOn(conn).QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	l := c.linkOn(conn)
	_, err = l.QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	l.consume(q, "", true, nil)
}

func TestOthersMayPublishToAnExclusiveQueue(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.5")
	l, q := c.link(), c.name("q")
	_, err := l.QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	c.link().texts("", q, "m")
	equal(t, "body", string(l.take(q).Body), "m")
}

func TestAnAutoDeleteQueueGoesWithItsLastConsumer(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.6")
	l, q := c.link(), c.name("q")
	_, err := l.QueueDeclare(q, true, true, false, false, nil)
	c.must(err)
	l.consume(q, "one", true, nil)
	other := c.link()
	other.consume(q, "two", true, nil)
	c.must(l.Cancel("one", false))
	_, err = l.QueueDeclarePassive(q, true, true, false, false, nil)
	c.must(err)
	c.must(other.Cancel("two", false))
	c.expires(q)
}

func TestAnAutoDeleteQueueGoesWhenItsLastConsumersChannelCloses(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.6")
	l, q := c.link(), c.name("q")
	_, err := l.QueueDeclare(q, true, true, false, false, nil)
	c.must(err)
	l.consume(q, "one", true, nil)
	c.must(l.Close())
	c.expires(q)
}

func TestAnAutoDeleteQueueThatNeverHadAConsumerStays(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.6")
	l, q := c.link(), c.name("q")
	_, err := l.QueueDeclare(q, true, true, false, false, nil)
	c.must(err)
	c.queues = append(c.queues, q)
	l.texts("", q, "m")
	l.take(q)
	equal(t, "messages", l.depth(q), 0)
}

func TestPurgeDropsWhatIsReadyOnly(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.7")
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "1", "2", "3")
	held := l.fetch(q, false)
	n, err := l.QueuePurge(q, false)
	c.must(err)
	equal(t, "purged", n, 2)
	c.must(held.Nack(false, true))
	equal(t, "left", string(l.take(q).Body), "1")
	l.isEmpty(q)
}

func TestDeleteTellsHowManyMessagesWereReady(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.10")
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "1", "2", "3")
	n, err := l.QueueDelete(q, false, false, false)
	c.must(err)
	equal(t, "deleted", n, 3)
}

func TestDeletingAQueueThatIsNotThereIsFine(t *testing.T) {
	c := begin(t, `RabbitMQ "Specification": queue.delete`)
	n, err := c.link().QueueDelete(c.name("q"), true, true, false)
	c.must(err)
	equal(t, "deleted", n, 0)
}

func TestAnUnusedEmptyQueueCanBeDeletedIfUnusedAndIfEmpty(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.9")
	_, err := c.link().QueueDelete(c.queue("q", nil), true, true, false)
	c.must(err)
}

func TestDeleteIfEmptyDoesNotLookAtWhatIsUnacknowledged(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.9.3")
	q := c.queue("q", nil)
	l := c.link()
	l.texts("", q, "m")
	l.fetch(q, false)
	_, err := l.QueueDelete(q, false, true, false)
	c.must(err)
}

func TestADeletedQueueTakesItsBindingsAlong(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.9")
	x := c.exchange("x", "fanout", nil)
	q := c.bound("q", x, "", nil)
	l := c.link()
	_, err := l.QueueDelete(q, false, false, false)
	c.must(err)
	c.declare(q, nil)
	l.texts(x, "", "m")
	l.isEmpty(q)
}

func TestADeclareWithoutWaitingIsDone(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.1.7")
	r, q := c.raw(), c.name("q")
	r.send(queueDeclare(q, durable|noWait, nil), queueDeclare(q, passive, nil))
	r.want(50, 11)
	c.queues = append(c.queues, q)
	r.quiet()
}

func TestAQueueExpiresWhenNobodyUsesIt(t *testing.T) {
	c := begin(t, `RabbitMQ "Time-to-Live"`, "x-expires")
	q := c.queue("q", amqp.Table{"x-expires": 300})
	c.expires(q)
}

func TestAQueueWithAConsumerDoesNotExpire(t *testing.T) {
	c := begin(t, `RabbitMQ "Time-to-Live"`, "x-expires")
	q := c.queue("q", amqp.Table{"x-expires": 5000})
	l := c.link()
	l.consume(q, "", true, nil)
	c.expires(c.queue("marker", amqp.Table{"x-expires": 5000}))
	l.depth(q)
}

func TestAQueueThatIsGotFromDoesNotExpire(t *testing.T) {
	c := begin(t, `RabbitMQ "Time-to-Live"`, "x-expires")
	q := c.queue("q", amqp.Table{"x-expires": 5000})
	marker := c.queue("marker", amqp.Table{"x-message-ttl": 7500})
	l := c.link()
	l.texts("", marker, "m")
	c.await("more than the time", func() bool {
		l.isEmpty(q)
		return l.depth(marker) == 0
	})
}

// expires waits until a queue is gone.
func (c *claim) expires(queue string) {
	c.Helper()
	l := c.link()
	c.await("the end of "+queue, func() bool { return !l.isThere(queue) })
}
