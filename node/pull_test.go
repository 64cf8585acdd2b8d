package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/cluster"
)

// outrun publishes and takes snapshots until the log of the first group begins
// behind what a node that is down has of it, on all that are up.
func outrun(t *testing.T, up []*running, ch *amqp091.Channel, queue string, next int, down uint64) (after int) {
	t.Helper()
	behind := func(n *running) bool { return n.groups.get(1).Stats().FirstIndex <= down }
	for behind(up[0]) || behind(up[1]) {
		for range 100 { // each an entry of its own
			publish(t, ch, queue, fmt.Sprintf("%d x", next))
			next++
		}
		for _, n := range up {
			n.snapshot(1)
		}
	}
	return next
}

// leadFirstGroup makes a node lead the first group.
func (r *running) leadFirstGroup() {
	r.t.Helper()
	tries := 0
	await(r.t, r.cfg.Name+" to lead the first group", func() bool {
		if tries%100 == 0 { // each second or so: another may have won
			r.groups.get(1).InjectTimeoutNow()
		}
		tries++
		_, leads := r.groups.get(1).Leading()
		return leads
	})
}

// wantDelivered consumes messages from number 0 on, in order.
func wantDelivered(t *testing.T, from *running, queue string, count int) {
	t.Helper()
	came, err := from.channel().ConsumeWithContext(t.Context(), queue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		select {
		case d := <-came:
			if number, _, _ := strings.Cut(string(d.Body), " "); number != fmt.Sprint(i) {
				t.Fatalf("%s: got message %s, want %d", queue, number, i)
			}
		case <-time.After(patience):
			t.Fatalf("%s: message %d does not come", queue, i)
		}
	}
}

func TestANodeThatWasDownPullsBodiesAndLeadsWithThem(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := alone(t, "one")
	cfg.Groups, cfg.BodyMemoryBytes = 1, bodyMemoryFloor
	one := start(t, cfg).awaitReady()
	two := joining(t, "two", one)
	three := joining(t, "three", one)
	two.BodyMemoryBytes, three.BodyMemoryBytes = bodyMemoryFloor, bodyMemoryFloor
	up := []*running{one, start(t, two)}
	last := start(t, three).awaitReady()
	await(t, "three voters", func() bool { return len(voters(t, append(up, last), 1)) == 3 })
	const deepCount = 1500 // more than memory takes
	var pulled []cluster.PullStats
	next := 0
	for range 2 {
		down := last.groups.get(1).LastIndex()
		last.stop()
		ch := up[0].channel()
		deepQueue(t, ch, fmt.Sprint("deep", len(pulled)), deepCount)
		declare(t, ch, "q")
		next = outrun(t, up, ch, "q", next, down)
		last = start(t, three).awaitReady()
		await(t, "a snapshot from the others", func() bool { return last.groups.get(1).AppliedIndex() > down })
		pulled = append(pulled, last.cluster.PullStats())
	}
	if first, second := pulled[0], pulled[1]; first.PulledBytes < deepCount<<10 || second.PulledBytes < deepCount<<10 ||
		second.SkippedBytes < deepCount<<10 || second.PulledBytes > first.PulledBytes+second.SkippedBytes/2 {
		t.Errorf("pulled first %+v, then %+v", first, second)
	}
	last.leadFirstGroup()
	wantDelivered(t, last, "q", next)
	wantDelivered(t, last, "deep0", deepCount)
	wantDelivered(t, last, "deep1", deepCount)
	if s := last.broker.Shard(1); s.Damaged() != nil {
		t.Error(s.Damaged())
	}
}
