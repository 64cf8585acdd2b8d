package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/raftlog"
	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// snapshotsKept is how many snapshots a group keeps: the newest, and the one
// before it in case the newest turns out to be damaged.
const snapshotsKept = 2

// drainOnEndMax is how long the end of a run waits for answers of Raft that
// are on their way, before it answers with ErrGroupClosed itself.
const drainOnEndMax = 200 * time.Millisecond

// GroupOptions say how a group is opened.
type GroupOptions struct {
	// Bootstrap lists the node ids that the group starts with, the same on
	// each of them. It is used only if this node has no state of the group.
	Bootstrap []string
	// CheckFile, if set, says whether a file that another node sent for a snapshot
	// is the one that its id promises, at least as many bytes of it.
	CheckFile func(f io.ReaderAt, bytes int64, id string) error
	// Meta marks the metadata group: followers apply an entry within a round
	// trip instead of with the next one, and the log keeps more of its past.
	Meta bool
}

// groupTransport is what a group needs of the wire: Raft's transport, and what
// is known there about answers and peers.
type groupTransport interface {
	raft.Transport
	raft.WithClose
	// lease reports whether a quorum of voters, self included, answered with
	// success in term to something sent less than window ago.
	lease(term uint64, voters []string, selfID string, window time.Duration) bool
	// injectTimeoutNow hands a TimeoutNow to this node's own Raft.
	injectTimeoutNow()
	// announce tells followers what is committed, as soon as they have it.
	announce(n commitNews)
	// pace has p see requests on their way to Raft, before Raft runs.
	pace(p *pacer)
}

// groupProfile is the timing of a node's groups.
type groupProfile struct {
	heartbeat time.Duration // also the election timeout and the leader's lease
	cacheMax  int64         // bytes of the newest entries that each group keeps in memory
	aheadMax  int64         // 0: see aheadTold and aheadRead
}

func (p *groupProfile) aheadTold() int64 { return cmp.Or(p.aheadMax, aheadTold) }
func (p *groupProfile) aheadRead() int64 { return cmp.Or(p.aheadMax, aheadRead) }

// groupSeat is what a node gives to a group that it opens.
type groupSeat struct {
	id      string // this node's; also its Raft address
	dir     string // the folder of all groups: dir/%08x/{log.bolt or stable.bolt,snapshots/}
	log     *slog.Logger
	fatal   func(error) // ends the process; see raftlog.Options
	profile groupProfile
	wal     *raftlog.WAL // the node's log of all queue groups; nil if each has a log.bolt
	// report asks another node about its replica of a group, and terms all other
	// nodes for the newest term that any of them knows.
	report func(ctx context.Context, node string, gid uint64) (replicaReport, error)
	terms  func(ctx context.Context, gid uint64) (uint64, error)
	// transport makes a fresh one for each run of Raft.
	transport func(gid uint64, s *standing, snapshots *snapshot.Store) groupTransport
}

// groupLog is where a group's entries are.
type groupLog interface {
	raft.LogStore
	// WholeFrom is the entry from which the log had no gap when it was opened.
	WholeFrom() (uint64, error)
	Stats() raftlog.Stats
	FileBytes() int64
}

// groupStores are a group's files.
type groupStores struct {
	log       groupLog
	stable    *raftlog.Bolt // term and vote; the same as log if the group has a log.bolt
	pinned    <-chan struct{}
	flaw      func() error // asked after pinned
	snapshots *snapshot.Store
}

func (s *groupStores) close() error { return s.stable.Close() }

// Files of a group: logFile holds all of it, stableFile only the term and the
// vote, while the entries are in the node's WAL.
const (
	logFile    = "log.bolt"
	stableFile = "stable.bolt"
	// snapshotsDir is in the same folder.
	snapshotsDir = "snapshots"
)

// openGroup opens gid's stores, bootstraps it if it is fresh and asked to, and
// starts Raft. The group lives until Close; ctx only carries values.
func openGroup(ctx context.Context, seat groupSeat, gid uint64, m Machine, o GroupOptions) (*Group, error) {
	log := seat.log.With("group", gid)
	stores, note, err := openOrRebuild(ctx, seat, gid, o.Meta, log)
	if err != nil {
		return nil, fmt.Errorf("open group %d: %w", gid, err)
	}
	stores.snapshots.CheckFiles(o.CheckFile)
	ctx, halt := context.WithCancel(context.WithoutCancel(ctx))
	g := &Group{
		gid: gid, opts: o, seat: seat, log: log, machine: m, stores: stores,
		stop: ctx.Done(), halt: halt,
		grown: make(chan struct{}, 1),
	}
	if note.step != stepNone {
		g.standing.now.Store(standRefilling)
		g.opts.Bootstrap = nil // it began long ago
	}
	g.leaders = &leadership{group: g, woken: make(chan struct{}, 1)}
	g.completer = newCompleter(g.wedgedAfter(), func() {
		g.leaders.requestRestart(restartReason{why: "proposals are refused because of a leadership transfer that does not end"})
	})
	g.apply = &applier{machine: m, fatal: seat.fatal, onRestore: g.beforeRestore, onLanded: g.landed, onApplied: g.afterApply}
	g.noteNewest()
	if err := g.firstRun(); err != nil {
		halt()
		return nil, errors.Join(fmt.Errorf("open group %d: %w", gid, err), stores.close())
	}
	go g.completer.run() // ends with the last flush, in Close
	g.work.Go(func() { g.leaders.run(ctx) })
	g.work.Go(func() { g.compact(ctx) })
	if note.step != stepNone {
		g.work.Go(func() { g.refill(ctx) })
	}
	g.leaders.wake()
	return g, nil
}

func openStores(seat groupSeat, gid uint64, meta bool, log *slog.Logger) (*groupStores, error) {
	dir := groupDir(seat.dir, gid)
	fs := vfs.OS{}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	for _, d := range []string{dir, seat.dir} {
		if err := fs.SyncDir(d); err != nil {
			return nil, err
		}
	}
	snaps, err := snapshot.Open(fs, filepath.Join(dir, snapshotsDir), snapshotsKept, log)
	if err != nil {
		return nil, err
	}
	s := &groupStores{snapshots: snaps}
	if err := s.openLog(seat, dir, gid, meta, log); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// openLog opens the group's log in the kind of store that the node is set to. A
// group that has the other kind is refused: its entries would be missing.
func (s *groupStores) openLog(seat groupSeat, dir string, gid uint64, meta bool, log *slog.Logger) error {
	o := raftlog.Options{Log: log, Fatal: seat.fatal, CacheBytes: seat.profile.cacheMax}
	if meta || seat.wal == nil {
		if exists(filepath.Join(dir, stableFile)) {
			return fmt.Errorf("%s: this group's log is in the shared log: start the node with raft.log_store = wal", dir)
		}
		b, err := raftlog.OpenBolt(filepath.Join(dir, logFile), o)
		if err != nil {
			return err
		}
		s.log, s.stable = b, b
		return nil
	}
	if exists(filepath.Join(dir, logFile)) {
		return fmt.Errorf("%s: this group's log is in %s: start the node with raft.log_store = boltdb", dir, logFile)
	}
	g, err := seat.wal.Group(gid)
	if err != nil && hasGroup(seat.dir, gid) {
		return err
	}
	if err != nil { // the damage is not this group's: it has nothing yet
		if g, err = seat.wal.Drop(gid); err != nil {
			return err
		}
	}
	o.CacheBytes = -1
	b, err := raftlog.OpenBolt(filepath.Join(dir, stableFile), o)
	if err != nil {
		return err
	}
	s.log, s.stable, s.pinned, s.flaw = g, b, g.Pinned(), g.Flaw
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// check refuses a log whose beginning is gone while there is no snapshot to
// stand for it: acknowledged entries are missing.
func (s *groupStores) check() error {
	list, err := s.snapshots.List()
	if err != nil || len(list) > 0 {
		return err
	}
	first, err := s.log.FirstIndex()
	if err == nil && first > 1 {
		return fmt.Errorf("the log begins at index %d and there is no snapshot: %w", first, ErrDamaged)
	}
	return err
}

// groupDir is the folder of a group, in the folder of all groups.
func groupDir(dir string, gid uint64) string { return filepath.Join(dir, fmt.Sprintf("%08x", gid)) }

// hasGroup reports whether dir holds state of group gid.
func hasGroup(dir string, gid uint64) bool {
	dir = groupDir(dir, gid)
	return exists(filepath.Join(dir, logFile)) || exists(filepath.Join(dir, stableFile)) || exists(filepath.Join(dir, rebuildFile))
}

// startRun starts Raft over the group's stores. A replaying run keeps the
// Machine's state: entries that it has applied already are passed over.
func (g *Group) startRun(replay bool) error {
	run := &groupRaft{
		transport: g.seat.transport(g.gid, &g.standing, g.stores.snapshots),
		notify:    make(chan bool, 16),
		ended:     make(chan struct{}),
		failed:    make(chan struct{}),
	}
	run.pacer.reach = func(commit uint64) uint64 { return g.reach(commit, g.seat.profile.aheadTold()) }
	run.transport.pace(&run.pacer)
	conf := g.config(run.notify)
	conf.NoSnapshotRestoreOnStart = replay
	if err := g.bootstrap(conf, run.transport); err != nil {
		return errors.Join(err, run.transport.Close())
	}
	g.apply.seen = 0
	g.apply.starting.Store(true)
	err := run.start(g, conf)
	g.apply.starting.Store(false)
	if err != nil {
		return errors.Join(err, run.transport.Close())
	}
	run.work.Go(func() { g.leaders.drain(run) })
	g.proposing.Lock()
	g.raft.Store(run)
	g.proposing.Unlock()
	g.stand(run) // if a rebuild ended meanwhile
	return nil
}

// start starts Raft, on a goroutine that damage to the stores may end.
func (r *groupRaft) start(g *Group, conf *raft.Config) (err error) {
	begun := make(chan struct{})
	go func() {
		defer close(begun)
		log, stable := watchedLog{g.stores.log, g, r}, watchedStable{g.stores.stable, g, r}
		if r.Raft, err = raft.NewRaft(conf, g.apply, log, stable, g.stores.snapshots, r.transport); err == nil {
			r.started.Store(r.Raft)
		}
	}()
	<-begun
	if err == nil && r.Raft == nil {
		err = g.Damaged()
	}
	return err
}

// bootstrap writes the first configuration into empty stores.
func (g *Group) bootstrap(conf *raft.Config, t raft.Transport) error {
	if len(g.opts.Bootstrap) == 0 {
		return nil
	}
	var c raft.Configuration
	for _, id := range g.opts.Bootstrap {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	err := raft.BootstrapCluster(conf, g.stores.log, g.stores.stable, g.stores.snapshots, t, c)
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil // it has state: that is what counts
	}
	return err
}

// config is Raft's. The lowest cost of an idle group lies in CommitTimeout: an
// empty AppendEntries per follower every one to two of it.
func (g *Group) config(notify chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.seat.id)
	c.ProtocolVersion = raft.ProtocolVersionMax
	c.HeartbeatTimeout = g.seat.profile.heartbeat
	c.ElectionTimeout = g.seat.profile.heartbeat
	c.LeaderLeaseTimeout = g.seat.profile.heartbeat
	c.CommitTimeout = 500 * time.Millisecond
	c.MaxAppendEntries = batchEntries
	c.BatchApplyCh = true
	c.TrailingLogs = trailingEntries // until the first snapshot; see keepTrailing
	c.SnapshotThreshold = 1<<64 - 1  // compact decides
	c.SnapshotInterval = time.Hour
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.RestoreCommittedLogs = false // blocks for ever, and forgets membership entries (v1.8.0)
	c.NotifyCh = notify
	c.Logger = raftLogger(g.log)
	if g.opts.Meta {
		c.MaxAppendEntries = 64
		c.TrailingLogs = 10240
	}
	if !g.standing.votes() {
		c.HeartbeatTimeout, c.ElectionTimeout = neverStands, neverStands
	}
	return c
}

// wedgedAfter is how long Raft may refuse proposals because of a leadership
// transfer: one lasts for an election timeout at most.
func (g *Group) wedgedAfter() time.Duration { return 2 * g.seat.profile.heartbeat }

// endRun stops Raft, waits for its goroutines and answers every proposal.
func (g *Group) endRun(last bool) {
	g.proposing.Lock()
	r := g.raft.Swap(nil)
	g.proposing.Unlock()
	if r != nil {
		g.completer.drain(drainOnEndMax)
		f := r.Shutdown()
		close(r.ended)
		if err := r.transport.Close(); err != nil { // ends calls that Raft's goroutines wait for
			g.log.Warn("close transport", "err", err)
		}
		if err := f.Error(); err != nil {
			g.log.Warn("stop raft", "err", err)
		}
		r.work.Wait()
	}
	g.completer.flush(ErrGroupClosed, last)
}

// restartInPlace replaces a Raft that is stuck, over the same stores and the
// same Machine; of a replica whose log is damaged it only ends Raft, so that
// the others elect somebody if this one led. Called by the leadership goroutine,
// after Follow.
func (g *Group) restartInPlace(why restartReason) {
	if g.raft.Load() == nil {
		return // the log was found to be damaged when Raft was to start
	}
	g.endRun(false)
	if g.standing.now.Load() == standLost {
		g.log.Error("the group's raft is not started again before its replica is rebuilt", "why", why.why)
		return
	}
	g.log.Error("restarting the group's raft", "why", why.why, "wipe_log", why.wipeLog)
	g.leaders.restarts.Add(1)
	// Of a snapshot that was sent, and that there was no time to restore, the next
	// run would think that the Machine has it.
	err := g.stores.snapshots.Discard(true)
	if err == nil && why.wipeLog {
		err = damaged(g.stores.wipeLog())
	}
	if err == nil {
		err = damaged(g.startRun(true))
	}
	if errors.Is(err, ErrDamaged) {
		g.markDamaged(err, standLost)
	} else if err != nil {
		g.seat.fatal(fmt.Errorf("restart group %d: %w", g.gid, err))
	}
}

// wipeLog empties a log whose entry at the newest snapshot's place is another
// one. If it is that one by now, Raft has mended the log before it was stopped,
// and may have acknowledged what follows.
func (s *groupStores) wipeLog() error {
	list, err := s.snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	var at raft.Log
	err = s.log.GetLog(list[0].Index, &at)
	if err == nil && at.Term == list[0].Term {
		return nil
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	first, err := s.log.FirstIndex()
	if err != nil || first == 0 {
		return err
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return err
	}
	return s.log.DeleteRange(first, last)
}
