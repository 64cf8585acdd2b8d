package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
	"warren/storage/vfs"
)

// partsGroup is a group for an outbox whose leader answers when the test says so.
type partsGroup struct {
	t       *testing.T
	b       *outbox
	state   *queue.State
	frames  [][]byte // on their way to it
	entered []string // bodies, as they enter the queue
	acks    *confirms
	tags    uint64
}

func newPartsGroup(t *testing.T) *partsGroup {
	g := &partsGroup{t: t, state: queue.New(), acks: newConfirms()}
	g.b = newOutbox(1, Origin{1, 1}, g)
	g.b.large.able = func() bool { return true }
	g.b.lead("node", 1)
	return g
}

func (g *partsGroup) Self() mq.NodeID          { return "node" }
func (g *partsGroup) Peers() []mq.NodeID       { return nil }
func (g *partsGroup) Dead(mq.NodeID) bool      { return false }
func (g *partsGroup) to() *target              { return &target{group: 1, queues: []mq.QueueID{1}} }
func (g *partsGroup) next() (body string)      { return string(rune('a' + g.tags%26)) }
func (g *partsGroup) content(n int) mq.Content { return stored(strings.Repeat(g.next(), n)) }

// Send runs with the outbox's lock held.
func (g *partsGroup) Send(_ mq.NodeID, frame []byte) bool {
	g.frames = append(g.frames, frame)
	return true
}

// put puts in a message with a body of n bytes, without waiting.
func (g *partsGroup) put(n int) (tag uint64) {
	g.t.Helper()
	w := waiter{confirm: g.acks, tag: g.tags}
	put := func(m *outgoing) error { return g.b.forward(g.to(), m, 0, w) }
	if n < partBytes {
		put = func(m *outgoing) error { return g.b.enqueue(g.t.Context(), g.to(), m, 0, w) }
	}
	if err := put(&outgoing{content: g.content(n)}); err != nil {
		g.t.Fatal(err)
	}
	g.tags++
	return w.tag
}

// take applies the next frame, and answers it unless the answer is lost. With
// void it cannot be read.
func (g *partsGroup) take(lost, void bool) {
	g.t.Helper()
	g.b.mu.Lock()
	p := parser{fields.Read(g.frames[0][1:])}
	g.frames = g.frames[1:]
	g.b.mu.Unlock()
	p.Uint()
	p.Uint()
	o := queue.Origin{Node: uint32(p.Uint()), Session: mq.SessionID(p.Uint()), Seq: p.Uint()}
	if err := queue.CheckOps(p.Rest(), nil); err != nil {
		g.t.Fatal(err)
	}
	if void && !g.state.Seen(o) {
		g.b.void(o.Seq)
		return
	}
	var fx queue.Effects
	if err := g.state.Apply(1, queue.AppendBatch(queue.AppendEntry(nil, 1, 0), o, p.Rest()), &fx); err != nil {
		g.t.Fatal(err)
	}
	for i := range fx.Enqueued {
		g.entered = append(g.entered, string(mq.Content(fx.Enqueued[i].Content).Body()))
	}
	switch r := fx.Results[0]; {
	case lost:
	case r.Code == queue.Gap:
		g.b.missed(1, r.Last)
	default:
		g.b.result(r.Seq, r.Code, r.Refused)
	}
}

// takeAll answers until nothing is left.
func (g *partsGroup) takeAll() {
	for g.b.sendAll(); len(g.frames) > 0; g.b.sendAll() {
		g.take(false, false)
	}
}

func (g *partsGroup) wantNothingLeft() {
	g.t.Helper()
	g.b.mu.Lock()
	defer g.b.mu.Unlock()
	b := g.b
	if b.owed != 0 || b.busy != 0 || len(b.window) != 0 || b.large.owed != 0 || b.large.busy != 0 || len(b.large.waiting) != 0 {
		g.t.Errorf("left: %d bytes, %d busy, %d batches; in line %d messages, %d bytes, %d parts",
			b.owed, b.busy, len(b.window), len(b.large.waiting), b.large.owed, b.large.busy)
	}
}

func (g *partsGroup) wantAnswers(want map[uint64]mq.Outcome) {
	g.t.Helper()
	if n := g.acks.count(); n != len(want) {
		g.t.Errorf("%d answers, want %d", n, len(want))
	}
	for tag, o := range want {
		if got := g.acks.of(tag); got != o {
			g.t.Errorf("message %d was answered %v, want %v", tag, got, o)
		}
	}
}

func TestOtherMessagesGoBetweenTheParts(t *testing.T) {
	g := newPartsGroup(t)
	big := g.put(20 * partBytes)
	if n := len(g.frames); n != partsBusy {
		t.Fatalf("%d parts are on their way", n)
	}
	small := g.put(1)
	g.b.flush()
	if n := len(g.frames); n != partsBusy+1 {
		t.Fatal("a message waits though only parts are on their way")
	}
	for range 3 {
		g.take(false, false)
	}
	g.wantAnswers(map[uint64]mq.Outcome{small: mq.Confirmed})
	for len(g.frames) > 0 {
		if n := g.b.large.busy; n > partsBusy {
			t.Fatalf("%d parts are unanswered", n)
		}
		for _, f := range g.frames {
			if len(f) > partBytes+200 {
				t.Fatalf("a frame of %d bytes", len(f))
			}
		}
		g.take(false, false)
	}
	g.wantAnswers(map[uint64]mq.Outcome{small: mq.Confirmed, big: mq.Confirmed})
	if want := []string{"b", strings.Repeat("a", 20*partBytes)}; !slices.Equal(g.entered, want) {
		t.Errorf("%d entered", len(g.entered))
	}
	g.wantNothingLeft()
}

// Whatever is lost, sent twice or led by another: each message enters once, and
// is answered once.
func TestPartsComeTogetherWhateverIsLost(t *testing.T) {
	for seed := range uint64(12) {
		g, r := newPartsGroup(t), rand.New(rand.NewPCG(seed, 3))
		for range 50 {
			switch r.IntN(6) {
			case 0:
				g.put(partBytes + 1 + r.IntN(2*partBytes))
			case 1:
				g.put(r.IntN(9))
				g.b.flush()
			case 2, 3, 4:
				if len(g.frames) > 0 {
					g.take(r.IntN(4) == 0, false)
				}
			case 5: // another leader, which may miss some, or have it twice
				if r.IntN(2) == 0 {
					g.frames = nil
				}
				g.b.lead("node", 1)
			}
		}
		g.b.lead("node", 1)
		g.takeAll()
		g.wantNothingLeft()
		want := map[uint64]mq.Outcome{}
		for tag := range g.tags {
			want[tag] = mq.Confirmed
		}
		g.wantAnswers(want)
		if uint64(len(g.entered)) != g.tags {
			t.Fatalf("seed %d: %d of %d messages entered", seed, len(g.entered), g.tags)
		}
	}
}

func TestAPartThatCannotBeReadFailsItsMessageAndNoOther(t *testing.T) {
	for void := range 5 {
		g := newPartsGroup(t)
		g.put(4 * partBytes)
		g.put(1)
		g.b.flush()
		for i := 0; len(g.frames) > 0; i++ {
			g.take(false, i == void)
		}
		g.put(2 * partBytes)
		g.takeAll()
		want := map[uint64]mq.Outcome{0: mq.Refused, 1: mq.Confirmed, 2: mq.Confirmed}
		if void == 2 { // that was the small one's batch
			want = map[uint64]mq.Outcome{0: mq.Confirmed, 1: mq.Rejected, 2: mq.Confirmed}
		}
		g.wantAnswers(want)
		g.wantNothingLeft()
	}
}

// publish is enqueue by a publisher who waits.
func (g *partsGroup) publish(ctx context.Context, n int) (returned <-chan error) {
	w := waiter{confirm: g.acks, tag: g.tags}
	m := &outgoing{content: g.content(n)}
	g.tags++
	done, before := make(chan error, 1), g.b.large.last
	go func() { done <- g.b.enqueue(ctx, g.to(), m, 0, w) }()
	eventually(g.t, "the message to be in line", func() bool {
		g.b.mu.Lock()
		defer g.b.mu.Unlock()
		return g.b.large.last > before
	})
	return done
}

func TestAPublisherWaitsUntilTheEndHasItsPlace(t *testing.T) {
	g := newPartsGroup(t)
	done := g.publish(t.Context(), 4*partBytes)
	for range 3 {
		select {
		case err := <-done:
			t.Fatalf("it goes on while parts are missing: %v", err)
		default:
		}
		g.take(false, false)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	g.put(1)
	g.takeAll()
	if len(g.entered) != 2 || g.entered[1] != "b" {
		t.Error("the next message has overtaken it")
	}
}

func TestAMessageWhosePublisherHasGoneIsLeftOut(t *testing.T) {
	for taken := range 3 {
		g := newPartsGroup(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := g.publish(ctx, 5*partBytes)
		for range taken {
			g.take(false, false)
		}
		next := g.publish(t.Context(), 5*partBytes)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		g.takeAll()
		if err := <-next; err != nil {
			t.Fatal(err)
		}
		g.takeAll()
		g.wantAnswers(map[uint64]mq.Outcome{1: mq.Confirmed})
		if len(g.entered) != 1 || !strings.HasPrefix(g.entered[0], "bb") {
			t.Errorf("%d messages entered", len(g.entered))
		}
		g.wantNothingLeft()
	}
}

func TestWhoWaitsInLineHearsOfTheEndOfTheOutbox(t *testing.T) {
	g := newPartsGroup(t)
	a, b := g.publish(t.Context(), 5*partBytes), g.publish(t.Context(), 5*partBytes)
	g.put(2 * partBytes)
	g.take(false, false)
	g.b.end(mq.Gone)
	if err := errors.Join(<-a, <-b); err != nil {
		t.Fatal(err)
	}
	g.wantAnswers(map[uint64]mq.Outcome{0: mq.Gone, 1: mq.Gone, 2: mq.Gone})
	if err := g.b.enqueue(t.Context(), g.to(), &outgoing{content: g.content(2 * partBytes)}, 0, waiter{}); !errors.Is(err, errGroupGone) {
		t.Errorf("got %v", err)
	}
}

func TestWhoWaitsInLineHasADeadlineUnlessItIsADeadLetter(t *testing.T) {
	g, t0 := newPartsGroup(t), time.Now()
	g.b.leaderless("node")
	a := g.publish(t.Context(), 5*partBytes)
	letters := &deadLetters{kick: make(chan struct{}, 1)}
	if err := g.b.forward(g.to(), &outgoing{content: g.content(5 * partBytes)}, 0, waiter{confirm: letters}); err != nil {
		t.Fatal(err)
	}
	g.b.look(t0)
	later := g.publish(t.Context(), 5*partBytes)
	g.b.look(t0.Add(answerDeadline - time.Second))
	if g.acks.count() > 0 {
		t.Fatal("given up too soon")
	}
	g.b.look(t0.Add(answerDeadline))
	if err := <-a; err != nil {
		t.Fatal(err)
	}
	g.wantAnswers(map[uint64]mq.Outcome{0: mq.Rejected})
	g.b.lead("node", 2)
	g.takeAll()
	if err := <-later; err != nil {
		t.Fatal(err)
	}
	g.takeAll()
	g.wantAnswers(map[uint64]mq.Outcome{0: mq.Rejected, 1: mq.Confirmed})
	if len(letters.answers) != 1 || len(g.entered) != 2 {
		t.Errorf("%d answers to the letter, %d messages", len(letters.answers), len(g.entered))
	}
	g.wantNothingLeft()
	g.b.look(t0.Add(time.Hour))
	if g.b.looking {
		t.Error("looks though all is answered")
	}
}

func TestCopiesForTheFirehoseAreLostBeforeTheLineGrows(t *testing.T) {
	g := newPartsGroup(t)
	c := g.content(outboxBytes / 4)
	for range 10 {
		g.b.offer(g.to(), &outgoing{content: c}, 0)
	}
	if n := len(g.b.large.waiting); n > 5 {
		t.Errorf("%d copies are in line", n)
	}
}

// newPartsHouse is a house whose nodes all know that they know of parts.
func newPartsHouse(t *testing.T, n, groups int) *house {
	t.Helper()
	h := newHouse(t, n, groups)
	h.told(t)
	h.raise(t)
	for _, n := range h.nodes {
		eventually(t, "the level", func() bool { return levelOf(n.View()) == Level })
	}
	return h
}

// letGoOn lets a group commit so many entries; the next one is refused again and
// again, which stopped hears of, until goOn is called.
func (h *house) letGoOn(g mq.GroupID, entries int) (stopped <-chan struct{}, goOn func()) {
	l, stop := h.groups[g], make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = func() bool {
		if entries--; entries == -1 {
			close(stop)
		}
		return entries < 0
	}
	return stop, func() {
		l.mu.Lock()
		l.refuse = nil
		l.mu.Unlock()
	}
}

const largeBody = 5*partBytes + 1000

func TestALargeMessageIsWholeThoughTheLeaderChangesInItsMiddle(t *testing.T) {
	h := newPartsHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	for entries := range 5 {
		stopped, goOn := h.letGoOn(1, entries)
		acks, body := newConfirms(), strings.Repeat(string(rune('a'+entries)), largeBody)
		published := make(chan struct{})
		go func() {
			defer close(published)
			s.mustPublish(t, "q", body, acks, 1)
			s.mustPublish(t, "q", "next", acks, 2)
		}()
		<-stopped
		h.lead(1, h.nodes[(entries+1)%2])
		goOn()
		<-published
		eventually(t, "confirms", func() bool { return acks.count() == 2 })
		d, next := s.mustGet(t, "q"), s.mustGet(t, "q")
		if got := string(d.Content.Body()); got != body || acks.of(1) != mq.Confirmed {
			t.Fatalf("after %d entries: %d bytes, answered %v", entries, len(got), acks.of(1))
		}
		if string(next.Content.Body()) != "next" {
			t.Fatal("another one came next")
		}
		s.settle(t, mq.Ack, d, next)
		h.gone(t, "q")
	}
}

func TestALargeMessageKeepsItsPlaceOnItsChannel(t *testing.T) {
	for _, durable := range []bool{true, false} {
		h := newPartsHouse(t, 3, 1)
		s, other := h.nodes[1].open(t), h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: durable})
		bodies := []string{"a", strings.Repeat("b", largeBody), "c", strings.Repeat("d", partBytes+1), strings.Repeat("e", partBytes), "f"}
		for _, p := range []*Session{s, other} { // for one of them, the queue may be elsewhere
			if got := spell(p.publishAll(t, "", "q", bodies...)); got != "++++++" {
				t.Fatalf("durable=%v: %s", durable, got)
			}
			for i, want := range bodies {
				d := s.mustGet(t, "q")
				if string(d.Content.Body()) != want {
					t.Fatalf("durable=%v: message %d is another one", durable, i)
				}
				s.settle(t, mq.Ack, d)
			}
		}
	}
}

func TestAQueueThatIsFullRefusesALargeMessage(t *testing.T) {
	for _, overflow := range []string{"reject-publish", "reject-publish-dlx"} {
		h := newPartsHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true})
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-overflow", overflow, "x-max-length-bytes", int32(4*partBytes),
			"x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead")})
		big := strings.Repeat("b", 3*partBytes)
		if got := spell(s.publishAll(t, "", "q", big, big, "c", strings.Repeat("d", partBytes-1), "e")); got != "+-++-" {
			t.Fatalf("%s: got %s", overflow, got)
		}
		if overflow == "reject-publish-dlx" {
			eventually(t, "the dead letters", func() bool { return s.ready(t, "dead") == 2 })
			if d := s.mustGet(t, "dead"); string(d.Content.Body()) != big {
				t.Error("the dead letter is another message")
			}
		}
		sh := h.nodes[0].Shard(1)
		sh.mu.Lock()
		sh.state.EachStaged(func(uint32, mq.SessionID) { t.Error("something of it stays in the state") })
		sh.mu.Unlock()
	}
}

func TestALargeMessageDiesInParts(t *testing.T) {
	h := newPartsHouse(t, 2, 2)
	withDeadLetters(t, h)
	s := h.nodes[1].open(t)
	body := strings.Repeat("b", largeBody)
	s.publishTo(t, "", "q", body, -1)
	s.publishTo(t, "", "q", "next", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"), s.mustGet(t, "q"))
	eventually(t, "the letters", func() bool { return s.ready(t, "dead") == 2 })
	d := s.mustGet(t, "dead")
	if string(d.Content.Body()) != body {
		t.Errorf("a letter of %d bytes came first", len(d.Content.Body()))
	}
	wantDeath(t, d, "q", rejected, 1)
}

func TestBelowTheLevelWhatFitsNoFrameIsRefused(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.publishTo(t, "", "q", strings.Repeat("b", largeBody), -1) // in one batch
	if got := len(s.mustGet(t, "q").Content.Body()); got != largeBody {
		t.Errorf("got %d bytes", got)
	}
	sh := h.nodes[1].Shard(1)
	sh.mu.Lock()
	version := sh.state.AppendTo(nil)[0]
	sh.mu.Unlock()
	if version > 1 {
		t.Errorf("the state needs version %d", version)
	}
	p := &mq.Publish{Content: append(mq.NewContent("", "q", []byte{0, 0}, 0), make([]byte, wholeBytesMax)...), ExpirationMs: -1}
	const want = "message size 32505856 is larger than configured max size 32505856"
	for name, publish := range map[string]func() error{
		"publish": func() error { _, err := s.Publish(t.Context(), p); return err },
		"in tx":   func() error { return s.Check(t.Context(), p) },
	} {
		var e *mq.Error
		if err := publish(); !errors.As(err, &e) || e.Code != mq.PreconditionFailed || !strings.Contains(e.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestASnapshotBetweenTwoPartsHasWhatHasCome(t *testing.T) {
	r := newBareShard(t, vfs.NewMem(), "/data/1")
	r.enqueue(1, 1, 10)
	c, seq := stored(strings.Repeat("b", largeBody)), uint64(0)
	send := func(ops []byte) {
		seq++
		r.apply(queue.AppendBatch(queue.AppendEntry(nil, 1, 0), queue.Origin{Node: 7, Session: 2, Seq: seq}, ops))
	}
	for at := 0; at < len(c); at += partBytes {
		send(queue.AppendPart(nil, at, len(c), c[at:min(at+partBytes, len(c))]))
		id := r.save(t)
		if err := r.load(t, id); err != nil {
			t.Fatal(err)
		}
	}
	send(queue.AppendWhole(nil, len(c), largeBody, queue.AppendEnqueue(nil, []mq.QueueID{3}, 0, 0, -1, nil)))
	if want := fmt.Sprintf("3/1 0 %q\n", c); !strings.HasSuffix(r.content(t), want) {
		t.Error("the message is not in its queue")
	}
	if err := r.load(t, r.save(t)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatANodeLeavesBehindWhenItEndsIsDropped(t *testing.T) {
	h := newPartsHouse(t, 3, 1)
	end := h.nodes[2]
	s := end.open(t)
	s.mustDeclare(t, durable)
	stopped, goOn := h.letGoOn(1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan struct{})
	go func() {
		defer close(published)
		p := &mq.Publish{Content: stored(strings.Repeat("b", largeBody)), ExpirationMs: -1}
		_, _ = s.Publish(ctx, p) // it fails
	}()
	<-stopped
	session, _ := h.nodes[0].View().Session(end.id)
	h.end(end)
	cancel()
	<-published
	goOn()
	staged := func(n *houseNode) (count int) {
		sh := n.Shard(1)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		sh.state.EachStaged(func(uint32, mq.SessionID) { count++ })
		return count
	}
	h.nodes[0].Sweep() // it may come back
	h.commitSome(t)
	if n := staged(h.nodes[1]); n != 1 {
		t.Fatalf("%d messages are in parts", n)
	}
	if _, err := h.nodes[0].Propose(t.Context(), meta.SessionEnd{Session: session}); err != nil {
		t.Fatal(err)
	}
	h.nodes[0].Sweep()
	for _, n := range h.nodes[:2] {
		eventually(t, "the rest to go", func() bool { return staged(n) == 0 })
	}
}

// commitSome has group 1 commit something.
func (h *house) commitSome(t *testing.T) {
	t.Helper()
	h.nodes[1].open(t).publishTo(t, "", "q", "m", -1)
}
