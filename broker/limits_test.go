package broker

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"warren/fsm/queue"
	"warren/mq"
)

func TestFullQueueDropsItsHead(t *testing.T) {
	for _, c := range []struct {
		name string
		args mq.Table
		want string // bodies that are left of "0".."9"
	}{
		{"messages", args("x-max-length", int32(3)), "789"},
		{"messages, said", args("x-max-length", int32(3), "x-overflow", "drop-head"), "789"},
		{"bytes of bodies alone", args("x-max-length-bytes", int32(4)), "6789"},
		{"the lower of both", args("x-max-length-bytes", int32(4), "x-max-length", int32(2)), "89"},
		{"nothing", args("x-max-length", int32(0)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, 3, 1)
			s := h.nodes[1].open(t)
			s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: c.args})
			for i := range 10 {
				s.publishTo(t, "", "q", strconv.Itoa(i), -1)
			}
			eventually(t, "the rest to go", func() bool { return s.ready(t, "q") == uint32(len(c.want)) })
			for _, want := range c.want {
				if d := s.mustGet(t, "q"); string(d.Content.Body()) != string(want) {
					t.Fatalf("got %q, want %c", d.Content.Body(), want)
				}
			}
		})
	}
}

func TestUnsettledDoesNotCountForALimit(t *testing.T) {
	for _, a := range []mq.Table{args("x-max-length", int32(2)), args("x-max-length-bytes", int32(2))} {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: a})
		var held []mq.Delivery
		for i := range 6 {
			s.publishTo(t, "", "q", strconv.Itoa(i), -1)
			if i < 4 {
				held = append(held, s.mustGet(t, "q"))
			}
		}
		if n := s.ready(t, "q"); n != 2 {
			t.Fatalf("%d ready, want 2", n)
		}
		s.settle(t, mq.Requeue, held[0], held[1]) // now they do, and are at the head
		eventually(t, "the requeued ones to go", func() bool { return h.nodes[0].Shard(1).Stats().Overflowed == 2 })
		s.settle(t, mq.Ack, held[2:]...)
		if d := s.mustGet(t, "q"); string(d.Content.Body()) != "4" {
			t.Fatalf("got %q, want 4", d.Content.Body())
		}
	}
}

func TestNewLeaderHoldsTheLimit(t *testing.T) {
	for _, a := range []mq.Table{args("x-max-length", int32(2)), args("x-max-length-bytes", int32(20))} {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: a})
		for i := range 12 {
			s.publishTo(t, "", "q", strings.Repeat(strconv.Itoa(i%10), 10), -1)
			if i%3 == 2 {
				h.lead(1, h.nodes[i/3%3])
			}
		}
		eventually(t, "the rest to go", func() bool { return s.ready(t, "q") == 2 })
		if d := s.mustGet(t, "q"); d.Content.Body()[0] != '0' {
			t.Fatalf("got %q, want 0...", d.Content.Body())
		}
	}
}

func TestConsumerGetsWhatALimitWouldDrop(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-length", int32(1))})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", NoAck: true}, in)
	const n = linkFits
	acks := newConfirms()
	for i := range n {
		s.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
	}
	eventually(t, "all deliveries", func() bool { return len(in.all()) == n })
}

// linkFits is fewer messages than a consumer's link credit, and more than a
// leader reserves ahead at first.
const linkFits = 1900

func TestDeletionEndsItsEntry(t *testing.T) {
	s := NewShard(1, nil, nil, func() int64 { return 0 }, nil, slog.New(slog.DiscardHandler))
	l := &lead{}
	s.lead = l
	p := &l.proposer
	del := part{ops: queue.AppendDelete(nil, 5), own: true, last: true}
	drop := part{ops: queue.AppendDrop(nil, 6, 1, 1), own: true}
	p.parts = []part{drop, del, drop, drop}
	for _, want := range []int{2, 2} {
		if _, own := p.next(s, l); len(own) != want {
			t.Fatalf("an entry of %d parts, want %d", len(own), want)
		}
	}
}
