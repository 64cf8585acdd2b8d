package broker

import (
	"context"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// Stat asks the leader of a queue for its counts.
func (b *Broker) Stat(ctx context.Context, q *meta.Queue) (QueueStat, error) {
	return b.stat(ctx, q, false)
}

// Declared is Stat for somebody who declares a queue again, which counts as its use.
func (b *Broker) Declared(ctx context.Context, q *meta.Queue) (QueueStat, error) {
	return b.stat(ctx, q, true)
}

func (b *Broker) stat(ctx context.Context, q *meta.Queue, use bool) (QueueStat, error) {
	if err := b.answered(ctx, q.Group); err != nil {
		return QueueStat{}, err
	}
	r, err := b.callLeader(ctx, callStat, q.Group, fields.AppendBool(fields.AppendUint(nil, uint64(q.ID)), use))
	if err != nil {
		return QueueStat{}, err
	}
	p := parser{fields.Read(r)}
	st := QueueStat{Ready: p.Uint(), Unacked: p.Uint(), Consumers: uint32(p.Uint())}
	if p.More() { // else the leader is of an older build
		st.active.Session, st.active.Consumer = mq.SessionID(p.Uint()), mq.ConsumerID(p.Uint())
	}
	return st, p.Err()
}

// answered waits for what this node has sent to a group: a client that
// publishes and then asks finds what it has published.
func (b *Broker) answered(ctx context.Context, g mq.GroupID) error {
	if o := b.knownOutbox(g); o != nil {
		return b.explain(ctx, g, o.answered(ctx))
	}
	return nil
}

// published is answered for a question that settlements need only be ahead of.
func (b *Broker) published(ctx context.Context, g mq.GroupID) error {
	if o := b.knownOutbox(g); o != nil {
		return b.explain(ctx, g, o.published(ctx))
	}
	return nil
}

// Purge drops what is ready in a queue and says how many messages that were.
func (b *Broker) Purge(ctx context.Context, q *meta.Queue) (uint32, error) {
	if err := b.answered(ctx, q.Group); err != nil {
		return 0, err
	}
	r, err := b.callLeader(ctx, callPurge, q.Group, fields.AppendUint(nil, uint64(q.ID)))
	if err != nil {
		return 0, err
	}
	p := parser{fields.Read(r)}
	return uint32(p.Uint()), p.Err()
}

// Leader is the node that leads a group, as far as this node has heard.
func (b *Broker) Leader(g mq.GroupID) (node mq.NodeID, term uint64, ok bool) {
	k, ok, _ := b.leaders.of(g)
	return k.node, k.term, ok
}

// NodeStats are the figures of this node's part of the broker.
type NodeStats struct {
	Sessions, Consumers uint64
	Led                 uint64 // queues that this node dispatches
	Ready, Unacked      uint64 // messages in them
	Shards              ShardStats
	RepliesDropped      uint64 // direct replies that nobody took
}

// Stats sums up this node.
func (b *Broker) Stats() (n NodeStats) {
	b.mu.RLock()
	n.Sessions = uint64(len(b.sessions))
	b.mu.RUnlock()
	b.consumers.mu.RLock()
	n.Consumers = uint64(len(b.consumers.byID))
	b.consumers.mu.RUnlock()
	n.RepliesDropped = b.requesters.dropped.Load() + b.replyLinks.dropped.Load()
	v := b.View()
	for _, s := range b.allShards() {
		s.mu.Lock()
		if s.lead != nil {
			for q := range v.QueuesOf(s.group) {
				if q.Keeper != meta.NoKeeper {
					continue
				}
				st := s.stat(q.ID)
				n.Led++
				n.Ready += st.Ready
				n.Unacked += st.Unacked
			}
		}
		n.Shards.add(s.stats)
		s.mu.Unlock()
	}
	return n
}

func (a *ShardStats) add(b ShardStats) {
	a.Enqueued += b.Enqueued
	a.Delivered += b.Delivered
	a.Redelivered += b.Redelivered
	a.Settled += b.Settled
	a.Returned += b.Returned
	a.Expired += b.Expired
	a.Overflowed += b.Overflowed
	a.Refused += b.Refused
	a.DeadLettered += b.DeadLettered
	a.Recalled += b.Recalled
	a.Deduplicated += b.Deduplicated
}

// Close ends the broker's part of the node: no session is opened any more.
// Connections have been closed by then.
func (b *Broker) Close() {
	b.mu.Lock()
	b.closed = true
	local := b.local
	b.mu.Unlock()
	if local != nil {
		local.Follow()
	}
	b.meta.stop()
}
