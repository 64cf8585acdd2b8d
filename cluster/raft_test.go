package cluster

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// openGroups opens groups 1..n on every node, with all of them as members.
func openGroups(t *testing.T, nodes []*node, n int) (groups map[*node][]*Group, machines map[*node][]*journal) {
	t.Helper()
	groups, machines = map[*node][]*Group{}, map[*node][]*journal{}
	for _, node := range nodes {
		for gid := range n {
			m := &journal{}
			g, err := node.OpenGroup(uint64(gid+1), m, GroupOptions{Bootstrap: node.formed(t).Founders})
			if err != nil {
				t.Fatal(err)
			}
			groups[node] = append(groups[node], g)
			machines[node] = append(machines[node], m)
		}
	}
	return groups, machines
}

// leaderOf waits until one of nodes may act as leader of the i-th group.
func leaderOf(t *testing.T, nodes []*node, groups map[*node][]*Group, i int) (leader *node) {
	t.Helper()
	eventually(t, fmt.Sprintf("a leader with a lease in group %d", i+1), func() bool {
		for _, n := range nodes {
			if _, ok := groups[n][i].Leading(); ok && groups[n][i].Lease() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// commit proposes entries on a leader and waits until all are committed.
func commit(t *testing.T, g *Group, entries int) {
	t.Helper()
	var work sync.WaitGroup
	var mu sync.Mutex
	var first error
	work.Add(entries)
	for i := range entries {
		g.Propose(fmt.Appendf(nil, "entry %d of %s", i, g.seat.id), func(_ any, err error) {
			mu.Lock()
			if err != nil && first == nil {
				first = err
			}
			mu.Unlock()
			work.Done()
		})
	}
	work.Wait()
	if first != nil {
		t.Fatalf("group %d: %v", g.gid, first)
	}
}

func commands(m *journal) int {
	entries, _ := m.read()
	return len(entries)
}

func TestThreeGroupsCommitAndSurviveTheLossOfALeader(t *testing.T) {
	t.Parallel() // it waits most of its time
	for _, store := range []string{LogStoreWAL, LogStoreBolt} {
		t.Run(store, func(t *testing.T) { commitAndLoseALeader(t, store) })
	}
}

func commitAndLoseALeader(t *testing.T, store string) {
	nodes := three(t, func(c *Config) { c.LogStore = store })
	meshed(t, nodes)
	const count, entries = 3, 1000
	groups, machines := openGroups(t, nodes, count)
	var work sync.WaitGroup
	for i := range count {
		leader := leaderOf(t, nodes, groups, i)
		work.Go(func() { commit(t, groups[leader][i], entries) })
	}
	work.Wait()
	for i := range count {
		for _, n := range nodes {
			eventually(t, "every replica has every entry", func() bool { return commands(machines[n][i]) == entries })
		}
	}
	lost := leaderOf(t, nodes, groups, 0)
	var rest []*node
	for _, n := range nodes {
		if n != lost {
			rest = append(rest, n)
		}
	}
	begin := time.Now()
	lost.crash(t)
	for i := range count {
		leader := leaderOf(t, rest, groups, i)
		commit(t, groups[leader][i], 10)
	}
	t.Logf("all groups commit again after %s (heartbeat timeout %s)", time.Since(begin), lost.cfg.HeartbeatTimeout)
}

func TestACrashedLeaderIsSucceededBeforeTheHeartbeatTimeout(t *testing.T) {
	const heartbeat = 15 * time.Second
	nodes := three(t, func(c *Config) { c.HeartbeatTimeout = heartbeat })
	meshed(t, nodes)
	groups, _ := openGroups(t, nodes, 1)
	lost := leaderOf(t, nodes, groups, 0)
	commit(t, groups[lost][0], 1)
	var rest []*node
	for _, n := range nodes {
		if n != lost {
			rest = append(rest, n)
		}
	}
	for _, n := range rest {
		eventually(t, "followers know their leader", func() bool { id, _, _ := groups[n][0].Leader(); return id == lost.id })
	}
	begin := time.Now()
	lost.crash(t)
	leader := leaderOf(t, rest, groups, 0)
	took := time.Since(begin)
	commit(t, groups[leader][0], 1)
	if took > heartbeat*3/4 { // followers hear of their leader at least this late
		t.Errorf("took %s", took)
	}
	t.Logf("a new leader after %s", took)
}

func TestAnHeirThatNoticesTheCrashAfterAnElectionWasLostStands(t *testing.T) {
	t.Parallel()                         // it waits most of its time
	const heartbeat = 30 * time.Second   // Raft's own timers do nothing in time
	told := map[*Cluster]chan struct{}{} // when a node may know of a crash
	var nodes []*node
	var join []string
	for range 3 {
		cfg := loopback(t)
		cfg.BootstrapExpect, cfg.Join, cfg.HeartbeatTimeout = 3, slices.Clone(join), heartbeat
		n := start(t, cfg, func(c *Cluster) {
			tell := make(chan struct{})
			told[c] = tell
			c.morgue.crashed = func(ctx context.Context, id string) {
				select {
				case <-tell:
					c.succeed(ctx, id)
				case <-ctx.Done():
				}
			}
		})
		join, nodes = append(join, n.Advertised()), append(nodes, n)
	}
	for _, n := range nodes {
		n.formed(t)
	}
	meshed(t, nodes)
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.id, b.id) })
	nodes[1], nodes[2] = nodes[2], nodes[1] // the first election's candidate is the last to have the group: it wins
	groups, _ := openGroups(t, nodes, 1)
	lost := leaderOf(t, nodes, groups, 0)
	rest := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == lost })
	loser, heir := rest[0], rest[1]
	commit(t, groups[lost][0], 1)
	eventually(t, "the heir knows its leader and has all", func() bool {
		id, _, _ := groups[heir][0].Leader()
		return id == lost.id && groups[heir][0].LastIndex() == groups[lost][0].LastIndex()
	})
	term := groups[heir][0].Term()
	begin := time.Now()
	lost.crash(t)
	from := loser.groups.transport(1)
	q := &raft.RequestVoteRequest{RPCHeader: from.header(), Term: term + 1, LeadershipTransfer: true} // with nothing in its log
	var v raft.RequestVoteResponse
	if err := from.RequestVote("", raft.ServerAddress(heir.id), q, &v); err != nil || v.Granted {
		t.Fatalf("got %+v, %v", v, err)
	}
	if id, now, _ := groups[heir][0].Leader(); id != "" || now != term+1 {
		t.Fatalf("the heir has leader %q in term %d", id, now)
	}
	close(told[heir.Cluster])
	if got := leaderOf(t, rest, groups, 0); got != heir {
		t.Errorf("%s leads, want %s", got.id, heir.id)
	}
	if took := time.Since(begin); took > heartbeat/2 {
		t.Errorf("took %s", took)
	}
}

func TestALeaseEndsBeforeAnotherIsToldToStand(t *testing.T) {
	nodes := three(t, nil)
	meshed(t, nodes)
	groups, _ := openGroups(t, nodes, 1)
	old := leaderOf(t, nodes, groups, 0)
	target := nodes[0]
	if target == old {
		target = nodes[1]
	}
	commit(t, groups[old][0], 1)
	eventually(t, "the follower has caught up", func() bool { // one whose first election was in vain may be a candidate yet
		g := groups[target][0]
		return g.LastIndex() == groups[old][0].LastIndex() && g.Stats().State == raft.Follower.String()
	})
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := groups[old][0].TransferTo(ctx, target.id); err != nil {
		t.Fatal(err)
	}
	if groups[old][0].Lease() {
		t.Error("the old leader still has a lease")
	}
	if got := leaderOf(t, nodes, groups, 0); got != target {
		t.Errorf("%s leads, want %s", got.id, target.id)
	}
}

func TestAnUnknownGroupIsAnErrorAndNoGroup(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	meshed(t, nodes)
	tr := nodes[0].newTransport(77, new(standing), false, nil)
	defer tr.Close()
	var r raft.RequestVoteResponse
	err := tr.RequestVote("", raft.ServerAddress(nodes[1].id), &raft.RequestVoteRequest{Term: 1}, &r)
	if err == nil || nodes[1].HasGroup(77) {
		t.Errorf("got %v", err)
	}
}

func TestARestartedNodeKeepsItsVoteForAWhile(t *testing.T) {
	nodes := three(t, func(c *Config) { c.HeartbeatTimeout = time.Minute })
	meshed(t, nodes)
	from := nodes[0].newTransport(7, new(standing), false, nil)
	defer from.Close()
	held := nodes[1].newTransport(7, new(standing), true, nil)
	defer held.Close()
	var v raft.RequestVoteResponse
	if err := from.RequestVote("", raft.ServerAddress(nodes[1].id), &raft.RequestVoteRequest{Term: 9}, &v); err != nil || v.Granted || v.Term != 0 {
		t.Errorf("got %+v, %v", v, err)
	}
	var p raft.RequestPreVoteResponse
	if err := from.RequestPreVote("", raft.ServerAddress(nodes[1].id), &raft.RequestPreVoteRequest{Term: 9}, &p); err != nil || p.Granted {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestARestartedNodeVotesForWhoSucceedsACrashedLeader(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, func(c *Config) { c.HeartbeatTimeout = time.Minute })
	meshed(t, nodes)
	from := nodes[0].newTransport(7, new(standing), false, nil)
	defer from.Close()
	held := nodes[1].newTransport(7, new(standing), true, nil)
	defer held.Close()
	go func() { // Raft, which decides as always
		select {
		case rpc := <-held.Consumer():
			rpc.Respond(&raft.RequestVoteResponse{Term: 9, Granted: true}, nil)
		case <-held.ended:
		}
	}()
	var v raft.RequestVoteResponse
	q := &raft.RequestVoteRequest{Term: 9, LeadershipTransfer: true}
	if err := from.RequestVote("", raft.ServerAddress(nodes[1].id), q, &v); err != nil || !v.Granted || v.Term != 9 {
		t.Errorf("got %+v, %v", v, err)
	}
}

func TestASnapshotStreamsWhole(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	meshed(t, nodes)
	from := nodes[0].newTransport(7, new(standing), false, nil)
	defer from.Close()
	to := nodes[1].newTransport(7, new(standing), false, testSnapshots(t))
	defer to.Close()
	for _, size := range []int{0, 1, chunkBytes, 3*chunkBytes + 17, 8 << 20} {
		want := bytes.Repeat([]byte("snapshot"), size/8+1)[:size]
		got := make(chan []byte, 1)
		go func() {
			rpc := <-to.Consumer()
			var b bytes.Buffer
			b.ReadFrom(rpc.Reader)
			got <- b.Bytes()
			rpc.Respond(&raft.InstallSnapshotResponse{Term: 3, Success: true}, nil)
		}()
		var r raft.InstallSnapshotResponse
		q := &raft.InstallSnapshotRequest{Term: 3, LastLogIndex: 9, Size: int64(size)}
		err := from.InstallSnapshot("", raft.ServerAddress(nodes[1].id), q, &r, bytes.NewReader(want))
		if err != nil || !r.Success || r.Term != 3 {
			t.Fatalf("size %d: %+v, %v", size, r, err)
		}
		if !bytes.Equal(<-got, want) {
			t.Errorf("size %d: other bytes arrived", size)
		}
	}
}

func TestALeaseNeedsAQuorumOfTheTerm(t *testing.T) {
	now := time.Now()
	var a ackTable
	a.note("b", 5, now.Add(-time.Second))
	voters := []string{"a", "b", "c"}
	for _, c := range []struct {
		what string
		term uint64
		self string
		age  time.Duration
		want bool
	}{
		{"recent answer", 5, "a", 2 * time.Second, true},
		{"too old", 5, "a", time.Second / 2, false},
		{"another term", 6, "a", 2 * time.Second, false},
		{"not a voter itself", 5, "x", 2 * time.Second, false},
	} {
		if got := a.lease(c.term, voters, c.self, now.Add(-c.age)); got != c.want {
			t.Errorf("%s: got %t", c.what, got)
		}
	}
	if !a.lease(9, []string{"a"}, "a", now) {
		t.Error("a lone voter has no lease")
	}
	a.hold()
	if a.lease(5, voters, "a", now.Add(-2*time.Second)) {
		t.Error("lease after another was told to stand")
	}
	a.note("b", 6, now)
	if !a.lease(6, voters, "a", now.Add(-time.Second)) {
		t.Error("no lease in a later term")
	}
}
