package broker

import (
	"strconv"
	"testing"

	"warren/mq"
)

// The single active consumer changes only when nothing that the one before
// holds is unsettled: not when a more urgent one comes, not when the leader
// changes, and not when both happen.
func TestSingleActiveWaitsForWhatTheOneBeforeHolds(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict mq.Verdict
		changes bool   // of the leader
		want    string // what the second gets
	}{
		{"acked", mq.Ack, false, "23"},
		{"requeued", mq.Requeue, false, "12"},
		{"rejected", mq.Discard, false, "23"},
		{"acked after a leader change", mq.Ack, true, "23"},
		{"requeued after a leader change", mq.Requeue, true, "12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, 3, 1)
			s := h.nodes[1].open(t)
			s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-single-active-consumer", true)})
			first, second := newInbox(), newInbox()
			s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, first)
			for i := range 6 {
				s.publishTo(t, "", "q", strconv.Itoa(i), -1)
			}
			eventually(t, "two deliveries", func() bool { return len(first.all()) == 2 })
			h.nodes[2].open(t).mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2, Priority: 1}, second)
			if c.changes {
				h.lead(1, h.nodes[2])
			}
			held := first.all()
			s.settle(t, mq.Ack, held[0]) // room for one, which it must not get
			h.settled(t, "q", 1)
			if n, m := len(first.all()), len(second.all()); n != 2 || m != 0 {
				t.Fatalf("the first had %d deliveries, and the second %d", n, m)
			}
			s.settle(t, c.verdict, held[1])
			eventually(t, "deliveries to the second", func() bool { return len(second.all()) == 2 })
			if got := bodies(second.all()); got != c.want {
				t.Errorf("the second got %s, want %s", got, c.want)
			}
			if n := len(first.all()); n != 2 {
				t.Errorf("the first had %d deliveries", n)
			}
		})
	}
}

// settled waits until n messages of a queue are unsettled, and all frames that
// this causes are handled.
func (h *house) settled(t *testing.T, queue string, unacked uint64) {
	t.Helper()
	id := h.nodes[0].View().Queue("/", queue).ID
	eventually(t, "settlements", func() bool {
		for _, n := range h.nodes {
			if _, leads := n.Shard(1).Leading(); leads && n.Shard(1).Stat(id).Unacked == unacked {
				return true
			}
		}
		return false
	})
	for _, n := range h.nodes {
		n.caughtUp()
	}
}

func TestASuccessorIsTheOldestOfItsNodeAfterALeaderChange(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-single-active-consumer", true)})
	var ids []mq.ConsumerID
	var ins []*inbox
	for range 12 {
		ins = append(ins, newInbox())
		ids = append(ids, s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, ins[len(ins)-1]))
	}
	for i := range 4 {
		h.lead(1, h.nodes[(i+1)%3])
		s.publishTo(t, "", "q", "m", -1)
		eventually(t, "a delivery to consumer "+strconv.Itoa(i), func() bool { return len(ins[i].all()) == 1 })
		s.settle(t, mq.Ack, ins[i].all()[0])
		if err := s.Cancel(t.Context(), ids[i]); err != nil {
			t.Fatal(err)
		}
	}
}
