package broker

import (
	"fmt"
	"testing"

	"warren/mq"
)

// gone waits until nothing is in a queue, not even on its way out.
func (h *house) gone(t *testing.T, queue string) {
	t.Helper()
	n := h.nodes[len(h.nodes)-1]
	eventually(t, queue+" to be empty", func() bool {
		st, err := n.Stat(t.Context(), n.View().Queue("/", queue))
		return err == nil && st.Ready == 0 && st.Unacked == 0
	})
}

func TestADeadLetterIsNoDuplicateOfItself(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args(dedupExchange, true, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "q")})
	s.publishWith(t, "", "q", "m", args(dedupHeader, "a"))
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "the letter to come back", func() bool { return s.ready(t, "q") == 1 })
	wantDeath(t, s.mustGet(t, "q"), "q", rejected, 1)
}

func TestALetterToAFullQueueGoesOnFromThereOnce(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t,
		mq.QueueDeclare{Name: "u", Durable: true},
		mq.QueueDeclare{Name: "t", Durable: true, Args: args("x-max-length", int32(1), "x-overflow", "reject-publish-dlx", "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "u")},
		mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "t")})
	s.publishTo(t, "", "t", "fills it", -1)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "its way round", func() bool { return s.ready(t, "u") == 1 })
	s.settle(t, mq.Ack, s.mustGet(t, "t")) // there is room: the next attempt is the last
	h.gone(t, "q")
	if u, tt := s.ready(t, "u"), s.ready(t, "t"); u != 1 || tt != 0 {
		t.Errorf("%d in u and %d in t", u, tt)
	}
}

func TestAnyNumberOfFiltersInARowHurtsNobody(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args(dedupExchange, true)})
	const n = 70
	for i := range n {
		s.mustChange(t, mq.ExchangeDeclare{Name: fmt.Sprint("x", i), Type: dedupExchange, Args: args(cacheSize, int32(10))})
		if i > 0 {
			s.mustChange(t, mq.ExchangeBind{Source: fmt.Sprint("x", i-1), Destination: fmt.Sprint("x", i)})
		}
	}
	s.mustChange(t, mq.QueueBind{Queue: "q", Exchange: fmt.Sprint("x", n-1)})
	for range 2 {
		s.publishWith(t, "x0", "", "m", args(dedupHeader, "a"))
	}
	if got := s.ready(t, "q"); got != 1 {
		t.Errorf("%d messages", got)
	}
}

func TestLettersOfAStrictQueueWaitHoweverManyThereAre(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	const n = lettersRefusedMax + 50
	s.mustChange(t,
		mq.QueueDeclare{Name: "full", Durable: true, Args: args("x-max-length", int32(0), "x-overflow", "reject-publish")},
		mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-message-ttl", int32(1), "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "full", "x-dead-letter-strategy", "at-least-once")})
	acks := newConfirms()
	for i := range n {
		s.mustPublish(t, "q", "m", acks, uint64(i+1))
	}
	eventually(t, "confirms", func() bool { return acks.count() == n })
	shard := h.nodes[0].Shard(1)
	eventually(t, "all to have been refused twice", func() bool { return shard.Stats().Refused >= 2*n })
	st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
	if err != nil || st.Ready+st.Unacked != n {
		t.Errorf("%d of %d are left: %v", st.Ready+st.Unacked, n, err)
	}
}

func TestWhatSomebodyElseSettledTakesNoLettersPlace(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	s := h.nodes[2].open(t)
	h.orphan(2) // the letter cannot arrive yet
	s.publishTo(t, "", "q", "m", -1)
	d := s.mustGet(t, "q")
	s.settle(t, mq.Discard, d)
	shard := h.nodes[0].Shard(1)
	eventually(t, "the letter to leave", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.lead.letters != nil && len(shard.lead.letters.lines.of) == 0
	})
	o, err := h.nodes[2].outbox(1)
	if err != nil {
		t.Fatal(err)
	}
	o.settle(d.Queue, d.Seq, d.Seq, waiter{}) // an ack that was on its way
	o.flush()
	h.gone(t, "q")
	h.lead(2, h.nodes[2])
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	eventually(t, "the answer to be heard", func() bool { return shard.Stats().DeadLettered == 1 })
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if n := len(shard.lead.letters.gone); n != 0 {
		t.Errorf("%d places are taken for good", n)
	}
}

func TestALimitLoweredUnderAClientsHandsWaitsForItsWord(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.awaitLeaders(t)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true})
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-queue-type", "quorum", "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead")})
	s.publishTo(t, "", "q", "m", -1)
	for range 3 {
		s.settle(t, mq.Fail, s.mustGet(t, "q"))
		eventually(t, "back", func() bool { return s.ready(t, "q") == 1 })
	}
	d := s.mustGet(t, "q")
	if _, err := h.nodes[0].Propose(t.Context(), policyOf("^q$", "delivery-limit", int64(2))); err != nil {
		t.Fatal(err)
	}
	h.lead(1, h.nodes[1])
	s.publishTo(t, "", "q", "next", -1) // what is behind it is handed out: the new leader has begun
	s.settle(t, mq.Ack, s.mustGet(t, "q"))
	s.settle(t, mq.Ack, d)
	h.gone(t, "q")
	if n := s.ready(t, "dead"); n != 0 {
		t.Errorf("%d dead letters of a message that was acked", n)
	}
}
