package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/mq"
)

// deepQueue publishes count messages of 1 KiB, which begin with their number.
func deepQueue(t *testing.T, ch *amqp091.Channel, queue string, count int) {
	t.Helper()
	declare(t, ch, queue)
	pad := strings.Repeat("x", 1024)
	var last *amqp091.DeferredConfirmation
	for i := range count {
		d, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: fmt.Appendf(nil, "%d %s", i, pad)})
		if err != nil {
			t.Fatal(err)
		}
		last = d
	}
	if ok, err := last.WaitContext(t.Context()); err != nil || !ok {
		t.Fatalf("not confirmed: %v", err)
	}
}

// wantNumbers gets messages until the number after last, in order.
func wantNumbers(t *testing.T, ch *amqp091.Channel, queue string, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		if number, _, _ := strings.Cut(get(t, ch, queue), " "); number != fmt.Sprint(i) {
			t.Fatalf("got message %s, want %d", number, i)
		}
	}
}

func (r *running) segments() []string {
	names, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "groups", "*", segmentsDir, "*.seg"))
	if err != nil {
		r.t.Fatal(err)
	}
	return names
}

func TestANodeKeepsADeepQueueOnDiskAndOverARestart(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.BodyMemoryBytes = bodyMemoryFloor
	n := start(t, cfg).awaitReady()
	const count = 6000
	deepQueue(t, n.channel(), "q", count)
	await(t, "bodies on disk", func() bool {
		st := n.pager.Stats()
		return len(n.segments()) > 0 && st.HotBytes <= st.BudgetBytes
	})
	wantNumbers(t, n.channel(), "q", 0, 999)
	n.stop()
	n = start(t, cfg).awaitReady()
	ch := n.channel()
	number, _, _ := strings.Cut(get(t, ch, "q"), " ")
	first, err := strconv.Atoi(number)
	if err != nil || first > 1000 { // before 1000: taken without ack in the last moment
		t.Fatalf("got message %s first", number)
	}
	wantNumbers(t, ch, "q", first+1, count-1)
}

func TestADamagedReplicaHandsItsLeadershipOverAndIsRebuilt(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups, cfg.BodyMemoryBytes = 1, bodyMemoryFloor
	one := start(t, cfg).awaitReady()
	nodes := []*running{one, start(t, joining(t, "two", one)), start(t, joining(t, "three", one))}
	await(t, "three voters", func() bool { return len(voters(t, nodes, 1)) == 3 })
	const count = 4000
	deepQueue(t, nodes[1].channel(), "q", count)
	var leader *running
	await(t, "a leader with bodies on disk", func() bool {
		for _, n := range nodes {
			n.awaitReady()
			if _, leads := n.groups.get(1).Leading(); leads && len(n.segments()) > 0 {
				leader = n
			}
		}
		return leader == one
	})
	for _, name := range leader.segments() {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at := 64; at < len(b); at += 64 {
			if _, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantNumbers(t, nodes[1].channel(), "q", 0, count-1) // the client sees a pause at most
	await(t, "the replica is rebuilt", func() bool { return leader.groups.rebuilds.Load() == 1 && leader.Ready() == nil })
	if s := leader.broker.Shard(mq.GroupID(1)); s.Damaged() != nil {
		t.Errorf("after that it says %v", s.Damaged())
	}
	deepQueue(t, nodes[1].channel(), "again", 100)
	await(t, "it leads again", func() bool {
		for _, n := range nodes {
			if _, leads := n.groups.get(1).Leading(); leads && n != leader {
				_ = n.groups.get(1).TransferTo(t.Context(), leader.cluster.ID()) // once in a term; balancing does the same
			}
		}
		_, leads := leader.groups.get(1).Leading()
		return leads
	})
	wantNumbers(t, nodes[1].channel(), "again", 0, 99)
}
