package broker

import (
	"sync"
	"testing"

	"warren/fsm/queue"
	"warren/mq"
)

// metadataStops makes the next proposals to the metadata wait, and then fail as
// long as failing is set.
type metadataStops struct {
	came, release chan struct{}
	mu            sync.Mutex
	failing       bool
}

func (h *house) stopMetadata() *metadataStops {
	m := &metadataStops{came: make(chan struct{}), release: make(chan struct{})}
	first := sync.OnceFunc(func() { close(m.came); <-m.release })
	l := h.groups[metaGroup]
	l.mu.Lock()
	l.refuse = func() bool {
		first()
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.failing
	}
	l.mu.Unlock()
	return m
}

func deleteIf(t *testing.T, s *Session, op mq.QueueDelete) <-chan error {
	done := make(chan error, 1)
	go func() { _, err := s.Change(t.Context(), op); done <- err }()
	return done
}

func TestConditionalDeleteLooksAtWhatIsThere(t *testing.T) {
	h := newHouse(t, 2, 1)
	s, other := h.nodes[1].open(t), h.nodes[0].open(t)
	for _, d := range []mq.QueueDeclare{{Name: "q", Durable: true}, {Name: "q"}} {
		s.mustDeclare(t, d)
		acks := newConfirms()
		s.mustPublish(t, "q", "m", acks, 1)
		_, err := s.Change(t.Context(), mq.QueueDelete{Name: "q", IfEmpty: true})
		wantCode(t, err, mq.PreconditionFailed, "queue 'q' in vhost '/' not empty")
		in := newInbox()
		id := other.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
		_, err = s.Change(t.Context(), mq.QueueDelete{Name: "q", IfUnused: true})
		wantCode(t, err, mq.PreconditionFailed, "queue 'q' in vhost '/' in use")
		eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
		if err := other.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		other.settle(t, mq.Requeue, in.all()...)
		eventually(t, "requeue", func() bool { return s.ready(t, "q") == 1 })
		r, err := s.Change(t.Context(), mq.QueueDelete{Name: "q", IfUnused: true})
		if err != nil || r.Messages != 1 || !h.isGone("q") {
			t.Fatalf("got %+v, %v", r, err)
		}
		if r, err := s.Change(t.Context(), mq.QueueDelete{Name: "q", IfEmpty: true}); err != nil || r.Messages != 0 {
			t.Errorf("of none: got %+v, %v", r, err)
		}
	}
}

func TestWhatComesDuringAConditionalDeleteIsToldThatTheQueueIsGone(t *testing.T) {
	h := newHouse(t, 3, 1)
	s, other := h.nodes[1].open(t), h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "other", Durable: true})
	old := h.nodes[0].View().Queue("/", "q").ID
	m := h.stopMetadata()
	done := deleteIf(t, s, mq.QueueDelete{Name: "q", IfEmpty: true, IfUnused: true})
	<-m.came
	acks := newConfirms()
	other.mustPublish(t, "q", "late", acks, 1)
	other.mustPublish(t, "other", "after it", acks, 2)
	shard := h.nodes[0].Shard(1)
	eventually(t, "batches that wait", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return len(shard.lead.heldBatches["node3"]) == 2
	})
	if acks.count() > 0 {
		t.Fatal("confirmed although its queue may be going")
	}
	errs := make(chan error, 2)
	go func() { _, err := other.Consume(t.Context(), mq.ConsumeSpec{Queue: "q"}, newInbox()); errs <- err }()
	go func() { _, _, err := other.Get(t.Context(), "q", true); errs <- err }()
	again := make(chan error, 1)
	go func() { _, err := h.nodes[0].open(t).Change(t.Context(), durable); again <- err }()
	close(m.release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-errs; err != nil { // it may have found the new one
			wantCode(t, err, mq.NotFound, "q")
		}
	}
	eventually(t, "confirms", func() bool { return acks.count() == 2 })
	if n := other.ready(t, "other"); n != 1 {
		t.Errorf("%d messages in the other queue", n)
	}
	for _, n := range h.nodes {
		eventually(t, "the end of what came too late", func() bool {
			s := n.Shard(1)
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.state.Queue(old) == nil
		})
	}
}

func TestWhatComesDuringAConditionalDeleteThatFailsIsKept(t *testing.T) {
	h := newHouse(t, 3, 1)
	s, other := h.nodes[1].open(t), h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	m := h.stopMetadata()
	m.failing = true
	done := deleteIf(t, s, mq.QueueDelete{Name: "q", IfEmpty: true})
	<-m.came
	acks, in := newConfirms(), newInbox()
	other.mustPublish(t, "q", "m", acks, 1)
	attached := make(chan error, 1)
	go func() { _, err := other.Consume(t.Context(), mq.ConsumeSpec{Queue: "q"}, in); attached <- err }()
	// Its patience ends, as it would after removeWait.
	shard := h.nodes[0].Shard(1)
	shard.mu.Lock()
	l := shard.lead
	var r *removal
	for _, r = range l.removals {
	}
	shard.mu.Unlock()
	eventually(t, "the message to wait", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return len(l.heldBatches) == 1
	})
	shard.removed(l, r, mq.Errorf(mq.InternalError, "no answer"))
	wantCode(t, <-done, mq.InternalError, "no answer")
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	eventually(t, "confirm and delivery", func() bool { return acks.of(1) == mq.Confirmed && len(in.all()) == 1 })
	if shard.mu.Lock(); l.heldUp != 0 || len(l.removals)+len(l.heldBatches) > 0 {
		t.Errorf("%d held up, %d removals and %d batches are left", l.heldUp, len(l.removals), len(l.heldBatches))
	}
	shard.mu.Unlock()
	m.mu.Lock()
	m.failing = false
	m.mu.Unlock()
	close(m.release)
}

func TestMessageOnItsWayToTheLogCountsForIfEmpty(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	blocked, release := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(blocked); <-release })
	h.groups[1].mu.Lock()
	h.groups[1].refuse = func() bool { first(); return false }
	h.groups[1].mu.Unlock()
	acks := newConfirms()
	h.nodes[0].open(t).mustPublish(t, "q", "m", acks, 1)
	<-blocked // proposed, and not applied
	done := deleteIf(t, s, mq.QueueDelete{Name: "q", IfEmpty: true})
	shard := h.nodes[0].Shard(1)
	eventually(t, "the question", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.lead.heldUp == 1
	})
	close(release)
	wantCode(t, <-done, mq.PreconditionFailed, "not empty")
	eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
	if n := s.ready(t, "q"); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestConditionalDeleteIsAnsweredTrulyThoughTheLeaderChanges(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	m := h.stopMetadata()
	done := deleteIf(t, s, mq.QueueDelete{Name: "q", IfEmpty: true})
	<-m.came
	acks := newConfirms()
	h.nodes[2].open(t).mustPublish(t, "q", "m", acks, 1)
	h.lead(1, h.nodes[2])
	close(m.release)
	err := <-done
	if h.isGone("q") == (err != nil) {
		t.Errorf("got %v, gone is %v", err, h.isGone("q"))
	}
}

func TestCopiesOfHeldBatchesAreNotHeldTwice(t *testing.T) {
	l := &lead{queues: map[mq.QueueID]*ledQueue{7: {heldUp: true}}, heldBatches: map[mq.NodeID][]heldBatch{}}
	for _, q := range []mq.QueueID{7, 8} {
		ops := queue.AppendEnqueue(nil, []mq.QueueID{q}, 0, 0, 0, mq.NewContent("", "q", []byte{0, 0}, 0))
		for range 3 {
			for seq := uint64(1); seq <= 2; seq++ {
				if !l.mustWait("n", queue.Origin{Node: 1, Session: 1, Seq: seq}, ops) {
					t.Fatal("let in")
				}
			}
		}
	}
	if n := len(l.heldBatches["n"]); n != 2 {
		t.Errorf("%d are held", n)
	}
	if l.mustWait("m", queue.Origin{Node: 2, Session: 1, Seq: 1}, queue.AppendSettle(nil, 7, 1, 1)) {
		t.Error("a settlement is held up")
	}
}
