package broker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// largeHouse is a house whose nodes know how to borrow, with the queue "q", which
// the first node leads.
func largeHouse(t *testing.T, n int) *house {
	t.Helper()
	h := newHouse(t, n, 1)
	h.told(t)
	h.raise(t)
	for _, n := range h.nodes {
		eventually(t, "the level", func() bool { return levelOf(n.View()) >= levelParts })
	}
	h.nodes[0].open(t).mustDeclare(t, durable)
	return h
}

// largePair is such a house, the node that leads "q", and another one.
func largePair(t *testing.T, n int) (h *house, lead, home *houseNode) {
	t.Helper()
	h = largeHouse(t, n)
	return h, h.nodes[0], h.nodes[1]
}

// large is a body that is lent, and begins with a name.
func large(name string) string { return name + " " + strings.Repeat("x", lendAbove+1000) }

// mib is such a body of 1 MiB.
func mib(name string) string { return name + " " + strings.Repeat("x", 1<<20) }

// names are the first words of bodies.
func names(ds []mq.Delivery) (out []string) {
	for _, d := range ds {
		name, rest, _ := strings.Cut(string(d.Content.Body()), " ")
		if strings.Trim(rest, "x") != "" {
			name += " (damaged)"
		}
		out = append(out, name)
	}
	return out
}

func wantNames(t *testing.T, in *inbox, want ...string) []mq.Delivery {
	t.Helper()
	eventually(t, strings.Join(want, ", "), func() bool { return len(in.all()) >= len(want) })
	got := in.all()
	if !slices.Equal(names(got), want) {
		t.Fatalf("got %v, want %v", names(got), want)
	}
	return got
}

// wantNoLoans waits until nobody lends anything.
func (h *house) wantNoLoans(t *testing.T) {
	t.Helper()
	for _, n := range h.nodes {
		eventually(t, "the end of all loans of "+string(n.id), func() bool { return n.lendsNow() == 0 })
	}
}

func (n *houseNode) lendsNow() int {
	n.loans.mu.Lock()
	defer n.loans.mu.Unlock()
	return len(n.loans.open)
}

// holdFetches keeps a node from fetching anything from another one.
func (n *houseNode) holdFetches(t *testing.T, from *houseNode) (goOn func()) {
	turns := n.fetches.of(from.id)
	for range piecesAtOnce {
		turns <- struct{}{}
	}
	goOn = sync.OnceFunc(func() {
		for range piecesAtOnce {
			<-turns
		}
	})
	t.Cleanup(goOn)
	return goOn
}

// stalls is a consumer on this node, which fetches nothing from the leader before goOn.
func (n *houseNode) stalls(t *testing.T, lead *houseNode, spec mq.ConsumeSpec) (s *Session, in *inbox, id mq.ConsumerID, goOn func()) {
	t.Helper()
	s, in = n.open(t), newInbox()
	id = s.mustConsume(t, spec, in)
	return s, in, id, n.holdFetches(t, lead)
}

// awaitWaiting waits until so many messages wait for a consumer.
func (n *houseNode) awaitWaiting(t *testing.T, id mq.ConsumerID, want int) {
	t.Helper()
	eventually(t, "messages to wait for the body", func() bool {
		c := n.consumers.get(id)
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.waiting.line) == want
	})
}

func TestALargeMessageReachesEveryNodeWhole(t *testing.T) {
	for _, c := range []struct {
		name    string
		durable bool
		noAck   bool
		get     bool
	}{
		{"consumed", true, false, false}, {"consumed without ack", true, true, false}, {"got", true, false, true},
		{"got without ack", true, true, true}, {"of a queue in memory", false, false, false}, {"got of a queue in memory", false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := largeHouse(t, 2)
			home := h.nodes[0].open(t)
			home.mustDeclare(t, mq.QueueDeclare{Name: "l", Durable: c.durable})
			for _, n := range h.nodes {
				s, in := n.open(t), newInbox()
				home.publishTo(t, "", "l", mib("m"), -1)
				if c.get {
					d, ok, err := s.Get(t.Context(), "l", c.noAck)
					if !ok || err != nil {
						t.Fatal(ok, err)
					}
					in.Deliver(d)
				} else {
					id := s.mustConsume(t, mq.ConsumeSpec{Queue: "l", NoAck: c.noAck}, in)
					eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
					if err := s.Cancel(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				d := wantNames(t, in, "m")[0]
				if d.Redelivered || string(d.Content.RoutingKey()) != "l" || len(d.Content.Body()) != 1<<20+2 {
					t.Errorf("redelivered: %v, key %q, %d bytes", d.Redelivered, d.Content.RoutingKey(), len(d.Content.Body()))
				}
				if !c.noAck {
					s.settle(t, mq.Ack, d)
				}
				eventually(t, "nothing to be left", func() bool { return home.ready(t, "l") == 0 })
			}
			h.wantNoLoans(t)
		})
	}
}

func TestNoFrameToAConsumersNodeIsLarge(t *testing.T) {
	h, lead, home := largePair(t, 2)
	s, in := home.open(t), newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	longest, fetched := 0, make(chan struct{})
	h.mu.Lock()
	h.sees = func(from, to mq.NodeID, frame []byte) {
		if from == lead.id && to == home.id {
			longest = max(longest, len(frame))
		}
		if frame[0] == frameRepaid {
			close(fetched)
		}
	}
	h.mu.Unlock()
	lead.open(t).publishTo(t, "", "q", mib("m"), -1)
	wantNames(t, in, "m")
	<-fetched
	h.mu.Lock()
	defer h.mu.Unlock()
	if longest > pieceBytes+100 {
		t.Errorf("a frame of %d bytes", longest)
	}
}

func TestANodeIsLentNothingBeforeTheLevel(t *testing.T) {
	h := newHouse(t, 2, 1)
	lead, home := h.nodes[0], h.nodes[1]
	s, in := home.open(t), newInbox()
	s.mustDeclare(t, durable)
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	_, name := s.mustReplies(t, in)
	h.mu.Lock()
	h.sees = func(_, to mq.NodeID, frame []byte) {
		if to == home.id && (frame[0] == frameLent || frame[0] == frameDirectLent) {
			t.Error("a frame that an older build does not know")
		}
	}
	h.mu.Unlock()
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	wantNames(t, in, "1")
	p.publishTo(t, "", "q", large("2"), -1)
	wantNames(t, in, "1", "2")
	p.reply(t, name, large("3"), false)
	wantNames(t, in, "1", "2", "3")
}

// What a node lends itself is not copied, unless its head is another.
func TestALargeMessageIsNotCopiedForAConsumerOfItsLeadersNode(t *testing.T) {
	h := largeHouse(t, 1)
	s, in := h.nodes[0].open(t), newInbox()
	s.mustDeclare(t, mq.QueueDeclare{Name: "counted", Durable: true, Args: args("x-delivery-limit", int32(5))})
	s.publishTo(t, "", "counted", large("m"), -1)
	s.mustConsume(t, mq.ConsumeSpec{Queue: "counted"}, in)
	d := wantNames(t, in, "m")[0]
	shard := h.nodes[0].Shard(1)
	shard.mu.Lock()
	rec, _ := shard.bodies.Get(uint64(d.Queue), uint64(d.Seq))
	shard.mu.Unlock()
	if &rec.Body[0] != &d.Content[0] {
		t.Error("copied")
	}
	s.settle(t, mq.Fail, d)
	again := wantNames(t, in, "m", "m")[1]
	wantCounts(t, again, 1, 1)
	if &rec.Body[0] == &again.Content[0] || !again.Redelivered {
		t.Error("the stored message was changed")
	}
	h.wantNoLoans(t)
}

func TestALargeMessageShowsItsCountsOnOtherNodes(t *testing.T) {
	h := largeHouse(t, 2)
	s, in := h.nodes[1].open(t), newInbox()
	s.mustDeclare(t, mq.QueueDeclare{Name: "counted", Durable: true, Args: args("x-delivery-limit", int32(5))})
	s.publishTo(t, "", "counted", large("m"), -1)
	s.mustConsume(t, mq.ConsumeSpec{Queue: "counted"}, in)
	s.settle(t, mq.Fail, wantNames(t, in, "m")...)
	again := wantNames(t, in, "m", "m")[1]
	wantCounts(t, again, 1, 1)
	s.settle(t, mq.Ack, again)
	h.wantNoLoans(t)
}

func TestLargeAndSmallMessagesKeepTheirOrder(t *testing.T) {
	for _, noAck := range []bool{false, true} {
		h := largeHouse(t, 2)
		s, in := h.nodes[1].open(t), newInbox()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", NoAck: noAck}, in)
		p, acks := h.nodes[0].open(t), newConfirms()
		var want []string
		for i := range 30 {
			name := string(rune('A' + i))
			body := name
			if i%3 == 1 {
				body = large(name)
			}
			p.mustPublish(t, "q", body, acks, uint64(i+1))
			want = append(want, name)
		}
		got := wantNames(t, in, want...)
		if noAck {
			continue
		}
		s.settle(t, mq.Ack, got...)
		eventually(t, "nothing to be left", func() bool { return s.ready(t, "q") == 0 })
	}
}

func TestALeaderChangesWhileALargeMessageIsFetched(t *testing.T) {
	h := largeHouse(t, 3)
	lead, home, next := h.nodes[0], h.nodes[1], h.nodes[2]
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	p.publishTo(t, "", "q", "2", -1)
	home.awaitWaiting(t, id, 2)
	h.lead(1, next)
	for _, d := range wantNames(t, in, "1", "2") { // though the first leader still has the body
		if !d.Redelivered {
			t.Errorf("%d is not told as redelivered", d.Seq)
		}
	}
	goOn()
	s.settle(t, mq.Ack, in.all()...)
	h.wantNoLoans(t)
	wantNames(t, in, "1", "2")
	s.wantNoCopy(t, "q", home, next)
}

func TestALaneIsLostWhileALargeMessageIsFetched(t *testing.T) {
	h, lead, home := largePair(t, 2)
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	p.publishTo(t, "", "q", "2", -1)
	home.awaitWaiting(t, id, 2)
	h.cut(lead, home)
	if n := lead.lendsNow(); n != 0 {
		t.Errorf("%d bodies are lent to a node that is lost", n)
	}
	h.mend(lead, home)
	goOn()
	for _, d := range wantNames(t, in, "1", "2") {
		if !d.Redelivered {
			t.Errorf("%d is not told as redelivered", d.Seq)
		}
	}
	s.settle(t, mq.Ack, in.all()...)
	lead.open(t).wantNoCopy(t, "q", home, lead)
	wantNames(t, in, "1", "2")
}

// The fetch fails, and only then the lane is back.
func TestALaneIsLostForLongerThanALargeMessageIsFetched(t *testing.T) {
	h, lead, home := largePair(t, 2)
	_, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	p.publishTo(t, "", "q", "2", -1)
	home.awaitWaiting(t, id, 2)
	h.cut(lead, home)
	goOn()
	home.awaitWaiting(t, id, 0)
	if got := in.all(); len(got) > 0 {
		t.Errorf("%v overtook", names(got))
	}
	h.mend(lead, home)
	wantNames(t, in, "1", "2")
}

// A leader that is still there has lost the loan: nobody must wait for ever, and
// what the messages took of the link's credit must come back.
func TestALargeMessageIsHandedOutAgainIfItsLoanIsGone(t *testing.T) {
	_, lead, home := largePair(t, 2)
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	p, acks := lead.open(t), newConfirms()
	var want []string
	for i := range 8 {
		want = append(want, string(rune('A'+i)))
		p.mustPublish(t, "q", mib(want[i]), acks, uint64(i+1))
	}
	home.awaitWaiting(t, id, len(want)) // all the credit there is
	lead.loans.lost(home.id)
	goOn()
	for _, d := range wantNames(t, in, want...) {
		if !d.Redelivered {
			t.Errorf("%d is not told as redelivered", d.Seq)
		}
	}
	s.settle(t, mq.Ack, in.all()...)
	eventually(t, "nothing to be left", func() bool { return s.ready(t, "q") == 0 })
}

func TestWithoutAckOnlyWhatWasLentIsLostWithItsLoan(t *testing.T) {
	_, lead, home := largePair(t, 2)
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q", NoAck: true})
	p, acks := lead.open(t), newConfirms()
	for i := range 8 {
		p.mustPublish(t, "q", mib(string(rune('A'+i))), acks, uint64(i+1))
	}
	home.awaitWaiting(t, id, 8)
	lead.loans.lost(home.id)
	goOn()
	p.mustPublish(t, "q", "next", acks, 9) // for which there is credit again
	wantNames(t, in, "next")
	eventually(t, "nothing to be left", func() bool { return s.ready(t, "q") == 0 })
}

func TestWithoutAckWhatIsFetchedSurvivesItsLeader(t *testing.T) {
	h, lead, home := largePair(t, 3)
	_, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q", NoAck: true})
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	p.publishTo(t, "", "q", "2", -1)
	home.awaitWaiting(t, id, 2)
	q := home.View().Queue("/", "q").ID
	eventually(t, "their settlement", func() bool { return h.nodes[2].Shard(1).Stat(q).Ready == 0 })
	h.lead(1, h.nodes[2])
	h.nodes[2].caughtUp()
	home.caughtUp()
	goOn()
	wantNames(t, in, "1", "2")
	h.wantNoLoans(t)
}

func TestWhatAConsumerWaitsForGoesBackWithIt(t *testing.T) {
	for name, end := range map[string]func(*Session, mq.ConsumerID) error{
		"cancel": func(s *Session, id mq.ConsumerID) error { return s.Cancel(t.Context(), id) },
		"close":  func(s *Session, _ mq.ConsumerID) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h, lead, home := largePair(t, 2)
			s, in, other := home.open(t), newInbox(), newInbox()
			id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
			goOn := home.holdFetches(t, lead)
			p := lead.open(t)
			p.publishTo(t, "", "q", large("1"), -1)
			p.publishTo(t, "", "q", "2", -1)
			home.awaitWaiting(t, id, 2)
			p.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, other)
			if err := end(s, id); err != nil {
				t.Fatal(err)
			}
			wantNames(t, other, "1", "2")
			goOn()
			h.wantNoLoans(t)
			home.caughtUp()
			if got := in.all(); len(got) > 0 {
				t.Errorf("%v came after the end", names(got))
			}
			if home.consumers.get(id) != nil {
				t.Error("the consumer is still there")
			}
		})
	}
}

func TestWhatAConsumerWaitsForGoesWithItsQueue(t *testing.T) {
	h, lead, home := largePair(t, 2)
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	lead.open(t).publishTo(t, "", "q", large("1"), -1)
	home.awaitWaiting(t, id, 1)
	if _, err := s.Change(t.Context(), mq.QueueDelete{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	h.wantNoLoans(t)
	goOn()
	if got := in.all(); len(got) > 0 {
		t.Errorf("%v came of a deleted queue", names(got))
	}
}

func TestWhatIsFetchedForTooLongIsTakenBack(t *testing.T) {
	_, lead, home := largePair(t, 2)
	s, in, other := home.open(t), newRecaller(), newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Args: args("x-consumer-timeout", int32(200))}, in)
	goOn := home.holdFetches(t, lead)
	p := lead.open(t)
	p.publishTo(t, "", "q", large("1"), -1)
	home.awaitWaiting(t, id, 1)
	p.mustConsume(t, mq.ConsumeSpec{Queue: "q", Priority: 1}, other)
	wantNames(t, other, "1")
	eventually(t, "the wait to end", func() bool { return lead.lendsNow() == 0 })
	goOn()
	p.settle(t, mq.Ack, other.all()...)
	p.publishTo(t, "", "q", "2", -1)
	wantNames(t, other, "1", "2")
	if len(in.all()) > 0 || len(in.taken()) > 0 {
		t.Errorf("the client heard of it: %v, %v", names(in.all()), in.taken())
	}
}

func TestAConsumerHasNoMoreOnTheWayThanItsWindow(t *testing.T) {
	_, lead, home := largePair(t, 2)
	s, in, id, goOn := home.stalls(t, lead, mq.ConsumeSpec{Queue: "q"})
	p := lead.open(t)
	for i := range 12 {
		p.publishTo(t, "", "q", mib(string(rune('A'+i))), -1)
	}
	home.awaitWaiting(t, id, 8) // 8 MiB, and a little more with the heads
	if n := lead.lendsNow(); n != 8 {
		t.Errorf("%d bodies of 1 MiB are lent", n)
	}
	goOn()
	eventually(t, "the window", func() bool { return len(in.all()) == 8 })
	s.Drained(id, 8, 8*len(in.all()[0].Content))
	eventually(t, "the rest", func() bool { return len(in.all()) == 12 })
}

func TestASingleActiveConsumerFetchesAlone(t *testing.T) {
	h, lead, home := largePair(t, 3)
	s := home.open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "single", Durable: true, Args: args("x-single-active-consumer", true)})
	in, other := newInbox(), newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "single"}, in)
	h.nodes[2].open(t).mustConsume(t, mq.ConsumeSpec{Queue: "single"}, other)
	goOn := home.holdFetches(t, lead)
	p := lead.open(t)
	p.publishTo(t, "", "single", large("1"), -1)
	p.publishTo(t, "", "single", "2", -1)
	home.awaitWaiting(t, id, 2)
	if got := other.all(); len(got) > 0 {
		t.Fatalf("the other one got %v", names(got))
	}
	if err := s.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wantNames(t, other, "1", "2")
	goOn()
	h.wantNoLoans(t)
	if got := in.all(); len(got) > 0 {
		t.Errorf("both got %v", names(got))
	}
}

func TestAGetOfALargeMessageIsAskedAgain(t *testing.T) {
	for name, lose := range map[string]func(h *house, lead, home *houseNode){
		"with the lane": func(h *house, lead, home *houseNode) { h.cut(lead, home); h.mend(lead, home) },
		"with the loan": func(_ *house, lead, home *houseNode) { lead.loans.lost(home.id) },
		"with the lead": func(h *house, lead, home *houseNode) {
			h.lead(1, h.nodes[2])
			h.nodes[2].caughtUp()
			home.caughtUp()
			lead.loans.lost(home.id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, lead, home := largePair(t, 3)
			s := home.open(t)
			s.publishTo(t, "", "q", large("m"), -1)
			goOn := home.holdFetches(t, lead)
			got := getting(t, s)
			eventually(t, "the loan", func() bool { return lead.lendsNow() == 1 })
			home.caughtUp()
			lose(h, lead, home)
			goOn()
			d := <-got
			if n := names([]mq.Delivery{d}); n[0] != "m" || !d.Redelivered {
				t.Errorf("got %v, redelivered: %v", n, d.Redelivered)
			}
			s.settle(t, mq.Ack, d)
			eventually(t, "nothing to be left", func() bool { return s.ready(t, "q") == 0 })
			h.wantNoLoans(t)
		})
	}
}

func TestAGetOfALargeMessageThatIsGivenUpPutsItBack(t *testing.T) {
	h, lead, home := largePair(t, 2)
	s := home.open(t)
	s.publishTo(t, "", "q", large("m"), -1)
	goOn := home.holdFetches(t, lead)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, _, err := s.Get(ctx, "q", false); failed <- err }()
	eventually(t, "the loan", func() bool { return lead.lendsNow() == 1 })
	cancel()
	if err := <-failed; err == nil {
		t.Fatal("got it")
	}
	eventually(t, "the message to be back", func() bool { return lead.Shard(1).Stat(home.View().Queue("/", "q").ID).Ready == 1 })
	h.wantNoLoans(t)
	goOn()
	if d := s.mustGet(t, "q"); !d.Redelivered {
		t.Error("not told as redelivered")
	}
}

func TestALargeReplyIsFetched(t *testing.T) {
	h := largeHouse(t, 2)
	in := newInbox()
	id, name := h.nodes[1].open(t).mustReplies(t, in)
	p := h.nodes[0].open(t)
	p.reply(t, name, large("1"), true)
	p.reply(t, name, "2", true)
	p.reply(t, name, large("3"), true)
	got := wantNames(t, in, "1", "2", "3")
	r := h.nodes[1].requesters.get(id)
	bytes := 0
	for _, d := range got {
		bytes += len(d.Content)
	}
	if r.messages.Load() != 3 || r.bytes.Load() != int64(bytes) {
		t.Errorf("%d replies and %d bytes are counted, want 3 and %d", r.messages.Load(), r.bytes.Load(), bytes)
	}
	h.wantNoLoans(t)
}

func TestALargeReplyIsDroppedWithItsNode(t *testing.T) {
	h := largeHouse(t, 2)
	from, home := h.nodes[0], h.nodes[1]
	in := newInbox()
	id, name := home.open(t).mustReplies(t, in)
	goOn := home.holdFetches(t, from)
	r := home.requesters.get(id)
	from.open(t).reply(t, name, large("1"), true)
	eventually(t, "the first", func() bool { return r.messages.Load() == 1 })
	home.open(t).reply(t, name, "2", true)
	from.loans.lost(home.id)
	goOn()
	wantNames(t, in, "2")
	if n := home.requesters.dropped.Load(); n != 1 {
		t.Errorf("%d are counted as dropped", n)
	}
	if n := r.messages.Load(); n != 1 {
		t.Errorf("%d take the requester's room", n)
	}
}

func TestALargeReplyIsNotFetchedForNobody(t *testing.T) {
	h := largeHouse(t, 2)
	from, home := h.nodes[0], h.nodes[1]
	for _, reading := range []bool{true, false} {
		s, in := home.open(t), newInbox()
		id, name := s.mustReplies(t, in)
		goOn := home.holdFetches(t, from)
		p := from.open(t)
		if reading {
			p.reply(t, name, large("1"), true)
			eventually(t, "the loan", func() bool { return home.requesters.get(id).messages.Load() == 1 })
		}
		if err := s.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if !reading {
			p.reply(t, name, large("1"), true)
		}
		h.wantNoLoans(t)
		goOn()
		if len(in.all()) > 0 {
			t.Error("got it after the end")
		}
	}
	eventually(t, "room on the link", func() bool {
		from.replyLinks.mu.Lock()
		defer from.replyLinks.mu.Unlock()
		return from.replyLinks.owed[home.id] < replyReport
	})
}

func TestMalformedLentMessagesDisturbNobody(t *testing.T) {
	h := largeHouse(t, 2)
	home, in := h.nodes[1], newInbox()
	id := home.open(t).mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	_, name := home.open(t).mustReplies(t, in)
	a, _ := parseReplyAddress(name)
	c := largeContent()
	lent := fields.AppendUint(fields.AppendUint([]byte{frameLent}, 1), 1)
	lent = fields.AppendUint(fields.AppendUint(fields.AppendUint(lent, 7), uint64(id)), 1)
	lent = appendLent(append(lent, 0), c.Head(), len(c.Body()), 7)
	reply := appendLent(appendRequester([]byte{frameDirectLent}, "/", &a), c.Head(), len(c.Body()), 7)
	for _, f := range [][]byte{lent, reply, {frameRepaid, 0x80}} {
		for n := 1; n < len(f); n++ {
			home.Frame("node1", slices.Clone(f[:n]))
		}
	}
	if n := len(in.all()); n > 0 {
		t.Errorf("got %d", n)
	}
	home.open(t).publishTo(t, "", "q", large("m"), -1)
	wantNames(t, in, "m")
}

func TestAHeadIsShownWithoutItsBody(t *testing.T) {
	c := largeContent()
	head, ok := countedHead(c, queue.Note{Failed: 1, Acquired: 2}, 0)
	if !ok || len(head.Body()) > 0 {
		t.Fatalf("%v, a body of %d bytes", ok, len(head.Body()))
	}
	whole := withCounts(c, queue.Note{Failed: 1, Acquired: 2})
	if string(whole.Head()) != string(head) || string(whole.Body()) != string(c.Body()) {
		t.Error("not the head of the whole")
	}
}

// A piece that never comes is not waited for for ever.
func TestALenderThatHangsIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, lead, home := largePair(t, 2)
		s, in := home.open(t), newInbox()
		id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
		h.mu.Lock()
		h.loses = func(_, to mq.NodeID, frame []byte) bool { return to == lead.id && frame[0] == frameCall }
		h.mu.Unlock()
		lead.open(t).publishTo(t, "", "q", large("1"), -1)
		home.awaitWaiting(t, id, 1)
		begun := time.Now()
		eventually(t, "the end of the wait", func() bool { return lead.Shard(1).Stats().Returned > 0 || time.Since(begun) > 2*pieceWait })
		h.mu.Lock()
		h.loses = nil
		h.mu.Unlock()
		wantNames(t, in, "1")
	})
}
