package amqp

import (
	"context"

	"warren/mq"
)

// Broker is what a connection asks of the rest of the house. Safe for
// concurrent use. Errors that a client may see are *mq.Error.
type Broker interface {
	// Login checks who the client is; 403 if refused. user is the name to show.
	Login(ctx context.Context, c mq.Credentials) (user string, err error)
	// Open begins a session in a vhost; 530 if it is missing or forbidden.
	// forced is called at most once, from any goroutine, when the broker needs
	// the connection gone (320). It must not block.
	Open(ctx context.Context, user, vhost string, forced func(*mq.Error)) (Session, error)
}

// Session is one client connection's view of the broker. Its methods may be
// called from several goroutines, one for each AMQP channel at a time.
type Session interface {
	// Change carries op out and returns once every live node has applied it.
	Change(ctx context.Context, op mq.Op) (mq.Reply, error)
	// Publish routes p and answers Pending or Unroutable, or Confirmed for a
	// direct reply. It blocks only while an outbox is full, and keeps p.Content
	// but not p.
	Publish(ctx context.Context, p *mq.Publish) (mq.Outcome, error)
	// Check answers the error that Publish would answer now, for a message that
	// is kept until tx.commit.
	Check(ctx context.Context, p *mq.Publish) error
	// Flush hands on what Publish and Settle gathered. Call it before blocking
	// on the socket, or it waits there too.
	Flush()
	// Get takes one message (basic.get); false means the queue is empty.
	Get(ctx context.Context, queue string, noAck bool) (mq.Delivery, bool, error)
	// Consume starts a consumer whose deliveries go to the sink.
	Consume(ctx context.Context, spec mq.ConsumeSpec, to mq.Sink) (mq.ConsumerID, error)
	// Replies starts a consumer of direct replies: of what is published to the
	// default exchange with name as its routing key. It does not block.
	Replies(to mq.Sink) (c mq.ConsumerID, name string, err error)
	// Resize changes how many deliveries a consumer's client may hold unsettled, 0
	// for any number. It has happened when it returns, or will soon if ctx ends.
	Resize(ctx context.Context, c mq.ConsumerID, prefetch uint32)
	// Cancel ends a consumer. When it returns, all deliveries have reached the
	// sink and none follows; what the client holds stays settleable.
	Cancel(ctx context.Context, c mq.ConsumerID) error
	// Settle settles deliveries. It is never blocked by publishes.
	Settle(ctx context.Context, s mq.Settlement) error
	// Drained says that the client's socket took deliveries of c, which makes
	// room for more on the way from the queue. Batch these calls.
	Drained(c mq.ConsumerID, messages, bytes int)
	// OpenChannel counts a channel; 530 if it is one more than the user may have.
	// CloseChannel counts it out.
	OpenChannel(ctx context.Context) error
	CloseChannel()
	// Close ends the session: its consumers end, what is unsettled goes back to
	// its place, exclusive queues go.
	Close() error
}
