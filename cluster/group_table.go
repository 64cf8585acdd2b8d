package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"warren/storage/snapshot"
)

// groupTable is the node's open groups, and the transports that requests find
// them by. A group without a transport is between two runs of its Raft.
type groupTable struct {
	mu         sync.Mutex
	groups     map[uint64]*Group // nil while the group is being opened
	transports map[uint64]*transport
}

func (t *groupTable) reserve(gid uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.groups[gid]; ok && (old == nil || !old.closing.Load()) {
		return fmt.Errorf("group %d is open already", gid)
	}
	t.groups[gid] = nil
	return nil
}

func (t *groupTable) put(gid uint64, g *Group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g == nil {
		delete(t.groups, gid)
		return
	}
	t.groups[gid] = g
}

// get is an open group, or nil.
func (t *groupTable) get(gid uint64) *Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.groups[gid]; g != nil && !g.closing.Load() {
		return g
	}
	return nil
}

// all are the open groups in order of their number.
func (t *groupTable) all() []*Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	open := slices.DeleteFunc(slices.Collect(maps.Values(t.groups)), func(g *Group) bool {
		return g == nil || g.closing.Load()
	})
	slices.SortFunc(open, func(a, b *Group) int { return cmp.Compare(a.gid, b.gid) })
	return open
}

func (t *groupTable) transport(gid uint64) *transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.transports[gid]
}

func (t *groupTable) register(tr *transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.transports[tr.gid] = tr
}

// deregister takes tr out, unless a later run's transport has its place.
func (t *groupTable) deregister(tr *transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.transports[tr.gid] == tr {
		delete(t.transports, tr.gid)
	}
}

// newTransport makes and registers a transport for one run of a group's Raft.
// hold keeps it from voting for one heartbeat timeout: a node that was just
// restarted does not know which leader it promised its silence to.
func (c *Cluster) newTransport(gid uint64, s *standing, hold bool, snapshots *snapshot.Store) *transport {
	t := &transport{
		gid: gid, self: c.id, standing: s, calls: c.callers, gone: c.groups.deregister,
		callMax: max(c.cfg.HeartbeatTimeout, time.Second), log: c.log.With("group", gid),
		reachable: c.morgue.laneUp,
		snapshots: snapshots, patience: bulkPatience, rate: c.bulkRate, figures: &c.pulls,
		room: func() (uint64, error) { return roomIn(c.cfg.DataDir) },
		dialBulk: func(ctx context.Context, id string) (bulkConn, error) {
			return c.dial(ctx, id, roleBulk)
		},
	}
	if hold {
		t.notBefore = time.Now().Add(c.cfg.HeartbeatTimeout)
	}
	t.start()
	c.groups.register(t)
	return t
}

// OpenGroup opens the node's replica of a group, with the state that the data
// directory has of it, and starts it. Close ends it; so does the Cluster's.
func (c *Cluster) OpenGroup(gid uint64, m Machine, o GroupOptions) (*Group, error) {
	if err := c.groups.reserve(gid); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.cfg.DataDir, groupsDir)
	old := hasGroup(dir, gid)
	hold := old && len(o.Bootstrap) != 1
	seat := groupSeat{
		id: c.id, dir: dir, log: c.log, fatal: c.cfg.Fatal,
		profile: groupProfile{heartbeat: c.cfg.HeartbeatTimeout, cacheMax: c.cfg.LogCacheBytes},
		wal:     c.wal,
		report:  c.askReplica,
		terms:   c.askTerms,
		transport: func(gid uint64, s *standing, snapshots *snapshot.Store) groupTransport {
			t := c.newTransport(gid, s, hold, snapshots)
			hold = true // a later run in place knows no leader either
			return t
		},
	}
	g, err := openGroup(context.WithoutCancel(c.life), seat, gid, m, o)
	c.groups.put(gid, g)
	if err != nil {
		return nil, err
	}
	voters, after := o.Bootstrap, time.Duration(0)
	if old {
		voters, after = g.voters(g.raft.Load()), c.cfg.HeartbeatTimeout // before it, nobody votes
	}
	f := &first{group: g, self: c.id, after: after, meets: c.hasMajority}
	c.work.Go(func() { f.run(c.life, voters) })
	return g, nil
}

// GroupDir is the folder of a group in the data directory, for what its Machine
// keeps there next to what the cluster does.
func (c *Cluster) GroupDir(gid uint64) string {
	return groupDir(filepath.Join(c.cfg.DataDir, groupsDir), gid)
}

// HasGroup reports whether the data directory has state of a group, damaged or not.
func (c *Cluster) HasGroup(gid uint64) bool {
	return hasGroup(filepath.Join(c.cfg.DataDir, groupsDir), gid)
}
