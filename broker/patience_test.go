package broker

import (
	"slices"
	"strconv"
	"sync"
	"testing"

	"warren/internal/fields"
	"warren/mq"
)

// recaller is an inbox that minds what is taken back.
type recaller struct {
	*inbox
	mu   sync.Mutex
	back []mq.Seq
}

func newRecaller() *recaller { return &recaller{inbox: newInbox()} }

func (r *recaller) Recalled(seqs []mq.Seq) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back = append(r.back, seqs...)
}

func (r *recaller) taken() []mq.Seq {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.back)
}

func TestHeldForTooLongGoesToAnotherConsumer(t *testing.T) {
	for _, c := range []struct {
		name    string
		declare mq.QueueDeclare
		consume mq.ConsumeSpec
	}{
		{"the queue says how long", mq.QueueDeclare{Durable: true, Args: args("x-consumer-timeout", int32(200))}, mq.ConsumeSpec{}},
		{"the consumer says it", mq.QueueDeclare{Durable: true}, mq.ConsumeSpec{Args: args("x-consumer-timeout", int64(200))}},
		{"the consumer's counts", mq.QueueDeclare{Durable: true, Args: args("x-consumer-timeout", int32(3600_000))},
			mq.ConsumeSpec{Args: args("x-consumer-timeout", int32(200))}},
		{"in a node's memory", mq.QueueDeclare{Args: args("x-consumer-timeout", int32(200))}, mq.ConsumeSpec{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newHouse(t, 3, 1)
				s := h.nodes[1].open(t)
				c.declare.Name, c.consume.Queue, c.consume.Prefetch = "q", "q", 1
				s.mustDeclare(t, c.declare)
				stuck := newRecaller()
				s.mustConsume(t, c.consume, stuck)
				s.publishTo(t, "", "q", "m", -1)
				eventually(t, "delivery", func() bool { return len(stuck.all()) == 1 })
				other := newInbox()
				h.nodes[2].open(t).mustConsume(t, mq.ConsumeSpec{Queue: "q", Priority: 5}, other)
				eventually(t, "delivery to the other", func() bool { return len(other.all()) == 1 })
				d := other.all()[0]
				if string(d.Content.Body()) != "m" || !d.Redelivered {
					t.Errorf("got %q, redelivered: %v", d.Content.Body(), d.Redelivered)
				}
				eventually(t, "the first to be told", func() bool { return len(stuck.taken()) == 1 })
				if got := stuck.taken()[0]; got != d.Seq {
					t.Errorf("%d was taken back, want %d", got, d.Seq)
				}
				if stuck.inbox.cancelled != nil {
					t.Error("the consumer was cancelled")
				}
			})
		})
	}
}

// What a patient consumer holds must not keep the leader from looking in time
// at what an impatient one holds that comes, or gets something, after it.
func TestAShortTimeoutCountsBesideALongOne(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, durable)
	calm, stuck := newRecaller(), newRecaller()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1, Args: args("x-consumer-timeout", int32(3600_000))}, calm)
	s.publishTo(t, "", "q", "kept", -1)
	eventually(t, "the first delivery", func() bool { return len(calm.all()) == 1 })
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1, Args: args("x-consumer-timeout", int32(200))}, stuck)
	s.publishTo(t, "", "q", "overdue", -1)
	eventually(t, "it to be taken back", func() bool { return len(stuck.taken()) >= 1 })
	eventually(t, "it to be taken back again", func() bool { return len(stuck.taken()) >= 2 })
	if len(calm.taken()) != 0 {
		t.Error("taken back from a consumer with a long timeout")
	}
}

func TestSettledInTimeIsNotTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-consumer-timeout", int32(200))})
		in := newRecaller()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
		calm := newRecaller()
		s.mustDeclare(t, mq.QueueDeclare{Name: "calm", Durable: true})
		s.mustConsume(t, mq.ConsumeSpec{Queue: "calm"}, calm)
		s.publishTo(t, "", "calm", "held for ever", -1)
		s.publishTo(t, "", "q", "settled", -1)
		s.publishTo(t, "", "q", "held", -1)
		eventually(t, "deliveries", func() bool { return len(in.all()) == 2 && len(calm.all()) == 1 })
		s.settle(t, mq.Ack, in.all()[0])
		eventually(t, "the other one three times", func() bool { return len(in.all()) == 4 })
		for _, d := range in.all()[2:] {
			if string(d.Content.Body()) != "held" || !d.Redelivered {
				t.Errorf("got %q, redelivered: %v", d.Content.Body(), d.Redelivered)
			}
		}
		if len(calm.taken()) != 0 {
			t.Error("a queue without a timeout took a delivery back")
		}
	})
}

func TestTimeoutGoesOnUnderANewLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-consumer-timeout", int32(400))})
		in := newRecaller()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 10}, in)
		for i := range 5 {
			s.publishTo(t, "", "q", strconv.Itoa(i), -1)
		}
		eventually(t, "deliveries", func() bool { return len(in.all()) == 5 })
		h.lead(1, h.nodes[2])
		if n := len(in.taken()); n != 0 {
			t.Logf("%d taken back already: the machine is slow", n)
		}
		eventually(t, "all again", func() bool { return len(in.taken()) >= 5 && len(in.all()) >= 10 })
		if got := h.nodes[2].Shard(1).Stats().Returned; got < 5 {
			t.Errorf("the new leader returned %d", got)
		}
	})
}

// The ack is on its way when the leader takes the delivery back: it counts,
// and nobody is told that the message is not there any more.
func TestAnAckThatCrossesTheRecallCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 2, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-consumer-timeout", int32(100))})
		in := newRecaller()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
		s.publishTo(t, "", "q", "m", -1)
		eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
		resume := h.nodes[1].pause() // it does not hear of the recall
		defer resume()
		eventually(t, "the leader to take it back", func() bool { return h.nodes[0].Shard(1).Stats().Returned > 0 })
		s.settle(t, mq.Ack, in.all()[0])
		resume()
		eventually(t, "an empty queue", func() bool {
			st := h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID)
			return st.Ready+st.Unacked == 0
		})
		if got := in.taken(); len(got) > 1 {
			t.Errorf("%v were taken back from the client", got)
		}
	})
}

func TestRecallOfAnEarlierLeaderIsNotHeard(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	in := newRecaller()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	s.publishTo(t, "", "q", "m", -1)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	q := h.nodes[1].View().Queue("/", "q").ID
	term, _ := h.nodes[0].Shard(1).Leading()
	for _, c := range []struct {
		from *houseNode
		term uint64
	}{{h.nodes[0], term - 1}, {h.nodes[1], term}} {
		f := fields.AppendUint([]byte{frameRecall}, 1)
		f = fields.AppendUint(fields.AppendUint(f, c.term), 1)
		h.nodes[1].Frame(c.from.id, appendHeld(f, q, id, []mq.Seq{1}))
	}
	h.nodes[1].Frame(h.nodes[0].id, []byte{frameRecall, 1, 1, 200}) // rubbish
	if got := in.taken(); len(got) != 0 {
		t.Errorf("%v were taken back", got)
	}
}

func TestConsumerTimeoutIsChecked(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, durable)
	for bad, fault := range map[any]string{
		"1s": `"expected integer, got longstr"`, int32(-1): "{value_negative,-1}", true: `"expected integer, got bool"`,
	} {
		_, err := s.Consume(t.Context(), mq.ConsumeSpec{Queue: "q", Args: args("x-consumer-timeout", bad)}, newInbox())
		wantText(t, err, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'q' in vhost '/': "+fault)
	}
}

func TestPatienceIsNeverShorterThanTheTimeout(t *testing.T) {
	for ms, want := range map[uint64]uint32{0: 0, 1: 1, 100: 1, 101: 2, 1800_000: 18000, 1 << 63: 1<<32 - 2} {
		if got := patience(ms); got != want {
			t.Errorf("%d ms are %d units, want %d", ms, got, want)
		}
	}
}

func TestAClientIsToldOnlyOfWhatItHasNotSettled(t *testing.T) {
	in := newRecaller()
	c := &consumer{sink: in, session: &Session{}}
	for seq := range mq.Seq(5) {
		c.deliver(mq.Delivery{Seq: seq + 1})
	}
	c.release(2, 3)
	c.recall([]mq.Seq{1, 2, 4, 9})
	c.recall([]mq.Seq{4})
	if got := in.taken(); !slices.Equal(got, []mq.Seq{1, 4}) {
		t.Errorf("told of %v", got)
	}
	if _, held := c.state(); !slices.Equal(held, []mq.Seq{5}) {
		t.Errorf("holds %v", held)
	}
}

func TestAPolicysTimeoutCountsForLiveConsumers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		for _, q := range []string{"q", "own"} {
			s.mustDeclare(t, mq.QueueDeclare{Name: q, Durable: true, Args: args("x-consumer-timeout", int32(3600_000))})
			s.publishTo(t, "", q, "m", -1)
		}
		stuck, own := newRecaller(), newRecaller()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, stuck)
		s.mustConsume(t, mq.ConsumeSpec{Queue: "own", Prefetch: 1, Args: args("x-consumer-timeout", int32(3600_000))}, own)
		eventually(t, "deliveries", func() bool { return len(stuck.all()) == 1 && len(own.all()) == 1 })
		if _, err := h.nodes[2].Propose(t.Context(), policyOf("", "consumer-timeout", int64(200))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the delivery to be taken back", func() bool { return len(stuck.taken()) == 1 })
		h.lead(1, h.nodes[2]) // which hears of the timeout from the consumer's home
		eventually(t, "it to be taken back again", func() bool { return len(stuck.taken()) >= 2 })
		if len(own.taken()) > 0 {
			t.Error("taken back from a consumer with a timeout of its own")
		}
	})
}
