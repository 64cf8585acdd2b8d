package broker

import (
	"context"
	"log/slog"
	"strconv"
	"testing"

	"warren/mq"
)

// What is here happens between two lines of code elsewhere.

func TestNothingIsSentInTheNameOfNoSession(t *testing.T) {
	n := &houseNode{id: "node1"}
	b := New(n, Options{NowMs: func() int64 { return 0 }, Log: slog.New(slog.DiscardHandler)})
	// A group can be led here, and have dead letters, before this node has a
	// session. All such nodes would count their batches under the same name.
	if o, err := b.outbox(1); err == nil {
		t.Fatalf("an outbox of %+v", o.origin)
	}
}

func TestAutoDeleteQueueStaysForConsumersThatHaveNotResumed(t *testing.T) {
	h := newHouse(t, 3, 1)
	a, b := h.nodes[1].open(t), h.nodes[2].open(t)
	a.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, AutoDelete: true})
	id, in := a.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox()), newInbox()
	b.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	resume := h.nodes[2].pause()
	defer resume()
	h.lead(1, h.nodes[0])
	s := h.nodes[0].Shard(1)
	eventually(t, "the first node's resume", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lead.homes["node2"] != 0
	})
	cancelled := make(chan error, 1)
	go func() { cancelled <- a.Cancel(t.Context(), id) }()
	eventually(t, "the cancel", func() bool {
		select {
		case err := <-cancelled:
			cancelled <- err
			return true
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		q := s.lead.queues[h.nodes[0].View().Queue("/", "q").ID]
		return q.unused || s.lead.opened
	})
	resume()
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	if h.nodes[0].View().Queue("/", "q") == nil {
		t.Fatal("deleted while it has a consumer")
	}
	a.mustPublish(t, "q", "m", nil, 0)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
}

func TestAutoDeleteQueueGoesThoughItsLeaderChangesMeanwhile(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, AutoDelete: true})
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())
	h.orphan(1)
	done := make(chan error, 1)
	go func() { done <- s.Cancel(t.Context(), id) }()
	eventually(t, "the cancel", func() bool {
		on, _ := h.nodes[1].consumers.get(id).state()
		return !on
	})
	h.lead(1, h.nodes[2]) // which is never told of the consumer
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "deletion", func() bool { return h.nodes[0].View().Queue("/", "q") == nil })
}

func TestLeaderAsksANodeForItsConsumersOnceInATerm(t *testing.T) {
	h := newHouse(t, 2, 1)
	lead, home := h.nodes[0], h.nodes[1]
	s := home.open(t)
	s.mustDeclare(t, durable)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	h.cut(lead, home)
	acks := newConfirms()
	lead.open(t).mustPublish(t, "q", "m", acks, 1)
	eventually(t, "confirm", func() bool { return acks.count() == 1 })
	for _, n := range h.nodes {
		n.mu.Lock()
		for _, p := range h.nodes {
			n.linked[p.id] = p != n
		}
		n.mu.Unlock()
	}
	// The connection is up and its PeerUp on the way when the leader begins.
	held := home.pause()
	h.lead(1, lead)
	lead.caughtUp()
	lead.caughtUp() // its own resume
	resume := lead.pause()
	lead.PeerUp(home.id)
	held()
	home.caughtUp()
	resume()
	eventually(t, "delivery", func() bool { return len(in.all()) > 0 })
	lead.caughtUp()
	home.caughtUp()
	if got := in.all(); len(got) != 1 {
		t.Fatalf("handed out %d times", len(got))
	}
}

func TestClosedConnectionHasAckedWhatItAcked(t *testing.T) {
	h := newHouse(t, 2, 1)
	con, other := h.nodes[1].open(t), h.nodes[0].open(t)
	con.mustDeclare(t, durable)
	con.mustDeclare(t, mq.QueueDeclare{Name: "busy", Durable: true})
	in, again := newInbox(), newInbox()
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	con.mustPublish(t, "q", "m", nil, 0)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	if _, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q")); err != nil { // all is answered
		t.Fatal(err)
	}
	other.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, again)
	// Others of the node publish so much that what comes now gathers.
	blocked, release := make(chan struct{}), make(chan struct{})
	h.groups[1].mu.Lock()
	first := true
	h.groups[1].refuse = func() bool {
		if first {
			first = false
			close(blocked)
			<-release
		}
		return false
	}
	h.groups[1].mu.Unlock()
	pub := h.nodes[1].open(t)
	for range batchesBusy + 1 {
		pub.mustPublish(t, "busy", "x", nil, 0)
	}
	<-blocked
	con.settle(t, mq.Ack, in.all()[0])
	if err := con.Close(); err != nil {
		t.Fatal(err)
	}
	close(release)
	h.nodes[0].caughtUp()
	eventually(t, "settlement", func() bool {
		return h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID) == QueueStat{Consumers: 1}
	})
	if got := again.all(); len(got) != 0 {
		t.Fatal("acked, and handed out again")
	}
}

func TestGetThatIsGivenUpDisturbsNobody(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "got", Durable: true})
	in, acks := newInbox(), newConfirms()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
	s.mustPublish(t, "got", "x", acks, 1)
	eventually(t, "confirm", func() bool { return acks.count() == 1 })
	resume := h.nodes[1].pause()
	defer resume()
	h.nodes[0].open(t).mustPublish(t, "q", "m", nil, 0) // on its way, and not there
	h.nodes[0].caughtUp()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, _, err := s.Get(ctx, "got", false); failed <- err }()
	got := h.nodes[0].View().Queue("/", "got").ID
	eventually(t, "the message to be taken", func() bool { return h.nodes[0].Shard(1).Stat(got).Unacked == 1 })
	cancel()
	if err := <-failed; err == nil {
		t.Fatal("got it")
	}
	h.nodes[0].caughtUp()
	resume()
	eventually(t, "the message to be back", func() bool { return h.nodes[0].Shard(1).Stat(got).Ready == 1 })
	eventually(t, "delivery", func() bool { return len(in.all()) > 0 })
	h.nodes[1].caughtUp()
	if n := len(in.all()); n != 1 {
		t.Fatalf("another consumer got its message %d times", n)
	}
}

func TestRefusedProposalsPileNothingUp(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	shard := h.nodes[0].Shard(1)
	left, most := 20, 0
	h.groups[1].mu.Lock()
	h.groups[1].refuse = func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		waiting := 0
		for _, x := range shard.lead.proposer.parts {
			waiting += len(x.ops)
		}
		most = max(most, waiting)
		left--
		return left >= 0
	}
	h.groups[1].mu.Unlock()
	acks := newConfirms()
	body := string(make([]byte, 64<<10))
	const n = 64
	for i := range n {
		s.mustPublish(t, "q", body, acks, uint64(i+1))
	}
	eventually(t, "confirms", func() bool { return acks.count() == n })
	h.groups[1].mu.Lock()
	defer h.groups[1].mu.Unlock()
	if most > 2*n*len(body) {
		t.Errorf("%d bytes waited to be proposed, of %d that were published", most, n*len(body))
	}
	if st := shard.Stat(h.nodes[0].View().Queue("/", "q").ID); st.Ready != n {
		t.Errorf("%d messages in the queue, want %d", st.Ready, n)
	}
}

func TestLongSessionForgetsItsDeletedQueues(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	for i := range 20 {
		name := "q" + strconv.Itoa(i)
		for range 2 {
			s.mustDeclare(t, mq.QueueDeclare{Name: name, Exclusive: true})
		}
		s.mustConsume(t, mq.ConsumeSpec{Queue: name}, newInbox())
		if _, _, err := s.Get(t.Context(), name, false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Change(t.Context(), mq.QueueDelete{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.consumers)+len(s.getters)+len(s.exclusive) > 0 {
		t.Errorf("%d consumers, %d getters and %d exclusive queues are left", len(s.consumers), len(s.getters), len(s.exclusive))
	}
}

func TestExclusiveQueueOutlivesItsConnectionForAWhileAtMost(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Exclusive: true})
	s.mu.Lock()
	s.exclusive = nil // as if its declare had failed and was committed later, or its deletion failed
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	kept := h.nodes[0].open(t)
	kept.mustDeclare(t, mq.QueueDeclare{Name: "kept", Exclusive: true})
	h.nodes[0].Sweep()
	eventually(t, "deletion: nobody else can", func() bool { return h.nodes[0].View().Queue("/", "q") == nil })
	if h.nodes[0].View().Queue("/", "kept") == nil {
		t.Error("deleted though its connection is open")
	}
}

func TestRejectionsThatCannotArriveHoldUpTheirQueue(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	h.orphan(2)
	s := h.nodes[0].open(t)
	in, acks := newInbox(), newConfirms()
	const n = withdrawnMax + 1000
	for i := range n {
		s.mustPublish(t, "q", "m", acks, uint64(i+1))
	}
	eventually(t, "confirms", func() bool { return acks.count() == n })
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 100}, in)
	done := 0
	reject := func() bool {
		ds := in.all()
		if done < len(ds) {
			s.settle(t, mq.Discard, ds[done:]...)
			s.Drained(ds[0].Consumer, len(ds)-done, 0)
		}
		done = len(ds)
		return done >= withdrawnMax
	}
	eventually(t, "rejections", reject)
	for range 50 {
		h.nodes[0].caughtUp()
		reject()
	}
	shard := h.nodes[0].Shard(h.nodes[0].View().Queue("/", "q").Group)
	h.nodes[0].caughtUp()
	shard.mu.Lock()
	withdrawn := shard.lead.queues[h.nodes[0].View().Queue("/", "q").ID].d.Withdrawn()
	shard.mu.Unlock()
	if withdrawn > withdrawnMax+100 {
		t.Errorf("%d are on their way out, the bound is %d", withdrawn, withdrawnMax)
	}
	h.lead(2, h.nodes[2])
	eventually(t, "the rest", func() bool { reject(); return done == n })
}
