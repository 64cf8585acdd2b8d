package cluster

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

const (
	replayed   = 400
	replayData = 1000 // bytes of each entry
	replayMax  = 20 * replayData
)

// replaying is a cluster of three that has been started with a log of entries
// to be applied, by machines that stand still until stuck is closed.
func replaying(t *testing.T) (c *memCluster, want []string) {
	c = newMemCluster(t, 3, 3, false)
	c.start()
	l := c.leader()
	for i := range replayed {
		c.mustPropose(l, strconv.Itoa(i)+strings.Repeat(".", replayData))
	}
	c.converged(l)
	want, _ = l.machine.read()
	c.stop()
	c.ahead, c.stuck = replayMax, make(chan struct{})
	c.start()
	return c, want
}

// raftLeader waits for a leader in Raft's sense, whose Machine leads later.
func (c *memCluster) raftLeader() (l *memNode) {
	c.t.Helper()
	c.eventually("a leader of Raft's", func() bool {
		i := slices.IndexFunc(c.nodes, func(n *memNode) bool {
			return n.group.Stats().State == raft.Leader.String() && n.group.CommitIndex() > replayed
		})
		if i >= 0 {
			l = c.nodes[i]
		}
		return i >= 0
	})
	return l
}

// What waits in Raft to be applied is in memory, and may be a whole log.
func TestRaftDoesNotRunAheadOfMachinesThatReplayALog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, want := replaying(t)
		defer c.stop()
		l := c.raftLeader()
		pause(aheadPatience / 2)
		// Two batches of Raft's make up the bytes that may wait, and one is with the Machine.
		waits, err := strconv.Atoi(l.group.raft.Load().Stats()["fsm_pending"])
		if most := replayMax/replayData/batchEntries + 1; err != nil || waits > most {
			t.Errorf("%d batches wait at the leader, want %d at most; %v", waits, most, err)
		}
		pause(5 * c.heartbeat) // nothing is applied, heartbeats are answered all the same
		for _, n := range c.others(l) {
			if leader, _, _ := n.group.Leader(); leader != l.id {
				t.Errorf("%s follows %q", n.id, leader)
			}
			if told := n.group.raft.Load().CommitIndex(); told == 0 || told > 2*replayMax/replayData {
				t.Errorf("%s was told that %d entries are committed", n.id, told)
			}
			if known := n.group.CommitIndex(); known <= replayed { // or it would count as caught up
				t.Errorf("%s knows of %d entries that are committed", n.id, known)
			}
		}
		close(c.stuck)
		c.leader()
		for _, n := range c.nodes {
			c.eventually("all is applied", func() bool { got, _ := n.machine.read(); return slices.Equal(got, want) })
		}
	})
}

// What a leader says to be committed names the entry before it, which it reads:
// that may be far from what its own Machine has applied.
func TestFollowersHearWhatIsCommittedWhileTheLeadersMachineReplays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := replaying(t)
		defer c.stop()
		defer close(c.stuck)
		l := c.raftLeader()
		for range 3 * 8 { // each machine moves on more often than patience ends
			select {
			case c.stuck <- struct{}{}:
			case <-time.After(time.Second):
				t.Fatal("no machine has anything to apply")
			}
			pause(aheadPatience / 8)
		}
		if _, leads := l.group.Leading(); leads {
			t.Fatal("the leader's machine has applied all already")
		}
		for _, n := range c.others(l) {
			if known := n.group.CommitIndex(); known <= replayed {
				t.Errorf("%s knows of %d entries that are committed", n.id, known)
			}
		}
	})
}

func TestALeaderGoesOnReadingIfItsMachineDoesNotMove(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := replaying(t)
		defer c.stop()
		defer close(c.stuck)
		l := c.raftLeader()
		pending := func() int {
			n, _ := strconv.Atoi(l.group.raft.Load().Stats()["fsm_pending"])
			return n
		}
		pause(aheadPatience / 2)
		before := pending()
		pause(2 * batchEntries * aheadPatience)
		if after := pending(); after <= before {
			t.Errorf("%d batches waited, now %d", before, after)
		}
	})
}

// A heartbeat names no entries, so that nothing may be said to be committed by
// it that an earlier request has not shown to be the leader's.
func TestAFollowerIsToldOnlyWhatIsItsLeadersToo(t *testing.T) {
	far := uint64(10) // what the machine is near to
	p := &pacer{reach: func(commit uint64) uint64 { return min(commit, far) }}
	success := raft.RPCResponse{Response: &raft.AppendEntriesResponse{Success: true}}
	failure := raft.RPCResponse{Response: &raft.AppendEntriesResponse{}}
	entries := func(from, to uint64) (e []*raft.Log) {
		for i := from; i <= to; i++ {
			e = append(e, &raft.Log{Index: i})
		}
		return e
	}
	for _, step := range []struct {
		name   string
		far    uint64
		q      raft.AppendEntriesRequest
		answer raft.RPCResponse
		want   uint64
	}{
		{"a heartbeat before all else", 10, raft.AppendEntriesRequest{}, success, 0},
		{"another log", 10, raft.AppendEntriesRequest{PrevLogEntry: 90, LeaderCommitIndex: 50}, failure, 10},
		{"a heartbeat after a failure", 60, raft.AppendEntriesRequest{}, success, 0},
		{"entries that are far off", 10, raft.AppendEntriesRequest{PrevLogEntry: 28, Entries: entries(29, 30), LeaderCommitIndex: 50}, success, 10},
		{"a heartbeat, the machine has moved", 25, raft.AppendEntriesRequest{}, success, 25},
		{"a heartbeat, the machine is near", 60, raft.AppendEntriesRequest{}, success, 30}, // of 31 and on nothing is known
		{"an error", 60, raft.AppendEntriesRequest{PrevLogEntry: 55, LeaderCommitIndex: 50}, raft.RPCResponse{Error: errTest}, 50},
		{"a heartbeat after an error", 60, raft.AppendEntriesRequest{}, success, 30},
		{"all that there is", 60, raft.AppendEntriesRequest{PrevLogEntry: 55, LeaderCommitIndex: 50}, success, 50},
		{"a heartbeat at last", 60, raft.AppendEntriesRequest{}, success, 50},
	} {
		far = step.far
		says := p.tell(&step.q)
		if step.q.LeaderCommitIndex != step.want {
			t.Errorf("%s: Raft was told %d, want %d", step.name, step.q.LeaderCommitIndex, step.want)
		}
		p.heard(&step.q, says, step.answer)
	}
}

func TestTheRealTransportPacesAppendsOnly(t *testing.T) {
	tr := &transport{gone: func(*transport) {}}
	tr.start()
	defer tr.Close()
	tr.pace(&pacer{reach: func(commit uint64) uint64 { return min(commit, 7) }})
	got := make(chan any, 2)
	for _, cmd := range []any{&raft.AppendEntriesRequest{LeaderCommitIndex: 9}, &raft.RequestVoteRequest{Term: 9}} {
		tr.deliver(inbound{rpc: raft.RPC{Command: cmd}, done: func(raft.RPCResponse) {}})
		rpc := <-tr.Consumer()
		got <- rpc.Command
		rpc.Respond(nil, errTest)
	}
	if a := (<-got).(*raft.AppendEntriesRequest); a.LeaderCommitIndex != 7 {
		t.Errorf("told %d", a.LeaderCommitIndex)
	}
	if v := (<-got).(*raft.RequestVoteRequest); v.Term != 9 {
		t.Errorf("asked for %d", v.Term)
	}
}

// The next one is always in reach, however long it is.
func TestAnEntryLongerThanTheLimitIsApplied(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newMemCluster(t, 3, 3, false)
		c.ahead = 1
		c.start()
		defer c.stop()
		l := c.leader()
		c.mustProposeMany(l, strings.Repeat("long", 1000), 3*batchEntries)
		c.converged(l)
		c.stop()
		c.start()
		begin := time.Now()
		l = c.leader()
		c.converged(l)
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}
