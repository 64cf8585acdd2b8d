package cluster

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/hashicorp/raft"

	"warren/storage/raftlog"
	"warren/storage/snapshot"
)

// ErrDamaged says that this node's replica of a group has lost something that
// it may have acknowledged. OpenGroup answers it, and Rebuild mends it.
var ErrDamaged = errors.New("this replica is damaged")

// damaged reports damage in the words of any of the stores as ErrDamaged.
func damaged(err error) error {
	if errors.Is(err, raftlog.ErrDamaged) || errors.Is(err, snapshot.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// MarkDamaged says that the Machine has lost something, while the log is in
// order: this node does not stand for election any more. Whoever leads is told
// by Damaged to hand over; the log's promises hold all the same, so that votes
// and acknowledgements go on until the replica is rebuilt.
func (g *Group) MarkDamaged(why error) { g.markDamaged(why, standFlawed) }

func (g *Group) markDamaged(why error, to int32) {
	if g.standing.worsen(to) {
		g.damage.Store(&why)
		g.log.Error("this replica is damaged", "err", why)
	}
}

// Damaged is why this replica must not lead, nil if it may, or is being rebuilt.
func (g *Group) Damaged() error {
	if why := g.damage.Load(); why != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, *why)
	}
	return nil
}

// Rebuilding reports whether this replica is being rebuilt from its peers.
func (g *Group) Rebuilding() bool { return g.standing.now.Load() == standRefilling }

// watchedLog is the log as one run of Raft has it. Raft does not read faster
// than the Machine applies, and an entry that cannot be read any more ends this
// replica's say.
type watchedLog struct {
	groupLog
	group *Group
	run   *groupRaft
}

// GetLog is raft.LogStore's.
func (w watchedLog) GetLog(index uint64, l *raft.Log) error {
	w.group.holdBack(index)
	err := w.groupLog.GetLog(index, l)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLogNotFound):
		// It may be behind the end, or a snapshot may stand for it: Raft asks. But
		// one that is committed and not applied is there.
		r := w.run.started.Load()
		if r == nil || index <= w.group.AppliedIndex() || index <= r.AppliedIndex() || index > r.CommitIndex() {
			return err
		}
		w.run.leave(w.group, fmt.Errorf("entry %d is committed and missing: %w", index, raftlog.ErrDamaged))
	case w.run.mayPanic(index):
		w.run.leave(w.group, err)
	case !w.group.closing.Load():
		w.group.markDamaged(err, standLost) // a leader goes on until another one has taken over
	}
	return err
}

// mayPanic reports whether Raft v1.8.0 panics if it cannot have an entry: when
// it begins, and when it applies. It answers true if it does not know.
func (r *groupRaft) mayPanic(index uint64) bool {
	raft := r.started.Load()
	return raft == nil || index > raft.AppliedIndex() && index <= raft.CommitIndex()
}

// fail ends a run whose log, term or vote is damaged, as soon as it is noticed.
func (r *groupRaft) fail(g *Group, why error) {
	g.markDamaged(why, standLost)
	g.leaders.requestRestart(restartReason{why: why.Error()})
	r.failing.Do(func() { close(r.failed) }) // last: who waits for Raft finds the rest
}

// leave is fail where Raft would panic over an error. It ends the goroutine that
// calls it, which is Raft's: what is deferred there runs, so that the rest of
// Raft can be shut down as ever, and nobody hears of anything as stored, voted
// for or applied that is not.
func (r *groupRaft) leave(g *Group, why error) {
	r.fail(g, why)
	runtime.Goexit()
}

// StoreLogs is raft.LogStore's.
func (w watchedLog) StoreLogs(logs []*raft.Log) error {
	err := w.groupLog.StoreLogs(logs)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.fail(w.group, err)
	}
	return err
}

// DeleteRange is raft.LogStore's.
func (w watchedLog) DeleteRange(first, last uint64) error {
	err := w.groupLog.DeleteRange(first, last)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.fail(w.group, err)
	}
	return err
}

// watchedStable is the term and the vote as one run of Raft has them. Whoever
// asks for a vote hears that there is none, if they cannot be read or written.
type watchedStable struct {
	raft.StableStore
	group *Group
	run   *groupRaft
}

// Get is raft.StableStore's.
func (w watchedStable) Get(k []byte) ([]byte, error) {
	v, err := w.StableStore.Get(k)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.fail(w.group, err)
	}
	return v, err
}

// GetUint64 is raft.StableStore's.
func (w watchedStable) GetUint64(k []byte) (uint64, error) {
	v, err := w.StableStore.GetUint64(k)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.fail(w.group, err)
	}
	return v, err
}

// Set is raft.StableStore's.
func (w watchedStable) Set(k, v []byte) error {
	err := w.StableStore.Set(k, v)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.leave(w.group, err)
	}
	return err
}

// SetUint64 is raft.StableStore's.
func (w watchedStable) SetUint64(k []byte, v uint64) error {
	err := w.StableStore.SetUint64(k, v)
	if errors.Is(err, raftlog.ErrDamaged) {
		w.run.leave(w.group, err)
	}
	return err
}

// firstRun starts Raft over stores that were just opened. It refuses a state
// that does not reach what a snapshot, damaged by now, once stood for.
func (g *Group) firstRun() error {
	newest, err := g.stores.snapshots.Newest()
	if err != nil {
		return err
	}
	if err := g.startRun(false); err != nil {
		return damaged(errors.Join(err, g.apply.refused))
	}
	if last := g.raft.Load().LastIndex(); last < newest {
		g.endRun(true)
		return fmt.Errorf("%w: a snapshot up to entry %d cannot be read, and the log ends at %d", ErrDamaged, newest, last)
	}
	return nil
}
