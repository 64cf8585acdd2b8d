package broker

import (
	"context"
	"sync"
	"testing"
	"time"

	"warren/fsm/queue"
	"warren/mq"
)

// stall makes the next proposal to a group wait, and all after it, until goOn is
// called. stuck is closed once there is one.
func (h *house) stall(g mq.GroupID) (stuck <-chan struct{}, goOn func()) {
	came, release := make(chan struct{}), make(chan struct{})
	goOn = sync.OnceFunc(func() { close(release) })
	h.t.Cleanup(goOn)
	wait := sync.OnceFunc(func() { close(came); <-release })
	l := h.groups[g]
	l.mu.Lock()
	l.refuse = func() bool { wait(); return false }
	l.mu.Unlock()
	return came, goOn
}

func TestAGetWaitsForNoCommitOfWhatWasSettledBefore(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "busy", Durable: true})
	for _, body := range []string{"a", "b", "c"} {
		s.publishTo(t, "", "q", body, -1)
	}
	first := s.mustGet(t, "q") // and there is a delivered high-water mark
	stuck, goOn := h.stall(1)
	h.nodes[0].open(t).mustPublish(t, "busy", "x", nil, 0)
	<-stuck // nothing is committed from here on
	s.settle(t, mq.Ack, first)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	second, ok, err := s.Get(ctx, "q", false)
	if err != nil || !ok {
		t.Fatalf("no message while the ack is not committed: %v, %v", ok, err)
	}
	if string(second.Content.Body()) != "b" || second.Redelivered || second.Remaining != 1 {
		t.Errorf("got %q, redelivered %v, and %d remain", second.Content.Body(), second.Redelivered, second.Remaining)
	}
	goOn()
	s.settle(t, mq.Ack, second, s.mustGet(t, "q"))
	h.gone(t, "q")
}

func TestAGetComesAfterWhatItsNodePublishedAndSettled(t *testing.T) {
	lane := &recordedLane{}
	b := newOutbox(1, Origin{1, 1}, lane)
	b.lead("node", 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that who has to wait is told at once
	wantWait := func(what string, wait bool, sent int) {
		t.Helper()
		if err := b.published(ended); (err != nil) != wait || lane.sent != sent {
			t.Fatalf("%s: %v, %d batches sent", what, err, lane.sent)
		}
	}
	to := target{group: 1, queues: []mq.QueueID{1}}
	wantWait("nothing", false, 0)
	b.settle(1, 1, 1, waiter{})
	wantWait("a settlement", false, 1)
	if err := b.enqueue(t.Context(), &to, &outgoing{content: mq.NewContent("", "q", nil, 0)}, 0, waiter{}); err != nil {
		t.Fatal(err)
	}
	wantWait("a message", true, 2)
	b.result(1, queue.Applied, nil)
	wantWait("a message, and the settlement is answered", true, 2)
	b.result(2, queue.Applied, nil)
	wantWait("all is answered", false, 2)
	for i := range batchesMax {
		b.settle(1, mq.Seq(i), mq.Seq(i), waiter{})
		wantWait("settlements", false, 3+i)
	}
	b.settle(1, 1, 1, waiter{})
	wantWait("more than may be in flight", true, 2+batchesMax)
	b.result(3, queue.Applied, nil) // which sends it
	wantWait("room again", false, 3+batchesMax)
}

func TestOnlySettlementsOfTransactionsHurry(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	for _, body := range []string{"a", "b"} {
		s.publishTo(t, "", "q", body, -1)
	}
	a, b := s.mustGet(t, "q"), s.mustGet(t, "q")
	held := []mq.Held{a.Held(), b.Held()}
	stuck, goOn := h.stall(1)
	h.nodes[0].open(t).mustPublish(t, "q", "c", nil, 0)
	<-stuck // the proposer of the leader waits: what comes now gathers
	acks := newConfirms()
	for i, c := range []mq.Confirmer{nil, acks} {
		if err := s.Settle(t.Context(), mq.Settlement{Verdict: mq.Ack, Held: held[i : i+1], Confirm: c}); err != nil {
			t.Fatal(err)
		}
		s.Flush()
	}
	shard := h.nodes[0].Shard(1)
	var hurries []bool
	eventually(t, "both settlements", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		hurries = hurries[:0]
		for i := range shard.lead.proposer.parts {
			hurries = append(hurries, !shard.lead.proposer.parts[i].idle)
		}
		return len(hurries) == 2
	})
	if hurries[0] || !hurries[1] {
		t.Errorf("they hurry: %v, want only the one that a transaction waits for", hurries)
	}
	goOn()
	eventually(t, "the commit", func() bool { return acks.count() == 1 })
}
