package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestEveryReplicaAppliesTheSameEntriesInTheSameOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		if got, err := propose(l.group, "first"); err != nil || got != "did first" {
			t.Fatalf("result %v, %v", got, err)
		}
		c.mustProposeMany(l, "e", 300)
		c.converged(l)
		if got, _ := l.machine.read(); len(got) != 301 || got[300] != "e299" {
			t.Errorf("%d entries, last %q", len(got), got[len(got)-1])
		}
	})
}

func TestDonesRunOnceInProposalOrderWhateverHappens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		var mu sync.Mutex
		var order []int
		var failed int
		const n = 400
		for i := range n {
			if i == n/2 {
				c.net.isolate(l.id, true) // what is in flight is lost with the leadership
			}
			l.group.Propose([]byte(fmt.Sprint(i)), func(_ any, err error) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
				if err != nil {
					failed++
				}
			})
		}
		c.eventually("every proposal is answered", func() bool { mu.Lock(); defer mu.Unlock(); return len(order) == n })
		if !slices.IsSorted(order) {
			t.Error("answers are out of order")
		}
		if failed == 0 {
			t.Error("no proposal failed: the test did not test")
		}
		c.net.isolate(l.id, false)
		c.leader()
	})
}

func TestAFollowerRefusesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		start := time.Now()
		if _, err := propose(c.others(l)[0].group, "x"); !errors.Is(err, raft.ErrNotLeader) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 10*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

func TestLeadComesAfterEveryEarlierEntryAndFollowBetweenTwoLeads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, old := runningCluster(t, 3, 3, false)
		c.mustProposeMany(old, "e", 50)
		c.net.isolate(old.id, true)
		next := c.leader(c.others(old)...)
		if _, roles := next.machine.read(); !strings.HasSuffix(roles[len(roles)-1], ", 50 applied") {
			t.Errorf("new leader was told %q", roles)
		}
		c.eventually("the old leader is told to follow", func() bool {
			_, leading := old.group.Leading()
			return !leading
		})
		c.net.isolate(old.id, false)
		for range 3 { // leadership goes round
			l := c.leader()
			if err := l.group.TransferTo(within(t, 5*time.Second), c.others(l)[0].id); err != nil {
				t.Logf("transfer: %v", err)
			}
			pause(3 * time.Second)
		}
		for _, n := range c.nodes {
			_, roles := n.machine.read()
			alternates(t, roles)
		}
	})
}

func TestMetadataFollowersApplyWithinARoundTrip(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, true)
		pause(5 * time.Second)
		before := l.group.LastIndex()
		for i := range 20 {
			c.mustPropose(l, fmt.Sprint(i))
			start := time.Now()
			l.machine.mu.Lock()
			index := l.machine.indexes[i]
			l.machine.mu.Unlock()
			for _, n := range c.others(l) {
				if err := n.group.WaitApplied(within(t, time.Second), index); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); took > 2*time.Millisecond { // CommitTimeout alone takes 500
				t.Fatalf("followers applied after %s", took)
			}
			pause(time.Duration(i) * 7 * time.Millisecond)
		}
		if wrote := l.group.LastIndex() - before; wrote != 20 {
			t.Errorf("20 entries became %d in the log", wrote)
		}
	})
}

func TestAnIdleMetadataGroupWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, true)
		c.mustPropose(l, "x")
		pause(time.Second)
		before := l.group.LastIndex()
		pause(time.Minute)
		if after := l.group.LastIndex(); after != before {
			t.Errorf("an idle metadata group wrote %d entries in a minute", after-before)
		}
		if got, _ := l.machine.read(); len(got) != 1 {
			t.Errorf("the machine saw %q", got)
		}
	})
}

func TestAppliedReachesWhatALeaderCallsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 3, 3, true)
		c.start()
		defer c.stop()
		for range 3 {
			l := c.leader()
			commit := l.group.CommitIndex() // nothing was ever proposed: only Raft's own entries
			for _, n := range c.nodes {
				if err := n.group.WaitApplied(within(t, 5*time.Second), commit); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.group.TransferTo(within(t, 5*time.Second), c.others(l)[0].id); err != nil {
				t.Fatal(err)
			}
			c.eventually("the leader has gone", func() bool { _, ok := l.group.Leading(); return !ok })
		}
	})
}

func TestAGroupComesBackFromSnapshotAndLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		c.mustProposeMany(l, "a", 20)
		c.converged(l)
		for _, n := range c.nodes {
			if err := n.group.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.mustProposeMany(l, "b", 20)
		c.converged(l)
		want, _ := l.machine.read()
		c.stop()
		c.start()
		l = c.leader()
		c.converged(l)
		if got, _ := l.machine.read(); !slices.Equal(got, want) {
			t.Errorf("%d entries, want %d", len(got), len(want))
		}
	})
}

func TestALaggingFollowerGetsASnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		late := c.others(l)[0]
		c.close(late)
		for i := range 6 { // far beyond TrailingLogs
			c.mustProposeMany(l, fmt.Sprintf("%d-", i), 100)
			if err := l.group.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if first := l.group.Stats().FirstIndex; first < 100 {
			t.Fatalf("the log begins at %d: nothing was compacted", first)
		}
		if err := c.open(late); err != nil {
			t.Fatal(err)
		}
		c.converged(l)
		if err := late.group.Snapshot(t.Context()); err != nil {
			t.Errorf("snapshot after an installed one: %v", err)
		}
	})
}

func TestMembersComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 3, 1, false)
		c.start()
		defer c.stop()
		a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
		l := c.leader()
		if l != a {
			t.Fatalf("%s leads", l.id)
		}
		c.close(d)
		c.mustProposeMany(a, "x", 10)
		if err := a.group.AddNonvoter(t.Context(), b.id, 0); err != nil {
			t.Fatal(err)
		}
		_, index, err := a.group.Servers()
		if err != nil {
			t.Fatal(err)
		}
		c.converged(a)
		if err := a.group.AddVoter(t.Context(), b.id, index-1); err == nil {
			t.Error("a change that builds on an old configuration was accepted")
		}
		if err := a.group.AddVoter(t.Context(), b.id, index); err != nil {
			t.Fatal(err)
		}
		must(t, c.open(d))
		if err := a.group.AddVoter(t.Context(), d.id, 0); err != nil {
			t.Fatal(err)
		}
		c.converged(a)
		servers, _, _ := a.group.Servers()
		if want := []Server{{"a", true}, {"b", true}, {"c", true}}; !slices.Equal(servers, want) {
			t.Errorf("servers %v, want %v", servers, want)
		}
		if err := a.group.RemoveServer(t.Context(), b.id, 0); err != nil {
			t.Fatal(err)
		}
		if servers, _, _ := a.group.Servers(); len(servers) != 2 {
			t.Errorf("servers %v after a removal", servers)
		}
	})
}

func TestLeadershipIsOfferedToAPeerOncePerTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		to := c.others(l)[0]
		c.close(to)
		if err := l.group.TransferTo(within(t, 5*time.Second), to.id); err == nil {
			t.Fatal("a dead node took leadership")
		}
		if err := l.group.TransferTo(within(t, 5*time.Second), to.id); !errors.Is(err, ErrTransferTried) {
			t.Errorf("second try: %v", err)
		}
	})
}

func TestCloseHandsLeadershipOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		c.mustPropose(l, "x")
		start := time.Now()
		c.close(l)
		c.leader(c.others(l)...)
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("the next leader took %s", took)
		}
		if _, roles := l.machine.read(); roles[len(roles)-1] != "follow" {
			t.Errorf("the old leader was told %q", roles)
		}
	})
}

func TestAClosedGroupAnswersProposals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 1, 1, false)
		c.start()
		g := c.leader().group
		c.stop()
		if _, err := propose(g, "x"); !errors.Is(err, ErrGroupClosed) {
			t.Errorf("got %v", err)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

// damage flips a byte in the state of the newest snapshot of n.
func damage(t *testing.T, n *memNode) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(n.dir, "*", "snapshots", "*", "state.bin"))
	if err != nil || len(states) == 0 {
		t.Fatalf("no snapshot: %v", err)
	}
	slices.Sort(states)
	name := states[len(states)-1]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedSnapshotFallsBackToTheOneBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, n := runningCluster(t, 1, 1, false)
		for _, prefix := range []string{"a", "b", "c"} {
			c.mustProposeMany(n, prefix, 10)
			if err := n.group.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := n.machine.read()
		c.stop()
		damage(t, n)
		c.start()
		c.leader()
		if got, _ := n.machine.read(); !slices.Equal(got, want) {
			t.Errorf("%d entries, want %d", len(got), len(want))
		}
	})
}

func TestAReplicaWithAHoleIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 1, 1, false)
		c.start()
		n := c.leader()
		for i := range 6 {
			c.mustProposeMany(n, fmt.Sprintf("%d-", i), 200)
			if err := n.group.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.stop()
		damage(t, n) // the log begins long after the snapshot before
		damageAll(t, n)
		if err := c.open(n); err == nil {
			t.Fatal("a replica that lost entries was opened")
		}
		if err := c.open(n); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("second try: %v", err)
		}
	})
}

func damageAll(t *testing.T, n *memNode) {
	t.Helper()
	states, _ := filepath.Glob(filepath.Join(n.dir, "*", "snapshots", "*", "state.bin"))
	for _, s := range states {
		if err := os.Truncate(s, 3); err != nil {
			t.Fatal(err)
		}
	}
}
