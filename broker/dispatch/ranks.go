package dispatch

import (
	"math/bits"

	"warren/mq"
)

// Messages of a priority queue are of different ranks: rank 0 comes first, and
// within a rank the lower seq. What no consumer has had is in the spans of its
// rank, what came back is in the heap of its rank.
//
// A queue pays for this only while it is sorted: while something else than
// messages of the usual rank is ready. Before that, and again after it, the
// cursor and one heap say what is ready, as in a queue without priorities.

// RanksMax is how many ranks there can be.
const RanksMax = 256

// Ranks says how the messages of a priority queue differ.
type Ranks struct {
	N     int   // ranks are 0..N-1; at most RanksMax
	Usual uint8 // the rank that most messages are expected to have
	// Of returns the rank of a live seq. It is asked for what comes back.
	Of func(mq.Seq) uint8
}

// NewRanked is New for messages of several ranks, which Enqueued has to hear of.
func NewRanked(singleActive bool, r Ranks) *Queue {
	q := New(singleActive)
	q.ranks = &ranks{usual: r.Usual, n: r.N, of: r.Of}
	return q
}

// ranks is what a queue of several ranks knows besides.
type ranks struct {
	usual  uint8
	n      int
	of     func(mq.Seq) uint8
	last   mq.Seq // the last one that Enqueued has heard of
	sorted bool
	latest uint8                 // rank of the seq that was put into a span last
	busy   [RanksMax / 64]uint64 // ranks that have something in by, which may be gone
	by     []rank                // n of them, made when the queue is sorted for the first time
}

// rank is what is ready of one rank while the queue is sorted. What came back
// of the usual rank is in Queue.returns instead.
type rank struct {
	fresh   spans // a live seq in it is ready if it is not outstanding
	returns returns
}

func (q *Queue) sorted() bool { return q.ranks != nil && q.ranks.sorted }

// Enqueued hears that seq is in the queue, after all seqs before it. What is
// not named before the first one of another rank is of the usual rank; after
// it every live seq is named. A seq that is known already is ignored.
func (q *Queue) Enqueued(seq mq.Seq, rank uint8) {
	r := q.ranks
	if r == nil || seq <= r.last {
		return
	}
	before := r.last
	r.last = seq
	if !r.sorted && rank == r.usual {
		return
	}
	q.sort(before)
	r.put(rank, seq, seq)
}

// sort makes the queue sorted: what was fresh up to last becomes a span of the
// usual rank.
func (q *Queue) sort(last mq.Seq) {
	r := q.ranks
	if r.sorted {
		return
	}
	if r.by == nil {
		r.by = make([]rank, r.n)
	}
	r.sorted, r.latest = true, r.usual
	r.touch(r.usual)
	if q.cursor <= last {
		r.put(r.usual, q.cursor, last)
	}
}

// put adds fresh seqs to a rank. If the latest were of the same rank, those
// between are gone, or were of it too: they need no span of their own.
func (r *ranks) put(rank uint8, first, last mq.Seq) {
	fresh := &r.by[rank].fresh
	if x := fresh.last(); x != nil && r.latest == rank {
		x.last = last
	} else {
		fresh.push(span{first, last})
	}
	r.latest = rank
	r.touch(rank)
}

func (r *ranks) touch(rank uint8) { r.busy[rank/64] |= 1 << (rank % 64) }

// next returns the first rank at or after from that may have something.
func (r *ranks) next(from int) (rank int, ok bool) {
	for w := from / 64; w < len(r.busy); w++ {
		word := r.busy[w]
		if w == from/64 {
			word &^= 1<<(from%64) - 1
		}
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word), true
		}
	}
	return 0, false
}

// others reports whether another rank than the usual may have something.
func (r *ranks) others() bool {
	busy := r.busy
	busy[r.usual/64] &^= 1 << (r.usual % 64)
	return busy != [len(busy)]uint64{}
}

// unsort ends being sorted when nothing but the usual rank is left. All that
// is ready of it and did not come back is at or after its first span, and
// nothing of another rank is ready there.
func (q *Queue) unsort() {
	r := q.ranks
	if r.others() {
		return
	}
	q.cursor = r.last + 1
	usual := &r.by[r.usual]
	if x := usual.fresh.first(); x != nil {
		q.cursor = x.first
	}
	usual.fresh.clear()
	r.sorted, r.busy = false, [len(r.busy)]uint64{}
}

// heap is where what came back of a rank is.
func (q *Queue) heap(rank int) *returns {
	if rank == int(q.ranks.usual) {
		return &q.returns
	}
	return &q.ranks.by[rank].returns
}

// heapFor is where a seq goes that comes back. One of another rank than the
// usual makes the queue sorted.
func (q *Queue) heapFor(seq mq.Seq) *returns {
	r := q.ranks
	if r == nil {
		return &q.returns
	}
	rank := r.of(seq)
	if rank != r.usual {
		q.sort(r.last)
		r.touch(rank)
	} else if r.sorted {
		r.touch(rank)
	}
	return q.heap(int(rank))
}

// forgetReturns empties the heaps of all ranks but the usual.
func (r *ranks) forgetReturns() {
	if r == nil {
		return
	}
	for i := range r.by {
		r.by[i].returns = r.by[i].returns[:0]
	}
}

// head returns what comes next of one rank of a sorted queue, and whether it
// came back. The first span begins with the fresh one, if there is any.
func (q *Queue) head(rank int, live Live) (seq mq.Seq, back, ok bool) {
	h := q.heap(rank)
	q.trimReturns(h, live)
	fresh, any := q.freshOf(rank, live)
	if len(*h) > 0 && (!any || (*h)[0] < fresh) {
		return (*h)[0], true, true
	}
	return fresh, false, any
}

// freshOf makes the first span of a rank begin with a seq that is fresh. What
// it passes is gone, or outstanding: that does not become fresh again.
func (q *Queue) freshOf(rank int, live Live) (mq.Seq, bool) {
	fresh := &q.ranks.by[rank].fresh
	for x := fresh.first(); x != nil; x = fresh.first() {
		for {
			seq, ok := live.Next(x.first)
			if !ok || seq > x.last {
				break
			}
			x.first = seq
			if q.out.get(seq) == none {
				return seq, true
			}
			x.first++
		}
		fresh.pop()
	}
	return 0, false
}

// first finds the first rank at or after from that has something ready.
func (q *Queue) first(from int, live Live) (seq mq.Seq, rank int, back, ok bool) {
	r := q.ranks
	for rank, ok = r.next(from); ok; rank, ok = r.next(rank + 1) {
		if seq, back, ok = q.head(rank, live); ok {
			return seq, rank, back, true
		}
		r.busy[rank/64] &^= 1 << (rank % 64)
	}
	return 0, 0, false, false
}

// pickRanked is pick for a sorted queue. What comes first and may not be
// handed out yet is waited for, as the mark is on its way.
func (q *Queue) pickRanked(live Live, limit mq.Seq) (seq mq.Seq, redelivered, ok bool) {
	seq, rank, back, ok := q.first(0, live)
	switch {
	case !ok:
	case back:
		q.pickReturned(q.heap(rank))
		redelivered = true
	case seq > limit:
		return 0, false, false
	default:
		q.ranks.by[rank].fresh.advance()
		redelivered = seq <= q.opened
	}
	q.unsort()
	return seq, redelivered, ok
}

// FirstFrom returns what comes first of the ranks at or after from, and its
// rank. It stays ready.
func (q *Queue) FirstFrom(live Live, from int) (seq mq.Seq, rank int, ok bool) {
	if q.sorted() {
		seq, rank, _, ok = q.first(from, live)
		q.unsort()
		return seq, rank, ok
	}
	if q.ranks != nil {
		rank = int(q.ranks.usual)
	}
	if from > rank {
		return 0, 0, false
	}
	seq, ok = q.First(live)
	return seq, rank, ok
}

// Trim lets go of what is at the front of the ranks and gone: a queue that
// nobody takes from would remember all that was purged from it.
func (q *Queue) Trim(live Live) {
	for rank, ok := 0, q.sorted(); ok; rank++ {
		_, rank, ok = q.FirstFrom(live, rank)
		ok = ok && q.sorted()
	}
}
