package node

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"warren/cluster"
	"warren/cluster/placement"
	"warren/fsm/meta"
	"warren/mq"
)

// callApplied asks a node how far it has applied a group's log.
const callApplied = cluster.KindNode

// answer says what this node does with the small requests of others. Before
// the cluster starts.
func (g *groups) answer() {
	g.cluster.OnJoin(g.admit)
	g.cluster.OnCall(callApplied, func(_ context.Context, _ string, req []byte) ([]byte, error) {
		if len(req) != 8 {
			return nil, errors.New("malformed request")
		}
		group := g.get(mq.GroupID(binary.BigEndian.Uint64(req)))
		if group == nil {
			return nil, errors.New("no replica of that group here")
		}
		return binary.BigEndian.AppendUint64(nil, group.AppliedIndex()), nil
	})
}

func (g *groups) askApplied(ctx context.Context, id string, gid uint64) (uint64, error) {
	r, err := g.cluster.Call(ctx, id, callApplied, binary.BigEndian.AppendUint64(nil, gid))
	if err != nil {
		return 0, err
	}
	if len(r) != 8 {
		return 0, errors.New("malformed answer")
	}
	return binary.BigEndian.Uint64(r), nil
}

// admit lets a node into the cluster: the metadata leader adds it to the
// metadata group, through which it learns the rest.
func (g *groups) admit(ctx context.Context, id, name, addr string) error {
	group := g.get(metaGroup)
	if group == nil {
		return &cluster.Redirect{}
	}
	if _, leading := group.Leading(); !leading {
		leader, _, _ := group.Leader()
		return &cluster.Redirect{ID: leader}
	}
	servers, index, err := group.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.ID == id {
			return nil
		}
	}
	g.slog.Info("node joins", "id", id, "name", name, "addr", addr)
	return group.AddNonvoter(ctx, id, index)
}

// layout is who replicates which group when a cluster begins.
func (g *groups) layout(count int) [][]mq.NodeID {
	var out [][]mq.NodeID
	for _, replicas := range placement.Spread(g.founders, count, replication) {
		out = append(out, nodeIDs(replicas))
	}
	return out
}

func (g *groups) nodes() (out []placement.Node) {
	alive := map[string]bool{g.cluster.ID(): true}
	for _, id := range g.cluster.Peers() {
		alive[id] = true
	}
	for _, n := range g.broker.View().Nodes() {
		out = append(out, placement.Node{ID: string(n.ID), Alive: alive[string(n.ID)]})
	}
	return out
}

func (g *groups) placed() (out []placement.Group) {
	for _, rec := range g.broker.View().Groups() {
		leader, _, _ := g.broker.Leader(rec.ID)
		out = append(out, placement.Group{ID: uint64(rec.ID), Replicas: strs(rec.Replicas), Leader: string(leader)})
	}
	return out
}

// balance hands one leadership to a node that leads too little, if this node
// leads too much.
func (g *groups) balance(ctx context.Context) {
	for _, m := range placement.Plan(g.nodes(), g.placed(), replication) {
		group := g.get(mq.GroupID(m.Group))
		if m.Kind != placement.Transfer || group == nil {
			continue
		}
		if _, leading := group.Leading(); !leading || g.recent(group) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := group.TransferTo(ctx, m.To)
		cancel()
		if err != nil && !errors.Is(err, cluster.ErrTransferTried) {
			g.slog.Info("leadership not handed over", "group", m.Group, "to", m.To, "err", err)
		}
		return
	}
}

// handOver offers every leadership to another node before this one stops.
func (g *groups) handOver(ctx context.Context) {
	peers := g.cluster.Peers()
	for _, group := range g.all() {
		if _, leading := group.Leading(); !leading || ctx.Err() != nil {
			continue
		}
		for _, id := range g.votersBut(group, peers) {
			if group.TransferTo(ctx, id) == nil {
				break
			}
		}
	}
}

// votersBut lists the other voters of a group that can be reached.
func (g *groups) votersBut(group *cluster.Group, peers []string) (out []string) {
	servers, _, err := group.Servers()
	if err != nil {
		return nil
	}
	up := map[string]bool{}
	for _, p := range peers {
		up[p] = true
	}
	for _, s := range servers {
		if s.Voter && up[s.ID] {
			out = append(out, s.ID)
		}
	}
	return out
}

// leave ends this node's session, so that nobody waits for it.
func (g *groups) leave(ctx context.Context) {
	session, ok := g.broker.View().Session(mq.NodeID(g.cluster.ID()))
	if !ok || len(g.cluster.Peers()) == 0 {
		return // nobody would hear
	}
	if _, err := g.broker.Propose(ctx, meta.SessionEnd{Session: session}); err != nil {
		g.slog.Info("session not ended, the others will find out", "err", err)
	}
}

// leaderHoldDown is how long a leadership is left where an election put it.
const leaderHoldDown = 5 * time.Second

// ledSince is when this node won a group.
type ledSince struct {
	term uint64
	at   time.Time
}

// recent reports whether this node has led a group for a short time only.
func (g *groups) recent(group *cluster.Group) bool {
	term, _ := group.Leading()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.led[group.ID()].term != term {
		g.led[group.ID()] = ledSince{term, time.Now()}
	}
	return time.Since(g.led[group.ID()].at) < leaderHoldDown
}
