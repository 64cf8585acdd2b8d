package amqp

import (
	"warren/amqp/wire"
	"warren/mq"
)

// replyQueue is the name that stands for direct replies to a channel
// (RabbitMQ, "Direct Reply-To"). There is no such queue.
const replyQueue = "amq.rabbitmq.reply-to"

// consumeReplies makes k the channel's consumer of direct replies.
func (s *slot) consumeReplies(m *wire.BasicConsume, k *consumer) error {
	switch {
	case !m.NoAck:
		return mq.Errorf(mq.PreconditionFailed, "reply consumer cannot acknowledge")
	case s.ch.replies != nil:
		return mq.Errorf(mq.PreconditionFailed, "reply consumer already set")
	}
	id, name, err := s.conn.session.Replies(k)
	if err != nil {
		return err
	}
	s.ch.replies, s.ch.replyTo = k, name
	var ok wire.Method
	if !m.NoWait {
		ok = &wire.BasicConsumeOk{ConsumerTag: k.tag}
	}
	s.conn.out.start(k, id, ok)
	return nil
}

// withReplyTo puts the channel's own name in the place of replyQueue in the
// properties of a request; others stay as they are. fault is set if it has none.
func (s *slot) withReplyTo(properties []byte) (_ []byte, fault *mq.Error) {
	if string(wire.PeekReplyTo(properties)) != replyQueue {
		return properties, nil
	}
	if s.ch.replies == nil {
		return properties, mq.Errorf(mq.PreconditionFailed, "fast reply consumer does not exist")
	}
	return wire.WithReplyTo(properties, s.ch.replyTo), nil
}
