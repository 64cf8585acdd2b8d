package broker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"warren/fsm/queue"
	"warren/mq"
)

// What is here goes to two clients if a leader is told too little of what a node
// holds, or has settled.

// awaitFrame waits until a paused node has a frame of a kind, takes what is
// there, and lets order put it back.
func (n *houseNode) awaitFrame(t *testing.T, kind byte, order func([]houseFrame) []houseFrame) {
	t.Helper()
	eventually(t, "the frame", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !slices.ContainsFunc(n.inbox, func(f houseFrame) bool { return len(f.frame) > 0 && f.frame[0] == kind }) {
			return false
		}
		n.inbox = order(n.inbox)
		return true
	})
}

// getting is a basic.get on its way.
func getting(t *testing.T, s *Session) (got <-chan mq.Delivery) {
	c := make(chan mq.Delivery, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	go func() {
		d, ok, err := s.Get(ctx, "q", false)
		if !ok || err != nil {
			t.Errorf("got no message: %v", err)
		}
		c <- d
	}()
	return c
}

// wantNoCopy checks that a queue has nothing for this session, when its leader and
// the home of whoever took it have nothing to tell each other any more.
func (s *Session) wantNoCopy(t *testing.T, name string, home, lead *houseNode) {
	t.Helper()
	home.caughtUp()
	lead.caughtUp()
	d, ok, err := s.Get(t.Context(), name, true)
	if ok || err != nil {
		t.Fatalf("handed out once more: %q, %v", d.Content.Body(), err)
	}
}

func TestALeaderIsToldOfWhatAGetHasJustTaken(t *testing.T) {
	h := newHouse(t, 2, 1)
	lead, home := h.nodes[0], h.nodes[1]
	s := home.open(t)
	s.mustDeclare(t, durable)
	s.publishTo(t, "", "q", "m", -1)
	goOn := home.pause()
	got := getting(t, s)
	home.awaitFrame(t, frameReply, func(in []houseFrame) []houseFrame {
		return append(in, houseFrame{from: home.id, do: func() { home.resume(1, lead.id) }})
	})
	goOn()
	<-got
	lead.open(t).wantNoCopy(t, "q", home, lead)
}

func TestAGetThatAnEarlierLeaderAnsweredIsAskedAgain(t *testing.T) {
	h := newHouse(t, 3, 1)
	home, next := h.nodes[1], h.nodes[2]
	s := home.open(t)
	s.mustDeclare(t, durable)
	s.publishTo(t, "", "q", "m", -1)
	goOn := home.pause()
	got := getting(t, s)
	var late []houseFrame
	home.awaitFrame(t, frameReply, func(in []houseFrame) []houseFrame { late = in; return nil })
	h.lead(1, next)
	home.awaitFrame(t, frameLead, func(in []houseFrame) []houseFrame { return append(in, late...) })
	goOn()
	if d := <-got; !d.Redelivered {
		t.Error("not told as redelivered")
	}
	h.nodes[0].open(t).wantNoCopy(t, "q", home, next)
}

func TestAGetThatWaitsIsAskedAgainWhenItsNodeIsToSayWhatItHolds(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.told(t)
	h.raise(t) // to levelFenced
	lead, home := h.nodes[0], h.nodes[1]
	s, other := home.open(t), lead.open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "busy", Durable: true})
	s.publishTo(t, "", "q", "m", -1)
	stuck, commit := h.stall(1)
	other.mustPublish(t, "busy", "x", nil, 0)
	<-stuck
	got := getting(t, s) // waits for the delivered high-water mark
	shard, q := lead.Shard(1), home.View().Queue("/", "q").ID
	eventually(t, "the get", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.lead.queues[q] != nil && len(shard.lead.queues[q].gets) == 1
	})
	goOn := home.pause()
	shard.mu.Lock()
	o, _ := home.outbox(1)
	told := shard.void(home.id, queue.Origin{Node: o.origin.Node, Session: o.origin.Session, Seq: 1 << 40})
	shard.mu.Unlock()
	if !told {
		t.Fatal("no batch is void")
	}
	commit()
	eventually(t, "the mark", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.state.Queue(q).HighWater() > 0
	})
	goOn()
	<-got
	other.wantNoCopy(t, "q", home, lead)
}

func TestASettlementThatWaitsBehindAHeldUpQueueIsKnown(t *testing.T) {
	h := newHouse(t, 3, 1)
	lead, home := h.nodes[0], h.nodes[2]
	s, other := home.open(t), h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "going", Durable: true})
	s.publishTo(t, "", "q", "m", -1)
	d := s.mustGet(t, "q")
	m := h.stopMetadata()
	goOn := sync.OnceFunc(func() { close(m.release) })
	t.Cleanup(goOn)
	done := make(chan error, 1)
	go func() { _, err := other.Change(t.Context(), mq.QueueDelete{Name: "going", IfEmpty: true}); done <- err }()
	<-m.came
	s.mustPublish(t, "going", "late", nil, 0)
	s.settle(t, mq.Ack, d)
	shard := lead.Shard(1)
	both := func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return len(shard.lead.heldBatches[home.id]) == 2 && shard.lead.homes[home.id] != 0
	}
	eventually(t, "both batches", both)
	h.cut(lead, home)
	h.mend(lead, home)
	eventually(t, "both batches once more", both)
	other.wantNoCopy(t, "q", home, lead)
	goOn()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
