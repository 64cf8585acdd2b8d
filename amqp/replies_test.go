package amqp_test

import (
	"strings"
	"testing"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

const replyQueue = "amq.rabbitmq.reply-to"

func request(c *amqptest.Client, channel uint16, replyTo string) {
	p := wire.Properties{Present: wire.HasContentType | wire.HasCorrelationID | wire.HasReplyTo, ContentType: "text", CorrelationID: "7", ReplyTo: replyTo}
	c.Publish(channel, wire.BasicPublish{RoutingKey: []byte("rpc")}, p, "question")
}

// RabbitMQ, "Direct Reply-To".
func TestRequestIsAnsweredThroughItsReplyTo(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(1)
	c.Declare(1, "rpc")
	tag := consume(c, wire.BasicConsume{Queue: replyQueue, NoAck: true})
	request(c, 1, replyQueue)
	c.Send(1, &wire.BasicGet{Queue: "rpc", NoAck: true})
	_, got := amqptest.ExpectContent[wire.BasicGetOk](c)
	p := got.Properties
	if !strings.HasPrefix(p.ReplyTo, replyQueue+".") || p.CorrelationID != "7" || p.ContentType != "text" || got.Body != "question" {
		t.Fatalf("got %+v %q", p, got.Body)
	}
	c.Publish(1, wire.BasicPublish{RoutingKey: []byte(p.ReplyTo)}, wire.Properties{}, "answer")
	d, got := amqptest.ExpectContent[wire.BasicDeliver](c)
	if d.ConsumerTag != tag || d.Redelivered || got.Body != "answer" {
		t.Errorf("got %+v %q", d, got.Body)
	}
}

func TestOtherReplyToIsLeftAlone(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(1)
	c.Declare(1, "rpc")
	for _, to := range []string{"mine", replyQueue + "x", ""} {
		request(c, 1, to)
		c.Send(1, &wire.BasicGet{Queue: "rpc", NoAck: true})
		if _, got := amqptest.ExpectContent[wire.BasicGetOk](c); got.Properties.ReplyTo != to {
			t.Errorf("got %q want %q", got.Properties.ReplyTo, to)
		}
	}
}

func TestRepliesAreConsumedWithoutAckAndOncePerChannel(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(3)
	refused := func(channel uint16, m wire.BasicConsume, text string) {
		t.Helper()
		m.Queue = replyQueue
		c.Send(channel, &m)
		if got := c.ExpectClose(channel, mq.PreconditionFailed); got.ReplyText != "PRECONDITION_FAILED - "+text || got.ClassID != 60 || got.MethodID != 20 {
			t.Errorf("got %+v", got)
		}
	}
	refused(1, wire.BasicConsume{}, "reply consumer cannot acknowledge")
	c.Send(2, &wire.BasicConsume{Queue: replyQueue, NoAck: true, ConsumerTag: "a"})
	amqptest.Expect[wire.BasicConsumeOk](c)
	refused(2, wire.BasicConsume{NoAck: true}, "reply consumer already set")
	c.Send(3, &wire.BasicConsume{Queue: replyQueue, NoAck: true, ConsumerTag: "a"})
	amqptest.Expect[wire.BasicConsumeOk](c)
	c.Send(3, &wire.BasicCancel{ConsumerTag: "a"})
	amqptest.Expect[wire.BasicCancelOk](c)
	c.Send(3, &wire.BasicConsume{Queue: replyQueue, NoAck: true, ConsumerTag: "b"})
	amqptest.Expect[wire.BasicConsumeOk](c)
	c.Send(3, &wire.BasicConsume{Queue: replyQueue, NoAck: true, ConsumerTag: "b"})
	if got := amqptest.Expect[wire.ConnectionClose](c); got.ReplyText != "NOT_ALLOWED - attempt to reuse consumer tag 'b'" {
		t.Errorf("got %+v", got)
	}
}

func TestRequestNeedsAReplyConsumerOnItsChannel(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(2)
	c.Declare(1, "rpc")
	consume(c, wire.BasicConsume{Queue: replyQueue, NoAck: true, ConsumerTag: "a"})
	request(c, 2, replyQueue)
	if got := c.ExpectClose(2, mq.PreconditionFailed); got.ReplyText != "PRECONDITION_FAILED - fast reply consumer does not exist" || got.ClassID != 60 || got.MethodID != 40 {
		t.Errorf("got %+v", got)
	}
	c.Send(1, &wire.BasicCancel{ConsumerTag: "a"})
	amqptest.Expect[wire.BasicCancelOk](c)
	request(c, 1, replyQueue)
	c.ExpectClose(1, mq.PreconditionFailed)
}
