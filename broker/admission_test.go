package broker

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"warren/fsm/queue"
	"warren/mq"
)

// refusing declares "q" with a limit that refuses what is too much.
func (s *Session) refusing(t *testing.T, more ...any) {
	t.Helper()
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args(append(more, "x-overflow", "reject-publish")...)})
}

// publishAll sends messages in one go and returns what became of each.
func (s *Session) publishAll(t *testing.T, exchange, key string, bodies ...string) []mq.Outcome {
	t.Helper()
	acks := newConfirms()
	for i, body := range bodies {
		content := append(mq.NewContent(exchange, key, []byte{0, 0}, len(body)), body...)
		o, err := s.Publish(t.Context(), &mq.Publish{Content: content, ExpirationMs: -1, Confirm: acks, Tag: uint64(i)})
		if err != nil || o != mq.Pending {
			t.Fatalf("publish: %v, %v", o, err)
		}
	}
	s.Flush()
	eventually(t, "all confirms", func() bool { return acks.count() == len(bodies) })
	out := make([]mq.Outcome, len(bodies))
	for i := range out {
		out[i] = acks.of(uint64(i))
	}
	return out
}

// spell writes outcomes as letters.
func spell(os []mq.Outcome) string {
	var b strings.Builder
	for _, o := range os {
		b.WriteString(map[mq.Outcome]string{mq.Confirmed: "+", mq.Refused: "-", mq.Rejected: "!"}[o])
	}
	return b.String()
}

func TestFullQueueRefusesWhatWouldBeTooMuch(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   mq.Table
		bodies string
		want   string
	}{
		{"messages", args("x-max-length", int32(3)), "a b c d e", "+++--"},
		{"bytes of bodies", args("x-max-length-bytes", int32(4)), "aa bbb cc d", "+-+-"},
		{"exactly the bytes", args("x-max-length-bytes", int32(4)), "aaaa b", "+-"},
		{"the lower of both", args("x-max-length-bytes", int32(4), "x-max-length", int32(2)), "a b c", "++-"},
		{"nothing", args("x-max-length", int32(0)), "a b", "--"},
		{"larger than all", args("x-max-length-bytes", int32(2)), "aaa bb", "-+"},
		{"no limit", args(), "a b c", "+++"},
	} {
		for _, durable := range []bool{true, false} {
			for _, overflow := range []string{"reject-publish", "reject-publish-dlx"} {
				t.Run(fmt.Sprint(c.name, durable, overflow), func(t *testing.T) {
					h := newHouse(t, 3, 1)
					s := h.nodes[1].open(t)
					s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: durable, Args: append(args("x-overflow", overflow), c.args...)})
					bodies := strings.Fields(c.bodies)
					// The same whether they come together or one by one.
					together := spell(s.publishAll(t, "", "q", bodies...))
					if _, err := s.Change(t.Context(), mq.QueuePurge{Name: "q"}); err != nil {
						t.Fatal(err)
					}
					var apart string
					for _, b := range bodies {
						apart += spell(s.publishAll(t, "", "q", b))
					}
					if together != c.want || apart != c.want {
						t.Fatalf("got %s together and %s apart, want %s", together, apart, c.want)
					}
					if n := s.ready(t, "q"); n != uint32(strings.Count(c.want, "+")) {
						t.Fatalf("%d ready", n)
					}
				})
			}
		}
	}
}

func TestWhatIsUnsettledMakesRoom(t *testing.T) {
	for _, a := range []mq.Table{args("x-max-length", int32(2)), args("x-max-length-bytes", int32(2))} {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: append(a, args("x-overflow", "reject-publish")...)})
		if got := spell(s.publishAll(t, "", "q", "0", "1", "2")); got != "++-" {
			t.Fatal(got)
		}
		d := s.mustGet(t, "q")
		if got := spell(s.publishAll(t, "", "q", "3", "4")); got != "+-" {
			t.Fatal(got)
		}
		s.settle(t, mq.Requeue, d)
		eventually(t, "it to be back", func() bool { return s.ready(t, "q") == 3 })
		// Nothing is dropped that was confirmed; it takes two to make room for one.
		if got := spell(s.publishAll(t, "", "q", "5")); got != "-" {
			t.Fatal(got)
		}
		s.settle(t, mq.Ack, s.mustGet(t, "q"), s.mustGet(t, "q"))
		if got := spell(s.publishAll(t, "", "q", "6", "7")); got != "+-" {
			t.Fatal(got)
		}
	}
}

func TestConsumersNeedNoRoom(t *testing.T) {
	for _, sac := range []bool{false, true} {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.refusing(t, "x-max-length", int32(3), "x-single-active-consumer", sac)
		in := newInbox()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
		if got := spell(s.publishAll(t, "", "q", strings.Fields("a b c d e f g")...)); got != "+++++--" {
			t.Fatal(got)
		}
		eventually(t, "deliveries", func() bool { return len(in.all()) == 2 })
		s.settle(t, mq.Ack, in.all()...)
		eventually(t, "deliveries", func() bool { return len(in.all()) == 4 })
		if got := spell(s.publishAll(t, "", "q", strings.Fields("h i j")...)); got != "++-" {
			t.Fatal(got)
		}
	}
}

func TestOneFullQueueOfSeveralRefuses(t *testing.T) {
	h := newHouse(t, 3, 2)
	h.awaitLeaders(t)
	s := h.nodes[2].open(t)
	for i, name := range []string{"here", "there"} {
		o := h.nodes[i].open(t)
		o.mustDeclare(t, mq.QueueDeclare{Name: name, Durable: true})
		o.mustDeclare(t, mq.QueueDeclare{Name: name + "-full", Durable: true, Args: args("x-max-length", int32(1+i), "x-overflow", "reject-publish")})
		for _, q := range []string{name, name + "-full"} {
			if _, err := s.Change(t.Context(), mq.QueueBind{Queue: q, Exchange: "amq.fanout"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := spell(s.publishAll(t, "amq.fanout", "", "0", "1", "2")); got != "+--" {
		t.Fatal(got)
	}
	for name, want := range map[string]uint32{"here": 3, "there": 3, "here-full": 1, "there-full": 2} {
		if n := s.ready(t, name); n != want {
			t.Errorf("%s has %d, want %d", name, n, want)
		}
	}
}

func TestRefusedWithoutConfirmIsDropped(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.refusing(t, "x-max-length", int32(1))
	for range 5 {
		s.mustPublish(t, "q", "m", nil, 0)
	}
	if n := s.ready(t, "q"); n != 1 {
		t.Fatalf("%d ready", n)
	}
	if n := h.nodes[0].Shard(1).Stats().Refused; n != 4 {
		t.Fatalf("%d refused", n)
	}
}

func TestRefusedIsDeadLetteredIfAskedFor(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-max-length", int32(2), "x-overflow", "reject-publish-dlx")
	s := h.nodes[2].open(t)
	if got := spell(s.publishAll(t, "", "q", "0", "1", "2", "3", "4")); got != "++---" {
		t.Fatal(got)
	}
	eventually(t, "dead letters", func() bool { return s.ready(t, "dead") == 3 })
	for _, want := range []string{"2", "3", "4"} {
		d := s.mustGet(t, "dead")
		wantDeath(t, d, "q", tooMany, 1)
		if string(d.Content.Body()) != want {
			t.Fatalf("got %q, want %q", d.Content.Body(), want)
		}
	}
	eventually(t, "nothing on its way", func() bool {
		st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
		return err == nil && st == QueueStat{Ready: 2}
	})
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "0" {
		t.Fatalf("got %q", d.Content.Body())
	}
}

func TestNewLeaderSendsWhatWasRefusedToTheDeadLetters(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-max-length", int32(1), "x-overflow", "reject-publish-dlx")
	s := h.nodes[2].open(t)
	h.orphan(2) // no dead letter arrives
	if got := spell(s.publishAll(t, "", "q", "0", "1", "2")); got != "+--" {
		t.Fatal(got)
	}
	h.end(h.nodes[0]) // with what it was about to send
	h.lead(metaGroup, h.nodes[1])
	h.lead(1, h.nodes[1])
	h.lead(2, h.nodes[2])
	eventually(t, "dead letters, though nobody touches their source", func() bool { return s.ready(t, "dead") == 2 })
	wantDeath(t, s.mustGet(t, "dead"), "q", tooMany, 1)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", NoAck: true}, in)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	if got := in.all(); len(got) != 1 || string(got[0].Content.Body()) != "0" {
		t.Fatalf("%d deliveries: what was refused is among them", len(got))
	}
}

func TestRefusedIsOnlyRefusedIfTooManyAreOnTheirWay(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-max-length", int32(1), "x-overflow", "reject-publish-dlx")
	h.orphan(2)
	s := h.nodes[0].open(t)
	acks := newConfirms()
	const n = withdrawnMax + 300
	for i := range n {
		s.mustPublish(t, "q", "m", acks, uint64(i))
	}
	eventually(t, "all confirms", func() bool { return acks.count() == n })
	if st := h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID); st.Unacked > withdrawnMax || st.Ready != 1 {
		t.Fatalf("%d are on their way to the dead letters, %d are ready", st.Unacked, st.Ready)
	}
}

// The first answer is lost with the leader: the next one answers the same.
func TestNewLeaderRefusesTheSameAgain(t *testing.T) {
	for _, restored := range []bool{false, true} {
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.refusing(t, "x-max-length", int32(2))
		s.publishTo(t, "", "q", "first", -1)
		resume := h.nodes[2].pause() // it hears no results
		defer resume()
		acks := newConfirms()
		for i := range 4 { // as one batch
			p := &mq.Publish{Content: mq.NewContent("", "q", []byte{0, 0}, 0), ExpirationMs: -1, Confirm: acks, Tag: uint64(i)}
			if _, err := s.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		s.Flush()
		q := h.nodes[0].View().Queue("/", "q").ID
		eventually(t, "the refusals to be committed", func() bool { return h.nodes[0].Shard(1).Stats().Refused == 3 && h.nodes[0].Shard(1).Stat(q).Ready == 2 })
		// There is room by now, and yet what was refused stays so.
		if _, err := h.nodes[0].open(t).Change(t.Context(), mq.QueuePurge{Name: "q"}); err != nil {
			t.Fatal(err)
		}
		if restored {
			h.restart(t, 1, h.nodes[1])
		}
		h.nodes[2].mu.Lock()
		h.nodes[2].inbox = nil // the results with the rest
		h.nodes[2].mu.Unlock()
		h.lead(1, h.nodes[1])
		resume()
		eventually(t, "all confirms", func() bool { return acks.count() == 4 })
		got := spell([]mq.Outcome{acks.of(0), acks.of(1), acks.of(2), acks.of(3)})
		if got != "+---" {
			t.Fatalf("restored=%v: got %s", restored, got)
		}
	}
}

// restart replaces a follower's replica by what its snapshot says.
func (h *house) restart(t *testing.T, g mq.GroupID, n *houseNode) {
	t.Helper()
	var b strings.Builder
	snap, err := n.Shard(g).Snapshot()
	if err == nil {
		_, err = snap.WriteTo(&b)
		snap.Release()
	}
	if err == nil {
		err = n.Shard(g).Restore(strings.NewReader(b.String()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPublishesWaitUntilALeaderKnowsWhatIsUnsettled(t *testing.T) {
	h := newHouse(t, 3, 1)
	s, con := h.nodes[1].open(t), h.nodes[2].open(t)
	s.refusing(t, "x-max-length", int32(2))
	if got := spell(s.publishAll(t, "", "q", "0", "1")); got != "++" {
		t.Fatal(got)
	}
	held := []mq.Delivery{con.mustGet(t, "q"), con.mustGet(t, "q")}
	resume := h.nodes[2].pause()
	defer resume()
	h.lead(1, h.nodes[0])
	acks := newConfirms()
	for i := range 3 {
		s.mustPublish(t, "q", "m", acks, uint64(i))
	}
	shard := h.nodes[0].Shard(1)
	eventually(t, "the batches", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return len(shard.lead.early) > 0 || shard.lead.opened
	})
	resume()
	eventually(t, "all confirms", func() bool { return acks.count() == 3 })
	if got := spell([]mq.Outcome{acks.of(0), acks.of(1), acks.of(2)}); got != "++-" {
		t.Fatal(got)
	}
	con.settle(t, mq.Ack, held...)
}

// Whatever happens on the way: what is confirmed is in the queue once, what is
// refused is not in it, and it never holds more than it may.
func TestRefusalsAreTrueWhateverHappens(t *testing.T) {
	for seed := range uint64(6) {
		h := newHouse(t, 3, 1)
		s, con := h.nodes[1].open(t), h.nodes[2].open(t)
		s.refusing(t, "x-max-length", int32(7))
		r := rand.New(rand.NewPCG(seed, 5))
		acks, got := newConfirms(), map[string]int{}
		const n = 400
		take := func() {
			d, ok, err := con.Get(t.Context(), "q", false)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			got[string(d.Content.Body())]++
			con.settle(t, mq.Ack, d)
		}
		doubtSome(h, seed)
		for i := range n {
			s.mustPublish(t, "q", strconv.Itoa(i), acks, uint64(i))
			switch r.IntN(50) {
			case 0:
				h.lead(1, h.nodes[r.IntN(3)])
			case 1:
				a, b := h.nodes[r.IntN(2)*2], h.nodes[1]
				h.cut(a, b)
				h.mend(a, b)
			case 2, 3, 4, 5, 6:
				take()
			}
		}
		eventually(t, "all confirms", func() bool { return acks.count() == n })
		if n := s.ready(t, "q"); n > 7 {
			t.Errorf("%d ready, at most 7 may be", n)
		}
		for s.ready(t, "q") > 0 {
			take()
		}
		for i := range n {
			want := 0
			if acks.of(uint64(i)) == mq.Confirmed {
				want = 1
			}
			if got[strconv.Itoa(i)] != want {
				t.Errorf("seed %d: message %d was answered %v and is in the queue %d times", seed, i, acks.of(uint64(i)), got[strconv.Itoa(i)])
			}
		}
	}
}

// doubtSome makes some proposals of group 1 fail, and some be said to.
func doubtSome(h *house, seed uint64) {
	l := h.groups[1]
	r := rand.New(rand.NewPCG(seed, 6))
	l.mu.Lock()
	l.refuse = func() bool { return r.IntN(20) == 0 }
	l.doubt = func() bool { return r.IntN(20) == 0 }
	l.mu.Unlock()
}

// A later batch's answer says nothing of what was refused of an earlier one.
func TestEachBatchWaitsForItsOwnAnswer(t *testing.T) {
	lane := &recordedLane{}
	b := newOutbox(1, Origin{1, 1}, lane)
	acks := newConfirms()
	to := target{group: 1, queues: []mq.QueueID{1}, flags: refusable}
	for i := range 3 {
		for k := range 2 {
			if err := b.enqueue(t.Context(), &to, &outgoing{content: mq.NewContent("", "q", nil, 0)}, 0, waiter{confirm: acks, tag: uint64(2*i + k)}); err != nil {
				t.Fatal(err)
			}
		}
		b.sendAll()
	}
	b.lead("node", 1)
	lane.sent = 0
	b.result(2, queue.Applied, []queue.Run{{First: 1, Last: 1}})
	if acks.count() != 0 || lane.sent != 1 {
		t.Fatalf("%d confirms, and the first batch was asked for %d times", acks.count(), lane.sent)
	}
	b.result(3, queue.Duplicate, nil)
	b.result(2, queue.Duplicate, nil)
	b.result(1, queue.Duplicate, []queue.Run{{First: 0, Last: 0}})
	b.result(1, queue.Duplicate, nil)
	var got []mq.Outcome
	for tag := range uint64(6) {
		got = append(got, acks.of(tag))
	}
	if spell(got) != "-++-++" || lane.sent != 1 {
		t.Fatalf("got %s; sent %d", spell(got), lane.sent)
	}
}

func TestNoMoreBatchesWithMessagesAreUnansweredThanAreRemembered(t *testing.T) {
	lane := &recordedLane{}
	b := newOutbox(1, Origin{1, 1}, lane)
	acks := newConfirms()
	to := target{group: 1, queues: []mq.QueueID{1}}
	put := func(tag uint64) {
		if err := b.forward(&to, &outgoing{content: mq.NewContent("", "q", nil, 0)}, 0, waiter{confirm: acks, tag: tag}); err != nil {
			t.Fatal(err)
		}
	}
	const n = 2 * batchesMax
	for i := range n {
		put(uint64(2 * i))
		b.settle(1, mq.Seq(i), mq.Seq(i), waiter{confirm: acks, tag: uint64(2*i + 1)})
		b.sendAll() // the settlements cannot wait
	}
	loaded := 0
	for i := range b.window {
		if len(b.window[i].messages) > 0 {
			loaded++
		}
	}
	if loaded != batchesMax || len(b.window) != n || len(b.settles) > 0 {
		t.Fatalf("%d batches with messages of %d", loaded, len(b.window))
	}
	waited := make(chan error, 1)
	go func() { waited <- b.answered(t.Context()) }()
	for seq := uint64(1); seq <= n+1; seq++ {
		eventually(t, "the batch", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.next > seq
		})
		b.result(seq, queue.Applied, nil)
	}
	if err := <-waited; err != nil || acks.count() != 2*n {
		t.Fatalf("%v, %d answers of %d", err, acks.count(), 2*n)
	}
	if b.owed != 0 || b.busy != 0 || len(b.window) != 0 {
		t.Fatalf("%d bytes owed, %d busy, %d in the window", b.owed, b.busy, len(b.window))
	}
}

// recordedLane counts frames.
type recordedLane struct{ sent int }

func (*recordedLane) Self() mq.NodeID               { return "node" }
func (l *recordedLane) Send(mq.NodeID, []byte) bool { l.sent++; return true }
func (*recordedLane) Peers() []mq.NodeID            { return nil }
func (*recordedLane) Dead(mq.NodeID) bool           { return false }

func TestBatchesThatComeTogetherShareTheRoom(t *testing.T) {
	for _, a := range []mq.Table{args("x-max-length", int32(3)), args("x-max-length-bytes", int32(3))} {
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: append(a, args("x-overflow", "reject-publish")...)})
		s.mustDeclare(t, mq.QueueDeclare{Name: "other", Durable: true})
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
		s.mustPublish(t, "other", "x", nil, 0)
		<-blocked // and nothing is applied now
		acks := newConfirms()
		shard := h.nodes[0].Shard(1)
		for i := range 3 {
			from := h.nodes[i].open(t)
			for k := range 2 {
				p := &mq.Publish{Content: append(mq.NewContent("", "q", []byte{0, 0}, 1), 'm'), ExpirationMs: -1, Confirm: acks, Tag: uint64(2*i + k)}
				if _, err := from.Publish(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			from.Flush()
			eventually(t, "the batch", func() bool {
				shard.mu.Lock()
				defer shard.mu.Unlock()
				return len(shard.lead.proposer.parts) == i+1
			})
		}
		close(release)
		eventually(t, "all confirms", func() bool { return acks.count() == 6 })
		var got []mq.Outcome
		for tag := range uint64(6) {
			got = append(got, acks.of(tag))
		}
		if spell(got) != "+++---" {
			t.Errorf("got %s", spell(got))
		}
		shard.mu.Lock()
		if left := len(shard.lead.admitted); left != 0 {
			t.Errorf("%d admissions are left", left)
		}
		shard.mu.Unlock()
	}
}

// Whatever is used again for later batches: each answer comes once, and is that
// of its own message.
func TestOutboxAnswersEachMessageOnce(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := newOutbox(1, Origin{1, 1}, &recordedLane{})
		acks, to := newConfirms(), target{group: 1, queues: []mq.QueueID{1}}
		var told []mq.Outcome // by tag
		answer := func(seq uint64) {
			var runs []queue.Run
			s := &b.window[seq-b.window[0].seq]
			for _, w := range s.messageWait {
				if told[w.tag] = mq.Confirmed; r.IntN(2) == 0 {
					told[w.tag] = mq.Refused
					runs = append(runs, queue.Run{First: w.message, Last: w.message})
				}
			}
			b.result(seq, queue.Applied, runs)
		}
		for range 200 {
			switch r.IntN(5) {
			case 0, 1:
				w := waiter{confirm: acks, tag: uint64(len(told))}
				if err := b.forward(&to, &outgoing{content: mq.NewContent("", "q", nil, 0)}, 0, w); err != nil {
					t.Fatal(err)
				}
				told = append(told, mq.Pending)
			case 2:
				b.settle(1, 1, 1, waiter{})
			case 3:
				if b.flush(); r.IntN(2) == 0 {
					b.sendAll()
				}
			case 4:
				if len(b.window) > 0 {
					answer(b.window[0].seq)
				}
			}
		}
		for b.sendAll(); len(b.window) > 0; b.sendAll() {
			answer(b.window[0].seq)
		}
		for tag, want := range told {
			if got := acks.of(uint64(tag)); got != want || got == mq.Pending {
				t.Fatalf("seed %d: message %d of %d was told %v, want %v", seed, tag, len(told), got, want)
			}
		}
	}
}
