package broker

import (
	"cmp"
	"context"
	"slices"

	"warren/fsm/meta"
	"warren/mq"
)

// Consumer is a consumer of this node's clients as operators see it: a copy.
type Consumer struct {
	ID       mq.ConsumerID
	Queue    *meta.Queue
	NoAck    bool
	Prefetch uint32
	Args     mq.Table
	Active   bool // it gets messages: all do but those that wait for a single active one to end
}

// Consumers lists the consumers that this node's clients have in a vhost, by ID.
// The leaders of queues with a single active consumer are asked who that is; if
// one does not answer while ctx lasts, none is.
func (b *Broker) Consumers(ctx context.Context, vhost string) []Consumer {
	var all []Consumer
	b.consumers.mu.RLock()
	for _, c := range b.consumers.byID {
		if on, _ := c.state(); on && c.queue.VHost == vhost {
			prefetch, _ := c.mayHold()
			all = append(all, Consumer{c.id, c.queue, c.spec.NoAck, prefetch, c.spec.Args, !singleActive(c.queue)})
		}
	}
	b.consumers.mu.RUnlock()
	_, session := b.run()
	asked := map[mq.QueueID]QueueStat{}
	for i := range all {
		c := &all[i]
		if c.Active {
			continue
		}
		st, known := asked[c.Queue.ID]
		if !known {
			st, _ = b.Stat(ctx, c.Queue) // none is active
			asked[c.Queue.ID] = st
		}
		c.Active = st.Active(session, c.ID)
	}
	slices.SortFunc(all, func(a, b Consumer) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
