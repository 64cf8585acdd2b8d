package node

import (
	"bytes"
	"testing"

	"warren/broker"
	"warren/fsm/queue"
	"warren/mq"
)

// pad commits so many entries that only take indexes of a group's log.
func pad(t *testing.T, nodes []*running, id mq.GroupID, entries int) {
	t.Helper()
	await(t, "entries to be committed", func() bool {
		for _, n := range nodes {
			g := n.groups.get(id)
			term, leads := g.Leading()
			if !leads {
				continue
			}
			committed := make(chan error, entries)
			for range entries {
				g.Propose(queue.AppendReserve(queue.AppendEntry(nil, term, 1), 1<<40, 1), func(_ any, err error) { committed <- err })
			}
			for range cap(committed) {
				if err := <-committed; err == nil {
					entries--
				}
			}
		}
		return entries <= 0
	})
}

func TestNodesCompareTheirReplicasWhileTheyRun(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups = 1
	one := start(t, cfg).awaitReady()
	nodes := []*running{one, start(t, joining(t, "two", one)), start(t, joining(t, "three", one))}
	await(t, "three voters", func() bool { return len(voters(t, nodes, 1)) == 3 })
	for _, n := range nodes {
		n.awaitReady()
	}
	ch := one.channel()
	declare(t, ch, "q")
	publish(t, ch, "q", "m")
	pad(t, nodes, 1, 1000)
	var follower *running
	for _, n := range nodes {
		await(t, n.cfg.Name+" to compare", func() bool { return n.broker.Compared(1) >= 1000 })
		if got := n.broker.Mismatches(); got != 0 {
			t.Errorf("%s: %d mismatches", n.cfg.Name, got)
		}
		if _, leads := n.groups.get(1).Leading(); !leads {
			follower = n
		}
	}

	// One takes an entry that is in nobody's log.
	s := follower.broker.Shard(1)
	s.Apply([]broker.Entry{{Index: s.Applied(), Term: 1, Data: queue.AppendReserve(queue.AppendEntry(nil, 1, 1), 1<<41, 1)}})
	pad(t, nodes, 1, 1000)
	await(t, "the difference to be found", func() bool { return follower.broker.Mismatches() > 0 })
	const metric = "\nwarren_state_hash_mismatches_total "
	if code, body := call(t, "GET", follower.http+"/metrics", "guest"); code != 200 || !bytes.Contains(body, []byte(metric)) || bytes.Contains(body, []byte(metric+"0\n")) {
		t.Errorf("its metrics: %d", code)
	}
	if got := get(t, ch, "q"); got != "m" {
		t.Errorf("got %q", got)
	}
}
