package broker

import (
	"testing"

	"warren/mq"
)

func TestABatchThatCannotBeReadHoldsUpNothing(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.told(t)
	h.raise(t)
	h.awaitLeaders(t)
	s, acks := h.nodes[1].open(t), newConfirms()
	s.mustDeclare(t, durable)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	s.mustPublish(t, "q", "a", acks, 1)
	eventually(t, "a", func() bool { return len(in.all()) == 1 })
	o := h.nodes[1].mustOutbox(t, 1)
	resume := h.nodes[0].pause()
	defer resume()
	s.mustPublish(t, "q", "b", acks, 2) // in flight before it
	o.mu.Lock()
	o.messages = append(o.messages, 0xEE, 0)
	o.messageWait = append(o.messageWait, waiter{confirm: acks, tag: 3})
	o.count++
	o.mu.Unlock()
	s.mustPublish(t, "q", "c", acks, 4) // together with it
	o.sendAll()
	s.settle(t, mq.Ack, in.all()...)
	s.mustPublish(t, "q", "d", acks, 5)
	resume()
	eventually(t, "answers", func() bool { return acks.count() == 5 })
	for tag, want := range map[uint64]mq.Outcome{1: mq.Confirmed, 2: mq.Confirmed, 3: mq.Rejected, 4: mq.Rejected, 5: mq.Confirmed} {
		if got := acks.of(tag); got != want {
			t.Errorf("%d was answered %v", tag, got)
		}
	}
	for i, body := range []string{"a", "b", "d"} {
		eventually(t, body, func() bool { return len(in.all()) > i })
		if got := string(in.all()[i].Content.Body()); got != body {
			t.Fatalf("delivery %d is %s", i, got)
		}
		if i > 0 {
			s.settle(t, mq.Ack, in.all()[i])
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy < 0 || o.owed < 0 {
		t.Errorf("%d batches busy, %d bytes owed", o.busy, o.owed)
	}
}
