package broker

import (
	"context"

	"warren/fsm/meta"
	"warren/mq"
)

// queueDelete is queue.delete (AMQP 0-9-1 §1.7.2.9). A missing queue is
// deleted already. Like RabbitMQ, if-empty looks at what is ready.
func (t *Topology) queueDelete(ctx context.Context, op mq.QueueDelete) (mq.Reply, error) {
	name := clean(op.Name)
	if err := t.access.Configure(queueResource, name); err != nil {
		return mq.Reply{}, err
	}
	q, err := confirmed(ctx, t.meta, func(v *meta.View) *meta.Queue { return v.Queue(t.who.VHost, name) })
	if err != nil || q == nil {
		return mq.Reply{}, err
	}
	if !t.mayUse(q) {
		return mq.Reply{}, q.Locked()
	}
	return t.deleteQueue(ctx, q, op)
}

// deleteQueue deletes a queue for somebody who may.
func (t *Topology) deleteQueue(ctx context.Context, q *meta.Queue, op mq.QueueDelete) (mq.Reply, error) {
	if op.IfUnused || op.IfEmpty {
		n, err := t.queues.DeleteIf(ctx, q, op.IfUnused, op.IfEmpty)
		return mq.Reply{Queue: q.Name, Messages: count32(n)}, err
	}
	// Without a condition the queue can go though its leader does not answer;
	// the count is then unknown and shown as 0.
	s, err := t.queues.Stat(ctx, q)
	if err != nil && ctx.Err() != nil {
		return mq.Reply{}, err
	}
	if _, err := t.propose(ctx, meta.QueueDelete{VHost: q.VHost, Name: q.Name, IfID: q.ID}); err != nil {
		return mq.Reply{}, err
	}
	return mq.Reply{Queue: q.Name, Messages: count32(s.Ready)}, nil
}

// queuePurge is queue.purge (AMQP 0-9-1 §1.7.2.7).
func (t *Topology) queuePurge(ctx context.Context, op mq.QueuePurge) (mq.Reply, error) {
	name := clean(op.Name)
	if err := t.access.Read(queueResource, name); err != nil {
		return mq.Reply{}, err
	}
	q, err := t.Queue(ctx, name)
	if err != nil {
		return mq.Reply{}, err
	}
	n, err := t.queues.Purge(ctx, q)
	if err != nil {
		return mq.Reply{}, err
	}
	return mq.Reply{Queue: name, Messages: n}, nil
}

// exchangeDelete is exchange.delete (AMQP 0-9-1 §1.6.2.3). A missing exchange
// is deleted already.
func (t *Topology) exchangeDelete(ctx context.Context, op mq.ExchangeDelete) error {
	name := clean(op.Name)
	if err := checkNotDefault(name); err != nil {
		return err
	}
	if reserved(name) {
		return mq.Errorf(mq.AccessRefused, "deletion of system exchange '%s' in vhost '%s' not allowed", name, t.who.VHost)
	}
	if err := t.access.Configure(exchangeResource, name); err != nil {
		return err
	}
	x, err := t.exchange(ctx, name)
	if err != nil || x == nil {
		return err
	}
	_, err = t.propose(ctx, meta.ExchangeDelete{VHost: x.VHost, Name: x.Name, IfUnused: op.IfUnused})
	return err
}
