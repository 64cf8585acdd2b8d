package broker

import (
	"testing"
	"time"

	"warren/mq"
)

// led returns what a queue's leader knows of it, which is nil if that is nothing.
func (h *house) led(t *testing.T, name string, look func(*ledQueue)) {
	t.Helper()
	for _, n := range h.nodes {
		q := n.View().Queue("/", name)
		if q == nil {
			continue
		}
		s := n.Shard(q.Group)
		if s == nil {
			continue
		}
		s.mu.Lock()
		if s.lead != nil {
			look(s.lead.queues[q.ID])
		}
		s.mu.Unlock()
	}
}

func (h *house) leaseMs(t *testing.T, name string) (ms int64) {
	t.Helper()
	h.led(t, name, func(q *ledQueue) {
		if q != nil {
			ms = q.leaseMs
		}
	})
	return ms
}

func (h *house) isGone(name string) bool {
	for _, n := range h.nodes {
		if n.View().Queue("/", name) != nil {
			return false
		}
	}
	return true
}

func TestQueueThatNobodyUsesIsDeletedEverywhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 2)
		withDeadLetters(t, h)
		for _, d := range []mq.QueueDeclare{
			{Name: "durable", Durable: true, Args: args("x-expires", int32(30), "x-dead-letter-exchange", "dlx")},
			{Name: "transient", Args: args("x-expires", int32(30))},
			{Name: "exclusive", Exclusive: true, Args: args("x-expires", int32(30))},
		} {
			s := h.nodes[1].open(t)
			s.mustDeclare(t, d)
			if d.Durable {
				s.mustPublish(t, d.Name, "m", nil, 0)
			}
			eventually(t, d.Name+" to expire", func() bool { return h.isGone(d.Name) })
		}
		if n := h.nodes[0].open(t).ready(t, "dead"); n > 0 {
			t.Errorf("%d messages were dead-lettered", n)
		}
	})
}

func TestUseRenewsALease(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	d := mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-expires", int32(3_600_000))}
	s.mustDeclare(t, d)
	eventually(t, "the lease", func() bool { return h.leaseMs(t, "q") > 0 })
	for what, use := range map[string]func() error{
		"get":     func() error { _, _, err := s.Get(t.Context(), "q", true); return err },
		"declare": func() error { _, err := s.Change(t.Context(), d); return err },
		"passive": func() error { _, err := s.Change(t.Context(), mq.QueueDeclare{Name: "q", Passive: true}); return err },
		"consume and cancel": func() error {
			return s.Cancel(t.Context(), s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox()))
		},
	} {
		before := h.leaseMs(t, "q")
		eventually(t, what, func() bool {
			if err := use(); err != nil {
				t.Fatal(err)
			}
			return h.leaseMs(t, "q") > before
		})
	}
	before := h.leaseMs(t, "q")
	if _, err := s.broker.Stat(t.Context(), s.broker.View().Queue("/", "q")); err != nil {
		t.Fatal(err)
	}
	acks := newConfirms()
	s.mustPublish(t, "q", "m", acks, 1)
	eventually(t, "confirm", func() bool { return acks.count() == 1 })
	if h.leaseMs(t, "q") != before {
		t.Error("looking at a queue, or publishing to it, is no use of it")
	}
}

func TestQueueWithConsumersStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 2, 1)
		s, gone := h.nodes[1].open(t), h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-expires", int32(200))})
		id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())
		gone.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())
		eventually(t, "the lease to be over", func() bool { return h.leaseMs(t, "q") == 0 })
		if h.isGone("q") {
			t.Fatal("deleted under its consumers")
		}
		if err := s.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if h.leaseMs(t, "q") != 0 {
			t.Error("it has one more consumer")
		}
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "deletion", func() bool { return h.isGone("q") })
	})
}

func TestANewLeaderStartsTheLeasesOfQueuesThatItNeverTouched(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-expires", int32(3_600_000))})
	s.mustDeclare(t, mq.QueueDeclare{Name: "short", Durable: true, Args: args("x-expires", int32(300))})
	eventually(t, "the lease", func() bool { return h.leaseMs(t, "q") > 0 })
	before := h.leaseMs(t, "q")
	now := time.Now().UnixMilli()
	eventually(t, "a millisecond", func() bool { return time.Now().UnixMilli() > now })
	h.lead(1, h.nodes[1])
	eventually(t, "the lease", func() bool { return h.leaseMs(t, "q") > before })
	eventually(t, "the short one's end", func() bool { return h.isGone("short") })
}

func TestQueueStaysForConsumersThatHaveNotResumed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-expires", int32(300))})
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())
		resume := h.nodes[2].pause()
		defer resume()
		h.lead(1, h.nodes[1])
		first := int64(0)
		eventually(t, "the lease to be over", func() bool {
			if s := h.nodes[1].Shard(1); first == 0 {
				first = h.leaseMs(t, "q")
				s.mu.Lock()
				s.queue(s.topics.View().Queue("/", "q")) // as something that happens to it would
				s.mu.Unlock()
				return false
			}
			return h.leaseMs(t, "q") > first
		})
		resume()
		eventually(t, "the consumer", func() bool {
			n := 0
			h.led(t, "q", func(q *ledQueue) { n = q.d.Consumers() })
			return n == 1
		})
		eventually(t, "the lease to be over", func() bool { return h.leaseMs(t, "q") == 0 })
		if h.isGone("q") {
			t.Error("deleted while it had a consumer")
		}
	})
}
