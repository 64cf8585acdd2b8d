package cluster

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// firstElections has the nodes take part in the first election, as OpenGroup does.
func (c *memCluster) firstElections(ctx context.Context, nodes ...*memNode) {
	for _, n := range nodes {
		f := &first{group: n.group, self: n.id, after: c.net.hold, meets: func([]string) bool { return true }}
		go f.run(ctx, c.opts.Bootstrap)
	}
}

// restarted is a cluster of three that has had a leader, and is down.
func restarted(t *testing.T) (c *memCluster, inTurn []*memNode) {
	c = newMemCluster(t, 3, 3, false)
	c.start()
	l := c.leader()
	c.mustProposeMany(l, "e", 10)
	c.converged(l)
	same := l.group.LastIndex()
	for _, n := range c.nodes {
		same = min(same, n.group.LastIndex())
	}
	c.stop()
	for _, n := range c.nodes { // what the last moments added, and in which terms, is not to decide
		plant(t, n, func(s *groupStores) {
			last, err := s.log.LastIndex()
			must(t, err)
			if last > same {
				must(t, s.log.DeleteRange(same+1, last))
			}
			must(t, s.stable.SetUint64([]byte("CurrentTerm"), 1000))
		})
	}
	c.net.hold, c.heartbeat = time.Second, time.Minute // no timer of Raft's interferes
	inTurn = slices.Clone(c.nodes)
	slices.SortFunc(inTurn, func(a, b *memNode) int {
		return turnOf(c.opts.Bootstrap, a.id, testGroup) - turnOf(c.opts.Bootstrap, b.id, testGroup)
	})
	return c, inTurn
}

// The node whose turn it is may have been started before the others, which hold
// their votes back for as long as it does. An election that it begins too early
// is lost, and Raft begins no other for one to two election timeouts.
func TestAnElectionAfterARestartWaitsForThoseWhoWereStartedLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, inTurn := restarted(t)
		defer c.stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		must(t, c.open(inTurn[0]))
		c.firstElections(ctx, inTurn[0])
		pause(200 * time.Millisecond)
		for _, n := range inTurn[1:] {
			must(t, c.open(n))
			c.firstElections(ctx, n)
		}
		begin := time.Now()
		l := c.leader()
		if took := time.Since(begin); l != inTurn[0] || took > c.net.hold+100*time.Millisecond { // the others' hold, and a look
			t.Errorf("%s leads after %s, want %s", l.id, took, inTurn[0].id)
		}
	})
}

func TestTheNextVotersStandIfTheOneBeforeThemWouldLose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, inTurn := restarted(t)
		defer c.stop()
		plant(t, inTurn[0], func(s *groupStores) { // its log ends before what all had
			last, err := s.log.LastIndex()
			must(t, err)
			must(t, s.log.DeleteRange(5, last))
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.start()
		c.firstElections(ctx, c.nodes...)
		begin := time.Now()
		l := c.leader()
		// The second may have been down when the third began its last term.
		if took := time.Since(begin); l == inTurn[0] || took > c.net.hold+2*firstTurn+100*time.Millisecond {
			t.Errorf("%s leads after %s", l.id, took)
		}
	})
}

func TestAPollChangesNoTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := settled(t)
		defer c.stop()
		_, term, _ := l.group.Leader()
		for _, n := range c.nodes {
			q, err := n.group.question()
			must(t, err)
			r := n.group.raft.Load()
			wins, loses := n.group.poll(t.Context(), r, q, c.opts.Bootstrap)
			if n != l && (wins || !loses) {
				t.Errorf("%s, while %s leads: wins %v, loses %v", n.id, l.id, wins, loses)
			}
		}
		pause(time.Second)
		for _, n := range c.nodes {
			if leader, now, _ := n.group.Leader(); leader != l.id || now != term {
				t.Errorf("%s follows %s in term %d, want %s in %d", n.id, leader, now, l.id, term)
			}
		}
	})
}

func TestALastEntryIsTheSnapshotsIfTheLogIsEmpty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, inTurn := restarted(t)
		plant(t, inTurn[0], func(s *groupStores) {
			index, term, err := s.lastEntry()
			if err != nil || index < 10 || term == 0 {
				t.Errorf("the log's is %d of term %d, %v", index, term, err)
			}
			sink, err := s.snapshots.Create(raft.SnapshotVersionMax, index+5, term+1, raft.Configuration{}, 1, nil)
			must(t, err)
			must(t, sink.Close())
			must(t, s.log.DeleteRange(1, index))
			if i, in, err := s.lastEntry(); err != nil || i != index+5 || in != term+1 {
				t.Errorf("got %d of term %d, %v", i, in, err)
			}
		})
	})
}
