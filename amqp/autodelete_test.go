package amqp_test

import (
	"context"
	"testing"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// autoDeleting is a broker whose queues go with their consumer: before Cancel
// has returned, it tells the sink that the consumer has ended.
type autoDeleting struct{ *amqptest.Broker }

type autoDeletingSession struct {
	amqp.Session
	sinks map[mq.ConsumerID]mq.Sink
}

func (b autoDeleting) Open(ctx context.Context, user, vhost string, forced func(*mq.Error)) (amqp.Session, error) {
	s, err := b.Broker.Open(ctx, user, vhost, forced)
	return autoDeletingSession{s, map[mq.ConsumerID]mq.Sink{}}, err
}

func (s autoDeletingSession) Consume(ctx context.Context, spec mq.ConsumeSpec, to mq.Sink) (mq.ConsumerID, error) {
	id, err := s.Session.Consume(ctx, spec, to)
	s.sinks[id] = to
	return id, err
}

func (s autoDeletingSession) Cancel(ctx context.Context, id mq.ConsumerID) error {
	s.sinks[id].Cancelled(mq.Errorf(mq.NotFound, "the queue is gone"))
	return s.Session.Cancel(ctx, id)
}

// Change tells the sinks of a deletion before it has returned.
func (s autoDeletingSession) Change(ctx context.Context, op mq.Op) (mq.Reply, error) {
	if _, deletes := op.(mq.QueueDelete); deletes {
		for _, to := range s.sinks {
			to.Cancelled(mq.Errorf(mq.NotFound, "the queue is gone"))
		}
	}
	return s.Session.Change(ctx, op)
}

// Clients such as py-amqp take a basic.cancel that comes before their
// cancel-ok for a failure.
func TestAClientThatCancelsItsConsumerIsNotToldThatItEnds(t *testing.T) {
	c := amqptest.Pipe(t, autoDeleting{amqptest.New()}, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{ConsumerTag: "t"})
	c.Send(1, &wire.BasicCancel{ConsumerTag: "t"})
	amqptest.Expect[wire.BasicCancelOk](c)
	consume(c, wire.BasicConsume{ConsumerTag: "t"}) // the tag is free again
	c.Send(1, &wire.ChannelClose{})
	amqptest.Expect[wire.ChannelCloseOk](c)
}

// A client that waits for delete-ok gets it first, as from RabbitMQ: py-amqp and
// php-amqplib raise an error at a basic.cancel, and from whatever they wait for.
func TestAClientThatDeletesAQueueHearsOfItsConsumersAfterTheAnswer(t *testing.T) {
	c := amqptest.Pipe(t, autoDeleting{amqptest.New()}, amqp.Config{}).Open(1)
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{ConsumerTag: "t"})
	c.Send(1, &wire.QueueDelete{Queue: "q"})
	amqptest.Expect[wire.QueueDeleteOk](c)
	if got := amqptest.Expect[wire.BasicCancel](c); got.ConsumerTag != "t" || !got.NoWait {
		t.Errorf("got %+v", got)
	}
	c.Declare(1, "q")
	consume(c, wire.BasicConsume{ConsumerTag: "t"}) // the tag is free again
	c.Send(1, &wire.QueueDelete{Queue: "q", NoWait: true})
	amqptest.Expect[wire.BasicCancel](c)
}
