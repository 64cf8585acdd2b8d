package broker

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"warren/amqp/wire"
	"warren/mq"
)

// withDeadLetters declares "q" in group 1 and "dead" in group 2, to which the
// dead letters of q go through the exchange "dlx".
func withDeadLetters(t *testing.T, h *house, more ...any) {
	t.Helper()
	h.awaitLeaders(t)
	first, second := h.nodes[0].open(t), h.nodes[1].open(t)
	first.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args(append(more, "x-dead-letter-exchange", "dlx")...)})
	second.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true})
	for _, op := range []mq.Op{mq.ExchangeDeclare{Name: "dlx", Type: "fanout", Durable: true}, mq.QueueBind{Queue: "dead", Exchange: "dlx"}} {
		if _, err := first.Change(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	v := h.nodes[0].View()
	if q, dead := v.Queue("/", "q"), v.Queue("/", "dead"); q.Group == dead.Group {
		t.Fatalf("both queues are in group %d", q.Group)
	}
}

// awaitLeaders waits until every node has heard who leads the groups, so that
// it places queues in its own.
func (h *house) awaitLeaders(t *testing.T) {
	t.Helper()
	eventually(t, "leaders", func() bool {
		for g := range h.groups {
			for _, n := range h.nodes {
				if _, _, known := n.Leader(g); !known {
					return false
				}
			}
		}
		return true
	})
}

// death is the newest x-death entry of a delivery.
func death(t *testing.T, d mq.Delivery) mq.Table {
	t.Helper()
	p, err := wire.ParseProperties(d.Content.Properties())
	if err != nil {
		t.Fatal(err)
	}
	v, _ := p.Headers.Get("x-death")
	all, _ := v.([]any)
	if len(all) == 0 {
		t.Fatalf("no x-death in %v", p.Headers)
	}
	return all[0].(mq.Table)
}

func wantDeath(t *testing.T, d mq.Delivery, queue string, why reason, count int64) {
	t.Helper()
	got := death(t, d)
	n, _ := got.Int("count")
	in, _ := got.String("queue")
	because, _ := got.String("reason")
	if n != count || in != queue || because != string(why) {
		t.Fatalf("died %v; want %d times in %s: %s", got, count, queue, why)
	}
}

func TestRejectedGoesToAQueueOfAnotherGroup(t *testing.T) {
	for home := range 3 {
		h := newHouse(t, 3, 2)
		withDeadLetters(t, h)
		s := h.nodes[home].open(t)
		in := newInbox()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
		for i := range 6 {
			s.publishTo(t, "", "q", strconv.Itoa(i), -1)
		}
		settled := 0
		eventually(t, "all deliveries", func() bool {
			for ; settled < len(in.all()); settled++ { // a rejection gives credit back
				s.settle(t, mq.Discard, in.all()[settled])
			}
			return settled == 6
		})
		eventually(t, "dead letters", func() bool { return s.ready(t, "dead") == 6 })
		for i := range 6 {
			d := s.mustGet(t, "dead")
			if string(d.Content.Body()) != strconv.Itoa(i) || string(d.Content.Exchange()) != "dlx" || string(d.Content.RoutingKey()) != "q" || d.Redelivered {
				t.Fatalf("got %q from %q by %q, redelivered=%v", d.Content.Body(), d.Content.Exchange(), d.Content.RoutingKey(), d.Redelivered)
			}
			wantDeath(t, d, "q", rejected, 1)
		}
		eventually(t, "originals to go", func() bool {
			st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
			return err == nil && st.Ready == 0 && st.Unacked == 0
		})
	}
}

func TestRejectedByGetIsDeadLettered(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
}

func TestExpiredAndOverflowingAreDeadLettered(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-max-length", int32(1))
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "one too many", -1)
	s.publishTo(t, "", "q", "short-lived", 30)
	eventually(t, "dead letters", func() bool { return s.ready(t, "dead") == 2 })
	d := s.mustGet(t, "dead")
	wantDeath(t, d, "q", tooMany, 1)
	d = s.mustGet(t, "dead")
	wantDeath(t, d, "q", timedOut, 1)
}

func TestTransientQueuesDeadLetterToo(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "dead"})
	h.nodes[1].open(t).mustDeclare(t, mq.QueueDeclare{Name: "q",
		Args: args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead")})
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	if d := s.mustGet(t, "dead"); string(d.Content.RoutingKey()) != "dead" || string(d.Content.Exchange()) != "" {
		t.Fatalf("came from %q by %q", d.Content.Exchange(), d.Content.RoutingKey())
	}
}

func TestDeadLetterThatReachesNothingIsDropped(t *testing.T) {
	for _, exchange := range []string{"nope", "amq.direct"} {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-dead-letter-exchange", exchange, "x-message-ttl", int32(1))})
		s.publishTo(t, "", "q", "m", -1)
		eventually(t, "the message to go", func() bool {
			st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
			return err == nil && st.Ready == 0 && st.Unacked == 0
		})
		if n := h.nodes[0].Shard(1).Stats().DeadLettered; n != 0 {
			t.Fatalf("%d dead letters arrived somewhere", n)
		}
	}
}

func TestDeletedAndPurgedAreNotDeadLettered(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "other", Durable: true, Args: args("x-dead-letter-exchange", "dlx", "x-message-ttl", int32(1))})
	s.publishTo(t, "", "q", "purged", -1)
	if _, err := s.Change(t.Context(), mq.QueuePurge{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	s.publishTo(t, "", "q", "deleted", -1)
	if _, err := s.Change(t.Context(), mq.QueueDelete{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	s.publishTo(t, "", "other", "expired", -1)
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") > 0 })
	if d := s.mustGet(t, "dead"); string(d.Content.Body()) != "expired" || s.ready(t, "dead") != 0 {
		t.Fatalf("%q is among the dead letters", d.Content.Body())
	}
}

func TestOriginalStaysUntilTheDeadLetterIsCommitted(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	h.orphan(2)
	s := h.nodes[2].open(t)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	s.publishTo(t, "", "q", "m", -1)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	s.settle(t, mq.Discard, in.all()[0])
	s.publishTo(t, "", "q", "next", -1)
	eventually(t, "the next: credit is back", func() bool { return len(in.all()) == 2 })
	// Nobody leads the other group. The leader that was told of the rejection
	// ends: the message is handed out again.
	h.lead(1, h.nodes[1])
	s.settle(t, mq.Ack, in.all()[1])
	eventually(t, "redelivery", func() bool { return len(in.all()) == 3 })
	again := in.all()[2]
	if string(again.Content.Body()) != "m" || !again.Redelivered {
		t.Fatalf("got %q, redelivered=%v", again.Content.Body(), again.Redelivered)
	}
	s.settle(t, mq.Discard, again)
	h.lead(2, h.nodes[2])
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") >= 1 })
}

// orphan takes a group's leader away.
func (h *house) orphan(g mq.GroupID) {
	l := h.groups[g]
	l.mu.Lock()
	old := l.leader
	l.leader = ""
	l.mu.Unlock()
	h.node(old).Shard(g).Follow()
}

func TestEveryRejectedMessageArrivesOnceWhateverHappens(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	pub, con := h.nodes[1].open(t), h.nodes[2].open(t)
	in, acks := newInbox(), newConfirms()
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 10}, in)
	r := rand.New(rand.NewPCG(3, 4))
	const n = 300
	settled := 0
	reject := func() {
		for ds := in.all(); settled < len(ds); settled++ {
			con.settle(t, mq.Discard, ds[settled])
		}
	}
	for i := range n {
		pub.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
		switch r.IntN(40) {
		case 0:
			h.lead(1, h.nodes[r.IntN(3)])
		case 1:
			h.lead(2, h.nodes[r.IntN(3)])
		case 2:
			a, b := h.nodes[r.IntN(2)], h.nodes[2]
			h.cut(a, b)
			h.mend(a, b)
		}
		reject()
	}
	dead, arrived := newInbox(), map[string]bool{}
	pub.mustConsume(t, mq.ConsumeSpec{Queue: "dead", NoAck: true}, dead)
	eventually(t, "all dead letters", func() bool {
		reject()
		for _, d := range dead.all() {
			arrived[string(d.Content.Body())] = true
		}
		return len(arrived) == n
	})
	eventually(t, "originals to go", func() bool {
		reject()
		st, err := pub.broker.Stat(t.Context(), pub.broker.View().Queue("/", "q"))
		return err == nil && st.Ready == 0 && st.Unacked == 0
	})
	if got := len(dead.all()); got != n {
		t.Errorf("%d dead letters of %d messages", got, n)
	}
}

func TestDeathOfALeaderLosesAndDoublesNoDeadLetter(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-message-ttl", int32(1))
	s := h.nodes[1].open(t)
	acks := newConfirms()
	for i := range 200 {
		s.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i+1))
		if i == 100 {
			h.end(h.nodes[0])
			h.lead(metaGroup, h.nodes[1])
			h.lead(1, h.nodes[2])
		}
	}
	eventually(t, "all confirms", func() bool { return acks.count() == 200 })
	dead, arrived := newInbox(), map[string]bool{}
	s.mustConsume(t, mq.ConsumeSpec{Queue: "dead", NoAck: true}, dead)
	eventually(t, "all dead letters", func() bool {
		for _, d := range dead.all() {
			arrived[string(d.Content.Body())] = true
		}
		return len(arrived) == 200
	})
	eventually(t, "originals to go", func() bool {
		st, err := s.broker.Stat(t.Context(), s.broker.View().Queue("/", "q"))
		return err == nil && st.Ready == 0 && st.Unacked == 0
	})
	if got := len(dead.all()); got != 200 {
		t.Errorf("%d dead letters of 200 messages", got)
	}
}

func TestAutomaticCycleEnds(t *testing.T) {
	h := newHouse(t, 3, 2)
	h.awaitLeaders(t)
	for i, to := range []string{"b", "a"} {
		h.nodes[i].open(t).mustDeclare(t, mq.QueueDeclare{Name: []string{"a", "b"}[i], Durable: true,
			Args: args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", to, "x-message-ttl", int32(5))})
	}
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "a", "m", -1)
	eventually(t, "both deaths", func() bool {
		return h.nodes[0].Shard(1).Stats().Expired == 1 && h.nodes[1].Shard(2).Stats().Expired == 1
	})
	eventually(t, "the end", func() bool {
		for _, name := range []string{"a", "b"} {
			q := s.broker.View().Queue("/", name)
			if st, err := s.broker.Stat(t.Context(), q); err != nil || st.Ready+st.Unacked > 0 {
				return false
			}
		}
		return true
	})
}

func TestCycleWithARejectionGoesOn(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "work", Durable: true, Args: args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "wait")})
	h.nodes[1].open(t).mustDeclare(t, mq.QueueDeclare{Name: "wait", Durable: true,
		Args: args("x-dead-letter-exchange", "", "x-dead-letter-routing-key", "work", "x-message-ttl", int32(2))})
	s.publishTo(t, "", "work", "m", -1)
	for round := range int64(4) {
		eventually(t, "the message to be back", func() bool { return s.ready(t, "work") == 1 })
		d := s.mustGet(t, "work")
		if round > 0 {
			wantDeath(t, d, "wait", timedOut, round)
		}
		s.settle(t, mq.Discard, d)
	}
}

func TestSingleActiveConsumerGoesOnBehindADeadLetterThatCannotArrive(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-single-active-consumer", true)
	h.orphan(2)
	s := h.nodes[2].open(t)
	first, second := newInbox(), newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, first)
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, second)
	s.publishTo(t, "", "q", "rejected", -1)
	eventually(t, "delivery", func() bool { return len(first.all()) == 1 })
	s.settle(t, mq.Discard, first.all()[0])
	if err := s.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.publishTo(t, "", "q", "next", -1)
	eventually(t, "delivery to the next", func() bool { return len(second.all()) == 1 })
	if b := second.all()[0].Content.Body(); string(b) != "next" {
		t.Fatalf("got %q", b)
	}
}

// The first leader forwards the letter and ends before the original is gone;
// the next one finds the original expired, and forwards it once more.
func TestALetterThatTwoLeadersSendArrivesOnce(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-message-ttl", int32(1))
	s := h.nodes[2].open(t)
	l := h.groups[1]
	l.mu.Lock()
	enqueued := false
	l.refuse = func() bool { // all after the enqueue: the drop of the original
		was := enqueued
		enqueued = true
		return was
	}
	l.mu.Unlock()
	s.publishTo(t, "", "q", "m", -1)
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	h.lead(1, h.nodes[1])
	l.mu.Lock()
	l.refuse = nil
	l.mu.Unlock()
	eventually(t, "original to go", func() bool {
		st, err := s.broker.Stat(t.Context(), s.broker.View().Queue("/", "q"))
		return err == nil && st.Ready == 0 && st.Unacked == 0
	})
	if got := s.bodies(t, "dead"); len(got) != 1 {
		t.Errorf("dead letters are %q", got)
	}
}
