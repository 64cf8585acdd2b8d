package cluster

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// rot changes a byte wherever text is in a file of n's that a pattern names,
// while the file is in use.
func rot(t *testing.T, n *memNode, pattern, text string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(n.dir, pattern))
	must(t, err)
	found := false
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		must(t, err)
		for at := 0; ; at++ {
			next := bytes.Index(b[at:], []byte(text))
			if next < 0 {
				break
			}
			at += next
			_, err = f.WriteAt([]byte{text[0] ^ 1}, int64(at))
			must(t, err)
			found = true
		}
		must(t, f.Close())
	}
	if !found {
		t.Fatalf("no %q in %v", text, names)
	}
}

// long makes entries so large that the node's log does not copy them to another
// file while a test looks for them.
var long = strings.Repeat(".", 3000)

// rotting is a cluster of three whose logs are read from disk.
func rotting(t *testing.T, meta bool) (c *memCluster, leader *memNode) {
	c = newMemCluster(t, 3, 3, meta)
	c.cache = -1
	c.start()
	leader = c.leader()
	c.mustProposeMany(leader, long+"e", 60)
	c.converged(leader)
	return c, leader
}

// gone waits until n's Raft has ended over damage, and nothing else has.
func (c *memCluster) gone(n *memNode) {
	c.t.Helper()
	c.eventually("the raft of "+n.id+" has ended", func() bool {
		return n.group.raft.Load() == nil && n.group.standing.now.Load() == standLost && n.group.Damaged() != nil
	})
	if err := n.group.Damaged(); !errors.Is(err, ErrDamaged) {
		c.t.Errorf("%s says %v", n.id, err)
	}
	select {
	case err := <-n.fatal:
		c.t.Errorf("%s wanted to end its process: %v", n.id, err)
	default:
	}
}

// mended rebuilds a replica, while the node goes on.
func (c *memCluster) mended(n, leader *memNode) {
	c.t.Helper()
	c.close(n)
	c.rebuild(n)
	c.whole(n)
	c.converged(leader)
}

var bothLogs = []struct {
	name, pattern string
	meta          bool
}{{"in the node's log", "wal/*.wal", false}, {"in a Bolt", "*/log.bolt", true}}

// Raft panics over an entry that it cannot read to apply it.
func TestADamagedEntryThatIsToBeAppliedEndsTheReplicaAndNotTheProcess(t *testing.T) {
	for _, k := range bothLogs {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := rotting(t, k.meta)
				defer c.stop()
				bad := c.others(l)[0]
				c.net.isolate(bad.id, true)
				c.close(bad)
				must(t, c.open(bad)) // it does not know what is committed
				rot(t, bad, k.pattern, "e37")
				c.net.isolate(bad.id, false)
				c.gone(bad)
				if got, _ := bad.machine.read(); len(got) > 37 {
					t.Errorf("it has applied %d entries, and one before them was damaged", len(got))
				}
				c.mustProposeMany(l, "f", 10)
				c.mended(bad, l)
			})
		})
	}
}

// A leader that has just been elected reads what it applies as well. This is not
// in a bubble, because Raft may leave a proposal without an answer.
func TestADamagedEntryThatALeaderHasToApplyEndsItsReplica(t *testing.T) {
	for _, k := range bothLogs {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := newMemCluster(t, 1, 1, k.meta)
			c.cache, c.heartbeat = -1, 100*time.Millisecond
			c.start()
			l := c.leader()
			c.mustProposeMany(l, long+"e", 60)
			c.close(l)
			c.net.scanned = func() { rot(t, l, k.pattern, "e37") }
			must(t, c.open(l))
			defer c.close(l)
			c.gone(l)
			if _, leads := l.group.Leading(); leads || l.group.Lease() {
				t.Error("it leads")
			}
			if _, err := propose(l.group, "x"); err == nil {
				t.Error("it took a proposal")
			}
		})
	}
}

// A restart in place reads the log anew.
func TestADamagedEntryThatARestartInPlaceMeetsEndsTheReplica(t *testing.T) {
	for _, k := range bothLogs {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := rotting(t, k.meta)
				defer c.stop()
				bad := c.others(l)[0]
				rot(t, bad, k.pattern, "e37")
				bad.group.leaders.requestRestart(restartReason{why: "for the test"})
				c.gone(bad)
				c.mended(bad, l)
			})
		})
	}
}

// What a leader cannot read it cannot send. It goes on as long as nobody else
// leads: most of what it had it still has.
func TestALeaderWithADamagedEntryThatAFollowerLacksGoesOnUntilAnotherOneLeads(t *testing.T) {
	for _, k := range bothLogs {
		t.Run(k.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := rotting(t, k.meta)
				defer c.stop()
				late, other := c.others(l)[0], c.others(l)[1]
				c.close(late)
				c.mustProposeMany(l, long+"f", 60)
				c.converged(l)
				rot(t, l, k.pattern, "f37")
				must(t, c.open(late))
				c.eventually("it is damaged", func() bool { return l.group.Damaged() != nil })
				c.mustPropose(l, "more")
				must(t, l.group.TransferTo(within(t, 5*time.Second), other.id))
				c.leader(other)
				c.mended(l, other)
			})
		})
	}
}

// Leadership may be offered first to who lacks what cannot be read, and meanwhile
// Raft refuses to offer it to anybody else.
func TestADamagedLeaderOffersLeadershipAgainAfterAnOfferThatCameToNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := rotting(t, true)
		defer c.stop()
		late, other := c.others(l)[0], c.others(l)[1]
		c.close(late)
		c.mustProposeMany(l, long+"f", 60)
		c.converged(l)
		rot(t, l, "*/log.bolt", "f37")
		must(t, c.open(late))
		c.eventually("it is damaged", func() bool { return l.group.Damaged() != nil })
		c.eventually("somebody else leads", func() bool {
			for _, n := range []*memNode{late, other} {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				_ = l.group.TransferTo(ctx, n.id)
				cancel()
			}
			pause(time.Second)
			_, leads := other.group.Leading()
			return leads
		})
		c.leader(other)
		c.mended(l, other)
	})
}

// Raft panics over a term that it cannot write. What is wrong with the file is
// seen before bbolt is asked, which would panic over it as well.
func TestADamagedVoteEndsTheReplicaWhenTheNextOneIsDue(t *testing.T) {
	for _, text := range []string{"CurrentTerm", "conf"} { // a page of values, and the one that names it
		t.Run(text, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, l := rotting(t, false)
				defer c.stop()
				bad, other := c.others(l)[0], c.others(l)[1]
				rot(t, bad, "*/"+stableFile, text)
				must(t, l.group.TransferTo(within(t, 5*time.Second), other.id))
				c.leader(other)
				c.gone(bad)
				c.mustPropose(other, "more")
				c.mended(bad, other)
			})
		})
	}
}

func TestAVoteIsNotGivenIfTheLastOneCannotBeRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := rotting(t, false)
		defer c.stop()
		bad := c.others(l)[0]
		rot(t, bad, "*/"+stableFile, "LastVoteTerm")
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(l.id), Addr: []byte(l.id)}
		q := &raft.RequestVoteRequest{RPCHeader: header, Term: bad.group.Term(), LastLogIndex: 1 << 30, LastLogTerm: 1 << 30, LeadershipTransfer: true}
		var r raft.RequestVoteResponse
		if err := l.group.raft.Load().transport.RequestVote(raft.ServerID(bad.id), raft.ServerAddress(bad.id), q, &r); err == nil && r.Granted {
			t.Error("it gave its vote")
		}
		c.gone(bad)
		c.mended(bad, l)
	})
}
