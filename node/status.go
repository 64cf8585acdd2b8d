package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"warren/fsm/meta"
	"warren/management"
	"warren/mq"
)

// catchUpSlack is how many entries a replica may be behind and still count as
// caught up: on a busy node the last ones are always on their way.
const catchUpSlack = 4096

// Ready is nil when clients can be served and every group on this node has a
// leader and has caught up.
func (n *Node) Ready() error {
	v := n.broker.View()
	if err := n.groups.failure(metaGroup); err != nil {
		return fmt.Errorf("the metadata: %w", n.groups.explain(metaGroup, err))
	}
	switch {
	case !v.Initialized():
		return errors.New("the cluster is not formed yet, or its metadata has no leader")
	case n.stopping.Load():
		return errors.New("this node is stopping")
	case !n.serving.Load():
		return errors.New("this node has no session yet")
	}
	if _, ok := v.Session(mq.NodeID(n.cluster.ID())); !ok {
		return errors.New("this node's session was ended by the others, and the next one is not open yet")
	}
	for _, g := range v.Groups() {
		if !contains(g, n.cluster.ID()) || n.groups.get(g.ID) != nil {
			continue
		}
		if err := n.groups.failure(g.ID); err != nil {
			return fmt.Errorf("group %d cannot be opened: %w", g.ID, n.groups.explain(g.ID, err))
		}
		return fmt.Errorf("group %d is not open yet", g.ID)
	}
	for _, g := range n.groups.all() {
		if err := n.groups.unfit(g); err != nil {
			return fmt.Errorf("group %d: %w", g.ID(), err)
		}
		if _, _, ok := g.Leader(); !ok {
			return fmt.Errorf("group %d has no leader", g.ID())
		}
		applied, committed := g.AppliedIndex(), g.CommitIndex()
		if committed == 0 { // every leader begins with an entry
			return fmt.Errorf("group %d has not heard from its leader what is committed", g.ID())
		}
		if applied+catchUpSlack < committed {
			return fmt.Errorf("group %d has applied %d of %d entries", g.ID(), applied, committed)
		}
	}
	for _, g := range v.Groups() {
		if _, _, ok := n.broker.Leader(g.ID); !ok {
			return fmt.Errorf("group %d has no leader that this node has heard of", g.ID)
		}
	}
	return nil
}

// Stats are the figures of this node.
func (n *Node) Stats() management.Stats {
	a, b, v := n.amqp.Stats(), n.broker.Stats(), n.broker.View()
	s := management.Stats{
		Node: n.cfg.Name, NodeID: n.cluster.ID(), Cluster: n.clusterName(), ClusterID: v.ClusterID(), Started: n.started,
		Connections: uint64(a.Connections), Channels: uint64(a.Channels), Consumers: uint64(a.Consumers),
		ConnectionsOpened: a.ConnectionsOpened, ConnectionsClosed: a.ConnectionsClosed,
		ChannelsOpened: a.ChannelsOpened, ChannelsClosed: a.ChannelsClosed,
		Queues: b.Led, QueueMessagesReady: b.Ready, QueueMessagesUnacked: b.Unacked,
		QueuesDeclared: a.QueuesDeclared,
		Received:       a.Published, ReceivedConfirm: a.PublishedConfirm, Confirmed: a.Confirmed, Routed: b.Shards.Enqueued,
		UnroutableDropped: a.UnroutableDropped, UnroutableReturned: a.Returned,
		DeliveredAutoAck: a.DeliveredAutoAck, DeliveredManualAck: a.DeliveredManualAck,
		GotAutoAck: a.GotAutoAck, GotManualAck: a.GotManualAck, GetEmpty: a.GetEmpty,
		Redelivered: a.Redelivered, Acknowledged: a.Acked,
		Refused: b.Shards.Refused, Deduplicated: b.Shards.Deduplicated, Recalled: b.Shards.Recalled, RepliesDropped: b.RepliesDropped,
	}
	p := n.pager.Stats()
	s.BodyMemory, s.BodyMemoryLimit = uint64(max(0, p.HotBytes)), uint64(p.BudgetBytes)
	s.PagedOutBytes, s.PagedInBytes = p.BytesOut, p.BytesIn
	pull := n.cluster.PullStats()
	s.SnapshotPulledBytes, s.SnapshotSkippedBytes = pull.PulledBytes, pull.SkippedBytes
	s.SnapshotServedBytes, s.SnapshotsRefused = pull.ServedBytes, pull.Refused
	s.StateMismatches = n.broker.Mismatches()
	for _, g := range n.groups.all() {
		st := g.Stats()
		_, leads := g.Leading()
		s.Groups = append(s.Groups, management.GroupStats{
			Group: st.Group, Leader: leads, Term: st.Term, CommitIndex: st.CommitIndex,
			AppliedIndex: st.AppliedIndex, LastIndex: st.LastIndex, SnapshotIndex: st.SnapshotIndex,
			Damaged: n.groups.damage(mq.GroupID(st.Group)) != nil, Rebuilding: g.Rebuilding(),
			ComparedIndex: n.broker.Compared(mq.GroupID(st.Group)),
		})
	}
	for id := range n.groups.refused() {
		s.Groups = append(s.Groups, management.GroupStats{Group: uint64(id), Damaged: true})
	}
	s.Rebuilds = n.groups.rebuilds.Load()
	return s
}

// Status is the cluster as this node sees it.
func (n *Node) Status(ctx context.Context, maxQueues int) (management.Status, error) {
	v := n.broker.View()
	s := management.Status{
		Node: n.cfg.Name, NodeID: n.cluster.ID(), Cluster: n.clusterName(), ClusterID: v.ClusterID(),
		Version: Version, UptimeMs: time.Since(n.started).Milliseconds(), QueuesTotal: v.QueueCount(),
		Members: n.members(v), Groups: n.groupStatus(v),
	}
	if err := n.Ready(); err != nil {
		s.NotReady = err.Error()
	}
	for vh := range v.VHosts() {
		for q := range v.EachQueue(vh.Name) {
			if len(s.Queues) >= maxQueues {
				return s, nil
			}
			s.Queues = append(s.Queues, n.queueStatus(ctx, q))
		}
	}
	return s, nil
}

// clusterName is the name that an operator gave the cluster, or the configured
// one.
func (n *Node) clusterName() string {
	if name, ok := n.broker.View().ClusterName(); ok {
		return name
	}
	return n.cfg.ClusterName
}

func (n *Node) members(v *meta.View) (out []management.Member) {
	up := map[string]bool{n.cluster.ID(): true}
	for _, id := range n.cluster.Peers() {
		up[id] = true
	}
	for _, m := range v.Nodes() {
		out = append(out, management.Member{ID: string(m.ID), Name: m.Name, Address: m.Addr, Alive: up[string(m.ID)]})
	}
	slices.SortStableFunc(out, func(a, b management.Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (n *Node) groupStatus(v *meta.View) []management.Group {
	metadata := management.Group{ID: uint64(metaGroup)}
	if g := n.groups.get(metaGroup); g != nil {
		servers, _, err := g.Servers()
		if err == nil {
			for _, s := range servers {
				metadata.Replicas = append(metadata.Replicas, s.ID)
			}
		}
	}
	out := []management.Group{metadata}
	for _, g := range v.Groups() {
		out = append(out, management.Group{ID: uint64(g.ID), Replicas: strs(g.Replicas)})
	}
	for i := range out {
		leader, term, _ := n.broker.Leader(mq.GroupID(out[i].ID))
		out[i].Leader, out[i].Term = string(leader), term
		if g := n.groups.get(mq.GroupID(out[i].ID)); g != nil {
			out[i].CommitIndex, out[i].AppliedIndex = g.CommitIndex(), g.AppliedIndex()
		}
	}
	return out
}

func (n *Node) queueStatus(ctx context.Context, q *meta.Queue) management.Queue {
	out := management.Queue{
		VHost: q.VHost, Name: q.Name, Durable: q.Durable, Exclusive: q.Exclusive,
		Ready: -1, Unacked: -1, Consumers: -1,
	}
	if _, local := q.Group.Local(); !local {
		out.Group = uint64(q.Group)
	}
	leader, _, ok := n.broker.Leader(q.Group)
	if !ok {
		return out
	}
	out.Leader = string(leader)
	if st, err := n.broker.Stat(ctx, q); err == nil {
		out.Ready, out.Unacked, out.Consumers = int64(st.Ready), int64(st.Unacked), int64(st.Consumers)
	}
	return out
}
