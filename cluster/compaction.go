package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// snapshotBytes of log since the last snapshot ask for the next one. What
	// a machine has linked into the last one is not written again.
	snapshotBytes = 256 << 20
	// snapshotEvery with at least snapshotEntriesMin entries asks for one, too.
	snapshotEvery      = 10 * time.Minute
	snapshotEntriesMin = 1000
	// wasteBytes that only snapshots still hold ask for one, after which those
	// before it go: they are of a log whose rest has been cut, and what they link
	// is what a queue that has been drained had on disk.
	wasteBytes = 256 << 20
	wasteEvery = 15 * time.Second
)

// snapshotCounters are figures of a group's snapshots.
type snapshotCounters struct {
	taken, failed, lastIndex atomic.Uint64
	lastBytes                atomic.Int64
}

// compact takes snapshots when the log has grown or aged, or keeps others from
// being let go of. Groups of a node are
// spread over the interval by their number.
func (g *Group) compact(ctx context.Context) {
	every := snapshotEvery + time.Duration(g.gid*37%120)*time.Second
	aged := time.NewTicker(every)
	defer aged.Stop()
	wasted := time.NewTicker(wasteEvery + time.Duration(g.gid%8)*time.Second)
	defer wasted.Stop()
	for {
		trim := false
		select {
		case <-g.grown:
			if g.apply.bytesSince.Load() < snapshotBytes {
				continue
			}
		case <-aged.C:
			if g.apply.countSince.Load() < snapshotEntriesMin {
				continue
			}
		case <-wasted.C:
			if trim = g.wastes(); !trim {
				continue
			}
		case <-g.stores.pinned: // the node's log keeps old files for this group
			if err := g.stores.flaw(); err != nil {
				g.markDamaged(err, standLost)
				continue
			}
		case <-g.stores.snapshots.Lost(): // a damaged one: the state it was of is here
		case <-ctx.Done():
			return
		}
		r := g.raft.Load()
		if r == nil {
			continue
		}
		if err := g.snapshotNow(ctx, r); err != nil && !errors.Is(err, ErrGroupClosed) {
			g.log.Error("snapshot", "err", err)
			continue
		}
		if trim {
			if err := g.stores.snapshots.Trim(); err != nil {
				g.log.Warn("old snapshots stay", "err", err)
			}
		}
	}
}

// wastes reports whether snapshots hold much that nothing else does. It looks
// only if something has been applied since the last one: an idle group costs
// nothing, and Raft takes no second snapshot of one state.
func (g *Group) wastes() bool {
	m, links := g.machine.(Linker)
	if !links || g.apply.countSince.Load() == 0 {
		return false
	}
	linked, err := g.stores.snapshots.Linked()
	return err == nil && linked-m.LinkedBytes() > wasteBytes
}

func (g *Group) snapshotNow(ctx context.Context, r *groupRaft) error {
	answer := make(chan error, 1)
	go func() {
		f := r.Raft.Snapshot()
		err := f.Error()
		if err == nil {
			g.snapshots.taken.Add(1)
			g.noteNewest()
		}
		answer <- err
	}()
	err := r.await(ctx, answer)
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	if err != nil {
		g.snapshots.failed.Add(1)
		return fmt.Errorf("snapshot group %d: %w", g.gid, err)
	}
	return nil
}

// noteNewest remembers the newest snapshot's place and size.
func (g *Group) noteNewest() {
	if list, err := g.stores.snapshots.List(); err == nil && len(list) > 0 {
		g.snapshots.lastIndex.Store(list[0].Index)
		g.snapshots.lastBytes.Store(list[0].Size)
	}
}
