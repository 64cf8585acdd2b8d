package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

func TestMilestonesLieBetweenTheEntriesAroundThem(t *testing.T) {
	type step struct {
		index, at uint64
		known     bool
	}
	for name, steps := range map[string][]step{
		"a log from its beginning": {{2, 0, false}, {1001, 1000, true}, {2001, 2000, true}},
		"no entry at the index":    {{1, 0, false}, {1003, 1000, true}, {4000, 3000, true}, {4001, 4000, true}},
		"after a snapshot":         {{2001, 2000, false}, {3001, 3000, true}},
		"within":                   {{1500, 1000, false}, {2001, 2000, true}},
	} {
		var m milestones
		for _, s := range steps {
			if s.index <= m.next {
				t.Fatalf("%s: the next is %d", name, m.next)
			}
			if at, known := m.pass(s.index); at != s.at && s.known || known != s.known {
				t.Errorf("%s: entry %d passes %d, %v", name, s.index, at, known)
			}
		}
	}
}

func TestTheLatestMilestonesAreKept(t *testing.T) {
	var m milestones
	for i := range uint64(100) {
		m.add(milestone{i, i})
	}
	if n := len(m.all); n != milestonesKept || m.all[0].index != 100-milestonesKept || m.all[n-1].index != 99 {
		t.Errorf("got %v", m.all)
	}
	if got := testing.AllocsPerRun(100, func() { m.add(milestone{1, 1}) }); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestTheMajorityIsRightAndOfTwoTheLeader(t *testing.T) {
	at := func(digests ...uint64) (out []milestone) {
		for i, d := range digests {
			out = append(out, milestone{uint64(i+1) * 1000, d})
		}
		return out
	}
	type others map[mq.NodeID]told
	for name, c := range map[string]struct {
		own      standing
		others   others
		replicas int
		disputes int
		lost     bool
	}{
		"all agree":               {standing{milestones: at(1, 2)}, others{"a": {0, at(1, 2)}, "b": {9, at(1)}}, 3, 0, false},
		"two others agree":        {standing{milestones: at(1, 2)}, others{"a": {0, at(1, 3)}, "b": {0, at(1, 3)}}, 3, 2, true},
		"the leader is wrong":     {standing{milestones: at(1, 2), leads: 5, led: 5}, others{"a": {0, at(1, 3)}, "b": {0, at(1, 3)}}, 3, 2, true},
		"another one is wrong":    {standing{milestones: at(1, 2)}, others{"a": {0, at(1, 3)}, "b": {7, at(1, 2)}}, 3, 1, false},
		"everybody differs":       {standing{milestones: at(1)}, others{"a": {0, at(2)}, "b": {7, at(3)}}, 3, 2, false},
		"the third is silent":     {standing{milestones: at(1)}, others{"a": {7, at(2)}}, 3, 1, false},
		"the third is behind":     {standing{milestones: at(1, 2)}, others{"a": {7, at(1, 3)}, "b": {0, at(1)}}, 3, 1, false},
		"nothing in common":       {standing{milestones: at(1)}, others{"a": {7, []milestone{{2000, 4}}}}, 3, 0, false},
		"the follower of two":     {standing{milestones: at(1)}, others{"a": {7, at(2)}}, 2, 1, true},
		"the leader of two":       {standing{milestones: at(1), leads: 7, led: 7}, others{"a": {0, at(2)}}, 2, 1, false},
		"two without a leader":    {standing{milestones: at(1), led: 7}, others{"a": {0, at(2)}}, 2, 1, false},
		"it led of two later":     {standing{milestones: at(1), led: 8}, others{"a": {7, at(2)}}, 2, 1, false},
		"it led of two earlier":   {standing{milestones: at(1), led: 6}, others{"a": {7, at(2)}}, 2, 1, true},
		"two of four are too few": {standing{milestones: at(1)}, others{"a": {7, at(2)}, "b": {0, at(2)}}, 4, 2, false},
	} {
		got := judge(c.own, c.others, c.replicas)
		if len(got) != c.disputes || slices.ContainsFunc(got, func(d dispute) bool { return d.lost }) != c.lost {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// write has a group's leader commit entries until the log has passed index.
func (h *house) write(t *testing.T, g mq.GroupID, index int, q mq.QueueID) {
	t.Helper()
	l := h.groups[g]
	for {
		l.mu.Lock()
		at, term, seat := len(l.entries), l.term, houseSeat{l, h.node(l.leader)}
		l.mu.Unlock()
		if at > index {
			return
		}
		seat.Propose(queue.AppendReserve(queue.AppendEntry(nil, term, 1), q, mq.Seq(at)), func(_ any, err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// flip changes a replica's state as no entry of its log does.
func (n *houseNode) flip(t *testing.T, g mq.GroupID) {
	t.Helper()
	s := n.Shard(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	var fx queue.Effects
	if err := s.state.Apply(1, queue.AppendReserve(queue.AppendEntry(nil, 1, 1), 77, 1), &fx); err != nil {
		t.Fatal(err)
	}
}

// compare has all nodes that live compare their replicas.
func (h *house) compare(t *testing.T) {
	for _, n := range h.nodes {
		if !n.dead() {
			n.Compare(t.Context())
		}
	}
}

// wantDamaged checks which nodes' replicas of a group are damaged.
func (h *house) wantDamaged(t *testing.T, g mq.GroupID, want ...int) {
	t.Helper()
	for i, n := range h.nodes {
		err := n.Metadata().Damaged()
		if g != metaGroup {
			err = n.Shard(g).Damaged()
		}
		if is := slices.Contains(want, i); is != (err != nil) || is && !strings.Contains(err.Error(), "digest") {
			t.Errorf("node %d: damage of group %d is %v", i+1, g, err)
		}
	}
}

func TestAReplicaWithAnotherStateIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		nodes, flipped int
		damaged        []int
	}{
		"a follower of three": {3, 1, []int{1}},
		"the leader of three": {3, 0, []int{0}},
		"the follower of two": {2, 1, []int{1}},
		// Nobody can say which of two is wrong: the follower gives way.
		"the leader of two": {2, 0, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, c.nodes, 1)
			h.write(t, 1, 1000, 5)
			h.compare(t)
			h.wantDamaged(t, 1)
			for i, n := range h.nodes {
				if n.Compared(1) != 1000 || n.Mismatches() != 0 {
					t.Errorf("node %d: compared up to %d, %d mismatches", i+1, n.Compared(1), n.Mismatches())
				}
			}
			h.nodes[c.flipped].flip(t, 1)
			h.write(t, 1, 2000, 5)
			h.compare(t)
			h.wantDamaged(t, 1, c.damaged...)
			if n := h.nodes[c.damaged[0]]; n.Mismatches() == 0 || n.Compared(1) != 2000 {
				t.Errorf("compared up to %d, %d mismatches", n.Compared(1), n.Mismatches())
			}

			// It is not asked any more, until it is as good as new.
			before := h.nodes[2%c.nodes].Mismatches()
			h.write(t, 1, 3000, 5)
			h.compare(t)
			if got := h.nodes[2%c.nodes].Mismatches(); got != before {
				t.Errorf("%d more mismatches", got-before)
			}
		})
	}
}

func TestWithOneOfThreeAwayNobodyIsTakenForWrong(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.cut(h.nodes[0], h.nodes[2])
	h.cut(h.nodes[1], h.nodes[2])
	h.nodes[1].flip(t, 1)
	h.write(t, 1, 2000, 5)
	h.compare(t)
	h.compare(t)
	h.wantDamaged(t, 1)
	if got := h.nodes[0].Mismatches(); got != 2 { // each once, however often it is asked
		t.Errorf("%d mismatches, want 2", got)
	}
	h.mend(h.nodes[0], h.nodes[2])
	h.mend(h.nodes[1], h.nodes[2])
	h.compare(t) // nothing new was applied: what was disputed is asked again
	h.wantDamaged(t, 1, 1)
}

func TestADamagedReplicaMakesNoSnapshotAndARestoredOneIsSound(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.nodes[1].flip(t, 1)
	h.write(t, 1, 1000, 5)
	stale := h.nodes[1].Shard(1).standing().milestones[0]
	h.compare(t)
	h.wantDamaged(t, 1, 1)
	if _, err := h.nodes[1].Shard(1).Snapshot(); err == nil || !strings.Contains(err.Error(), "damaged replica") {
		t.Errorf("its snapshot: %v", err)
	}
	w := twin{Shard: h.nodes[0].Shard(1), t: t}
	w.save(0)
	w.Shard = h.nodes[1].Shard(1)
	w.load(w.saved, nil)
	w.differs(stale, errors.New("of before")) // somebody was about to say so
	h.wantDamaged(t, 1)
	h.write(t, 1, 2000, 5)
	h.compare(t)
	h.wantDamaged(t, 1)
	if got := h.nodes[1].Compared(1); got != 2000 {
		t.Errorf("compared up to %d", got)
	}
}

func TestAStateThatTheLogHasNotMadeDoesNotGoIntoASnapshot(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].Shard(1)
	h.write(t, 1, 10, 5)
	if _, err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	count := reflect.ValueOf(s.state.Queue(5)).Elem().FieldByName("count")
	*(*uint64)(unsafe.Pointer(count.UnsafeAddr())) ^= 1 << 9 // as a bad memory chip does
	s.mu.Unlock()
	if _, err := s.Snapshot(); err == nil || s.Damaged() == nil {
		t.Errorf("snapshot: %v, damage: %v", err, s.Damaged())
	}
}

func TestMetadataThatDifferAreFound(t *testing.T) {
	h := newHouse(t, 3, 1)
	write := func(index int) {
		l := h.groups[metaGroup]
		for {
			l.mu.Lock()
			at, seat, term := len(l.entries), houseSeat{l, h.node(l.leader)}, l.term
			l.mu.Unlock()
			if at > index {
				return
			}
			seat.Propose(meta.AppendEntry(nil, term, int64(at)), func(any, error) {})
		}
	}
	write(1000)
	h.compare(t)
	h.wantDamaged(t, metaGroup)
	if got := h.nodes[2].Compared(metaGroup); got != 1000 {
		t.Errorf("compared up to %d", got)
	}
	// Node 2 finds another entry in its log than the others.
	l := h.groups[metaGroup]
	l.mu.Lock()
	at := len(l.entries) + 1
	op := meta.VHostPut{Name: "nowhere else"}
	h.nodes[1].Metadata().Apply([]Entry{{Index: uint64(at), Term: l.term, Data: meta.AppendEntry(nil, l.term, 1, op)}})
	l.applied[h.nodes[1].id] = at
	l.mu.Unlock()
	write(2000)
	h.compare(t) // in which the nodes hash what they will be asked for
	h.compare(t)
	h.wantDamaged(t, metaGroup, 1)
	if _, err := h.nodes[1].Metadata().Snapshot(); err == nil {
		t.Error("it makes a snapshot")
	}
	h.wantDamaged(t, 1)
}

func TestNodesOfOtherVersionsAreNotCompared(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.write(t, 1, 1000, 5)
	ask := func(kind byte, body []byte) ([]byte, error) {
		return h.nodes[0].calls.ask(t.Context(), h.nodes[1].id, kind, metaGroup, body, nil)
	}
	want := func(version uint64) []byte {
		return fields.AppendUint(fields.AppendUint(fields.AppendUint(fields.AppendUint(nil, 1), 1), version), 0)
	}
	if r, err := ask(callMilestones, want(queue.DigestVersion)); err != nil || len(r) == 0 {
		t.Errorf("the same version: %v, %v", r, err)
	}
	if r, err := ask(callMilestones, want(queue.DigestVersion+1)); err != nil || len(r) != 0 {
		t.Errorf("another version: %v, %v", r, err)
	}
	if _, err := ask(callMilestones, []byte{9}); err == nil {
		t.Error("nonsense is answered")
	}
	// What a node says that does not know the question, leader or not.
	for _, from := range h.nodes {
		if r, err := from.calls.ask(t.Context(), h.nodes[0].id, 250, metaGroup, want(1), nil); err == nil {
			t.Errorf("an unknown question is answered with %v", r)
		}
	}
	parseTold(&parser{fields.Read([]byte{1, 0, 200})}, func(mq.GroupID, told) { t.Error("nonsense is believed") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.nodes[0].Compare(ctx) // nobody answers in time
	if got := h.nodes[0].Compared(1); got != 0 {
		t.Errorf("compared up to %d", got)
	}
}

// startAnew gives a node's replica of a group a new beginning: its last
// snapshot, and the log after that.
func (h *house) startAnew(t *testing.T, n *houseNode, g mq.GroupID, run int, saved *twin) {
	l := h.groups[g]
	l.mu.Lock()
	leads := l.leader == n.id
	l.mu.Unlock()
	if leads {
		h.lead(g, h.nodes[(slices.Index(h.nodes, n)+1)%len(h.nodes)])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n.RemoveShard(g)
	folder, err := n.pager.Folder(fmt.Sprintf("/groups/%d/segments.%d", g, run))
	if err != nil {
		t.Fatal(err)
	}
	s := n.AddShard(g, folder)
	s.Start(houseSeat{l, n})
	l.applied[n.id] = 0
	if saved.saved != nil {
		saved.Shard = s
		saved.load(saved.saved, nil)
		l.applied[n.id] = saved.entries
	}
	l.catchUp(n)
}

// length is how many entries a group's log has.
func (h *house) length(g mq.GroupID) int {
	l := h.groups[g]
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// busy has clients publish to and consume from queues with everything that a
// log is written for, until stop is called.
func (h *house) busy(t *testing.T) (stop func()) {
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true, Args: args("x-max-length", int32(20), "x-overflow", "reject-publish")})
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-delivery-limit", int32(2), "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead")})
	s.mustDeclare(t, mq.QueueDeclare{Name: "short", Durable: true, Args: args("x-max-length", int32(30), "x-max-priority", int32(3), "x-message-ttl", int32(50))})
	ended := make(chan struct{})
	var work sync.WaitGroup
	for i, n := range h.nodes {
		publisher, consumer, acks := n.open(t), n.open(t), newConfirms()
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for tag := uint64(1); ; tag++ {
				select {
				case <-ended:
					return
				default:
				}
				queue := []string{"q", "q", "short", "dead"}[rng.IntN(4)]
				p := &mq.Publish{Content: append(mq.NewContent("", queue, []byte{0, 0}, 200), make([]byte, 200)...), ExpirationMs: -1, Confirm: acks, Tag: tag}
				if _, err := publisher.Publish(t.Context(), p); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				publisher.Flush()
				for tag > uint64(acks.count())+50 {
					select {
					case <-acks.more:
					case <-ended:
						return
					}
				}
			}
		})
		in := newInbox()
		id := consumer.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 20}, in)
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 8))
			for taken := 0; ; {
				select {
				case <-ended:
					return
				case <-in.more:
				}
				for _, d := range in.all()[taken:] {
					taken++
					consumer.Drained(id, 1, 200)
					v := []mq.Verdict{mq.Ack, mq.Ack, mq.Ack, mq.Requeue, mq.Discard}[rng.IntN(5)]
					if err := consumer.Settle(t.Context(), mq.Settlement{Verdict: v, Held: []mq.Held{d.Held()}}); err != nil {
						t.Errorf("settle: %v", err)
						return
					}
				}
				consumer.Flush()
			}
		})
	}
	return func() { close(ended); work.Wait() }
}

func TestAHealthyClusterHasNoMismatchWhateverItGoesThrough(t *testing.T) {
	h := newPagedHouse(t, 3, 1, tinyMemory)
	stop := h.busy(t)
	rng := rand.New(rand.NewPCG(3, 3))
	saved := map[*houseNode]*twin{}
	taken := func() uint64 { // of what clients published
		shard := h.nodes[0].Shard(1)
		shard.mu.Lock()
		defer shard.mu.Unlock()
		if q := shard.state.Queue(h.nodes[0].View().Queue("/", "q").ID); q != nil {
			return uint64(q.Last()) - q.Count()
		}
		return 0
	}
	for run := 1; h.length(1) <= 4000 || taken() < 200; run++ {
		h.write(t, 1, h.length(1)+rng.IntN(60), 77)
		n := h.nodes[rng.IntN(len(h.nodes))]
		if saved[n] == nil {
			saved[n] = &twin{t: t}
		}
		switch rng.IntN(4) {
		case 0:
			h.lead(1, n)
		case 1:
			l := h.groups[1]
			l.mu.Lock()
			saved[n].Shard = n.Shard(1)
			saved[n].save(l.applied[n.id])
			l.mu.Unlock()
		case 2:
			h.startAnew(t, n, 1, run, saved[n])
		case 3:
			n.Compare(t.Context())
		}
	}
	stop()
	l := h.groups[1]
	l.mu.Lock() // what is applied on one is applied on all
	var want uint64
	for i, n := range h.nodes {
		hash, _ := (&twin{Shard: n.Shard(1)}).came()
		if i == 0 {
			want = hash
		}
		if hash != want {
			t.Errorf("node %d has come to another state", i+1)
		}
	}
	l.mu.Unlock()
	h.compare(t)
	h.wantDamaged(t, 1)
	for i, n := range h.nodes {
		if n.Mismatches() != 0 || n.Compared(1) < 3000 {
			t.Errorf("node %d: %d mismatches, compared up to %d", i+1, n.Mismatches(), n.Compared(1))
		}
	}
}
