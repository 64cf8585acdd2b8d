package broker

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"warren/amqp/wire"
	"warren/fsm/queue"
	"warren/mq"
)

// countsOf are x-delivery-count and x-acquired-count; -1 for one that is not there.
func countsOf(t *testing.T, d mq.Delivery) (failed, acquired int64) {
	t.Helper()
	p, err := wire.ParseProperties(d.Content.Properties())
	if err != nil {
		t.Fatal(err)
	}
	failed, acquired = -1, -1
	if v, ok := p.Headers.Get(deliveryCount); ok {
		failed = v.(int64)
	}
	if v, ok := p.Headers.Get(acquiredCount); ok {
		acquired = v.(int64)
	}
	return failed, acquired
}

func wantCounts(t *testing.T, d mq.Delivery, failed, acquired int64) {
	t.Helper()
	if f, a := countsOf(t, d); f != failed || a != acquired {
		t.Fatalf("%q failed %d times of %d, want %d of %d", d.Content.Body(), f, a, failed, acquired)
	}
}

// get takes the next message of q as soon as there is one.
func (s *Session) get(t *testing.T) (d mq.Delivery) {
	t.Helper()
	eventually(t, "a message", func() bool {
		var ok bool
		var err error
		if d, ok, err = s.Get(t.Context(), "q", false); err != nil {
			t.Fatal(err)
		}
		return ok
	})
	return d
}

// empty waits until nothing is in q or on its way out of it.
func (h *house) empty(t *testing.T) {
	t.Helper()
	eventually(t, "the queue to be empty", func() bool {
		st, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q"))
		return err == nil && st.Ready+st.Unacked == 0
	})
}

func TestRejectCountsAsFailedAndNackDoesNot(t *testing.T) {
	for _, durable := range []bool{true, false} {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: durable, Args: args("x-delivery-limit", int32(2))})
		s.publishTo(t, "", "q", "m", -1)
		for _, step := range []struct {
			failed, acquired int64
			then             mq.Verdict
		}{{-1, -1, mq.Requeue}, {-1, 1, mq.Requeue}, {-1, 2, mq.Fail}, {1, 3, mq.Requeue}, {1, 4, mq.Fail}, {2, 5, mq.Fail}} {
			d := s.get(t)
			wantCounts(t, d, step.failed, step.acquired)
			s.settle(t, step.then, d)
		}
		h.empty(t)
	}
}

func TestTooManyFailuresAreDeadLettered(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-delivery-limit", int32(1))
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "poison", -1)
	s.publishTo(t, "", "q", "good", -1)
	for range 2 {
		d := s.get(t)
		if string(d.Content.Body()) != "poison" {
			t.Fatalf("got %q: what is returned goes to its place", d.Content.Body())
		}
		s.settle(t, mq.Fail, d)
		eventually(t, "it to be back, or gone", func() bool { return h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID).Unacked == 0 })
	}
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	wantDeath(t, s.mustGet(t, "dead"), "q", tooOften, 1)
	d := s.get(t)
	if string(d.Content.Body()) != "good" {
		t.Fatalf("got %q", d.Content.Body())
	}
	wantCounts(t, d, -1, -1)
	s.settle(t, mq.Ack, d)
	h.empty(t)
}

func TestWhichQueuesCount(t *testing.T) {
	for _, c := range []struct {
		name string
		args mq.Table
		want int64
	}{
		{"named", args("x-delivery-limit", int32(5)), 5},
		{"none at all", args("x-delivery-limit", int64(0)), 0},
		{"quorum", args("x-queue-type", "quorum"), 20},
		{"quorum with its own", args("x-queue-type", "quorum", "x-delivery-limit", int16(7)), 7},
		{"quorum without", args("x-queue-type", "quorum", "x-delivery-limit", int32(-1)), -1},
		{"classic", args("x-queue-type", "classic"), -1},
		{"any", nil, -1},
	} {
		h := newHouse(t, 1, 1)
		s := h.nodes[0].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: c.args})
		q := h.nodes[0].View().Queue("/", "q")
		if got := rulesOf(q).deliveries; got != c.want {
			t.Errorf("%s: limit %d, want %d", c.name, got, c.want)
		}
	}
}

func TestQueueWithoutALimitWritesNoReturns(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Requeue, s.get(t))
	d := s.get(t) // the mark is reserved by now
	l := h.groups[1]
	l.mu.Lock()
	before := len(l.entries)
	l.mu.Unlock()
	for _, v := range []mq.Verdict{mq.Fail, mq.Requeue, mq.Fail} {
		s.settle(t, v, d)
		d = s.get(t)
		wantCounts(t, d, -1, -1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.entries) - before; n != 0 {
		t.Errorf("%d entries", n)
	}
}

func TestWhoEndsHasFailed(t *testing.T) {
	for name, end := range map[string]func(h *house, s *Session){
		"its connection": func(_ *house, s *Session) { _ = s.Close() },
		"its node": func(h *house, _ *Session) {
			h.end(h.nodes[2])
			if _, err := h.nodes[0].Propose(t.Context(), h.nodes[0].EndDeadSessions()...); err != nil {
				t.Error(err)
			}
		},
	} {
		h := newHouse(t, 3, 1)
		s, con := h.nodes[1].open(t), h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(3))})
		in := newInbox()
		con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
		for _, body := range []string{"a", "b", "c"} {
			s.publishTo(t, "", "q", body, -1)
		}
		eventually(t, "deliveries", func() bool { return len(in.all()) == 2 })
		end(h, con)
		eventually(t, "all to be back after the end of "+name, func() bool { return s.ready(t, "q") == 3 })
		for _, want := range []int64{1, 1, -1} {
			wantCounts(t, s.get(t), want, want)
		}
	}
}

func TestNewLeaderKnowsTheCounts(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(3))})
	s.publishTo(t, "", "q", "m", -1)
	for round := range int64(4) {
		d := s.get(t)
		failed := round
		if round == 0 {
			failed = -1
		}
		wantCounts(t, d, failed, failed)
		s.settle(t, mq.Fail, d)
		eventually(t, "it to be back, or gone", func() bool {
			st, err := h.nodes[2].Stat(t.Context(), h.nodes[2].View().Queue("/", "q"))
			return err == nil && st.Unacked == 0
		})
		h.restart(t, 1, h.nodes[(round+1)%2])
		h.lead(1, h.nodes[(round+1)%2])
	}
	h.empty(t)
}

// The count is committed, and its leader ends before it acts on it.
func TestNewLeaderTakesOutWhatHasFailedTooOften(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-delivery-limit", int32(0))
	h.orphan(2)
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Fail, s.get(t))
	q := h.nodes[0].View().Queue("/", "q").ID
	shard := h.nodes[0].Shard(1)
	eventually(t, "the count", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.state.Queue(q).Note(1).Failed == 1
	})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	h.lead(1, h.nodes[1])
	h.lead(2, h.nodes[1])
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") >= 1 })
	wantDeath(t, s.mustGet(t, "dead"), "q", tooOften, 1)
	if n := len(in.all()); n != 0 {
		t.Fatalf("handed out %d times more", n)
	}
}

// A return that is proposed twice, or heard of late, counts once and takes the
// message from nobody.
func TestReturnsInDoubtCountOnce(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(1000))})
	s.publishTo(t, "", "q", "m", -1)
	r := rand.New(rand.NewPCG(1, 7))
	l := h.groups[1]
	l.mu.Lock()
	l.refuse = func() bool { return r.IntN(4) == 0 }
	l.doubt = func() bool { return r.IntN(2) == 0 }
	l.mu.Unlock()
	for i := range int64(60) {
		d := s.get(t)
		want := i
		if i == 0 {
			want = -1
		}
		wantCounts(t, d, want, want)
		if h.nodes[0].Shard(1).Stat(d.Queue).Unacked != 1 {
			t.Fatal("it is held, and ready too")
		}
		s.settle(t, mq.Fail, d)
	}
}

func TestLimitHoldsWhateverHappens(t *testing.T) {
	const limit, n = 5, 60
	h := newHouse(t, 3, 1)
	pub, con := h.nodes[0].open(t), h.nodes[2].open(t)
	pub.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(limit))})
	r := rand.New(rand.NewPCG(1, 8))
	doubtSome(h, 9)
	for i := range n {
		pub.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	in, settled := newInbox(), 0
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 7}, in)
	last, times := map[string]int64{}, map[string]int{}
	eventually(t, "every message to fail too often", func() bool {
		ds := in.all()
		for ; settled < len(ds); settled++ {
			body := string(ds[settled].Content.Body())
			failed, _ := countsOf(t, ds[settled])
			failed = max(failed, 0)
			if failed > limit || failed < last[body] {
				t.Fatalf("%s is handed out though it failed %d times, and %d before", body, failed, last[body])
			}
			last[body] = failed
			times[body]++
			con.settle(t, mq.Fail, ds[settled])
			switch r.IntN(40) {
			case 0:
				h.lead(1, h.nodes[r.IntN(3)])
			case 1:
				h.cut(h.nodes[r.IntN(2)], h.nodes[2])
				h.mend(h.nodes[0], h.nodes[2])
				h.mend(h.nodes[1], h.nodes[2])
			}
		}
		st, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q"))
		return err == nil && st.Ready+st.Unacked == 0
	})
	// A count that an earlier leader proposed may be committed when its successor
	// has handed the message out with the count before: so what was shown last may
	// be one too few, but no message has gone before its time.
	for body, n := range times {
		if n <= limit {
			t.Errorf("%s was handed out %d times and is gone, %d failures are allowed", body, n, limit)
		}
	}
}

func TestCountsReplaceWhatAClientWroteThere(t *testing.T) {
	p := wire.Properties{Present: wire.HasHeaders | wire.HasMessageID, MessageID: "id", Headers: args(deliveryCount, "mine", "other", int32(1), acquiredCount, int32(9))}
	c := append(mq.NewContent("x", "key", wire.AppendProperties(nil, p), 4), "body"...)
	got := withCounts(c, queue.Note{Failed: 2, Acquired: 3})
	after, err := wire.ParseProperties(got.Properties())
	if err != nil || after.MessageID != "id" || string(got.Exchange())+string(got.RoutingKey())+string(got.Body()) != "xkeybody" {
		t.Fatalf("%v: %+v", err, after)
	}
	if len(after.Headers) != 3 {
		t.Errorf("headers %v", after.Headers)
	}
	wantCounts(t, mq.Delivery{Content: got}, 2, 3)
	wantCounts(t, mq.Delivery{Content: withCounts(c, queue.Note{Acquired: 3})}, -1, 3)
	if same := withCounts(c, queue.Note{}); &same[0] != &c[0] {
		t.Error("copied for nothing")
	}
}

func TestAnOlderReturnFreesNothing(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(9))})
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Fail, s.get(t))
	d := s.get(t)
	blocked, release := make(chan struct{}), make(chan struct{})
	l := h.groups[1]
	l.mu.Lock()
	l.refuse = func() bool {
		l.refuse = nil
		close(blocked)
		<-release
		return false
	}
	l.mu.Unlock()
	s.settle(t, mq.Requeue, d)
	<-blocked // its return is not committed
	shard := h.nodes[0].Shard(1)
	shard.mu.Lock()
	for _, old := range []queue.Returned{{Queue: d.Queue, Seq: d.Seq, Failed: 1, Acquired: 1}, {Queue: d.Queue, Seq: d.Seq, Acquired: 2}, {Queue: d.Queue, Seq: 99, Acquired: 2}, {Queue: 99, Seq: 1, Acquired: 2}} {
		shard.lead.cameBack(shard, &old)
	}
	held := shard.lead.queues[d.Queue].d.Held(d.Seq)
	shard.mu.Unlock()
	close(release)
	if !held {
		t.Error("it is ready before its return is committed")
	}
	wantCounts(t, s.get(t), 1, 2)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	old := queue.Returned{Queue: d.Queue, Seq: d.Seq, Failed: 1, Acquired: 2}
	if shard.lead.cameBack(shard, &old); !shard.lead.queues[d.Queue].d.Held(d.Seq) || len(shard.lead.queues[d.Queue].returning) != 0 {
		t.Error("it was taken from its consumer")
	}
}
