package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"warren/broker"
	"warren/cluster"
	"warren/cluster/placement"
	"warren/fsm/meta"
	"warren/mq"
)

// replication is how many nodes hold a queue group.
const replication = 3

// metaVotersMax is how many nodes vote on the metadata; the others follow.
const metaVotersMax = 5

// groups keeps this node's Raft groups in line with the metadata: the
// metadata says who replicates what, and is the authority.
type groups struct {
	cluster  *cluster.Cluster
	broker   *broker.Broker
	founders []string // the nodes that formed the cluster, sorted
	slog     *slog.Logger

	mu   sync.Mutex
	meta *cluster.Group
	open map[mq.GroupID]*cluster.Group
	led  map[uint64]ledSince
}

// openMeta opens the metadata group. Founders of a new cluster all begin it
// with the same members; everybody else waits to be added.
func (g *groups) openMeta() error {
	self := g.cluster.ID()
	var bootstrap []string
	if slices.Contains(g.founders, self) {
		bootstrap = g.founders
	}
	m := g.broker.Metadata()
	group, err := g.cluster.OpenGroup(uint64(metaGroup), metadataMachine{m}, cluster.GroupOptions{Bootstrap: bootstrap, Meta: true})
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.meta = group
	g.mu.Unlock()
	m.Start(group)
	return nil
}

const metaGroup mq.GroupID = 0

// sync opens the groups that the metadata gives to this node.
func (g *groups) sync() error {
	self := mq.NodeID(g.cluster.ID())
	for _, rec := range g.broker.View().Groups() {
		if !slices.Contains(rec.Replicas, self) || g.get(rec.ID) != nil {
			continue
		}
		s := g.broker.AddShard(rec.ID)
		group, err := g.cluster.OpenGroup(uint64(rec.ID), shardMachine{s}, cluster.GroupOptions{Bootstrap: g.bootstrap(rec)})
		if err != nil {
			return err
		}
		g.mu.Lock()
		g.open[rec.ID] = group
		g.mu.Unlock()
		s.Start(group)
	}
	return nil
}

// bootstrap is what a group begins with on this node: its first members if it
// still is as the cluster began it, and nothing if this node was added to it,
// because then its leader tells.
func (g *groups) bootstrap(rec meta.Group) []string {
	layout := placement.Spread(g.founders, len(g.broker.View().Groups()), replication)
	at := int(rec.ID) - 1
	if at < 0 || at >= len(layout) || !slices.Contains(layout[at], g.cluster.ID()) {
		return nil
	}
	if !slices.Equal(layout[at], strs(rec.Replicas)) {
		return nil
	}
	return layout[at]
}

func strs(ids []mq.NodeID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func nodeIDs(ids []string) []mq.NodeID {
	out := make([]mq.NodeID, len(ids))
	for i, id := range ids {
		out[i] = mq.NodeID(id)
	}
	return out
}

func (g *groups) get(id mq.GroupID) *cluster.Group {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id == metaGroup {
		return g.meta
	}
	return g.open[id]
}

// all lists the open groups, the metadata group first.
func (g *groups) all() []*cluster.Group {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*cluster.Group
	if g.meta != nil {
		out = append(out, g.meta)
	}
	ids := make([]mq.GroupID, 0, len(g.open))
	for id := range g.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		out = append(out, g.open[id])
	}
	return out
}

// init makes the new cluster's metadata, once its first leader is this node.
func (g *groups) init(ctx context.Context, first meta.ClusterInit) error {
	if g.broker.View().Initialized() || !g.broker.LeadsMetadata() {
		return nil
	}
	r, err := g.broker.Propose(ctx, first)
	if err != nil {
		return err
	}
	return r[0].Error()
}

// endDead ends the sessions of nodes that have ended.
func (g *groups) endDead(ctx context.Context) error {
	if !g.broker.LeadsMetadata() {
		return nil
	}
	ops := g.broker.EndDeadSessions()
	if len(ops) == 0 {
		return nil
	}
	g.slog.Warn("ending the sessions of nodes that are gone", "sessions", len(ops))
	_, err := g.broker.Propose(ctx, ops...)
	return err
}

// place gives groups more replicas when nodes have joined: one change at a
// time, decided by the metadata leader, carried out by the group's leader.
func (g *groups) place(ctx context.Context) error {
	if !g.broker.LeadsMetadata() || !g.broker.View().Initialized() {
		return nil
	}
	for _, m := range placement.Plan(g.nodes(), g.placed(), replication) {
		if m.Kind == placement.Transfer {
			continue // each group's leader looks after that itself
		}
		rec := g.broker.View().Group(mq.GroupID(m.Group))
		if rec == nil {
			continue
		}
		_, err := g.broker.Propose(ctx, meta.GroupSet{ID: rec.ID, Replicas: nodeIDs(m.Replicas)})
		g.slog.Info("replicas of a group change", "group", m.Group, "replicas", m.Replicas)
		return err
	}
	return nil
}

// follow brings the members of the groups that this node leads in line with
// the metadata, one change at a time.
func (g *groups) follow(ctx context.Context) error {
	var errs []error
	v := g.broker.View()
	for _, group := range g.all() {
		if _, ok := group.Leading(); !ok {
			continue
		}
		var want []mq.NodeID
		if id := mq.GroupID(group.ID()); id != metaGroup {
			if rec := v.Group(id); rec != nil {
				want = rec.Replicas
			}
		} else {
			for _, n := range v.Nodes() {
				want = append(want, n.ID)
			}
		}
		errs = append(errs, g.changeOne(ctx, group, strs(want)))
	}
	return errors.Join(errs...)
}

// changeOne makes at most one change to a group's members.
func (g *groups) changeOne(ctx context.Context, group *cluster.Group, want []string) error {
	servers, index, err := group.Servers()
	if err != nil || len(want) == 0 {
		return err
	}
	voters := 0
	is := map[string]bool{}
	for _, s := range servers {
		is[s.ID] = s.Voter
		if s.Voter {
			voters++
		}
	}
	for _, id := range want {
		voter, member := is[id]
		mayVote := group.ID() != uint64(metaGroup) || voters < metaVotersMax
		switch {
		case !member:
			return group.AddNonvoter(ctx, id, index)
		case !voter && mayVote && g.caughtUp(ctx, group, id):
			return group.AddVoter(ctx, id, index)
		}
	}
	if group.ID() == uint64(metaGroup) {
		return nil // a joining node is a member before the metadata knows it
	}
	for _, s := range servers {
		if !slices.Contains(want, s.ID) && s.ID != g.cluster.ID() {
			return group.RemoveServer(ctx, s.ID, index)
		}
	}
	return nil
}

// caughtUp asks a new member how far it has applied the group's log.
func (g *groups) caughtUp(ctx context.Context, group *cluster.Group, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	applied, err := g.askApplied(ctx, id, group.ID())
	return err == nil && applied+catchUpEntries >= group.CommitIndex()
}

// catchUpEntries is how close a new member has to be before it may vote.
const catchUpEntries = 64

func (g *groups) close(ctx context.Context) {
	all := g.all()
	slices.Reverse(all) // the metadata group last: the others' last words need it
	var work sync.WaitGroup
	for _, group := range all {
		work.Go(func() {
			if err := group.Close(ctx); err != nil {
				g.slog.Warn("group closed badly", "group", group.ID(), "err", err)
			}
		})
	}
	work.Wait()
}
