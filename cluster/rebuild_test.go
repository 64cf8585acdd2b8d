package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/raftlog"
)

// spoil changes a byte wherever text is in a file of n's that a pattern names.
func spoil(t *testing.T, n *memNode, pattern, text string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.dir, pattern))
	must(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		bad := bytes.ReplaceAll(b, []byte(text), append([]byte{text[0] ^ 1}, text[1:]...))
		if !bytes.Equal(bad, b) {
			must(t, os.WriteFile(name, bad, 0o600))
			return
		}
	}
	t.Fatalf("no %q in %v", text, names)
}

func (c *memCluster) folder(n *memNode) string { return groupDir(n.dir, testGroup) }

// rebuild notes that n's replica is to be rebuilt, and opens it.
func (c *memCluster) rebuild(n *memNode) {
	c.t.Helper()
	if err := (rebuildNote{stepDrop, "for the test"}).write(c.folder(n)); err != nil {
		c.t.Fatal(err)
	}
	if err := c.open(n); err != nil {
		c.t.Fatal(err)
	}
}

func (c *memCluster) whole(n *memNode) {
	c.t.Helper()
	c.eventually(n.id+" is whole", func() bool { return n.group.standing.leads() && !exists(filepath.Join(c.folder(n), rebuildFile)) })
}

func TestADamagedReplicaIsRefusedAndRebuilt(t *testing.T) {
	for _, k := range []struct {
		name  string
		meta  bool // its log is a Bolt
		snap  bool // the log was cut behind a snapshot
		spoil func(t *testing.T, n *memNode)
	}{
		{"an entry", false, false, func(t *testing.T, n *memNode) { spoil(t, n, "wal/*.wal", "e7") }},
		{"a file of the log", false, false, func(t *testing.T, n *memNode) { spoil(t, n, "wal/*.wal", "WARRNWAL") }},
		{"an entry in a Bolt", true, false, func(t *testing.T, n *memNode) { spoil(t, n, "*/log.bolt", "e7") }},
		{"the vote", false, false, func(t *testing.T, n *memNode) { spoil(t, n, "*/stable.bolt", "LastVoteTerm") }},
		{"the vote in a Bolt", true, false, func(t *testing.T, n *memNode) { spoil(t, n, "*/log.bolt", "LastVoteTerm") }},
		{"the snapshot before the log", false, true, func(t *testing.T, n *memNode) { spoil(t, n, "*/snapshots/*/state.bin", "e7\n") }},
		{"a snapshot's description", false, true, func(t *testing.T, n *memNode) { spoil(t, n, "*/snapshots/*/meta.json", "Index") }},
	} {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMemCluster(t, 3, 3, k.meta)
				c.start()
				defer c.stop()
				l := c.leader()
				count := 60
				if k.snap {
					count = 600 // more than the log keeps
				}
				c.mustProposeMany(l, "e", count)
				c.converged(l)
				bad := c.others(l)[0]
				if k.snap {
					must(t, bad.group.Snapshot(t.Context()))
				}
				c.close(bad)
				k.spoil(t, bad)
				for range 2 { // it stays so, whoever asks how often
					if err := c.open(bad); !errors.Is(err, ErrDamaged) {
						t.Fatalf("opened with damage: %v", err)
					}
				}
				c.rebuild(bad)
				c.mustProposeMany(l, "f", 20)
				c.whole(bad)
				c.converged(l)
				c.close(l) // now its vote is needed, and good
				next := c.leader(c.others(l)...)
				c.mustPropose(next, "last")
				c.converged(next)
				if got, _ := next.machine.read(); len(got) != count+21 {
					t.Errorf("%d entries", len(got))
				}
			})
		})
	}
}

// The classic mistake: an entry is on the leader and on a replica that loses
// it, and the third elects itself with the loser's vote.
func TestAWipedReplicaDoesNotVoteAwayWhatItAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := settled(t)
		defer c.stop()
		wiped, behind := c.others(l)[0], c.others(l)[1]
		c.close(behind)
		c.mustPropose(l, "acknowledged") // by the leader and the one that will lose it
		c.close(wiped)
		c.close(l)
		c.rebuild(wiped)
		must(t, c.open(behind))
		for range 60 {
			pause(time.Second)
			for _, n := range []*memNode{wiped, behind} {
				if _, leads := n.group.Leading(); leads || n.group.Rebuilding() != (n == wiped) {
					t.Fatalf("%s leads: %v, is being rebuilt: %v", n.id, leads, n.group.Rebuilding())
				}
			}
		}
		c.close(wiped) // the note outlives a restart
		must(t, c.open(wiped))
		must(t, c.open(l))
		if next := c.leader(); next != l {
			t.Fatalf("%s leads, and only %s has everything", next.id, l.id)
		}
		c.whole(wiped)
		c.converged(l)
		if got, _ := wiped.machine.read(); got[len(got)-1] != "acknowledged" {
			t.Errorf("the wiped replica has %q", got)
		}
	})
}

// What a leader had when it was asked is what ends a rebuild, not what it has
// committed: it may commit the rest by counting what was acknowledged before.
func TestARebuildEndsWhenAllIsThereThatMayBeCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := settled(t)
		defer c.stop()
		wiped := c.others(l)[0]
		c.close(wiped)
		c.net.uncommitted = 5
		c.rebuild(wiped)
		c.converged(l)
		pause(10 * time.Second)
		if wiped.group.standing.votes() {
			t.Error("it votes while the leader may count it for an entry that it cannot know of")
		}
		c.mustProposeMany(l, "f", 10)
		c.whole(wiped)
	})
}

// What that leader had may go with it: then what the next one has counts.
func TestARebuildEndsAlthoughWhatItWaitedForIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := settled(t)
		defer c.stop()
		wiped, next := c.others(l)[0], c.others(l)[1]
		c.close(wiped)
		c.net.uncommitted = 50
		c.rebuild(wiped)
		c.converged(l)
		pause(5 * time.Second)
		c.net.mu.Lock()
		c.net.uncommitted = 0
		c.net.mu.Unlock()
		if wiped.group.standing.votes() {
			t.Error("it votes already")
		}
		must(t, l.group.TransferTo(within(t, 5*time.Second), next.id))
		c.whole(wiped)
	})
}

// An entry that only the node's log meets, when it lets go of old files, is
// damage like any other: else the log would grow until the disk is full.
func TestADamagedEntryThatRaftDoesNotReadIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := settled(t)
		defer c.stop()
		bad := c.others(l)[0]
		names, err := filepath.Glob(filepath.Join(bad.dir, "wal/*.wal"))
		must(t, err)
		b, err := os.ReadFile(names[0])
		must(t, err)
		f, err := os.OpenFile(names[0], os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("E"), int64(bytes.Index(b, []byte("e7"))))
		must(t, errors.Join(err, f.Close()))
		busy, err := bad.wal.Group(99)
		must(t, err)
		for i := uint64(1); i <= 20; i++ {
			must(t, busy.StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, 100<<10)}))
		}
		must(t, busy.DeleteRange(1, 20))
		c.eventually("it is damaged", func() bool { return bad.group.standing.now.Load() == standLost })
		if err := bad.group.Damaged(); !errors.Is(err, raftlog.ErrDamaged) {
			t.Errorf("it says %v", err)
		}
	})
}

// It does not elect itself over an early configuration either, of which it was
// the only member; and it has its timeouts back afterwards.
func TestAReplicaBeingRebuiltNeverStands(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := runningCluster(t, 3, 1, false)
		for _, n := range c.others(a) {
			must(t, a.group.AddVoter(t.Context(), n.id, 0))
		}
		c.mustProposeMany(a, "e", 10)
		c.converged(a)
		c.close(a)
		l := c.leader(c.others(a)...)
		c.net.isolate(l.id, true) // nobody fills the log that begins now
		c.rebuild(a)
		if got := a.group.raft.Load().ReloadableConfig().ElectionTimeout; got != neverStands {
			t.Errorf("election timeout %s", got)
		}
		a.group.InjectTimeoutNow()
		if err := l.group.TransferTo(within(t, 5*time.Second), a.id); err == nil {
			t.Error("leadership was handed to it")
		}
		pause(20 * time.Second)
		if _, leads := a.group.Leading(); leads || a.group.Stats().State != raft.Follower.String() {
			t.Errorf("it is a %s", a.group.Stats().State)
		}
		c.net.isolate(l.id, false)
		c.whole(a)
		c.eventually("it has its timeouts back", func() bool {
			return a.group.raft.Load().ReloadableConfig().ElectionTimeout == time.Second
		})
	})
}

// Wherever a process dies in a rebuild, the next one goes on with it.
func TestARebuildGoesOnAfterACrashAtAnyStep(t *testing.T) {
	for _, k := range []struct {
		name  string
		crash func(t *testing.T, dir string)
	}{
		{"noted", func(t *testing.T, dir string) { must(t, rebuildNote{stepDrop, "x"}.write(dir)) }},
		{"the note is garbled", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, rebuildFile), []byte("drpp"), 0o600))
		}},
		{"snapshots are gone", func(t *testing.T, dir string) {
			must(t, rebuildNote{stepDrop, "x"}.write(dir))
			must(t, os.RemoveAll(filepath.Join(dir, snapshotsDir)))
		}},
		{"the term is lost", func(t *testing.T, dir string) {
			must(t, rebuildNote{stepDrop, "x"}.write(dir))
			must(t, os.WriteFile(filepath.Join(dir, stableFile), []byte("rubbish"), 0o600))
		}},
		{"the lost term is set aside", func(t *testing.T, dir string) {
			must(t, rebuildNote{stepForgotten, "x"}.write(dir))
			must(t, os.Remove(filepath.Join(dir, stableFile)))
		}},
		{"the new vote is half written, the note garbled", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, rebuildFile), []byte("forgettem\n"), 0o600))
			must(t, os.Remove(filepath.Join(dir, stableFile)))
			b, err := raftlog.OpenBolt(filepath.Join(dir, stableFile), raftlog.Options{Log: quietLog(), Fatal: func(err error) { t.Error(err) }})
			must(t, err)
			must(t, b.SetUint64([]byte("LastVoteTerm"), 2))
			must(t, b.Close())
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := runningCluster(t, 3, 3, false)
				c.mustProposeMany(l, "e", 30)
				c.converged(l)
				term := l.group.Term()
				bad := c.others(l)[0]
				must(t, bad.group.Snapshot(t.Context()))
				c.close(bad)
				k.crash(t, c.folder(bad))
				must(t, c.open(bad))
				c.whole(bad)
				c.converged(l)
				if left, err := filepath.Glob(filepath.Join(c.folder(bad), "*"+damagedSuffix)); err != nil || len(left) > 0 {
					t.Errorf("it has kept %v, %v", left, err)
				}
				if got := bad.group.Term(); got < term || l.group.Term() != term {
					t.Errorf("it came back in term %d, the leader was in %d and is in %d", got, term, l.group.Term())
				}
			})
		})
	}
}

// Without the term and the vote, one node that cannot be asked is one that may
// have had the vote.
func TestALostVoteIsMadeUpForByAllTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		c.mustPropose(l, "e")
		c.converged(l)
		bad, other := c.others(l)[0], c.others(l)[1]
		c.close(bad)
		must(t, rebuildNote{stepForgotten, "x"}.write(c.folder(bad)))
		c.net.isolate(other.id, true)
		if err := c.open(bad); !errors.Is(err, ErrDamaged) || !errors.Is(err, errForgotten) {
			t.Fatalf("got %v", err)
		}
		c.net.isolate(other.id, false)
		must(t, c.open(bad))
		term, err := bad.group.stores.stable.GetUint64([]byte("LastVoteTerm"))
		must(t, err)
		vote, err := bad.group.stores.stable.Get([]byte("LastVoteCand"))
		must(t, err)
		if term < l.group.Term() || string(vote) != bad.id {
			t.Errorf("its vote in term %d is for %s", term, vote)
		}
		c.whole(bad)
	})
}

// One whose Raft is being restarted is asked as well, and does not know the term:
// it may be the one that had the vote.
func TestAReplicaBetweenTwoRunsTellsNoTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		other := c.others(l)[0]
		other.group.endRun(false)
		if _, err := c.terms(t.Context(), c.others(l)[1].id); !errors.Is(err, errNotOpen) {
			t.Errorf("got %v", err)
		}
		must(t, other.group.startRun(true))
	})
}

// A replica whose state is damaged, and its log is not, votes and acknowledges,
// and leads no more.
func TestAFlawedReplicaDoesNotLead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		bad, other := c.others(l)[0], c.others(l)[1]
		bad.group.MarkDamaged(errTest)
		if err := bad.group.Damaged(); !errors.Is(err, ErrDamaged) || !errors.Is(err, errTest) {
			t.Errorf("it says %v", err)
		}
		if err := l.group.TransferTo(within(t, 5*time.Second), bad.id); err == nil {
			t.Error("it took the leadership")
		}
		c.close(l)
		if next := c.leader(bad, other); next != other {
			t.Fatalf("%s leads", next.id)
		}
		c.mustPropose(other, "x")
		pause(time.Minute)
		if _, leads := bad.group.Leading(); leads {
			t.Error("it leads")
		}
	})
}

func TestAReportReadsAsItWasWritten(t *testing.T) {
	for _, want := range []replicaReport{{}, {exists: true, healthy: true, leads: true, term: 7, last: 1 << 40, voters: []string{"a", "b"}}} {
		got, err := decodeReport(want.encode())
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	whole := replicaReport{voters: []string{"a"}}.encode()
	for n := range whole {
		if _, err := decodeReport(slices.Clone(whole[:n])); err == nil {
			t.Errorf("%d bytes of %d were taken", n, len(whole))
		}
	}
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A leader whose snapshots are damaged still has the state that they were of.
func TestALeaderReplacesADamagedSnapshotThatItHasToSend(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, false)
		late := c.others(l)[0]
		c.close(late)
		for i := range 6 { // far beyond TrailingLogs
			c.mustProposeMany(l, fmt.Sprintf("%d-", i), 100)
			must(t, l.group.Snapshot(t.Context()))
		}
		states, err := filepath.Glob(filepath.Join(l.dir, "*", "snapshots", "*", "state.bin"))
		must(t, err)
		for _, name := range states {
			b, err := os.ReadFile(name)
			must(t, err)
			b[len(b)/2] ^= 1
			must(t, os.WriteFile(name, b, 0o600))
		}
		must(t, c.open(late))
		c.converged(l)
	})
}
