package broker

import (
	"testing"

	"warren/mq"
)

// The queue that is in the memory of the node that ends gets nothing any more;
// the others have the message.
func TestWhatTheOtherQueuesHaveIsConfirmedWhenOneHasEndedWithItsNode(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.awaitLeaders(t)
	s, acks := h.nodes[1].open(t), newConfirms()
	h.nodes[2].open(t).mustDeclare(t, mq.QueueDeclare{Name: "there"})
	s.mustChange(t, mq.QueueDeclare{Name: "kept", Durable: true}, mq.ExchangeDeclare{Name: "both", Type: "fanout"},
		mq.QueueBind{Queue: "kept", Exchange: "both"}, mq.QueueBind{Queue: "there", Exchange: "both"})
	resume := h.nodes[2].pause()
	publish := func(exchange, key string, tag uint64) {
		t.Helper()
		p := &mq.Publish{Content: mq.NewContent(exchange, key, []byte{0, 0}, 0), ExpirationMs: -1, Confirm: acks, Tag: tag}
		if _, err := s.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		s.Flush()
	}
	publish("both", "", 1)
	publish("", "there", 2)
	eventually(t, "the message to be kept", func() bool { return h.nodes[1].Shard(1).Stat(s.broker.View().Queue("/", "kept").ID).Ready == 1 })
	if n := acks.count(); n != 0 {
		t.Fatal("answered before it is known what became of the node")
	}
	h.end(h.nodes[2])
	resume()
	if _, err := h.nodes[0].Propose(t.Context(), h.nodes[0].EndDeadSessions()...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers", func() bool { return acks.count() == 2 })
	if both, alone := acks.of(1), acks.of(2); both != mq.Confirmed || !alone.Nacked() {
		t.Errorf("the one that is kept was answered %v, the other one %v", both, alone)
	}
}

// A transaction that acked what came from there can commit: nobody has the
// message any more, and nobody gets it again.
func TestWhatWasSettledInAQueueThatEndsWithItsNodeIsSettled(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.awaitLeaders(t)
	h.nodes[2].open(t).mustDeclare(t, mq.QueueDeclare{Name: "there"})
	s, acks, in := h.nodes[1].open(t), newConfirms(), newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "there"}, in)
	s.publishTo(t, "", "there", "m", -1)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	resume := h.nodes[2].pause()
	if err := s.Settle(t.Context(), mq.Settlement{Held: []mq.Held{in.all()[0].Held()}, Confirm: acks, Tag: 1}); err != nil {
		t.Fatal(err)
	}
	s.Flush()
	h.end(h.nodes[2])
	resume()
	if _, err := h.nodes[0].Propose(t.Context(), h.nodes[0].EndDeadSessions()...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer", func() bool { return acks.count() == 1 })
	if got := acks.of(1); got != mq.Confirmed {
		t.Errorf("answered %v", got)
	}
}
