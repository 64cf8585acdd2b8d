package dispatch

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"warren/mq"
)

// ranked is a queue of several ranks with its content.
type ranked struct {
	*Queue
	live *liveSet
	rank []uint8 // by seq
}

// newRanked begins with messages of the given ranks, seq 1 first. There are
// ten ranks, and 5 is the usual.
func newRanked(ranks ...uint8) *ranked {
	r := &ranked{live: messages(0), rank: []uint8{0}}
	r.Queue = NewRanked(false, Ranks{N: 10, Usual: 5, Of: func(seq mq.Seq) uint8 { return r.rank[seq] }})
	r.publish(ranks...)
	return r
}

func (r *ranked) publish(ranks ...uint8) {
	for _, rank := range ranks {
		r.live.last++
		r.rank = append(r.rank, rank)
		r.Enqueued(r.live.last, rank)
	}
}

func TestTheFirstRankComesFirstAndInItTheOldest(t *testing.T) {
	for _, c := range []struct {
		name  string
		ranks []uint8
		want  []mq.Seq
	}{
		{"usual alone", []uint8{5, 5, 5}, []mq.Seq{1, 2, 3}},
		{"none of the usual", []uint8{9, 0, 9, 0}, []mq.Seq{2, 4, 1, 3}},
		{"an urgent one", []uint8{5, 5, 1, 5}, []mq.Seq{3, 1, 2, 4}},
		{"an idle one", []uint8{5, 7, 5, 5}, []mq.Seq{1, 3, 4, 2}},
		{"all mixed", []uint8{3, 5, 2, 5, 2, 9}, []mq.Seq{3, 5, 1, 2, 4, 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRanked(c.ranks...)
			attach(t, r.Queue, Consumer{Key: key(1, 1)})
			all := drain(r.Queue, r.live, everything)
			wantSeqs(t, "order", all, c.want...)
			for _, g := range all {
				if g.redelivered {
					t.Errorf("%d is called redelivered", g.seq)
				}
			}
			if r.sorted() {
				t.Error("still sorted, though nothing is ready")
			}
		})
	}
}

func TestGetTakesTheFirstRankFirst(t *testing.T) {
	r := newRanked(5, 6, 4)
	for _, want := range []mq.Seq{3, 1, 2} {
		if seq, redelivered, ok := r.Take(r.live, everything, key(1, 0), false); !ok || seq != want || redelivered {
			t.Fatalf("got %d, %v, %v; want %d", seq, redelivered, ok, want)
		}
	}
}

func TestReturnedGoesBackToItsPlaceInItsRank(t *testing.T) {
	r := newRanked(5, 2, 5, 2, 5)
	k := key(1, 1)
	attach(t, r.Queue, Consumer{Key: k, Prefetch: 3})
	wantSeqs(t, "the first three", drain(r.Queue, r.live, everything), 2, 4, 1)
	r.publish(2, 1)
	r.Return(k, []mq.Seq{1, 2, 4})
	again := drain(r.Queue, r.live, everything)
	wantSeqs(t, "a more urgent one, and then those that came back", again, 7, 2, 4)
	if again[0].redelivered || !again[1].redelivered || !again[2].redelivered {
		t.Errorf("got %v", again)
	}
	r.live.settle(r.Queue, 7, 2, 4)
	rest := drain(r.Queue, r.live, everything)
	wantSeqs(t, "the rest", rest, 6, 1, 3)
	if rest[0].redelivered || !rest[1].redelivered || rest[2].redelivered {
		t.Errorf("got %v", rest)
	}
}

func TestNewLeaderTellsAsRedeliveredUpToTheMark(t *testing.T) {
	r := newRanked(5, 1, 5, 1, 5)
	r.OpenAt(3)
	attach(t, r.Queue, Consumer{Key: key(1, 1)})
	for _, g := range drain(r.Queue, r.live, everything) {
		if g.redelivered != (g.seq <= 3) {
			t.Errorf("%d: redelivered is %v", g.seq, g.redelivered)
		}
	}
}

func TestWhatComesFirstIsWaitedForUntilTheMarkIsThere(t *testing.T) {
	r := newRanked(5, 5, 1)
	attach(t, r.Queue, Consumer{Key: key(1, 1), Prefetch: 10})
	wantSeqs(t, "nothing, as 3 comes first and may not go", drain(r.Queue, r.live, 2))
	if want := r.WantReserve(); want < 3 {
		t.Errorf("the mark is wanted at %d", want)
	}
	wantSeqs(t, "all", drain(r.Queue, r.live, 3), 3, 1, 2)
}

func TestClaimedIsNotHandedOutAndKeepsItsRank(t *testing.T) {
	r := newRanked(5, 1, 5, 1, 8)
	a, b := key(1, 1), key(2, 1)
	attach(t, r.Queue, Consumer{Key: a}, Consumer{Key: b})
	if n := r.Claim(a, []mq.Seq{4, 5, 1, 99}, r.live); n != 3 {
		t.Fatalf("claimed %d", n)
	}
	wantSeqs(t, "the others", drain(r.Queue, r.live, everything), 2, 3)
	r.Reconcile(a, []mq.Seq{5})
	wantSeqs(t, "those that its node does not hold after all", drain(r.Queue, r.live, everything), 2, 4, 1)
	r.DropSession(1)
	r.DropSession(2)
	attach(t, r.Queue, Consumer{Key: key(3, 1)})
	wantSeqs(t, "all", drain(r.Queue, r.live, everything), 2, 4, 1, 3, 5)
}

func TestEveryRankHasAHead(t *testing.T) {
	r := newRanked(5, 1, 5, 8, 1)
	heads := func() (all []mq.Seq) {
		for from := 0; ; {
			seq, rank, ok := r.FirstFrom(r.live, from)
			if !ok {
				return all
			}
			all = append(all, seq)
			from = rank + 1
		}
	}
	if got := heads(); !slices.Equal(got, []mq.Seq{2, 1, 4}) {
		t.Errorf("got %v", got)
	}
	r.Withdraw(2)
	r.Withdraw(4)
	if got := heads(); !slices.Equal(got, []mq.Seq{5, 1}) {
		t.Errorf("got %v", got)
	}
	r.Withdraw(5)
	if got := heads(); !slices.Equal(got, []mq.Seq{1}) || r.sorted() {
		t.Errorf("got %v, sorted: %v", got, r.sorted())
	}
}

func TestPurgedIsForgottenThoughNobodyTakes(t *testing.T) {
	r := newRanked()
	for range 100 {
		from := r.live.last + 1
		for range 100 {
			r.publish(1, 5, 8)
		}
		for seq := from; seq <= r.live.last; seq++ {
			r.live.gone[seq] = true
		}
		r.Settled(from, r.live.last)
		r.Trim(r.live)
	}
	if r.sorted() {
		t.Error("an empty queue is sorted")
	}
	for i := range r.ranks.by {
		if fresh := &r.ranks.by[i].fresh; fresh.first() != nil {
			t.Errorf("rank %d remembers %v", i, *fresh.first())
		}
	}
}

func TestAMessageCostsAtMostSixteenBytes(t *testing.T) {
	if unsafe.Sizeof(span{}) != 16 {
		t.Errorf("a span has %d bytes", unsafe.Sizeof(span{}))
	}
	r := newRanked()
	const n = 30_000
	for i := range n {
		r.publish(uint8(i % 3))
	}
	room := 0
	for i := range r.ranks.by {
		for _, b := range r.ranks.by[i].fresh.blocks {
			room += cap(b)
		}
	}
	if room > n+3*blockSpans {
		t.Errorf("room for %d spans, for %d messages", room, n)
	}
}

func TestUsualMessagesCostNothing(t *testing.T) {
	r := newRanked()
	r.publish(slices.Repeat([]uint8{5}, 1000)...)
	if r.ranks.by != nil {
		t.Error("ranks were made for messages of the usual one alone")
	}
}

func TestRankedNextDoesNotAllocate(t *testing.T) {
	q := NewRanked(false, Ranks{N: 10, Usual: 5, Of: func(seq mq.Seq) uint8 { return uint8(seq % 10) }})
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 10})
	live := &run{}
	step := func() {
		for range 10 {
			live.last++
			q.Enqueued(live.last, uint8(live.last%10))
		}
		for range 10 {
			seq, k, _, _, ok := q.Next(live, everything)
			if !ok {
				t.Fatal("nothing")
			}
			q.Link(k, 1, 0)
			q.Settled(seq, seq)
		}
	}
	for range 5000 {
		step()
	}
	if got := testing.AllocsPerRun(10_000, step); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestNoMessageOfAnyRankIsLostOrHandedOutTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRanked(rapid.SliceOfN(rapid.Uint8Range(0, 9), 0, 100).Draw(t, "ranks")...)
		limit := mq.Seq(rapid.IntRange(0, 120).Draw(t, "limit"))
		had := map[mq.Seq]int{}
		for i := range rapid.IntRange(1, 3).Draw(t, "consumers") {
			attach(t, r.Queue, Consumer{Key: key(1, i), Prefetch: uint32(rapid.IntRange(0, 5).Draw(t, "prefetch"))})
		}
		for range rapid.IntRange(0, 10).Draw(t, "rounds") {
			for _, g := range drain(r.Queue, r.live, limit) {
				switch rapid.IntRange(0, 2).Draw(t, "fate") {
				case 0:
					r.Return(g.k, []mq.Seq{g.seq})
				case 1:
					had[g.seq]++
					r.live.settle(r.Queue, g.seq)
				}
			}
			r.publish(rapid.SliceOfN(rapid.Uint8Range(0, 9), 0, 20).Draw(t, "more")...)
		}
		r.DropSession(1)
		attach(t, r.Queue, Consumer{Key: key(2, 1)})
		rest := seqs(drain(r.Queue, r.live, math.MaxUint64))
		if !slices.IsSortedFunc(rest, func(a, b mq.Seq) int {
			return cmp.Or(cmp.Compare(r.rank[a], r.rank[b]), cmp.Compare(a, b))
		}) {
			t.Fatalf("out of order: %v", rest)
		}
		for _, seq := range rest {
			had[seq]++
		}
		for seq := mq.Seq(1); seq <= r.live.last; seq++ {
			if had[seq] != 1 {
				t.Fatalf("%d was had %d times", seq, had[seq])
			}
		}
	})
}

func BenchmarkRanked(b *testing.B) {
	q := NewRanked(false, Ranks{N: 32, Usual: 27, Of: func(mq.Seq) uint8 { return 27 }})
	_ = q.Attach(Consumer{Key: key(1, 1)})
	k, i := key(1, 1), mq.Seq(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		q.Enqueued(i, uint8(i%4))
		if _, _, _, _, ok := q.Next(all, everything); !ok {
			b.Fatal("nothing")
		}
		q.Link(k, 1, 0)
		q.Settled(i, i)
	}
}
