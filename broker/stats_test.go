package broker

import (
	"testing"

	"warren/mq"
)

func TestWhatIsTurnedAwayIsCounted(t *testing.T) {
	h := newHouse(t, 1, 1)
	n := h.nodes[0]
	s := n.open(t)
	s.mustChange(t,
		mq.QueueDeclare{Name: "once", Durable: true, Args: args(dedupExchange, true)},
		mq.QueueDeclare{Name: "slow", Durable: true, Args: args("x-consumer-timeout", int32(100))},
		mq.QueueDeclare{Name: "full", Durable: true, Args: args("x-max-length", int32(0), "x-overflow", "reject-publish")})
	for range 3 {
		s.publishWith(t, "", "once", "m", args(dedupHeader, "a"))
	}
	acks := newConfirms()
	s.mustPublish(t, "full", "m", acks, 1)
	eventually(t, "the refusal", func() bool { return acks.of(1) == mq.Refused })
	stuck := newRecaller()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "slow", Prefetch: 1}, stuck)
	s.publishTo(t, "", "slow", "m", -1)
	eventually(t, "the recall", func() bool { return len(stuck.taken()) > 0 })
	_, name, err := s.Replies(newInbox())
	if err != nil {
		t.Fatal(err)
	}
	for range repliesMax + 2 {
		p := &mq.Publish{Content: mq.NewContent("", name, []byte{0, 0}, 0), ExpirationMs: -1}
		if _, err := s.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "dropped replies", func() bool { return n.Stats().RepliesDropped == 2 })
	got := n.Stats().Shards
	if got.Deduplicated != 2 || got.Refused != 1 || got.Recalled == 0 {
		t.Errorf("%+v", got)
	}
}

// Nobody has them any more, whatever the log takes.
func TestWhatIsSettledAndNotCommittedIsNotCounted(t *testing.T) {
	h := newHouse(t, 1, 1)
	n := h.nodes[0]
	s := n.open(t)
	s.mustDeclare(t, durable)
	for range 3 {
		s.publishTo(t, "", "q", "m", -1)
	}
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
	eventually(t, "deliveries", func() bool { return len(in.all()) == 2 })
	h.groups[1].mu.Lock()
	h.groups[1].refuse = func() bool { return true }
	h.groups[1].mu.Unlock()
	s.settle(t, mq.Ack, in.all()...)
	eventually(t, "the third", func() bool { return len(in.all()) == 3 })
	if st := n.Shard(1).Stat(n.View().Queue("/", "q").ID); st.Ready != 0 || st.Unacked != 1 {
		t.Errorf("got %+v", st)
	}
}
