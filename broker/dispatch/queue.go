package dispatch

import (
	"errors"
	"math"
	"slices"

	"warren/mq"
)

// ErrExclusive is what Attach answers when a consumer wants the queue for
// itself and has company, or another one has it for itself.
var ErrExclusive = errors.New("queue is in exclusive use")

// Live says what is in the queue: the first seq at or after from.
type Live interface {
	Next(from mq.Seq) (mq.Seq, bool)
}

// Queue is who gets what next of one queue. A live seq is ready, or it is
// checked out to exactly one Key. It belongs to one goroutine at a time.
//
// Ready are: what is at or after cursor and not outstanding, and what is
// outstanding as returned. While a queue with ranks is sorted, these have the
// first of the two.
type Queue struct {
	singleActive bool
	cursor       mq.Seq // nothing before it is fresh
	opened       mq.Seq // an earlier leader may have handed out up to here
	out          outstanding
	returns      returns      // of the usual rank, if there are others
	ranks        *ranks       // nil if all messages are of one priority
	heaped       int          // in all heaps of returns
	nReturned    int          // outstanding as returned
	nDeferred    int          // outstanding as deferred
	held         int          // outstanding and checked out
	nSettling    int          // of held: settling, or the leader's
	loose        int          // of held: to no consumer that is attached
	since        *outstanding // when it was checked out; nil if nobody asks
	now          uint32       // as Time said

	byKey     map[Key]int32 // never ranged over
	holders   []holder
	free      []int32 // of holders
	levels    []level
	able      int // consumers in rings
	attached  int
	wanted    uint64 // sum of what the attached ones may hold
	ages      uint64
	active    int32
	suspended []mq.SessionID
}

// New returns the dispatcher of a queue for a leader that begins, for messages
// that are all of one priority.
func New(singleActive bool) *Queue {
	return &Queue{singleActive: singleActive, cursor: 1, active: nobody, byKey: map[Key]int32{}}
}

// OpenAt tells a new leader that every seq up to hw may have been handed out
// before: these are redelivered.
func (q *Queue) OpenAt(hw mq.Seq) { q.opened = max(q.opened, hw) }

// Next picks the message that comes next and who gets it, and checks it out:
// the lowest ready seq of the first rank that has any, to the consumers of the
// highest priority that has credit, in turn. It picks no fresh seq above limit, the delivered high-water
// mark. redelivered=false is the promise that nobody has had it before.
func (q *Queue) Next(live Live, limit mq.Seq) (seq mq.Seq, k Key, noAck, redelivered, ok bool) {
	i := q.turn()
	if i == nobody {
		return 0, Key{}, false, false, false
	}
	if seq, redelivered, ok = q.pick(live, limit); !ok {
		return 0, Key{}, false, false, false
	}
	h := &q.holders[i]
	h.messages--
	h.served = true
	q.checkOut(seq, i, h.NoAck)
	if h.queued { // still able: to the end of its ring
		q.level(h.Priority).first = h.next
	}
	return seq, h.Key, h.NoAck, redelivered, true
}

// Take picks like Next, for a basic.get of k: no credit is needed. With noAck
// too it is checked out until the leader has settled it.
func (q *Queue) Take(live Live, limit mq.Seq, k Key, noAck bool) (seq mq.Seq, redelivered, ok bool) {
	if seq, redelivered, ok = q.pick(live, limit); !ok {
		return 0, false, false
	}
	q.checkOut(seq, q.holder(k), noAck)
	return seq, redelivered, true
}

// pick finds the ready seq that comes first and takes it off what is ready.
func (q *Queue) pick(live Live, limit mq.Seq) (seq mq.Seq, redelivered, ok bool) {
	if q.sorted() {
		return q.pickRanked(live, limit)
	}
	q.trimReturns(&q.returns, live)
	if len(q.returns) > 0 && q.returns[0] < q.cursor {
		return q.pickReturned(&q.returns), true, true
	}
	fresh, any := q.fresh(live)
	if len(q.returns) > 0 && (!any || q.returns[0] < fresh) {
		return q.pickReturned(&q.returns), true, true
	}
	if !any || fresh > limit {
		return 0, false, false
	}
	q.cursor = fresh + 1
	return fresh, fresh <= q.opened, true
}

// fresh finds the lowest ready seq that has not been outstanding, and moves the
// cursor there, so that WantReserve asks for enough.
func (q *Queue) fresh(live Live) (seq mq.Seq, ok bool) {
	seq, ok = live.Next(q.cursor)
	for ok && q.out.get(seq) != none { // claimed or withdrawn before the cursor came by
		seq, ok = live.Next(seq + 1)
	}
	if ok {
		q.cursor = seq
	}
	return seq, ok
}

func (q *Queue) pickReturned(h *returns) mq.Seq {
	seq := (*h)[0]
	h.pop()
	q.heaped--
	q.nReturned--
	return seq
}

// trimReturns takes seqs off the top of a heap that are not ready: settled or
// purged meanwhile, or claimed.
func (q *Queue) trimReturns(h *returns, live Live) {
	for len(*h) > 0 {
		seq := (*h)[0]
		if q.out.get(seq) == returned {
			if at, ok := live.Next(seq); ok && at == seq {
				return
			}
			q.out.set(seq, none)
			q.nReturned--
		}
		h.pop()
		q.heaped--
	}
}

// checkOut notes that holder i has seq. What it has without ack counts as
// settling from the start: the leader settles it.
func (q *Queue) checkOut(seq mq.Seq, i int32, noAck bool) {
	h := &q.holders[i]
	s := holders + slot(i)
	if noAck {
		s |= settling
		q.nSettling++
	} else {
		h.unsettled++
	}
	if !h.attached {
		q.loose++
	}
	q.out.set(seq, s)
	q.noteTime(seq)
	q.held++
	h.held++
	q.refresh(i)
}

// checkIn undoes checkOut of a slot that is held; the caller sets the slot.
func (q *Queue) checkIn(s slot) {
	i, _ := s.held()
	h := &q.holders[i]
	q.held--
	h.held--
	if !h.attached {
		q.loose--
	}
	if s&settling == 0 {
		h.unsettled--
	} else {
		q.nSettling--
	}
	q.refresh(i)
	q.release(i)
}

// giveBack makes a held seq ready again.
func (q *Queue) giveBack(seq mq.Seq, s slot) {
	q.checkIn(s)
	q.forgetTime(seq)
	q.makeReady(seq)
}

// makeReady makes a seq that nobody holds ready again.
func (q *Queue) makeReady(seq mq.Seq) {
	q.out.set(seq, returned)
	q.nReturned++
	if q.heaped > 64 && q.heaped > 2*q.nReturned {
		q.packReturns()
		return
	}
	q.heapFor(seq).push(seq)
	q.heaped++
}

// leaveOut counts a slot that nobody holds out, before it becomes another.
func (q *Queue) leaveOut(s slot) {
	switch s {
	case returned:
		q.nReturned-- // the heap finds out by itself
	case deferred:
		q.nDeferred--
	}
}

// packReturns makes the heaps anew when most of them is not ready any more.
func (q *Queue) packReturns() {
	q.returns, q.heaped = q.returns[:0], 0
	q.ranks.forgetReturns()
	q.out.each(0, math.MaxUint64, func(seq mq.Seq, s slot) bool {
		if s == returned {
			h := q.heapFor(seq)
			*h = append(*h, seq) // ascending: a heap as it is
			q.heaped++
		}
		return true
	})
}

// Settling hears that the settlement of seq has come in and is not committed
// yet: its holder's prefetch credit is free, but it stays checked out.
func (q *Queue) Settling(seq mq.Seq) {
	s := q.out.get(seq)
	i, ok := s.held()
	if !ok || s&settling != 0 {
		return
	}
	q.out.set(seq, s|settling)
	q.nSettling++
	q.holders[i].unsettled--
	q.refresh(i)
}

// Settled hears that first..last are gone for good, whether or not they were
// ever handed out.
func (q *Queue) Settled(first, last mq.Seq) {
	if first == last {
		q.settled(first, q.out.get(first))
		return
	}
	q.out.each(first, last, func(seq mq.Seq, s slot) bool {
		q.settled(seq, s)
		return true
	})
}

func (q *Queue) settled(seq mq.Seq, s slot) {
	switch {
	case s == none:
		return
	case s < holders:
		q.leaveOut(s)
	default:
		q.checkIn(s)
		q.forgetTime(seq)
	}
	q.out.set(seq, none)
}

// Return makes what k holds of seqs ready again, at its place and redelivered.
func (q *Queue) Return(k Key, seqs []mq.Seq) {
	i, ok := q.byKey[k]
	if !ok {
		return
	}
	for _, seq := range seqs {
		// Looked at anew each time: with its last seq the holder itself may go.
		if s := q.out.get(seq); s&^settling == holders+slot(i) {
			q.giveBack(seq, s)
		}
	}
}

// Claim checks out to k what its node says that k holds (the leader is new, or
// the connection was lost), except what is not live or somebody else holds. It
// returns how many of seqs k holds now.
func (q *Queue) Claim(k Key, seqs []mq.Seq, live Live) (n int) {
	i := q.holder(k)
	for _, seq := range seqs {
		s := q.out.get(seq)
		if by, ok := s.held(); ok {
			if by == i {
				n++
			}
			continue
		}
		if at, ok := live.Next(seq); !ok || at != seq {
			continue
		}
		q.leaveOut(s)
		q.checkOut(seq, i, q.holders[i].NoAck)
		n++
	}
	// What k holds makes it the one that was active under the leader before,
	// unless this one has made another active in earnest.
	if a := q.active; n > 0 && a != nobody && a != i && q.holders[i].attached &&
		!q.holders[a].served && q.holders[a].held == 0 && q.holders[i].Priority >= q.holders[a].Priority {
		q.active = i
	}
	q.release(i)
	return n
}

// Reconcile makes ready again what k is said to hold here and does not list:
// a delivery that was lost with a connection. What k has settled is left
// alone, if the settlement has come in; a node lists what it has settled and
// not sent yet.
func (q *Queue) Reconcile(k Key, held []mq.Seq) {
	i, ok := q.byKey[k]
	if !ok {
		return
	}
	if !slices.IsSorted(held) {
		held = slices.Sorted(slices.Values(held))
	}
	q.eachOf(i, func(seq mq.Seq, s slot) {
		if _, listed := slices.BinarySearch(held, seq); !listed && s&settling == 0 {
			q.giveBack(seq, s)
		}
	})
}

// eachOf calls f with all that holder i holds.
func (q *Queue) eachOf(i int32, f func(mq.Seq, slot)) {
	left := q.holders[i].held
	if left == 0 {
		return
	}
	q.out.each(0, math.MaxUint64, func(seq mq.Seq, s slot) bool {
		if s&^settling == holders+slot(i) {
			f(seq, s)
			left--
		}
		return left > 0
	})
}

// Unacked is how many seqs are checked out.
func (q *Queue) Unacked() int { return q.held }

// Leaving is how many of them are as good as gone: settled by their consumers,
// or handed out without ack, and that is not committed yet.
func (q *Queue) Leaving() int { return q.nSettling - q.Withdrawn() }

// Held reports whether seq is checked out.
func (q *Queue) Held(seq mq.Seq) bool {
	_, ok := q.out.get(seq).held()
	return ok
}

// HeldSeqs returns what is checked out, in ascending order.
func (q *Queue) HeldSeqs() []mq.Seq {
	seqs := make([]mq.Seq, 0, q.held)
	q.out.each(0, math.MaxUint64, func(seq mq.Seq, s slot) bool {
		if s >= holders {
			seqs = append(seqs, seq)
		}
		return len(seqs) < q.held
	})
	return seqs
}
