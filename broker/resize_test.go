package broker

import (
	"testing"

	"warren/broker/dispatch"
	"warren/mq"
)

func TestLiveConsumersAreResized(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	for range 20 {
		s.mustPublish(t, "q", "m", nil, 0)
	}
	in := newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 3}, in)
	got := func(n int) {
		t.Helper()
		eventually(t, "deliveries", func() bool { return len(in.all()) == n })
		if st, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q")); err != nil || st.Unacked != uint64(n) && n < 8 {
			t.Fatalf("got %+v, %v", st, err)
		}
	}
	got(3)
	s.Resize(t.Context(), id, 5)
	got(5)
	s.Resize(t.Context(), id, 2)
	s.settle(t, mq.Ack, in.all()[:3]...)
	if _, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q")); err != nil { // the acks are there
		t.Fatal(err)
	}
	if n := len(in.all()); n != 5 {
		t.Fatalf("got %d with two of two unsettled", n)
	}
	s.settle(t, mq.Ack, in.all()[3])
	eventually(t, "one more", func() bool { return len(in.all()) == 6 })
	h.lead(1, h.nodes[2]) // it is told the size that holds now
	s.settle(t, mq.Ack, in.all()[4])
	eventually(t, "one more", func() bool { return len(in.all()) == 7 })
	s.Resize(t.Context(), id, 0)
	eventually(t, "all", func() bool { return len(in.all()) == 20 })
}

func TestConsumerResizedWithoutALeaderIsResizedUnderTheNext(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	in := newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	h.orphan(1)
	done := make(chan struct{})
	go func() { s.Resize(t.Context(), id, 4); close(done) }()
	c := h.nodes[1].consumers.get(id)
	eventually(t, "the wish", func() bool { n, _ := c.mayHold(); return n == 4 })
	h.lead(1, h.nodes[1])
	<-done
	for range 6 {
		s.mustPublish(t, "q", "m", nil, 0)
	}
	eventually(t, "deliveries", func() bool { return len(in.all()) == 4 })
}

func TestResizingGivesNoLinkCredit(t *testing.T) {
	h := newHouse(t, 1, 1)
	s, acks := h.nodes[0].open(t), newConfirms()
	s.mustDeclare(t, durable)
	const n = dispatch.LinkMessages + 100
	for i := range n {
		s.mustPublish(t, "q", "m", acks, uint64(i+1))
	}
	eventually(t, "confirms", func() bool { return acks.count() == n })
	in := newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	eventually(t, "deliveries", func() bool { return len(in.all()) == dispatch.LinkMessages })
	for i := range 10 {
		s.Resize(t.Context(), id, uint32(10_000+i))
	}
	h.nodes[0].caughtUp()
	if got := len(in.all()); got != dispatch.LinkMessages {
		t.Errorf("got %d, though its socket took none of %d", got, dispatch.LinkMessages)
	}
	s.Resize(t.Context(), 12345, 1) // nobody
}
