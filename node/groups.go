package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/broker"
	"warren/cluster"
	"warren/cluster/placement"
	"warren/fsm/meta"
	"warren/mq"
	"warren/storage/segment"
)

const (
	metaGroup mq.GroupID = 0
	// segmentsDir is where a group's bodies are paged out to, in its folder.
	segmentsDir = "segments"
	// replication is how many nodes hold a queue group.
	replication = 3
	// Waits before a group that could not be opened is tried again: the first,
	// and the longest.
	reopenMin = time.Second
	reopenMax = time.Minute
)

// groups keeps this node's Raft groups in line with the metadata: the
// metadata says who replicates what, and is the authority.
type groups struct {
	cluster *cluster.Cluster
	broker  *broker.Broker
	pager   *segment.Pager
	slog    *slog.Logger
	fatal   func(error)
	formed  cluster.Formation // set by begin, before anything else runs

	rebuilds atomic.Uint64 // that were begun

	mu       sync.Mutex
	meta     *cluster.Group
	open     map[mq.GroupID]*cluster.Group
	failures map[mq.GroupID]openFailure
	led      map[uint64]ledSince
	stuck    map[mq.GroupID]error // why damaged replicas are not rebuilt yet
	noted    bool                 // the cluster room knows that this node's first groups exist
}

// openFailure is why a group is not open, and when it is tried again.
type openFailure struct {
	err  error
	wait time.Duration
	next time.Time
}

func newGroups(c *cluster.Cluster, b *broker.Broker, p *segment.Pager, fatal func(error), log *slog.Logger) *groups {
	return &groups{
		cluster: c, broker: b, pager: p, fatal: fatal, slog: log,
		open: map[mq.GroupID]*cluster.Group{}, failures: map[mq.GroupID]openFailure{}, led: map[uint64]ledSince{},
		stuck: map[mq.GroupID]error{},
	}
}

// begin opens the metadata group. Founders of a new cluster all begin it with
// the same members; everybody else waits to be added.
func (g *groups) begin(ctx context.Context, formed cluster.Formation) error {
	g.formed = formed
	var bootstrap []string
	if formed.Bootstrap {
		bootstrap = formed.Founders
	}
	m := g.broker.Metadata()
	group, err := g.openMetadata(ctx, metadataMachine{m}, cluster.GroupOptions{Bootstrap: bootstrap, Meta: true})
	if err != nil {
		return fmt.Errorf("open the metadata: %w", err)
	}
	g.mu.Lock()
	delete(g.failures, metaGroup)
	g.meta = group
	g.noted = !formed.Bootstrap
	g.mu.Unlock()
	m.Start(group)
	g.standIfAlone(group)
	return nil
}

// standIfAlone spares a group whose only member is this node the wait for a
// leader that nobody else can be.
func (g *groups) standIfAlone(group *cluster.Group) {
	servers, _, err := group.Servers()
	if err == nil && len(servers) == 1 && servers[0] == (cluster.Server{ID: g.cluster.ID(), Voter: true}) {
		group.InjectTimeoutNow()
	}
}

// reopen opens the groups that this node had when it stopped, without waiting
// for the metadata to say so again: their elections go on side by side with
// the metadata's.
func (g *groups) reopen(now time.Time) {
	for id := mq.GroupID(1); id <= groupsMax; id++ {
		if g.cluster.HasGroup(uint64(id)) {
			g.tryOpen(id, now)
		}
	}
}

// sync opens the groups that the metadata gives to this node.
func (g *groups) sync(now time.Time) {
	for _, rec := range g.broker.View().Groups() {
		if contains(rec, g.cluster.ID()) && g.get(rec.ID) == nil {
			g.tryOpen(rec.ID, now)
		}
	}
}

// tryOpen opens a group. One that cannot be opened keeps no other from it, and
// is tried again after a while.
func (g *groups) tryOpen(id mq.GroupID, now time.Time) {
	g.mu.Lock()
	f := g.failures[id]
	g.mu.Unlock()
	if now.Before(f.next) {
		return
	}
	group, err := g.openOne(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		wait := min(max(2*f.wait, reopenMin), reopenMax)
		g.failures[id] = openFailure{err, wait, now.Add(wait)}
		g.slog.Error("group cannot be opened", "group", uint64(id), "err", err, "retry", wait)
		return
	}
	delete(g.failures, id)
	g.open[id] = group
}

func (g *groups) openOne(id mq.GroupID) (*cluster.Group, error) {
	folder, err := g.pager.Folder(filepath.Join(g.cluster.GroupDir(uint64(id)), segmentsDir))
	if err != nil {
		return nil, err
	}
	s := g.broker.AddShard(id, folder)
	group, err := g.cluster.OpenGroup(uint64(id), shardMachine{s}, cluster.GroupOptions{
		Bootstrap: g.bootstrap(id), CheckFile: segment.CheckFile,
	})
	if err != nil {
		g.broker.RemoveShard(id)
		return nil, err
	}
	s.Start(group)
	g.standIfAlone(group)
	return group, nil
}

// bootstrap is what a group begins with on this node: its first members, if
// this node is one of them and has not begun with them before. A member that
// was added later begins with nothing, because the group's leader tells. Who
// its members are by now does not matter: they begin in the log.
func (g *groups) bootstrap(id mq.GroupID) []string {
	if !g.formed.Bootstrap || id < 1 {
		return nil
	}
	first := placement.Spread(g.formed.Founders, int(id), replication)[id-1]
	if !slices.Contains(first, g.cluster.ID()) {
		return nil
	}
	return first
}

// founded tells the cluster room, once, that the groups which this node was to
// begin exist, so that no later start begins them again.
func (g *groups) founded() error {
	g.mu.Lock()
	noted := g.noted
	g.mu.Unlock()
	v := g.broker.View()
	if noted || !v.Initialized() {
		return nil
	}
	for _, rec := range v.Groups() {
		if contains(rec, g.cluster.ID()) && g.get(rec.ID) == nil {
			return nil // not yet
		}
	}
	if err := g.cluster.Founded(); err != nil {
		return err
	}
	g.mu.Lock()
	g.noted = true
	g.mu.Unlock()
	return nil
}

// layout is who replicates which group when a cluster begins.
func (g *groups) layout(count int) [][]mq.NodeID {
	var out [][]mq.NodeID
	for _, replicas := range placement.Spread(g.formed.Founders, count, replication) {
		out = append(out, nodeIDs(replicas))
	}
	return out
}

// init makes the new cluster's metadata, once its first leader is this node.
// Only founders know who they are.
func (g *groups) init(ctx context.Context, first meta.ClusterInit) error {
	if g.broker.View().Initialized() || !g.broker.LeadsMetadata() {
		return nil
	}
	if len(g.formed.Founders) == 0 {
		return errors.New("this node leads a cluster without metadata, and is not one of its founders")
	}
	return g.propose(ctx, first)
}

// propose carries operations out, all of which have to succeed.
func (g *groups) propose(ctx context.Context, ops ...meta.Op) error {
	results, err := g.broker.Propose(ctx, ops...)
	for i := range results {
		err = errors.Join(err, results[i].Error())
	}
	return err
}

func contains(g meta.Group, id string) bool { return slices.Contains(g.Replicas, mq.NodeID(id)) }

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

// failure is why a group is not open, nil if it was not tried.
func (g *groups) failure(id mq.GroupID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures[id].err
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

// close closes all groups at once, the metadata group last: the others' last
// words need it.
func (g *groups) close(ctx context.Context) {
	var work sync.WaitGroup
	for _, group := range g.all() {
		if group.ID() != uint64(metaGroup) {
			work.Go(func() { g.closeOne(ctx, group) })
		}
	}
	work.Wait()
	if m := g.get(metaGroup); m != nil {
		g.closeOne(ctx, m)
	}
}

func (g *groups) closeOne(ctx context.Context, group *cluster.Group) {
	if err := group.Close(ctx); err != nil {
		g.slog.Warn("group closed badly", "group", group.ID(), "err", err)
	}
}
