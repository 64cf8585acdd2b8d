package broker

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"warren/mq"
)

var durable = mq.QueueDeclare{Name: "q", Durable: true}

func TestMessageGoesFromAnyNodeToAnyNode(t *testing.T) {
	for _, kind := range []mq.QueueDeclare{durable, {Name: "q"}} {
		for from := range 3 {
			for to := range 3 {
				t.Run(fmt.Sprintf("durable=%v/%d-%d", kind.Durable, from+1, to+1), func(t *testing.T) {
					h := newHouse(t, 3, 3)
					pub, con := h.nodes[from].open(t), h.nodes[to].open(t)
					h.nodes[2].open(t).mustDeclare(t, kind)
					in, acks := newInbox(), newConfirms()
					con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 10}, in)
					pub.mustPublish(t, "q", "hello", acks, 7)
					eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
					eventually(t, "confirm", func() bool { return acks.of(7) == mq.Confirmed })
					d := in.all()[0]
					if string(d.Content.Body()) != "hello" || d.Redelivered {
						t.Fatalf("got %q, redelivered=%v", d.Content.Body(), d.Redelivered)
					}
					con.settle(t, mq.Ack, d)
					eventually(t, "empty queue", func() bool {
						r, _ := con.Change(t.Context(), mq.QueueDeclare{Name: "q", Passive: true})
						return r.Messages == 0
					})
				})
			}
		}
	}
}

func TestDeclaredIsVisibleOnEveryNode(t *testing.T) {
	h := newHouse(t, 3, 3)
	for i := range 50 {
		name := "q" + strconv.Itoa(i)
		h.nodes[i%3].open(t).mustDeclare(t, mq.QueueDeclare{Name: name, Durable: true})
		for _, n := range h.nodes {
			if n.View().Queue("/", name) == nil {
				t.Fatalf("%s not visible on %s", name, n.id)
			}
		}
	}
}

func TestPrefetchBoundsWhatIsUnsettled(t *testing.T) {
	h := newHouse(t, 3, 3)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, durable)
	in := newInbox()
	for i := range 20 {
		s.mustPublish(t, "q", strconv.Itoa(i), nil, 0)
	}
	h.nodes[1].open(t).mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 3}, in)
	eventually(t, "three deliveries", func() bool { return len(in.all()) == 3 })
	r, err := s.Change(t.Context(), mq.QueueDeclare{Name: "q", Passive: true})
	if err != nil || r.Messages != 17 || r.Consumers != 1 {
		t.Fatalf("ready %d, consumers %d, %v; want 17 and 1", r.Messages, r.Consumers, err)
	}
}

func TestRequeuedGoesBackToItsPlaceAsRedelivered(t *testing.T) {
	h := newHouse(t, 3, 3)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	acks := newConfirms()
	for i := range 3 {
		s.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i))
	}
	eventually(t, "confirms", func() bool { return acks.count() == 3 })
	var got []mq.Delivery
	for range 2 {
		d, ok, err := s.Get(t.Context(), "q", false)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		got = append(got, d)
	}
	s.settle(t, mq.Requeue, got[0])
	d, ok, err := s.Get(t.Context(), "q", false)
	if err != nil || !ok || string(d.Content.Body()) != "0" || !d.Redelivered {
		t.Fatalf("got %q, redelivered=%v, %v, %v; want 0, true", d.Content.Body(), d.Redelivered, ok, err)
	}
}

func TestLeaderChangeIsAPauseAndNothingIsHandedOutTwice(t *testing.T) {
	h := newHouse(t, 3, 1)
	pub, con := h.nodes[1].open(t), h.nodes[2].open(t)
	pub.mustDeclare(t, durable)
	in, acks := newInbox(), newConfirms()
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 5}, in)
	settled := 0
	for i := range 300 {
		pub.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
		if i%25 == 24 {
			h.lead(1, h.nodes[i/25%3])
		}
		if ds := in.all(); len(ds) > settled {
			con.settle(t, mq.Ack, ds[settled])
			settled++
		}
	}
	eventually(t, "all confirms", func() bool { return acks.count() == 300 })
	eventually(t, "all deliveries", func() bool {
		if ds := in.all(); len(ds) > settled {
			con.settle(t, mq.Ack, ds[settled])
			settled++
		}
		return settled == 300
	})
	for i, d := range in.all() {
		// redelivered may be true: the new leader knows only how far the old one could have gone.
		if string(d.Content.Body()) != strconv.Itoa(i) {
			t.Fatalf("delivery %d is %q", i, d.Content.Body())
		}
	}
}

func TestDeathOfALeaderLosesNothingConfirmed(t *testing.T) {
	h := newHouse(t, 3, 1)
	pub, con := h.nodes[1].open(t), h.nodes[2].open(t)
	pub.mustDeclare(t, durable)
	in, acks := newInbox(), newConfirms()
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 50}, in)
	for i := range 200 {
		pub.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
		if i == 100 {
			h.end(h.nodes[0])
			h.lead(metaGroup, h.nodes[1])
			h.lead(1, h.nodes[1])
		}
	}
	eventually(t, "all confirms", func() bool { return acks.count() == 200 })
	settled := 0
	eventually(t, "all deliveries", func() bool {
		ds := in.all()
		for ; settled < len(ds); settled++ {
			con.settle(t, mq.Ack, ds[settled])
		}
		return settled >= 200
	})
	seen := map[string]bool{}
	for _, d := range in.all() {
		if b := string(d.Content.Body()); seen[b] && !d.Redelivered {
			t.Fatalf("%s again, without saying so", b)
		}
		seen[string(d.Content.Body())] = true
	}
	if len(seen) != 200 {
		t.Fatalf("%d of 200 messages arrived", len(seen))
	}
}

func TestLostConnectionIsRepaired(t *testing.T) {
	h := newHouse(t, 3, 1)
	pub, con := h.nodes[1].open(t), h.nodes[2].open(t)
	pub.mustDeclare(t, durable)
	in, acks := newInbox(), newConfirms()
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 20}, in)
	r := rand.New(rand.NewPCG(1, 2))
	settled := 0
	for i := range 400 {
		pub.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
		if r.IntN(20) == 0 {
			a := h.nodes[1+r.IntN(2)]
			h.cut(h.nodes[0], a)
			h.mend(h.nodes[0], a)
		}
		if ds := in.all(); settled < len(ds) {
			con.settle(t, mq.Ack, ds[settled])
			settled++
		}
	}
	eventually(t, "all confirms", func() bool { return acks.count() == 400 })
	eventually(t, "all deliveries", func() bool {
		ds := in.all()
		for ; settled < len(ds); settled++ {
			con.settle(t, mq.Ack, ds[settled])
		}
		return settled >= 400
	})
	seen := map[string]bool{}
	for _, d := range in.all() {
		if b := string(d.Content.Body()); seen[b] {
			t.Fatalf("%s twice: it was held here, and the leader was told", b)
		}
		seen[string(d.Content.Body())] = true
	}
}

func TestEndOfASessionGivesBackWhatItHolds(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, durable)
	gone, in := newInbox(), newInbox()
	dying := h.nodes[1].open(t)
	dying.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 5}, gone)
	for i := range 5 {
		s.mustPublish(t, "q", strconv.Itoa(i), nil, 0)
	}
	eventually(t, "five deliveries", func() bool { return len(gone.all()) == 5 })
	dying.Close()
	h.nodes[2].open(t).mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	eventually(t, "five again", func() bool { return len(in.all()) == 5 })
	for i, d := range in.all() {
		if string(d.Content.Body()) != strconv.Itoa(i) || !d.Redelivered {
			t.Fatalf("delivery %d is %q, redelivered=%v", i, d.Content.Body(), d.Redelivered)
		}
	}
}

func TestQueueInTheMemoryOfADeadNodeIsGone(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.nodes[2].open(t).mustDeclare(t, mq.QueueDeclare{Name: "q"})
	s := h.nodes[0].open(t)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	h.end(h.nodes[2])
	if _, err := h.nodes[0].Propose(t.Context(), h.nodes[0].EndDeadSessions()...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cancel", func() bool { in.mu.Lock(); defer in.mu.Unlock(); return in.cancelled != nil })
	_, err := s.Change(t.Context(), mq.QueueDeclare{Name: "q", Passive: true})
	if e, ok := err.(*mq.Error); !ok || e.Code != mq.NotFound {
		t.Fatalf("passive declare says %v, want 404", err)
	}
}

func TestPurgeSparesWhatIsUnsettled(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	for i := range 10 {
		s.mustPublish(t, "q", strconv.Itoa(i), nil, 0)
	}
	eventually(t, "ten", func() bool {
		r, _ := s.Change(t.Context(), mq.QueueDeclare{Name: "q", Passive: true})
		return r.Messages == 10
	})
	d, _, err := s.Get(t.Context(), "q", false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Change(t.Context(), mq.QueuePurge{Name: "q"})
	if err != nil || r.Messages != 9 {
		t.Fatalf("purged %d, %v; want 9", r.Messages, err)
	}
	s.settle(t, mq.Requeue, d)
	again, ok, err := s.Get(t.Context(), "q", true) // the return is on its way before it
	if err != nil || !ok || string(again.Content.Body()) != "0" {
		t.Fatalf("got %v, %v", ok, err)
	}
}

func TestAutoDeleteQueueGoesWithItsLastConsumer(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, AutoDelete: true})
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())
	if err := s.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "deletion", func() bool { return h.nodes[2].View().Queue("/", "q") == nil })
}

func TestGetFindsWhatItsSessionPublishedBefore(t *testing.T) {
	h := newHouse(t, 3, 3)
	for _, n := range h.nodes {
		s := n.open(t)
		s.mustDeclare(t, durable)
		for i := range 20 {
			p := &mq.Publish{Content: mq.NewContent("", "q", []byte{0, 0}, 0), ExpirationMs: -1}
			if _, err := s.Publish(t.Context(), p); err != nil { // no confirm, no flush
				t.Fatal(err)
			}
			if _, ok, err := s.Get(t.Context(), "q", true); err != nil || !ok {
				t.Fatalf("get %d on %s: %v, %v", i, n.id, ok, err)
			}
		}
	}
}

func TestAutoDeleteQueueCanBeMadeAgainAsSoonAsItsConnectionHasEnded(t *testing.T) {
	h := newHouse(t, 3, 1)
	for i := range 30 {
		s := h.nodes[i%3].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", AutoDelete: true})
		in := newInbox()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
		s.mustPublish(t, "q", strconv.Itoa(i), nil, 0)
		eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if h.nodes[(i+1)%3].View().Queue("/", "q") != nil {
			t.Fatal("the queue outlived its last consumer's connection")
		}
	}
}

func TestNobodyMayAttachUntilExclusiveConsumersAreBack(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Exclusive: true}, newInbox())
	for i := range 20 {
		h.lead(1, h.nodes[i%2])
		_, err := h.nodes[i%3].open(t).Consume(t.Context(), mq.ConsumeSpec{Queue: "q"}, newInbox())
		if e, ok := err.(*mq.Error); !ok || e.Code != mq.AccessRefused {
			t.Fatalf("second consumer: %v, want 403", err)
		}
	}
}
