package node

import (
	"context"

	"warren/amqp"
	"warren/broker"
	"warren/mq"
)

// door is the broker as the AMQP room sees it.
type door struct{ *broker.Broker }

// Open begins a session.
func (d door) Open(ctx context.Context, user, vhost string, forced func(*mq.Error)) (amqp.Session, error) {
	s, err := d.Broker.Open(ctx, user, vhost, forced)
	if err != nil {
		return nil, err
	}
	return s, nil
}

var _ amqp.Broker = door{}
