package broker

import (
	"context"

	"warren/fsm/meta"
	"warren/mq"
)

func (t *Topology) binding(source, destination string, toExchange bool, key string, args mq.Table) meta.Binding {
	return meta.Binding{
		VHost: t.who.VHost, Source: clean(source), Destination: clean(destination),
		ToExchange: toExchange, Key: key, Args: args,
	}
}

// bind is queue.bind and exchange.bind: idempotent, 404 if an end is missing.
func (t *Topology) bind(ctx context.Context, b meta.Binding) error {
	if err := t.mayBind(b); err != nil {
		return err
	}
	x, err := t.Exchange(ctx, b.Source)
	if err != nil {
		return err
	}
	if err := t.mayBindTopic(x, b.Key); err != nil {
		return err
	}
	var q *meta.Queue
	if b.ToExchange {
		_, err = t.Exchange(ctx, b.Destination)
	} else {
		q, err = t.anyQueue(ctx, b.Destination)
	}
	if err != nil {
		return err
	}
	if err := checkBinding(x, &b, q); err != nil {
		return err
	}
	if q != nil && !t.mayUse(q) {
		return q.Locked()
	}
	if t.meta.View().Bound(b) {
		return nil
	}
	r, err := t.propose(ctx, meta.Bind{Binding: b})
	if err != nil || r.Value == false || x.Type != historyExchange || t.replay == nil {
		return err
	}
	return t.replay(ctx, x, b)
}

// unbind is queue.unbind and exchange.unbind. What is not there needs no
// unbinding: RabbitMQ treats all its deletes so.
func (t *Topology) unbind(ctx context.Context, b meta.Binding) error {
	if err := t.mayBind(b); err != nil {
		return err
	}
	if x := t.meta.View().Exchange(b.VHost, b.Source); x != nil {
		if err := t.mayBindTopic(x, b.Key); err != nil {
			return err
		}
	}
	bound, err := confirmed(ctx, t.meta, func(v *meta.View) *meta.Binding {
		if v.Bound(b) {
			return &b
		}
		return nil
	})
	if err != nil || bound == nil {
		return err
	}
	if q := t.meta.View().Queue(b.VHost, b.Destination); !b.ToExchange && q != nil && !t.mayUse(q) {
		return q.Locked()
	}
	_, err = t.propose(ctx, meta.Unbind{Binding: b})
	return err
}

// mayBind checks the permissions for binding and unbinding, in RabbitMQ's order.
func (t *Topology) mayBind(b meta.Binding) error {
	kind := queueResource
	if b.ToExchange {
		kind = exchangeResource
	}
	if err := t.access.Write(kind, b.Destination); err != nil {
		return err
	}
	if b.ToExchange {
		if err := checkNotDefault(b.Destination); err != nil {
			return err
		}
	}
	if err := checkNotDefault(b.Source); err != nil {
		return err
	}
	return t.access.Read(exchangeResource, b.Source)
}

// mayBindTopic checks the topic permission for a binding from a topic exchange.
func (t *Topology) mayBindTopic(x *meta.Exchange, key string) error {
	if x.Type != "topic" {
		return nil
	}
	return t.access.AllowTopic(t.meta.View(), "read", x.Name, key)
}
