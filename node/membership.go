package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"warren/cluster"
	"warren/cluster/placement"
	"warren/fsm/meta"
	"warren/mq"
)

const (
	// metaVotersMax is how many nodes vote on the metadata; the others follow.
	metaVotersMax = 5
	// catchUpEntries is how close a new member has to be before it may vote.
	catchUpEntries = 64
	// changeMax is how long the look at one group may take: one that has lost
	// its majority must not hold up the others.
	changeMax = 2 * time.Second
)

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
	if slices.ContainsFunc(servers, func(s cluster.Server) bool { return s.ID == id }) {
		return nil
	}
	if err := group.AddNonvoter(ctx, id, index); err != nil {
		return err
	}
	g.slog.Info("node joins", "id", id, "name", name, "addr", addr)
	return nil
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
	return g.propose(ctx, ops...)
}

// raiseLevel lets the cluster use what all of its members know.
func (g *groups) raiseLevel(ctx context.Context) error {
	ops := g.broker.RaiseLevel()
	if len(ops) == 0 {
		return nil
	}
	g.slog.Info("raising the feature level of the cluster")
	return g.propose(ctx, ops...)
}

// place gives groups more replicas when nodes have joined: one change at a
// time, decided by the metadata leader, carried out by the group's leader.
func (g *groups) place(ctx context.Context) error {
	if !g.broker.LeadsMetadata() {
		return nil
	}
	for _, m := range placement.Plan(g.nodes(), g.placed(), replication) {
		if m.Kind == placement.Transfer {
			continue // each group's leader looks after that itself
		}
		if err := g.propose(ctx, meta.GroupSet{ID: mq.GroupID(m.Group), Replicas: nodeIDs(m.Replicas)}); err != nil {
			return err
		}
		g.slog.Info("replicas of a group change", "group", m.Group, "replicas", m.Replicas)
		return nil
	}
	return nil
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

// follow brings the members of the groups that this node leads in line with
// the metadata, one change at a time.
func (g *groups) follow(ctx context.Context) error {
	var errs []error
	for _, group := range g.all() {
		if _, ok := group.Leading(); !ok {
			continue
		}
		servers, index, err := group.Servers()
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, changeMax)
			m := g.membership(group.ID(), servers)
			err = m.next(func(id string) bool { return g.caughtUp(ctx, group, id) }).carryOut(ctx, group, index)
			cancel()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// membership is who a group's members are, and who they should be.
type membership struct {
	servers   []cluster.Server
	want      []string
	self      string
	votersMax int
	grows     bool // nobody is removed who is not wanted
}

func (g *groups) membership(id uint64, servers []cluster.Server) membership {
	m := membership{servers: servers, self: g.cluster.ID(), votersMax: replication}
	v := g.broker.View()
	if id == uint64(metaGroup) {
		m.votersMax, m.grows = metaVotersMax, true // a joining node is a member before the metadata knows it
		for _, n := range v.Nodes() {
			m.want = append(m.want, string(n.ID))
		}
		return m
	}
	if rec := v.Group(mq.GroupID(id)); rec != nil {
		m.want = strs(rec.Replicas)
	}
	return m
}

// change is one step from the members that a group has to those it should have.
type change struct {
	kind changeKind
	id   string
}

type changeKind uint8

const (
	changeNone changeKind = iota
	changeAdd
	changePromote
	changeRemove
	changeLeave // hand the leadership to id, which removes this node then
)

// next finds the next step. Nobody is removed before everybody wanted votes,
// and a node that is not wanted and leads hands over first. With no wish at
// all nothing changes.
func (m *membership) next(caughtUp func(id string) bool) change {
	voters := 0
	is := map[string]bool{}
	for _, s := range m.servers {
		is[s.ID] = s.Voter
		if s.Voter && slices.Contains(m.want, s.ID) {
			voters++
		}
	}
	waits := false
	for _, id := range m.want {
		voter, member := is[id]
		switch {
		case !member:
			return change{changeAdd, id}
		case voter || voters >= m.votersMax:
		case caughtUp(id):
			return change{changePromote, id}
		default:
			waits = true
		}
	}
	if waits || m.grows || len(m.want) == 0 {
		return change{}
	}
	for _, s := range m.servers {
		if slices.Contains(m.want, s.ID) {
			continue
		}
		if s.ID != m.self {
			return change{changeRemove, s.ID}
		}
		for _, id := range m.want {
			if is[id] {
				return change{changeLeave, id}
			}
		}
	}
	return change{}
}

func (c change) carryOut(ctx context.Context, group *cluster.Group, index uint64) error {
	switch c.kind {
	case changeAdd:
		return group.AddNonvoter(ctx, c.id, index)
	case changePromote:
		return group.AddVoter(ctx, c.id, index)
	case changeLeave:
		return group.TransferTo(ctx, c.id)
	case changeRemove:
		return group.RemoveServer(ctx, c.id, index)
	}
	return nil
}

// caughtUp asks a new member how far it has applied the group's log.
func (g *groups) caughtUp(ctx context.Context, group *cluster.Group, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, changeMax/2)
	defer cancel()
	applied, err := g.askApplied(ctx, id, group.ID())
	return err == nil && applied+catchUpEntries >= group.CommitIndex()
}
