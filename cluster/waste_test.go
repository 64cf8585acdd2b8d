package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// hoard is a journal that has messages besides, in one segment.
type hoard struct {
	*journal
	dir    string
	bodies atomic.Int64 // bytes of messages, all of which are in the segment
	looks  atomic.Int64
}

func (h *hoard) LinkedBytes() int64 { h.looks.Add(1); return h.bodies.Load() }
func (h *hoard) BodyBytes() int64   { return h.bodies.Load() }

func (h *hoard) Snapshot() (Snapshot, error) {
	s, err := h.journal.Snapshot()
	return hoardSnapshot{s, h.dir, h.bodies.Load()}, err
}

type hoardSnapshot struct {
	Snapshot
	dir   string
	bytes int64
}

func (s hoardSnapshot) WriteTo(w io.Writer) (int64, error) {
	if s.bytes > 0 {
		l := w.(interface {
			Link(name, path string, bytes int64, id string) error
		})
		name := fmt.Sprintf("%d.seg", s.bytes)
		path := filepath.Join(s.dir, name)
		// What it says counts, not what there is.
		if err := errors.Join(os.WriteFile(path, nil, 0o600), l.Link(name, path, s.bytes, name)); err != nil {
			return 0, err
		}
	}
	return s.Snapshot.WriteTo(w)
}

// hoarding is a cluster that runs until the end of the test, all of whose
// machines are hoards, and its leader.
func hoarding(t *testing.T, nodes int) (c *memCluster, all map[*memNode]*hoard, leader *memNode) {
	t.Helper()
	c, all = newMemCluster(t, nodes, nodes, false), map[*memNode]*hoard{}
	c.dress = func(n *memNode) Machine {
		all[n] = &hoard{journal: n.machine, dir: t.TempDir()}
		return all[n]
	}
	c.start()
	t.Cleanup(c.stop)
	return c, all, c.leader()
}

func TestWhatIsDrainedIsLetGoOfByEveryReplicaWithinAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, all, l := hoarding(t, 3)
		for i := range int64(2) { // the snapshots that are kept
			c.mustPropose(l, "publish")
			c.converged(l)
			for n, h := range all {
				h.bodies.Store(40<<20 + i)
				must(t, n.group.Snapshot(t.Context()))
			}
		}
		c.mustPropose(l, "drain")
		c.converged(l)
		for _, h := range all {
			h.bodies.Store(0)
		}
		pause(time.Minute)
		for n := range all {
			linked, err := n.group.stores.snapshots.Linked()
			if err != nil || linked > 0 {
				t.Errorf("the snapshots of %s hold %d bytes, %v", n.id, linked, err)
			}
		}
	})
}

// The newest snapshot may be of the drained state already: nothing is new then.
func TestAnOldSnapshotGoesThoughNothingIsNew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, all, l := hoarding(t, 1)
		for _, bodies := range []int64{40 << 20, 0} {
			c.mustPropose(l, "x")
			all[l].bodies.Store(bodies)
			must(t, l.group.Snapshot(t.Context()))
		}
		pause(time.Minute)
		linked, err := l.group.stores.snapshots.Linked()
		if err != nil || linked > 0 {
			t.Errorf("snapshots hold %d bytes, %v", linked, err)
		}
		if taken := l.group.Stats().Snapshots; taken != 2 {
			t.Errorf("%d snapshots were taken", taken)
		}
	})
}

func TestAnIdleGroupIsNotLookedAtForWaste(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, all, l := hoarding(t, 1)
		c.mustPropose(l, "x")
		pause(time.Minute)
		before := all[l].looks.Load()
		if before == 0 {
			t.Error("nobody has looked at all")
		}
		pause(10 * time.Minute)
		if after := all[l].looks.Load(); after != before {
			t.Errorf("looked at %d times while it was idle", after-before)
		}
		c.mustPropose(l, "y")
		pause(time.Minute)
		if after := all[l].looks.Load(); after == before {
			t.Error("nobody has looked since it was used again")
		}
	})
}

func TestASnapshotForWasteIsWorthItsWhile(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		what                    string
		held, log, flow, bodies int64 // MiB
		want                    bool
	}{
		{"an empty group", 0, 0, 0, 0, false},
		{"little is held", 16, 0, 0, 0, false},
		{"a drained queue", 17, 0, 0, 0, true},
		{"a drained queue that was never in a snapshot", 0, 17, 0, 0, true},
		{"a queue that has just been filled", 0, 200, 0, 200, false},
		{"half of it is left", 0, 200, 0, 90, true},
		{"most of it is left", 0, 200, 0, 95, false},
		{"a deep queue beside a drained one", 100, 10, 0, 10_000, true},
		{"a deep queue that is filled", 0, 200, 0, 10_000, false},
		{"a busy group", 100, 100, 13, 0, false},
		{"one that is hardly busy", 100, 100, 12, 0, true},
		{"a busy group that wastes much", 257, 100, 100, 10_000, true},
	} {
		if got := wasteful(c.held*mib, c.log*mib, c.flow*mib, c.bodies*mib); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
