package chaos

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"warren/test/harness"
)

// The orders that three nodes can be restarted in.
var orders = [][]int{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}}

// momentMax is how long after a confirm a kill comes, at most.
const momentMax = 80 * time.Millisecond

func TestConfirmedMessagesOutliveKilledNodes(t *testing.T) {
	const queue = "chaos.kill"
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[0], queue)
	rnd := random(t)
	publishers := []*publisher{
		newPublisher(t, 1, queue, []string{urls[1], urls[2], urls[0]}, rnd.Uint64()),
		newPublisher(t, 2, queue, []string{urls[1], urls[0], urls[2]}, rnd.Uint64()),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for _, p := range publishers {
		running.Go(func() { p.run(ctx) })
	}
	defer running.Wait()
	defer stop()
	first := publishers[0]
	for round := range *roundsFlag {
		for _, i := range []int{1, 2, 3} {
			first.awaitMore(t, 1+rnd.IntN(100), "with all nodes up")
			pause(ctx, time.Duration(rnd.Int64N(int64(momentMax))))
			first.longestSilence()
			began := time.Now()
			c.Node(i).Kill()
			first.awaitMore(t, 2*window+1, c.Node(i).Name()+" is dead")
			t.Logf("round %d: %s killed; no confirm for %v, %d more after %v", round, c.Node(i).Name(),
				first.longestSilence().Round(time.Millisecond), 2*window+1, time.Since(began).Round(time.Millisecond))
			c.Node(i).Start()
			c.WaitReady()
		}
		killAll(t, c, first, rnd, orders[round%len(orders)])
	}
	first.awaitMore(t, 100, "at the end")
	stop()
	running.Wait()
	check(t, publishers, drain(t, urls[rnd.IntN(3)], queue))
}

// killAll kills all nodes at one moment and restarts them in an order.
func killAll(t *testing.T, c *harness.Cluster, p *publisher, rnd *rand.Rand, order []int) {
	t.Helper()
	p.awaitMore(t, 1+rnd.IntN(100), "with all nodes up")
	pause(t.Context(), time.Duration(rnd.Int64N(int64(momentMax))))
	var dying sync.WaitGroup
	for i := 1; i <= 3; i++ {
		dying.Go(func() { c.Node(i).Kill() })
	}
	dying.Wait()
	late := rnd.IntN(2) == 0 // the last one comes when the others are at work
	for at, i := range order {
		if at == 2 && late {
			p.awaitMore(t, 1, "with two of three restarted")
		}
		c.Node(i).Start()
		c.WaitAlive(i)
	}
	c.WaitReady()
	t.Logf("all killed, restarted in the order %v, the last one late: %v", order, late)
}

func TestConsumerKeepsItsConnectionWhenItsLeaderDies(t *testing.T) {
	const queue = "chaos.consume"
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[0], queue)
	leader := c.Leader(1, queue)
	home, other := 3, 2 // of the consumer and of the publisher
	if leader == home {
		home = 1
	} else if leader == other {
		other = 1
	}
	t.Logf("the leader is node%d, the consumer is on node%d, the publisher on node%d", leader, home, other)

	conn := connection(t, urls[home-1])
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Qos(50, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "steady", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, 1, queue, []string{urls[other-1]}, random(t).Uint64())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx) })
	defer running.Wait()
	defer stop()

	got := newReceiver(t, deliveries)
	got.awaitMore(t, 200, "before the kill")
	c.Node(leader).Kill()
	began := time.Now()
	got.awaitMore(t, 50+2*window, "after the leader's death")
	t.Logf("%d deliveries %v after the kill", 50+2*window, time.Since(began).Round(time.Millisecond))
	c.Node(leader).Start()
	c.WaitReady()
	got.awaitMore(t, 200, "after its return")
	stop()
	running.Wait()
	got.awaitAll(t, p)
	if conn.IsClosed() || ch.IsClosed() {
		t.Error("the consumer's connection or channel was closed")
	}
	got.checkRepeats(t)
}

func TestStoppedNodesHandOverAndComeBack(t *testing.T) {
	const queue = "chaos.stop"
	c := harness.Start(t, 3)
	urls := c.URLs()
	declare(t, urls[0], queue)
	p := newPublisher(t, 1, queue, urls, random(t).Uint64())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx) })
	defer running.Wait()
	defer stop()
	for i := 1; i <= 3; i++ {
		p.awaitMore(t, 50, "with all nodes up")
		c.Node(i).Stop()
		p.awaitMore(t, 2*window+1, c.Node(i).Name()+" is stopped")
		c.Node(i).Start()
		c.WaitReady()
	}
	stop()
	running.Wait()
	check(t, []*publisher{p}, drain(t, urls[2], queue))
}

// random is the source of a test's random moments.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
