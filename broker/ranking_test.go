package broker

import (
	"bytes"
	"strconv"
	"testing"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// publishAs publishes with a priority, or without one if that is negative, and
// waits for the confirm.
func (s *Session) publishAs(t *testing.T, queue, body string, priority int, ttlMs int64) {
	t.Helper()
	acks := newConfirms()
	p := &mq.Publish{ExpirationMs: ttlMs, Confirm: acks, Tag: 1}
	properties := []byte{0, 0}
	if priority >= 0 {
		p.Priority = uint8(priority)
		properties = []byte{0x08, 0, p.Priority}
	}
	p.Content = append(mq.NewContent("", queue, properties, len(body)), body...)
	if o, err := s.Publish(t.Context(), p); err != nil || o != mq.Pending {
		t.Fatalf("publish: %v, %v", o, err)
	}
	s.Flush()
	eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
}

// bodies are the bodies of deliveries, one letter each.
func bodies(ds []mq.Delivery) string {
	var b bytes.Buffer
	for _, d := range ds {
		b.Write(d.Content.Body())
	}
	return b.String()
}

func TestRankOfAMessage(t *testing.T) {
	plain := ranking{}
	upTo3 := rankingOf(&meta.Queue{Args: args("x-max-priority", int32(3))})
	quorum := rankingOf(&meta.Queue{Args: args("x-queue-type", "quorum")})
	for _, c := range []struct {
		name            string
		r               ranking
		flags, priority uint8
		want            uint8
	}{
		{"without priorities all are alike", plain, statesPriority, 9, 0},
		{"none stated is 0", upTo3, 0, 0, 3},
		{"the lowest", upTo3, statesPriority, 0, 3},
		{"the highest", upTo3, statesPriority, 3, 0},
		{"above the highest is the highest", upTo3, statesPriority, 200, 0},
		{"of an older version, which set no bit", upTo3, 0, 2, 1},
		{"quorum, none stated is 4", quorum, queue.Persistent, 0, 27},
		{"quorum, 4 stated", quorum, statesPriority, 4, 27},
		{"quorum, 0 stated", quorum, statesPriority, 0, 31},
		{"quorum, above the highest", quorum, statesPriority, 255, 0},
		{"a quorum queue that says how many", rankingOf(&meta.Queue{Args: args("x-queue-type", "quorum", "x-max-priority", int32(3))}), 0, 0, 3},
		{"classic", rankingOf(&meta.Queue{Args: args("x-queue-type", "classic")}), statesPriority, 9, 0},
		{"no levels at all", rankingOf(&meta.Queue{Args: args("x-max-priority", int32(0))}), statesPriority, 9, 0},
	} {
		if got := c.r.rank(c.flags, c.priority); got != c.want {
			t.Errorf("%s: rank %d, want %d", c.name, got, c.want)
		}
	}
}

func TestHighestPriorityIsTakenFirst(t *testing.T) {
	for _, c := range []struct {
		name    string
		declare mq.QueueDeclare
		want    string // of "a" 1, "b" none, "c" 9, "d" 0, "e" 2, "f" 9
	}{
		{"durable", mq.QueueDeclare{Durable: true, Args: args("x-max-priority", int32(9))}, "cfeabd"},
		{"transient", mq.QueueDeclare{Args: args("x-max-priority", int32(9))}, "cfeabd"},
		{"fewer levels", mq.QueueDeclare{Durable: true, Args: args("x-max-priority", int32(2))}, "cefabd"},
		{"quorum, where 4 is usual", mq.QueueDeclare{Durable: true, Args: args("x-queue-type", "quorum")}, "cfbead"},
		{"no priorities", mq.QueueDeclare{Durable: true}, "abcdef"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, 3, 1)
			s := h.nodes[1].open(t)
			c.declare.Name = "q"
			s.mustDeclare(t, c.declare)
			for i, priority := range []int{1, -1, 9, 0, 2, 9} {
				s.publishAs(t, "q", string(rune('a'+i)), priority, -1)
			}
			var got []mq.Delivery
			for range c.want {
				got = append(got, s.mustGet(t, "q"))
			}
			if bodies(got) != c.want {
				t.Errorf("got %s, want %s", bodies(got), c.want)
			}
			for _, d := range got {
				if d.Redelivered {
					t.Errorf("%s is called redelivered", d.Content.Body())
				}
			}
		})
	}
}

func TestRequeuedKeepsItsPriorityAndItsPlace(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-priority", int32(5))})
	for i, priority := range []int{0, 3, 3, 5} {
		s.publishAs(t, "q", strconv.Itoa(i), priority, -1)
	}
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 3}, in)
	eventually(t, "three deliveries", func() bool { return len(in.all()) == 3 })
	first := in.all()
	if bodies(first) != "312" {
		t.Fatalf("got %s", bodies(first))
	}
	s.settle(t, mq.Requeue, first[1], first[2], first[0]) // neighbours: they go back together
	eventually(t, "three more", func() bool { return len(in.all()) == 6 })
	again := in.all()[3:]
	if bodies(again) != "312" {
		t.Errorf("got %s again", bodies(again))
	}
	for _, d := range again {
		if !d.Redelivered {
			t.Errorf("%s is not called redelivered", d.Content.Body())
		}
	}
	s.settle(t, mq.Ack, again...)
	eventually(t, "the last", func() bool { return len(in.all()) == 7 })
	if d := in.all()[6]; string(d.Content.Body()) != "0" || d.Redelivered {
		t.Errorf("got %s, redelivered: %v", d.Content.Body(), d.Redelivered)
	}
}

// A follower restored from a snapshot leads as well as one that applied all.
func TestPrioritiesSurviveLeaderChangesAndSnapshots(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-queue-type", "quorum")})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
	for i, priority := range []int{-1, 9, 0, 5, -1, 9, 31, 4} {
		s.publishAs(t, "q", strconv.Itoa(i), priority, -1)
	}
	eventually(t, "two deliveries", func() bool { return len(in.all()) == 2 })
	h.restore(h.nodes[1], h.nodes[2])
	want := "01"
	for i, rest := range []string{"6", "5", "3", "4", "7", "2"} {
		leader := h.nodes[(i+1)%3]
		h.lead(1, leader)
		s.settle(t, mq.Ack, in.all()[i])
		want += rest
		eventually(t, "delivery of "+rest, func() bool { return len(in.all()) == i+3 })
		if got := bodies(in.all()); got != want {
			t.Fatalf("under %s: got %s, want %s", leader.id, got, want)
		}
	}
	had := map[mq.Seq]bool{}
	for _, d := range in.all() {
		if had[d.Seq] {
			t.Errorf("%s was handed out twice", d.Content.Body())
		}
		had[d.Seq] = true
	}
}

// restore puts a node's replica of group 1 in the state of another's.
func (h *house) restore(n, from *houseNode) {
	l := h.groups[1]
	l.mu.Lock()
	defer l.mu.Unlock()
	snap, err := from.Shard(1).Snapshot()
	if err != nil {
		h.t.Fatal(err)
	}
	defer snap.Release()
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil {
		h.t.Fatal(err)
	}
	if err := n.Shard(1).Restore(&b); err != nil {
		h.t.Fatal(err)
	}
}

func TestRedeliveredIsToldOfAllThatAPriorityQueueMayHaveHandedOut(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-priority", int32(5))})
	for i := range 3 {
		s.publishAs(t, "q", strconv.Itoa(i), i, -1)
	}
	other := h.nodes[1].open(t)
	in := newInbox()
	other.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	eventually(t, "a delivery", func() bool { return len(in.all()) == 1 })
	h.lead(1, h.nodes[2])
	h.end(h.nodes[1]) // its client is gone with it
	if _, err := h.nodes[0].Propose(t.Context(), h.nodes[0].EndDeadSessions()...); err != nil {
		t.Fatal(err)
	}
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "2" || !d.Redelivered {
		t.Errorf("got %s, redelivered: %v", d.Content.Body(), d.Redelivered)
	}
}

func TestEveryPriorityExpiresAtItsHead(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-priority", int32(5))})
	s.publishAs(t, "q", "a", 5, -1)
	s.publishAs(t, "q", "b", 3, 1)
	s.publishAs(t, "q", "c", 3, 30)
	s.publishAs(t, "q", "d", -1, 3600_000)
	s.publishAs(t, "q", "e", 1, 30)
	h.lead(1, h.nodes[2]) // which has touched nothing
	eventually(t, "three expiries", func() bool { return s.ready(t, "q") == 2 })
	if got := bodies([]mq.Delivery{s.mustGet(t, "q"), s.mustGet(t, "q")}); got != "ad" {
		t.Errorf("left are %s", got)
	}
}

func TestFullPriorityQueueDropsWhatWouldComeNext(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-priority", int32(5), "x-max-length", int32(2))})
	s.publishAs(t, "q", "a", 0, -1)
	s.publishAs(t, "q", "b", 5, -1)
	s.publishAs(t, "q", "c", 1, -1)
	s.publishAs(t, "q", "d", 0, -1)
	eventually(t, "two to go", func() bool { return h.nodes[0].Shard(1).Stats().Overflowed == 2 })
	if got := bodies([]mq.Delivery{s.mustGet(t, "q"), s.mustGet(t, "q")}); got != "ad" {
		t.Errorf("left are %s", got)
	}
}

func TestDeadLetterKeepsThatItStatesPriorityZero(t *testing.T) {
	b := burial{flags: queue.Persistent | statesPriority}
	if m := b.outgoing(0); m.flags&statesPriority == 0 {
		t.Error("it is forgotten")
	}
}
