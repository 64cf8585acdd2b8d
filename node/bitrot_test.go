package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/mq"
)

// How many trials a run has: TRIALS says so, for more than every day's.
func rotTrials(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("TRIALS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		t.Skip("three nodes, restarted again and again")
	}
	return 2
}

const (
	rotQueues  = 3
	rotBacklog = 900 // messages of 1 KiB that a queue has at least, more than memory takes
)

// rot is a cluster of three nodes whose files go bad.
type rot struct {
	t     *testing.T
	rnd   *rand.Rand
	nodes []*running
	// Of each queue: what comes next out of it, and what was confirmed.
	next, confirmed [rotQueues]int
	rebuilds        uint64 // by nodes that have ended since
}

func TestFlippedBitsInEveryFileOfANodeLoseNothing(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	r := &rot{t: t, rnd: rand.New(rand.NewPCG(seed, 0))}
	cfg := alone(t, "one")
	cfg.Groups, cfg.BodyMemoryBytes = 2, bodyMemoryFloor
	one := start(t, cfg).awaitReady()
	r.nodes = []*running{one, start(t, joining(t, "two", one)), start(t, joining(t, "three", one))}
	for id := range mq.GroupID(cfg.Groups + 1) {
		await(t, "three voters", func() bool { return len(voters(t, r.nodes, id)) == 3 })
	}
	for _, n := range r.nodes {
		n.awaitReady()
	}
	ch := one.channel()
	for q := range rotQueues {
		declare(t, ch, rotName(q))
	}
	r.publish(one, rotBacklog)
	for trial := range rotTrials(t) {
		r.trial(trial)
	}
	for q := range rotQueues {
		r.take(r.nodes[r.rnd.IntN(3)], q, r.confirmed[q]-r.next[q])
		look := r.nodes[0].channel()
		await(t, rotName(q)+" is empty", func() bool { // the last acknowledgement is on its way
			m, err := look.QueueDeclarePassive(rotName(q), true, false, false, false, nil)
			return err == nil && m.Messages == 0
		})
	}
	for _, n := range r.nodes {
		r.rebuilds += n.groups.rebuilds.Load()
	}
	t.Logf("%d replicas were rebuilt", r.rebuilds)
}

func rotName(q int) string { return fmt.Sprintf("rot.%d", q) }

// rotBody is message number n of a queue: no two are alike.
func rotBody(q, n int) []byte {
	b := fmt.Appendf(nil, "%d %d ", q, n)
	r := rand.New(rand.NewPCG(uint64(q), uint64(n)))
	for len(b) < 1024 {
		b = append(b, byte('a'+r.IntN(26)))
	}
	return b
}

// trial damages one node while it is stopped, and has it healthy again.
func (r *rot) trial(trial int) {
	victim := r.rnd.IntN(3)
	n := r.nodes[victim]
	for _, g := range n.groups.all() {
		if r.rnd.IntN(2) == 0 {
			if err := g.Snapshot(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.publish(r.nodes[r.rnd.IntN(3)], 1+r.rnd.IntN(60))
	n.stop()
	r.rebuilds += n.groups.rebuilds.Load()
	flipped := r.flip(n.cfg.DataDir)
	other := r.nodes[(victim+1)%3]
	r.publish(other, 1+r.rnd.IntN(30))

	cfg := n.cfg
	cfg.Join = []string{other.address(), r.nodes[(victim+2)%3].address()}
	cfg.ClusterListen = "127.0.0.1:0"
	began := time.Now()
	n = start(r.t, cfg)
	r.nodes[victim] = n
	defer func() {
		if r.t.Failed() {
			r.t.Logf("trial %d, the node is %s: %v", trial, cfg.Name, n.Ready())
		}
	}()
	r.awaitReady()
	for id := range mq.GroupID(3) {
		if g := n.groups.get(id); g == nil || g.Damaged() != nil || g.Rebuilding() {
			r.t.Fatalf("trial %d: group %d of a node that is ready is not whole", trial, id)
		}
	}
	r.t.Logf("trial %d: bits flipped in %d files of %s; ready after %v, %d replicas rebuilt", trial, flipped, cfg.Name,
		time.Since(began).Round(time.Millisecond), n.groups.rebuilds.Load())
	r.lead(n)
	for q := range rotQueues {
		r.take(r.nodes[r.rnd.IntN(3)], q, r.rnd.IntN(max(1, r.confirmed[q]-r.next[q]-rotBacklog/2)))
		for r.confirmed[q]-r.next[q] < rotBacklog {
			r.publish(n, 100)
		}
	}
}

// awaitReady waits until every node is ready: a busy machine may take long for
// a rebuild.
func (r *rot) awaitReady() {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(4 * patience); ; <-tick.C {
		var last error
		for _, n := range r.nodes {
			last = errors.Join(last, n.Ready())
		}
		if last == nil {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("not ready: %v", last)
		}
	}
}

// flip turns one bit in every file below dir: in every second of them one of a
// byte that is not zero, since most of the log is not written yet.
func (r *rot) flip(dir string) (files int) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		at := r.rnd.IntN(len(b))
		if used := len(bytes.TrimRight(b, "\x00")); used > 0 && r.rnd.IntN(2) == 0 {
			at = r.rnd.IntN(used)
		}
		bit := byte(1) << r.rnd.IntN(8)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{b[at] ^ bit}, int64(at))
		files++
		return errors.Join(err, f.Close())
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

func (r *rot) publish(n *running, count int) {
	r.t.Helper()
	ch := n.channel()
	defer ch.Close()
	for q := range rotQueues {
		var last *amqp091.DeferredConfirmation
		for range count {
			d, err := ch.PublishWithDeferredConfirm("", rotName(q), true, false, amqp091.Publishing{
				DeliveryMode: amqp091.Persistent, Body: rotBody(q, r.confirmed[q]),
			})
			if err != nil {
				r.t.Fatal(err)
			}
			r.confirmed[q]++
			if last = d; r.confirmed[q]%200 == 0 {
				r.confirm(last)
			}
		}
		r.confirm(last)
	}
}

func (r *rot) confirm(d *amqp091.DeferredConfirmation) {
	r.t.Helper()
	if ok, err := d.WaitContext(r.t.Context()); err != nil || !ok {
		r.t.Fatalf("not confirmed: %v", err)
	}
}

// take consumes the next messages of a queue, and looks at every byte of them.
func (r *rot) take(n *running, q, count int) {
	r.t.Helper()
	ch := n.channel()
	defer ch.Close() // what was delivered beyond count goes back
	if err := ch.Qos(50, 0, false); err != nil {
		r.t.Fatal(err)
	}
	deliveries, err := ch.Consume(rotName(q), "", false, false, false, false, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for end := r.next[q] + count; r.next[q] < end; {
		select {
		case d, ok := <-deliveries:
			if !ok {
				r.t.Fatal("the consumer was cancelled")
			}
			r.look(q, &d)
		case <-time.After(patience):
			r.t.Fatalf("message %d of %d is not in %s", r.next[q], r.confirmed[q], rotName(q))
		}
	}
}

func (r *rot) look(q int, d *amqp091.Delivery) {
	r.t.Helper()
	_, rest, _ := strings.Cut(string(d.Body), " ")
	text, _, _ := strings.Cut(rest, " ")
	number, err := strconv.Atoi(text)
	if err != nil || !bytes.Equal(d.Body, rotBody(q, number)) {
		r.t.Fatalf("wrong bytes in place of message %d of %s: %.40q", r.next[q], rotName(q), d.Body)
	}
	if number > r.next[q] || number < r.next[q] && !d.Redelivered {
		r.t.Fatalf("message %d of %s came in place of %d", number, rotName(q), r.next[q])
	}
	if err := d.Ack(false); err != nil {
		r.t.Fatal(err)
	}
	if number == r.next[q] {
		r.next[q]++
	}
}

// lead has a node lead the queue groups, if that can be had at once: what it
// hands out then is what was rebuilt.
func (r *rot) lead(to *running) {
	for _, n := range r.nodes {
		for _, g := range n.groups.all() {
			if _, leads := g.Leading(); leads && n != to && g.ID() != uint64(metaGroup) {
				_ = g.TransferTo(r.t.Context(), to.cluster.ID())
			}
		}
	}
}
