package broker

import (
	"context"
	"errors"
	"math"

	"warren/fsm/meta"
	"warren/mq"
)

// queueDeclare is queue.declare (AMQP 0-9-1 §1.7.2.1).
func (t *Topology) queueDeclare(ctx context.Context, op mq.QueueDeclare) (mq.Reply, error) {
	name := clean(op.Name)
	if op.Passive {
		return t.queuePassive(ctx, name)
	}
	generated := name == ""
	if generated {
		var err error
		if name, err = generatedName(op.Args); err != nil {
			return mq.Reply{}, err
		}
	} else if err := checkReserved("queue", name); err != nil {
		return mq.Reply{}, err
	}
	op.Args = withoutNamePrefix(op.Args)
	if err := t.access.Configure(queueResource, name); err != nil {
		return mq.Reply{}, err
	}
	d := t.declaration(name, op)
	if !generated {
		look := func(v *meta.View) *meta.Queue { return v.Queue(d.VHost, name) }
		q, err := agreed(ctx, t.meta, look, func(q *meta.Queue) *mq.Error { return q.Equivalent(&d) })
		if err != nil {
			return mq.Reply{}, err
		}
		if q != nil {
			if r, err := t.declareOK(ctx, q); !t.vanished(q, err) {
				return r, err
			}
		}
	}
	if err := checkQueueLimit(t.meta.View(), d.VHost, name); err != nil {
		return mq.Reply{}, err
	}
	if err := t.checkDeadLetter(name, op.Args); err != nil {
		return mq.Reply{}, err
	}
	if err := checkQueueArgs(d.VHost, name, op.Args); err != nil {
		return mq.Reply{}, err
	}
	if d.Owner == 0 {
		d.Group = t.place.GroupFor(d.VHost, name, t.meta.View().PolicyArgs(d.VHost, name, op.Args))
	}
	r, err := t.propose(ctx, d)
	if err != nil {
		return mq.Reply{}, err
	}
	declared := r.Value.(meta.Declared)
	if declared.Created {
		return mq.Reply{Queue: name}, nil
	}
	// Somebody else was faster, and meant the same queue.
	return t.declareOK(ctx, declared.Queue)
}

// declaration is op as it is proposed. An exclusive queue is never durable:
// it ends with its connection anyway.
func (t *Topology) declaration(name string, op mq.QueueDeclare) meta.QueueDeclare {
	d := meta.QueueDeclare{
		VHost: t.who.VHost, Name: name, Args: op.Args,
		Durable: op.Durable && !op.Exclusive, Exclusive: op.Exclusive, AutoDelete: op.AutoDelete,
	}
	if !d.Durable {
		d.Owner = t.who.Session()
		d.Group = mq.LocalGroup(d.Owner)
	}
	if d.Exclusive {
		d.OwnerConn = t.who.Conn
	}
	return d
}

// queuePassive asks whether a queue is there and how full it is. Any one of
// the three permissions is enough, as in RabbitMQ since 4.3.1.
func (t *Topology) queuePassive(ctx context.Context, name string) (mq.Reply, error) {
	if err := t.access.Any(queueResource, name); err != nil {
		return mq.Reply{}, err
	}
	q, err := t.Queue(ctx, name)
	if err != nil {
		return mq.Reply{}, err
	}
	return t.declareOK(ctx, q)
}

// vanished reports whether a queue that was there is not any more: it was
// deleted while its leader was asked. Then a declare makes a new one.
func (t *Topology) vanished(q *meta.Queue, err error) bool {
	var e *mq.Error
	return errors.As(err, &e) && e.Code == mq.NotFound && t.meta.View().QueueByID(q.ID) == nil
}

func (t *Topology) declareOK(ctx context.Context, q *meta.Queue) (mq.Reply, error) {
	s, err := t.queues.Declared(ctx, q)
	if err != nil {
		return mq.Reply{}, err
	}
	return mq.Reply{Queue: q.Name, Messages: count32(s.Ready), Consumers: s.Consumers}, nil
}

// count32 fits a number of messages into the field that AMQP has for it.
func count32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// checkDeadLetter checks the dead-letter exchange of a new queue: who sets one
// up reads from the queue and writes to the exchange. It need not exist.
func (t *Topology) checkDeadLetter(name string, args mq.Table) error {
	const key = "x-dead-letter-exchange"
	v, ok := args.Get(key)
	if !ok {
		return nil
	}
	exchange, ok := v.(string)
	if !ok {
		return mq.Errorf(mq.PreconditionFailed, "invalid type '%s' for arg '%s' in queue '%s' in vhost '%s'",
			meta.TypeName(v), key, name, t.who.VHost)
	}
	if err := t.access.Read(queueResource, name); err != nil {
		return err
	}
	return t.access.Write(exchangeResource, exchange)
}

// exchangeDeclare is exchange.declare (AMQP 0-9-1 §1.6.2.1).
func (t *Topology) exchangeDeclare(ctx context.Context, op mq.ExchangeDeclare) error {
	name := clean(op.Name)
	if op.Passive {
		return t.exchangePassive(ctx, name)
	}
	if err := checkExchangeType(op.Type); err != nil {
		return err
	}
	if err := checkNotDefault(name); err != nil {
		return err
	}
	if err := t.access.Configure(exchangeResource, name); err != nil {
		return err
	}
	d := meta.ExchangeDeclare{
		VHost: t.who.VHost, Name: name, Type: op.Type,
		Durable: op.Durable, AutoDelete: op.AutoDelete, Internal: op.Internal, Args: op.Args,
	}
	look := func(v *meta.View) *meta.Exchange { return v.Exchange(d.VHost, name) }
	x, err := agreed(ctx, t.meta, look, func(x *meta.Exchange) *mq.Error { return x.Equivalent(&d) })
	if err != nil || x != nil {
		return err
	}
	if err := checkReserved("exchange", name); err != nil {
		return err
	}
	if err := t.checkAlternate(name, op.Args); err != nil {
		return err
	}
	if err := checkKeeper(op.Type, op.Args); err != nil {
		return err
	}
	if err := checkExchangeArgs(&meta.Exchange{VHost: d.VHost, Name: name, Type: op.Type, Args: op.Args}); err != nil {
		return err
	}
	_, err = t.propose(ctx, t.declaring(d))
	return err
}

func (t *Topology) exchangePassive(ctx context.Context, name string) error {
	if err := checkNotDefault(name); err != nil {
		return err
	}
	if err := t.access.Any(exchangeResource, name); err != nil {
		return err
	}
	_, err := t.Exchange(ctx, name)
	return err
}

// checkAlternate checks the alternate exchange of a new exchange: who sets one
// up reads from the new exchange and writes to the other. The other need not
// exist.
func (t *Topology) checkAlternate(name string, args mq.Table) error {
	const key = "alternate-exchange"
	v, ok := args.Get(key)
	if !ok {
		return nil
	}
	alternate, ok := v.(string)
	if !ok {
		return mq.Errorf(mq.PreconditionFailed, "invalid type '%s' for arg '%s' in exchange '%s' in vhost '%s'",
			meta.TypeName(v), key, name, t.who.VHost)
	}
	if err := t.access.Read(exchangeResource, name); err != nil {
		return err
	}
	return t.access.Write(exchangeResource, alternate)
}
