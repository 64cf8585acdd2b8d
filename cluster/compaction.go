package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// SnapshotBytes of log since the last snapshot ask for the next one. What a
// machine has linked into the last one is not written again.
const SnapshotBytes = 256 << 20

const (
	// snapshotEvery with at least snapshotEntriesMin entries asks for one, too.
	snapshotEvery      = 10 * time.Minute
	snapshotEntriesMin = 1000
	// snapshotRetryMin is how soon one that has failed is tried again; each
	// failure after that doubles it, up to snapshotRetryMax.
	snapshotRetryMin = 10 * time.Second
	snapshotRetryMax = time.Minute
)

// snapshotCounters are figures of a group's snapshots.
type snapshotCounters struct {
	taken, failed, lastIndex atomic.Uint64
	lastBytes                atomic.Int64
}

// compact takes snapshots when the log has grown or aged, or keeps others from
// being let go of. One that fails is tried again, whatever it was for. Groups of
// a node are spread over the interval by their number.
func (g *Group) compact(ctx context.Context) {
	every := snapshotEvery + time.Duration(g.gid*37%120)*time.Second
	aged := time.NewTicker(every)
	defer aged.Stop()
	wasted := time.NewTicker(wasteEvery + time.Duration(g.gid%8)*time.Second)
	defer wasted.Stop()
	var look wasteLook
	var again <-chan time.Time // nil unless one has failed
	var pause time.Duration    // before again
	for {
		trim, grown := false, g.grown
		if again != nil {
			grown = nil // said with every entry
		}
		select {
		case <-again:
			again = nil
		case <-grown:
			if g.apply.growth.bytesSince() < SnapshotBytes {
				continue
			}
		case <-aged.C:
			if g.apply.growth.countSince() < snapshotEntriesMin {
				continue
			}
		case <-wasted.C:
			if look = g.lookForWaste(look); !look.wastes {
				continue
			}
			if trim = true; look.fresh {
				g.trim()
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
		if again != nil {
			continue
		}
		if err := g.Snapshot(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			pause = min(max(2*pause, snapshotRetryMin), snapshotRetryMax)
			again = time.After(pause)
			look = wasteLook{}                   // whatever is wasted is so still
			if !errors.Is(err, ErrGroupClosed) { // else Raft is just being restarted
				g.log.Error("snapshot", "err", err, "retry", pause)
			}
			continue
		}
		pause = 0
		if trim {
			g.trim()
		}
	}
}

func (g *Group) trim() {
	if err := g.stores.snapshots.Trim(); err != nil {
		g.log.Warn("old snapshots stay", "err", err)
	}
}

func (g *Group) snapshotNow(ctx context.Context, r *groupRaft) error {
	if err := g.keepTrailing(r); err != nil {
		return fmt.Errorf("snapshot group %d: %w", g.gid, err)
	}
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
