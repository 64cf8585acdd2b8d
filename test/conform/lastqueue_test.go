package conform

import "testing"

// An empty queue name is the queue that the channel has declared last
// (AMQP 0-9-1 §1.7.2.3.1): the channel, not the connection, and not a channel
// of the same number before it.

func TestTheLastQueueIsTheChannelsOwn(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3.1")
	r := c.raw()
	r.call(queueDeclare(c.queue("q", nil), durable, nil), 50, 11)
	r.sendOn(2, channelOpen())
	r.want(20, 11)
	r.sendOn(2, basicGet("", true))
	r.wantRefusal("channel 404 60.70 NOT_FOUND - no previously declared queue")
}

func TestAChannelThatIsOpenedAgainHasNoLastQueue(t *testing.T) {
	for name, end := range map[string]func(c *claim, r *raw){
		"after the client's close": func(_ *claim, r *raw) { r.call(channelClose(), 20, 41); r.call(channelOpen(), 20, 11) },
		"after an error": func(c *claim, r *raw) {
			r.refused("channel 404 50.10 NOT_FOUND - no queue 'conform-none-ID' in vhost '/'", queueDeclare(c.name("none"), passive, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §1.7.2.3.1")
			r := c.raw()
			r.call(queueDeclare(c.queue("q", nil), durable, nil), 50, 11)
			end(c, r)
			r.refused("channel 404 50.30 NOT_FOUND - no previously declared queue", queuePurge(""))
		})
	}
}

func TestADeletedQueueStaysTheLastOne(t *testing.T) {
	c := begin(t, "RabbitMQ: rabbit_channel")
	r, q := c.raw(), c.queue("q", nil)
	r.call(queueDeclare(q, durable, nil), 50, 11)
	r.call(queueDelete("", 0), 50, 41)
	r.refused("channel 404 60.70 NOT_FOUND - no queue 'conform-q-ID' in vhost '/'", basicGet("", true))
}

func TestADeclareWithoutWaitingSetsTheLastQueue(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3.1")
	r, q := c.raw(), c.queue("q", nil)
	r.send(queueDeclare(q, durable|noWait, nil))
	r.call(basicGet("", true), 60, 72)
}

func TestAnEmptyKeyOfANamedQueueIsEmpty(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3")
	x := c.exchange("x", "direct", nil)
	q := c.bound("q", x, "", nil)
	l := c.link()
	l.texts(x, q, "by the queue's name")
	l.texts(x, "", "by the empty key")
	equal(t, "got", string(l.take(q).Body), "by the empty key")
	l.isEmpty(q)
}

// Libraries raise an error at a basic.cancel, from whatever they wait for: for
// the answer to queue.delete, if it came first.
func TestADeleteIsAnsweredBeforeItsChannelHearsOfItsConsumersEnd(t *testing.T) {
	c := begin(t, `RabbitMQ "Consumer Cancel Notification"`)
	r, q := c.raw(), c.name("q")
	r.call(queueDeclare(q, durable, nil), 50, 11)
	r.call(basicConsume(q, "one", 0, nil), 60, 21)
	r.call(basicConsume(q, "two", 0, nil), 60, 21)
	r.call(queueDelete(q, 0), 50, 41)
	r.want(60, 30)
	r.want(60, 30)
	r.call(basicCancel("one"), 60, 31)
}
