package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// proposeWaitMax is how long Propose may wait for room before it answers
	// with an error.
	proposeWaitMax = time.Second
	// configWaitMax bounds a membership change. Zero would wait for ever while
	// an earlier change is not committed.
	configWaitMax = 10 * time.Second
	// transferOnCloseMax is how long Close tries to hand leadership away.
	transferOnCloseMax = 2 * time.Second
)

// Errors of a Group that callers test for.
var (
	// ErrGroupClosed: the group is closed, or being restarted in place.
	ErrGroupClosed = errors.New("group is closed")
	// ErrTransferTried: leadership was offered to that peer in this term
	// already. A second try can wedge Raft (LeadershipTransfer's blocking send).
	ErrTransferTried = errors.New("leadership was already offered to this peer in this term")
)

// Group is one Raft group on this node: a log, a Machine that it feeds, and
// who leads it. Safe for concurrent use.
type Group struct {
	gid     uint64
	opts    GroupOptions
	seat    groupSeat
	log     *slog.Logger
	machine Machine

	stores    *groupStores
	apply     *applier
	completer *completer
	leaders   *leadership

	raft atomic.Pointer[groupRaft] // nil while closed or between two runs

	standing  standing
	reloading sync.Mutex            // held from a look at Raft's configuration to its change
	damage    atomic.Pointer[error] // why standing is standFlawed or standLost
	rebuilt   atomic.Bool           // since it was opened

	proposing sync.Mutex // keeps the order of ApplyLog and of the completer the same
	closing   atomic.Bool
	stop      <-chan struct{} // closed by halt
	halt      context.CancelFunc
	work      sync.WaitGroup // every goroutine of the group but the completer's
	grown     chan struct{}  // cap 1: the log wants a snapshot

	transfers transferLog
	snapshots snapshotCounters
}

// groupRaft is one run of the group's Raft. A group that is restarted in place
// has several, one after the other, over the same stores.
type groupRaft struct {
	*raft.Raft
	started   atomic.Pointer[raft.Raft] // the same, for Raft's own goroutines
	transport groupTransport
	pacer     pacer
	taken     atomic.Uint64 // the newest entry that was read to be applied; see holdBack
	notify    chan bool
	ended     chan struct{} // closed when this run is being shut down
	failed    chan struct{} // closed by fail
	failing   sync.Once
	work      sync.WaitGroup
}

// Server is a member of a group.
type Server struct {
	ID    string
	Voter bool
}

// GroupStats are a group's figures at one moment.
type GroupStats struct {
	Group              uint64
	State              string // Raft's word: Leader, Follower, Candidate, Shutdown
	Term               uint64
	Leader             string
	LastIndex          uint64
	CommitIndex        uint64
	AppliedIndex       uint64
	FirstIndex         uint64
	SnapshotIndex      uint64
	Snapshots          uint64 // taken since the start
	SnapshotErrors     uint64
	SnapshotBytes      int64  // size of the newest one, without linked files
	BytesSinceSnapshot int64  // entry bytes applied since
	Proposals          uint64 // handed to Raft since the start
	ProposalErrors     uint64
	Restarts           uint64 // of this group's Raft, in place
	LastContact        time.Time
	LogBytes           int64 // size of the log's file, or of the entries in the node's
}

// ID is the group's number; 0 is the metadata group.
func (g *Group) ID() uint64 { return g.gid }

// Propose puts data into the group's log. done runs exactly once, in proposal
// order with all other dones of the group, on one goroutine that is not the
// caller's; it must not block. An error means that the outcome is unknown, or
// that this node does not lead: the caller sends again via the current leader.
// data must not be empty and belongs to the log from here on. Propose blocks
// for at most about a second, while Raft's inbox is full.
func (g *Group) Propose(data []byte, done func(result any, err error)) {
	if len(data) == 0 {
		panic("cluster: an empty proposal is a no-op, which machines never see")
	}
	g.proposing.Lock()
	defer g.proposing.Unlock()
	var f raft.ApplyFuture
	r := g.raft.Load()
	switch {
	case r == nil:
		f = failedApply{ErrGroupClosed}
	case r.State() != raft.Leader: // Raft would say the same, after its main loop's turn
		f = failedApply{raft.ErrNotLeader}
	case !g.completer.waitRoom(proposeWaitMax):
		f = failedApply{raft.ErrEnqueueTimeout}
	default:
		f = r.ApplyLog(raft.Log{Data: data}, proposeWaitMax)
	}
	g.completer.push(proposal{future: f, done: done})
}

// failedApply answers a proposal that never reached Raft.
type failedApply struct{ err error }

func (f failedApply) Error() error  { return f.err }
func (f failedApply) Response() any { return nil }
func (f failedApply) Index() uint64 { return 0 }

// Lease reports whether this node leads and a quorum answered so recently that
// nobody else can: a leader may deliver while it holds.
func (g *Group) Lease() bool {
	r := g.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return false
	}
	term := r.CurrentTerm()
	if term != g.leaders.term() {
		g.leaders.wake() // not told yet; or a term changed without an edge
		return false
	}
	window := g.seat.profile.heartbeat * 3 / 4
	return r.transport.lease(term, g.voters(r), g.seat.id, window)
}

// VerifyLeader asks a quorum whether this node still leads.
func (g *Group) VerifyLeader(ctx context.Context) error {
	r := g.raft.Load()
	if r == nil {
		return ErrGroupClosed
	}
	return g.wait(ctx, r, r.VerifyLeader())
}

// wait waits for f, for ctx, or for the end of r's run: Raft leaves some
// futures without an answer when it shuts down.
func (g *Group) wait(ctx context.Context, r *groupRaft, f raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- f.Error() }()
	return r.await(ctx, answer)
}

func (r *groupRaft) await(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return ErrGroupClosed
	case <-r.failed:
		return ErrGroupClosed
	}
}

// AppliedIndex is the index of the newest entry that the Machine has applied.
func (g *Group) AppliedIndex() uint64 { return g.apply.applied.Load() }

// WaitApplied waits until the Machine has applied the entry at index.
func (g *Group) WaitApplied(ctx context.Context, index uint64) error {
	for {
		applied, changed := g.apply.watch()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d of group %d (applied %d): %w", index, g.gid, applied, ctx.Err())
		case <-g.stop:
			return ErrGroupClosed
		}
	}
}

// CommitIndex is the newest index that this node knows to be committed. It may
// be that of a no-op, which followers apply later than the entry before it:
// whoever waits for an entry everywhere should wait for that entry's own index.
func (g *Group) CommitIndex() uint64 {
	if r := g.raft.Load(); r != nil {
		return max(r.CommitIndex(), r.pacer.known.Load())
	}
	return 0
}

// LastIndex is the newest index in this node's log, committed or not.
func (g *Group) LastIndex() uint64 {
	if r := g.raft.Load(); r != nil {
		return r.LastIndex()
	}
	return 0
}

// Term is this node's current term.
func (g *Group) Term() uint64 {
	if r := g.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// Leader is who leads, as far as this node knows, and this node's term.
func (g *Group) Leader() (id string, term uint64, ok bool) {
	r := g.raft.Load()
	if r == nil {
		return "", 0, false
	}
	_, leader := r.LeaderWithID()
	return string(leader), r.CurrentTerm(), leader != ""
}

// Leading reports the term that the Machine was last told to lead in, if it
// has not been told to follow since.
func (g *Group) Leading() (term uint64, ok bool) {
	term = g.leaders.term()
	return term, term != 0
}

// LastContact is when this node last heard from the group's leader.
func (g *Group) LastContact() time.Time {
	if r := g.raft.Load(); r != nil {
		return r.LastContact()
	}
	return time.Time{}
}

// Snapshot takes a snapshot now and waits for it. Nothing new to snapshot is no error.
func (g *Group) Snapshot(ctx context.Context) error {
	r := g.raft.Load()
	if r == nil {
		return ErrGroupClosed
	}
	return g.snapshotNow(ctx, r)
}

// Stats are the group's figures.
func (g *Group) Stats() GroupStats {
	s := GroupStats{
		Group: g.gid, State: raft.Shutdown.String(), AppliedIndex: g.AppliedIndex(),
		Snapshots: g.snapshots.taken.Load(), SnapshotErrors: g.snapshots.failed.Load(),
		SnapshotBytes: g.snapshots.lastBytes.Load(), SnapshotIndex: g.snapshots.lastIndex.Load(),
		BytesSinceSnapshot: g.apply.growth.bytesSince(),
		Proposals:          g.completer.pushed.Load(), ProposalErrors: g.completer.failed.Load(),
		Restarts: g.leaders.restarts.Load(),
	}
	if r := g.raft.Load(); r != nil {
		_, leader := r.LeaderWithID()
		s.State, s.Term, s.Leader = r.State().String(), r.CurrentTerm(), string(leader)
		s.LastIndex, s.CommitIndex, s.LastContact = r.LastIndex(), g.CommitIndex(), r.LastContact()
		s.FirstIndex, _ = g.stores.log.FirstIndex()
		s.LogBytes = g.stores.log.FileBytes()
	}
	return s
}

// InjectTimeoutNow makes this node stand for election at once, as the
// TimeoutNow of a leadership transfer does: for a leader known to be dead.
func (g *Group) InjectTimeoutNow() {
	if r := g.raft.Load(); r != nil && g.standing.leads() {
		r.transport.injectTimeoutNow()
	}
}

// beforeRestore judges a snapshot that is to replace the Machine's state.
func (g *Group) beforeRestore(m raft.SnapshotMeta) (after func(), err error) {
	if g.apply.starting.Load() {
		first, err := g.stores.log.WholeFrom()
		if err == nil && first > m.Index+1 {
			err = fmt.Errorf("the log begins at %d, entries after the snapshot are missing: %w", first, ErrDamaged)
		}
		return func() {}, err
	}
	// A leader sent it. If our log holds another entry at its place, then what
	// follows that entry was never committed; but Raft keeps it, refuses the
	// leader's next entries for it, and gets the same snapshot for ever
	// (hashicorp/raft #697). Without that tail a restarted Raft goes on.
	var at raft.Log
	if err := g.stores.log.GetLog(m.Index, &at); err == nil && at.Term != m.Term {
		return func() {
			g.leaders.requestRestart(restartReason{why: "an uncommitted tail outlived an installed snapshot", wipeLog: true})
		}, nil
	}
	return func() {}, nil
}

// landed hears what became of a snapshot that a leader sent. What was gathered
// for one that cannot be restored is used again only if all that is wrong is that
// this node is short of something.
func (g *Group) landed(err error) {
	if err == nil {
		g.stores.snapshots.Restored()
		return
	}
	g.snapshots.failed.Add(1)
	g.log.Error("the leader's snapshot cannot be restored; this replica stays as it was until the leader tries again", "err", err)
	if err := g.stores.snapshots.Discard(short(err)); err != nil {
		g.log.Warn("a snapshot that was not restored stays", "err", err)
	}
}

// short reports whether an error only says that something has run out, which may
// come back.
func short(err error) bool {
	return slices.ContainsFunc([]error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM},
		func(e error) bool { return errors.Is(err, e) })
}

// afterApply runs on Raft's apply goroutine.
func (g *Group) afterApply(entries int, last *raft.Log) {
	if g.apply.growth.bytesSince() >= SnapshotBytes {
		signal(g.grown)
	}
	if g.opts.Meta && entries > 0 {
		g.spreadCommit(last)
	}
}

// spreadCommit tells the followers that an entry is committed, if this node leads.
func (g *Group) spreadCommit(last *raft.Log) {
	r := g.raft.Load()
	if term, leads := r.leads(); leads {
		r.transport.announce(commitNews{term: term, index: last.Index, entryTerm: last.Term})
	}
}

// Close hands leadership away if it can (within 2 s), stops Raft and closes
// the stores. Unanswered proposals hear an error before it returns.
func (g *Group) Close(ctx context.Context) error {
	if !g.closing.CompareAndSwap(false, true) {
		return nil
	}
	if r := g.raft.Load(); r != nil && r.State() == raft.Leader && len(g.voters(r)) > 1 {
		tctx, cancel := context.WithTimeout(ctx, transferOnCloseMax)
		if err := g.wait(tctx, r, r.LeadershipTransfer()); err != nil {
			g.log.Info("leadership not handed over before closing", "err", err)
		}
		cancel()
	}
	g.halt()
	g.work.Wait() // first, so that nobody starts another run
	g.endRun(true)
	return g.stores.close()
}
