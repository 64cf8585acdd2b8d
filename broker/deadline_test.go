package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"warren/mq"
)

func (n *houseNode) mustOutbox(t *testing.T, g mq.GroupID) *outbox {
	t.Helper()
	o, err := n.outbox(g)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestPublishWithoutALeaderIsRejectedInTheEnd(t *testing.T) {
	h := newHouse(t, 3, 1)
	s, acks := h.nodes[1].open(t), newConfirms()
	s.mustDeclare(t, durable)
	s.mustPublish(t, "q", "before", acks, 1)
	eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
	h.orphan(1)
	o, t0 := h.nodes[1].mustOutbox(t, 1), time.Now()
	o.look(t0) // forgets that a leader has answered
	for tag := uint64(2); tag <= 5; tag++ {
		s.mustPublish(t, "q", "m", acks, tag) // two batches, and two that gather
	}
	o.look(t0.Add(time.Second))
	s.mustPublish(t, "q", "later", acks, 6)
	o.look(t0.Add(20 * time.Second))
	if n := acks.count(); n != 1 {
		t.Fatalf("%d answers after 20 s", n)
	}
	o.look(t0.Add(time.Second + answerDeadline))
	for tag := uint64(2); tag <= 5; tag++ {
		if got := acks.of(tag); got != mq.Rejected {
			t.Errorf("%d: got %v", tag, got)
		}
	}
	if n := acks.count(); n != 5 {
		t.Fatalf("%d answers: the last one's time is not over", n)
	}
	h.lead(1, h.nodes[2])
	eventually(t, "the last one's confirm", func() bool { return acks.of(6) == mq.Confirmed })
	s.mustPublish(t, "q", "after", acks, 7)
	eventually(t, "the next confirm", func() bool { return acks.of(7) == mq.Confirmed })
	if n := s.ready(t, "q"); n != 7 { // rejected says that nobody knew
		t.Errorf("%d messages", n)
	}
}

// unheard is an outbox with a message for a leader that takes nothing until resume.
func unheard(t *testing.T) (o *outbox, acks *confirms, begin time.Time, resume func()) {
	t.Helper()
	h := newHouse(t, 2, 1)
	s, acks := h.nodes[1].open(t), newConfirms()
	s.mustDeclare(t, durable)
	o, begin = h.nodes[1].mustOutbox(t, 1), time.Now()
	resume = h.nodes[0].pause()
	s.mustPublish(t, "q", "m", acks, 1)
	return o, acks, begin, resume
}

func TestALeaderThatAnswersIsWaitedFor(t *testing.T) {
	o, acks, t0, resume := unheard(t)
	defer resume()
	o.look(t0)
	o.look(t0.Add(20 * time.Second))
	o.missed(0, 1) // it says something new
	o.look(t0.Add(40 * time.Second))
	o.look(t0.Add(60 * time.Second))
	if n := acks.count(); n > 0 {
		t.Fatal("given up though a leader answers")
	}
	resume()
	eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
	o.look(t0.Add(time.Hour))
	if o.looking || len(o.marks) > 0 {
		t.Error("looks though all is answered")
	}
}

func TestMessageForTwoGroupsIsRejectedOnce(t *testing.T) {
	h := newHouse(t, 2, 2)
	h.awaitLeaders(t)
	a, acks := h.nodes[0].open(t), newConfirms()
	a.mustDeclare(t, mq.QueueDeclare{Name: "one", Durable: true})
	h.nodes[1].open(t).mustDeclare(t, mq.QueueDeclare{Name: "two", Durable: true})
	for _, q := range []string{"one", "two"} {
		if _, err := a.Change(t.Context(), mq.QueueBind{Queue: q, Exchange: "amq.fanout"}); err != nil {
			t.Fatal(err)
		}
	}
	h.orphan(2)
	o, t0 := h.nodes[0].mustOutbox(t, 2), time.Now()
	p := &mq.Publish{Content: mq.NewContent("amq.fanout", "", []byte{0, 0}, 0), ExpirationMs: -1, Confirm: acks, Tag: 1}
	if _, err := a.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	a.Flush()
	eventually(t, "the first group", func() bool { return a.ready(t, "one") == 1 })
	o.look(t0)
	o.look(t0.Add(answerDeadline))
	if got := acks.of(1); got != mq.Rejected {
		t.Fatalf("got %v", got)
	}
	h.lead(2, h.nodes[1])
	eventually(t, "the second group", func() bool { return a.ready(t, "two") == 1 })
}

func TestDeadLettersWaitAsLongAsItTakes(t *testing.T) {
	h := newHouse(t, 2, 2)
	withDeadLetters(t, h)
	h.orphan(2)
	s, in := h.nodes[0].open(t), newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	s.mustPublish(t, "q", "m", nil, 0)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	s.settle(t, mq.Discard, in.all()...)
	o, t0 := h.nodes[0].mustOutbox(t, 2), time.Now()
	eventually(t, "the letter", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.window) == 1 })
	for i := range 10 {
		o.look(t0.Add(time.Duration(i) * answerDeadline))
	}
	h.lead(2, h.nodes[1])
	eventually(t, "arrival", func() bool { return s.ready(t, "dead") == 1 })
	if n := h.nodes[1].Shard(2).Stats().Enqueued; n != 1 {
		t.Errorf("arrived %d times", n)
	}
}

func TestMarksOfALongOutageAreFew(t *testing.T) {
	h := newHouse(t, 2, 1)
	s, acks := h.nodes[1].open(t), newConfirms()
	s.mustDeclare(t, durable)
	h.orphan(1)
	o, t0 := h.nodes[1].mustOutbox(t, 1), time.Now()
	for i := range 100 {
		s.mustPublish(t, "q", strings.Repeat("m", 100), acks, uint64(i+1))
		o.look(t0.Add(time.Duration(i) * lookEvery))
		if n := len(o.marks); n > int(answerDeadline/lookEvery)+1 {
			t.Fatalf("%d marks", n)
		}
	}
	if n := acks.count(); n < 90 {
		t.Errorf("%d of 100 were given up", n)
	}
	o.end(mq.Rejected)
	eventually(t, "the rest", func() bool { return acks.count() == 100 })
	if err := o.enqueue(t.Context(), nil, &outgoing{}, 0, waiter{}); !errors.Is(err, errGroupGone) {
		t.Errorf("got %v", err)
	}
}

// A leader that only ever says what it misses would be waited for without end.
func TestALeaderThatMissesTheSameForEverIsNotWaitedFor(t *testing.T) {
	o, acks, t0, resume := unheard(t)
	defer resume()
	o.look(t0)
	for i := range 8 {
		o.missed(0, 0)
		o.look(t0.Add(time.Duration(i+1) * lookEvery))
	}
	eventually(t, "the end of patience", func() bool { return acks.of(1) == mq.Rejected })
}
