package broker

import (
	"strconv"
	"testing"

	"warren/mq"
)

// withFullDeadLetters is withDeadLetters where "dead" takes limit messages and
// refuses more, and "copy" takes all.
func withFullDeadLetters(t *testing.T, h *house, limit int32) *Session {
	t.Helper()
	h.awaitLeaders(t)
	s, other := h.nodes[0].open(t), h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-dead-letter-exchange", "amq.fanout")})
	other.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true, Args: args("x-max-length", limit, "x-overflow", "reject-publish")})
	other.mustDeclare(t, mq.QueueDeclare{Name: "copy", Durable: true})
	for _, q := range []string{"dead", "copy"} {
		if _, err := s.Change(t.Context(), mq.QueueBind{Queue: q, Exchange: "amq.fanout"}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// discard publishes n messages to q and rejects each.
func (s *Session) discard(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
		s.settle(t, mq.Discard, s.mustGet(t, "q"))
	}
}

func TestDeadLetterWaitsInItsQueueForRoom(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := withFullDeadLetters(t, h, 2)
	s.discard(t, 5)
	eventually(t, "the copies", func() bool { return s.ready(t, "copy") == 5 })
	shard, q := h.nodes[0].Shard(1), h.nodes[0].View().Queue("/", "q").ID
	eventually(t, "a second refusal", func() bool { return h.nodes[1].Shard(2).Stats().Refused >= 6 })
	if st := shard.Stat(q); st.Unacked != 3 || st.Ready != 0 {
		t.Fatalf("%+v: three wait for room", st)
	}
	// The queue goes on meanwhile.
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", NoAck: true}, in)
	s.publishTo(t, "", "q", "next", -1)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	// Nor does a letter that is on its way depend on the binding any more.
	if _, err := s.Change(t.Context(), mq.QueueUnbind{Queue: "dead", Exchange: "amq.fanout"}); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	eventually(t, "every letter, as room is made", func() bool {
		if d, ok, err := s.Get(t.Context(), "dead", true); err == nil && ok {
			got[string(d.Content.Body())] = true
		}
		return len(got) == 5
	})
	eventually(t, "the originals to go", func() bool { return shard.Stat(q) == QueueStat{Consumers: 1} })
	if n := s.ready(t, "copy"); n != 5 {
		t.Errorf("what had room got %d letters, want each of 5 once", n)
	}
}

// What filters looks at the letter, also when no exchange leads to it any more.
func TestLetterThatIsOwedToAFilteringQueueNeedsNoBinding(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := withFullDeadLetters(t, h, 1)
	s.mustChange(t, mq.QueueDeclare{Name: "filter", Durable: true, Args: args(dedupExchange, true, "x-max-length", int32(1), "x-overflow", "reject-publish")},
		mq.QueueBind{Queue: "filter", Exchange: "amq.fanout"})
	s.discard(t, 2)
	eventually(t, "the copies", func() bool { return s.ready(t, "copy") == 2 })
	s.mustChange(t, mq.QueueUnbind{Queue: "filter", Exchange: "amq.fanout"})
	for _, q := range []string{"dead", "filter"} {
		got := map[string]bool{}
		eventually(t, "every letter, as room is made", func() bool {
			if d, ok, err := s.Get(t.Context(), q, true); err == nil && ok {
				got[string(d.Content.Body())] = true
			}
			return len(got) == 2
		})
	}
	shard, q := h.nodes[0].Shard(1), h.nodes[0].View().Queue("/", "q").ID
	eventually(t, "the originals to go", func() bool { return shard.Stat(q) == QueueStat{} })
}

func TestDeadLetterHoldsUpNothingBehindOneThatIsRefused(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := withFullDeadLetters(t, h, 0)
	const n = lettersRefusedMax + 100
	acks := newConfirms()
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	settled := 0
	reject := func() {
		ds := in.all()
		if settled < len(ds) {
			s.settle(t, mq.Discard, ds[settled:]...)
			s.Drained(ds[0].Consumer, len(ds)-settled, 0)
			settled = len(ds)
		}
	}
	for i := range n {
		s.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i))
		reject()
	}
	eventually(t, "every copy once", func() bool { reject(); return s.ready(t, "copy") == n })
	shard, q := h.nodes[0].Shard(1), h.nodes[0].View().Queue("/", "q").ID
	eventually(t, "no more than may wait for room", func() bool { return shard.Stat(q).Unacked == lettersRefusedMax })
	if st := shard.Stats(); st.DeadLettered != 0 {
		t.Errorf("%d are said to have arrived", st.DeadLettered)
	}
	if _, err := s.Change(t.Context(), mq.QueueDelete{Name: "dead"}); err != nil {
		t.Fatal(err)
	}
	// They have arrived wherever they still can.
	eventually(t, "the originals to go", func() bool { return shard.Stat(q) == QueueStat{Consumers: 1} })
	if got := s.ready(t, "copy"); got != n {
		t.Errorf("%d copies, want %d", got, n)
	}
}
