package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// These tests pin what we rely on of hashicorp/raft v1.8.0, and the ways
// around what is wrong with it. When one fails after an upgrade, look whether
// the way around can go.

// A plain FSM never sees membership entries, and Raft then refuses to snapshot
// an idle group after each membership change.
func TestAnIdleGroupCanSnapshotAfterAMembershipChange(t *testing.T) {
	var _ raft.BatchingFSM = (*applier)(nil)
	bubble(t, func(t *testing.T) {
		c, a := runningCluster(t, 2, 1, false)
		c.mustPropose(a, "x")
		if err := a.group.AddVoter(t.Context(), c.nodes[1].id, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.group.Snapshot(t.Context()); err != nil {
			t.Errorf("snapshot: %v", err)
		}
	})
}

// RestoreCommittedLogs blocks NewRaft for ever and forgets membership entries;
// pre-vote must be on; Raft's own snapshot threshold misfires.
func TestTheConfigurationAvoidsWhatIsBroken(t *testing.T) {
	for _, meta := range []bool{false, true} {
		g := &Group{opts: GroupOptions{Meta: meta}, log: slog.New(slog.DiscardHandler),
			seat: groupSeat{id: "a", profile: groupProfile{heartbeat: time.Second}}}
		c := g.config(make(chan bool, 16))
		if err := raft.ValidateConfig(c); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.RestoreCommittedLogs, c.PreVoteDisabled, c.ShutdownOnRemove, !c.BatchApplyCh, !c.NoLegacyTelemetry:
			t.Errorf("meta %v: a switch is wrong: %+v", meta, c)
		case c.SnapshotThreshold != math.MaxUint64, c.ProtocolVersion != 3, c.TrailingLogs < 256:
			t.Errorf("meta %v: a number is wrong: %+v", meta, c)
		}
	}
}

// A follower whose uncommitted tail is longer than a snapshot that it gets
// installs that snapshot for ever (#697): Raft does not forget the tail.
func TestAnUncommittedTailBehindASnapshotIsWiped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 2, 2, false)
		a, b := c.nodes[0], c.nodes[1]
		members := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}}
		plant(t, a, func(s *groupStores) { // leader to be: a snapshot up to 20, and no log
			sink, err := s.snapshots.Create(raft.SnapshotVersionMax, 20, 3, members, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			old := &journal{entries: []string{"kept"}, indexes: []uint64{20}}
			snap, _ := old.Snapshot()
			if _, err := snap.WriteTo(sink); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			must(t, s.stable.SetUint64([]byte("CurrentTerm"), 3))
		})
		plant(t, b, func(s *groupStores) { // 50 entries of a leader of term 2 that nobody else has
			must(t, s.log.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(members)}))
			for i := uint64(2); i <= 50; i++ {
				must(t, s.log.StoreLog(&raft.Log{Index: i, Term: 2, Data: []byte("lost")}))
			}
			must(t, s.stable.SetUint64([]byte("CurrentTerm"), 2))
		})
		c.start()
		defer c.stop()
		l := c.leader()
		if l != a {
			t.Fatalf("%s leads, whose log is older", l.id)
		}
		c.mustPropose(a, "new")
		c.converged(a)
		if got, _ := b.machine.read(); !slices.Equal(got, []string{"kept", "new"}) {
			t.Errorf("b has %q", got)
		}
		if got := b.group.Stats().Restarts; got != 1 {
			t.Errorf("b's raft was restarted %d times, want once", got)
		}
	})
}

// Before its Raft is stopped for that, it may have replaced the tail itself, and
// acknowledged what the leader sent.
func TestATailThatIsMendedByThenIsNotWiped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 2, 2, false)
		c.mustProposeMany(l, "e", 10)
		c.converged(l)
		b := c.others(l)[0]
		must(t, b.group.Snapshot(t.Context()))
		c.mustProposeMany(l, "acknowledged", 10)
		c.converged(l)
		last := b.group.LastIndex()
		c.close(l)
		b.group.leaders.requestRestart(restartReason{why: "test", wipeLog: true})
		c.eventually("the restart", func() bool { return b.group.Stats().Restarts == 1 && b.group.raft.Load() != nil })
		if got := b.group.LastIndex(); got < last {
			t.Errorf("its log ends at %d, and it has acknowledged up to %d", got, last)
		}
	})
}

func plant(t *testing.T, n *memNode, f func(*groupStores)) {
	t.Helper()
	n.openWAL(t, true, 0)
	defer n.closeWAL(t)
	seat := groupSeat{id: n.id, dir: n.dir, wal: n.wal, fatal: func(err error) { t.Error(err) }}
	s, err := openStores(seat, testGroup, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f(s)
	must(t, s.close())
	if !hasGroup(n.dir, testGroup) {
		t.Fatalf("%s is not there", filepath.Join(n.dir))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A leadership transfer can leave Raft refusing every proposal for ever (#696).
// The remedy is a restart in place: nothing may be applied twice or lost by it.
func TestARestartInPlaceLosesAndDoublesNothing(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshots=%v", snapshots), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := runningCluster(t, 3, 3, false)
				c.mustProposeMany(l, "a", 30)
				if snapshots {
					must(t, l.group.Snapshot(t.Context()))
				}
				c.mustProposeMany(l, "b", 30)
				answered := make(chan error, 20)
				for range 20 { // in flight: each must be answered, one way or the other
					l.group.Propose([]byte("c"), func(_ any, err error) { answered <- err })
				}
				l.group.leaders.requestRestart(restartReason{why: "test"})
				for range 20 {
					<-answered
				}
				c.eventually("the restart", func() bool { return l.group.Stats().Restarts == 1 })
				next := c.leader()
				c.mustProposeMany(next, "d", 30)
				c.converged(next)
				if snapshots {
					must(t, l.group.Snapshot(t.Context()))
				}
				for _, n := range c.nodes {
					_, roles := n.machine.read()
					alternates(t, roles)
				}
				got, _ := l.machine.read()
				seen := map[string]int{}
				for _, e := range got {
					seen[e]++
				}
				if seen["a0"] != 1 || seen["b29"] != 1 || seen["d29"] != 1 || seen["c"] > 20 {
					t.Errorf("applied %v", seen)
				}
			})
		})
	}
}

// refused is a proposal's future as a wedged leader answers it.
type refused struct{ failedApply }

func TestEndlessTransferRefusalsAskForARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asked := 0
		c := newCompleter(2*time.Second, func() { asked++ })
		go c.run()
		refuse := func(err error) {
			done := make(chan struct{})
			c.push(proposal{refused{failedApply{err}}, func(any, error) { close(done) }})
			<-done
		}
		refuse(raft.ErrLeadershipTransferInProgress) // an ordinary transfer
		pause(time.Minute)
		for range 15 {
			refuse(raft.ErrLeadershipTransferInProgress)
			pause(100 * time.Millisecond)
		}
		refuse(nil) // it worked again: nothing is wedged
		for range 15 {
			refuse(raft.ErrLeadershipTransferInProgress)
			pause(100 * time.Millisecond)
		}
		if asked != 0 {
			t.Fatal("restarted although transfers ended")
		}
		for range 10 {
			refuse(raft.ErrLeadershipTransferInProgress)
			pause(100 * time.Millisecond)
		}
		if asked != 1 {
			t.Errorf("asked %d times, want once", asked)
		}
		c.flush(ErrGroupClosed, true)
	})
}

// Raft never answers what sits in its inbox when it shuts down.
func TestProposalsThatRaftForgetsAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompleter(time.Second, func() {})
		go c.run()
		forgotten := make(chan struct{})
		var got []string
		done := make(chan struct{})
		c.push(proposal{stuck{forgotten}, func(_ any, err error) { got = append(got, err.Error()) }})
		c.push(proposal{failedApply{nil}, func(_ any, err error) { got = append(got, err.Error()); close(done) }})
		pause(time.Second)
		c.flush(context.Canceled, false)
		<-done
		if len(got) != 2 {
			t.Errorf("answered %q", got)
		}
		after := make(chan struct{})
		c.push(proposal{failedApply{nil}, func(any, error) { close(after) }}) // life goes on
		<-after
		close(forgotten)
		c.flush(context.Canceled, true)
	})
}

type stuck struct{ until chan struct{} }

func (s stuck) Error() error  { <-s.until; return nil }
func (s stuck) Response() any { return nil }
func (s stuck) Index() uint64 { return 0 }
