package cluster

import (
	"errors"
	"fmt"

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

// watchedLog is the log as Raft has it. An entry that cannot be read any more
// ends this replica's say: Raft on a follower panics over it, and on a leader
// only goes on trying. And Raft does not read faster than the Machine applies.
type watchedLog struct {
	groupLog
	group *Group
}

// GetLog is raft.LogStore's.
func (w watchedLog) GetLog(index uint64, l *raft.Log) error {
	w.group.holdBack(index)
	err := w.groupLog.GetLog(index, l)
	if err != nil && errors.Is(err, raftlog.ErrDamaged) {
		w.group.markDamaged(err, standLost)
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
