package node

import (
	"path/filepath"
	"testing"

	"warren/cluster"
	"warren/mq"
)

// linked are the segments in the snapshots of all groups.
func (r *running) linked() []string {
	names, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "groups", "*", "snapshots", "*", "*.seg"))
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

func (r *running) snapshot(id mq.GroupID) {
	r.t.Helper()
	if err := r.groups.get(id).Snapshot(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func TestANodeRestartsFromASnapshotWithoutReadingBodies(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups, cfg.BodyMemoryBytes = 1, bodyMemoryFloor
	n := start(t, cfg).awaitReady()
	const count = 2400
	deepQueue(t, n.channel(), "q", count)
	n.snapshot(1)
	if len(n.linked()) == 0 {
		t.Fatal("no segment is linked")
	}
	ch := n.channel()
	for range 20 { // after the snapshot: these come from the log
		publish(t, ch, "q", "more")
	}
	n.stop()

	n = start(t, cfg).awaitReady()
	await(t, "the queue to be there", func() bool { return n.broker.Shard(1).Applied() > 0 })
	st := n.pager.Stats()
	if st.HotBytes > 1<<20 || st.BytesOut > 0 {
		t.Errorf("after the start %d bytes are in memory, %d were written", st.HotBytes, st.BytesOut)
	}
	ch = n.channel()
	wantNumbers(t, ch, "q", 0, 1199)
	publish(t, ch, "q", "more") // its confirm says that what was settled before it is
	n.snapshot(1)               // from what was linked back, and what has gone since
	n.stop()
	n = start(t, cfg).awaitReady()
	ch = n.channel()
	wantNumbers(t, ch, "q", 1200, count-1)
	for range 21 {
		if got := get(t, ch, "q"); got != "more" {
			t.Fatalf("got %s", got)
		}
	}
}

func TestAFollowerThatLagsBehindTheLogGetsTheBodiesOfASnapshot(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups, cfg.BodyMemoryBytes = 1, bodyMemoryFloor
	one := start(t, cfg).awaitReady()
	two, three := start(t, joining(t, "two", one)), joining(t, "three", one)
	late := start(t, three)
	nodes := []*running{one, two, late}
	await(t, "three voters", func() bool { return len(voters(t, nodes, 1)) == 3 })
	late.stop()
	const count = 500
	deepQueue(t, two.channel(), "q", count)
	ch := two.channel()
	for range 300 { // more entries than the log keeps behind a snapshot
		publish(t, ch, "q", "more")
	}
	one.snapshot(1)
	two.snapshot(1)

	late = start(t, three).awaitReady()
	await(t, "the late one to catch up", func() bool {
		g, leader := late.groups.get(1), one.groups.get(1)
		return g != nil && g.AppliedIndex() >= leader.AppliedIndex()
	})
	states, err := filepath.Glob(filepath.Join(three.DataDir, "groups", "00000001", "snapshots", "*", "state.bin"))
	if err != nil || len(states) == 0 {
		t.Errorf("it has got no snapshot, %v", err)
	}
	late.mustLead(1, one, two)
	ch = late.channel()
	wantNumbers(t, ch, "q", 0, count-1)
	for range 300 {
		if got := get(t, ch, "q"); got != "more" {
			t.Fatalf("got %s", got)
		}
	}
}

// mustLead has others hand a group's leadership to r.
func (r *running) mustLead(id mq.GroupID, others ...*running) {
	r.t.Helper()
	await(r.t, "the leadership to be handed over", func() bool {
		if _, leads := r.groups.get(id).Leading(); leads {
			return true
		}
		for _, n := range others {
			if g := n.groups.get(id); g != nil {
				handOverTo(r, g)
			}
		}
		return false
	})
}

func handOverTo(r *running, g *cluster.Group) {
	if _, leads := g.Leading(); leads {
		_ = g.TransferTo(r.t.Context(), r.cluster.ID()) // or the next round does
	}
}
