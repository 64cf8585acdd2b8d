package queue

import (
	"math/bits"

	"warren/mq"
)

// A Queue's live messages are kept by chunks of 1024 seqs. A chunk is a count
// until something in its middle is settled, only then a bitmap. What has been
// settled at the front costs nothing. 50 million messages are under a
// megabyte; an empty queue is about a hundred bytes.
const (
	chunkBits = 10
	chunkSeqs = 1 << chunkBits
	wordSeqs  = 64
)

// bitmap has a bit for every seq of a chunk that is live.
type bitmap [chunkSeqs / wordSeqs]uint64

// chunk stands for the seqs from number<<chunkBits on. With bitmap nil it is
// dead if live is 0, and else everything in it is live that is at or after the
// queue's front and not after its last seq.
type chunk struct {
	bitmap *bitmap
	live   uint16
}

// Queue is one queue of a State.
type Queue struct {
	id        mq.QueueID
	lastSeq   mq.Seq
	highWater mq.Seq
	front     mq.Seq // the first live seq; lastSeq+1 if there is none
	count     uint64
	// chunks[head:] reach from the chunk of front to that of lastSeq; none if
	// nothing is live. base is the number of chunks[head].
	chunks []chunk
	head   uint32
	dirty  bool // it is in State.dirty
	gone   bool // it was deleted
	base   uint64
	notes  *notes // nil if there is none
	// windows are what is remembered of messages that enter once; nil if nothing is.
	windows *[]*window
	holes   uint64 // of what is not live between front and lastSeq: see hole
	folded  uint64 // its digest as it is in State.sum
}

// Count is how many messages are live.
func (q *Queue) Count() uint64 { return q.count }

// Last is the seq given out last, 0 if none was.
func (q *Queue) Last() mq.Seq { return q.lastSeq }

// HighWater is the delivered high-water mark: no leader has handed out a seq
// above it.
func (q *Queue) HighWater() mq.Seq { return q.highWater }

// Live reports whether seq is in the queue.
func (q *Queue) Live(seq mq.Seq) bool {
	if seq < q.front || seq > q.lastSeq {
		return false
	}
	c := q.chunk(seq)
	if c.bitmap == nil {
		return c.live > 0
	}
	at := seq % chunkSeqs
	return c.bitmap[at/wordSeqs]>>(at%wordSeqs)&1 == 1
}

// Next returns the first live seq at or after from.
func (q *Queue) Next(from mq.Seq) (mq.Seq, bool) {
	seq := max(from, q.front)
	if seq > q.lastSeq {
		return 0, false
	}
	for chunks := q.chunks[q.head+uint32(uint64(seq)>>chunkBits-q.base):]; len(chunks) > 0; chunks = chunks[1:] {
		c := &chunks[0]
		if c.live > 0 && c.bitmap == nil {
			return seq, true
		}
		if c.live > 0 {
			if at, ok := c.bitmap.next(uint(seq % chunkSeqs)); ok {
				return seq&^(chunkSeqs-1) | mq.Seq(at), true
			}
		}
		seq = seq&^(chunkSeqs-1) + chunkSeqs
	}
	return 0, false
}

func (b *bitmap) next(at uint) (uint, bool) {
	w := at / wordSeqs
	word := b[w] &^ (1<<(at%wordSeqs) - 1)
	for word == 0 {
		if w++; w == uint(len(b)) {
			return 0, false
		}
		word = b[w]
	}
	return w*wordSeqs + uint(bits.TrailingZeros64(word)), true
}

// chunk returns the chunk of a seq between front and lastSeq.
func (q *Queue) chunk(seq mq.Seq) *chunk {
	return &q.chunks[q.head+uint32(uint64(seq)>>chunkBits-q.base)]
}

// push gives out the next seq, live.
func (q *Queue) push(spare *spares) mq.Seq {
	q.lastSeq++
	seq := q.lastSeq
	number := uint64(seq) >> chunkBits
	if n := uint64(len(q.chunks)) - uint64(q.head); n == 0 {
		q.front, q.base = seq, number
		q.chunks = append(q.chunks, chunk{})
	} else if q.base+n == number {
		// The chunk before is complete now, so that dead can be told from full.
		if before := &q.chunks[len(q.chunks)-1]; before.live == 0 && before.bitmap != nil {
			spare.put(before.bitmap)
			before.bitmap = nil
		}
		q.chunks = append(q.chunks, chunk{})
	}
	c := &q.chunks[len(q.chunks)-1]
	if c.bitmap != nil {
		c.bitmap[seq%chunkSeqs/wordSeqs] |= 1 << (seq % wordSeqs)
	}
	c.live++
	q.count++
	return seq
}

// settle takes what is live in first..last out and notes it in fx.
func (q *Queue) settle(first, last mq.Seq, spare *spares, fx *Effects) {
	first, last = max(first, q.front), min(last, q.lastSeq)
	if first > last || q.count == 0 {
		return
	}
	if q.notes != nil {
		q.forget(first, last)
	}
	if w := q.window(OwnWindow); w != nil {
		w.leave(first, last)
	}
	atFront := first == q.front
	for lo := first; lo <= last; lo = lo&^(chunkSeqs-1) + chunkSeqs {
		hi := min(last, lo|(chunkSeqs-1))
		c := q.chunk(lo)
		if c.live == 0 {
			if atFront {
				q.holes -= q.span(lo, hi)
			}
			continue
		}
		if c.bitmap == nil && atFront {
			// All of it up to hi; the front will pass that, so no bitmap.
			c.live -= uint16(hi - lo + 1)
			q.count -= uint64(hi - lo + 1)
			fx.settled(q.id, lo, hi)
			continue
		}
		if c.bitmap == nil {
			c.bitmap = spare.get()
			c.bitmap.fill(max(q.front, lo&^(chunkSeqs-1)), min(q.lastSeq, lo|(chunkSeqs-1)))
		}
		// What the front passes is no hole any more; what it does not, is one now.
		if atFront {
			q.holes -= q.holesIn(c.bitmap, lo, hi, ^uint64(0))
		} else {
			q.holes += q.holesIn(c.bitmap, lo, hi, 0)
		}
		gone := c.bitmap.remove(q.id, lo, hi, fx)
		c.live -= gone
		q.count -= uint64(gone)
		if c.live == 0 && lo|(chunkSeqs-1) <= q.lastSeq {
			spare.put(c.bitmap)
			c.bitmap = nil
		}
	}
	if q.count == 0 {
		q.empty(spare)
	} else if atFront {
		q.front, _ = q.Next(last + 1)
		q.holes -= q.span(last+1, q.front-1)
		q.trim(spare)
	}
}

// fill sets the bits of lo..hi, which are in one chunk, in a zero bitmap.
func (b *bitmap) fill(lo, hi mq.Seq) {
	for seq := lo; seq <= hi; {
		end := min(hi, seq|(wordSeqs-1))
		b[seq%chunkSeqs/wordSeqs] |= mask(seq, end)
		seq = end + 1
	}
}

// remove clears the bits of lo..hi, which are in one chunk, and notes the runs
// that were set.
func (b *bitmap) remove(id mq.QueueID, lo, hi mq.Seq, fx *Effects) (gone uint16) {
	for seq := lo; seq <= hi; {
		end := min(hi, seq|(wordSeqs-1))
		word := &b[seq%chunkSeqs/wordSeqs]
		set := *word & mask(seq, end)
		*word &^= set
		gone += uint16(bits.OnesCount64(set))
		for start := seq &^ (wordSeqs - 1); set != 0; {
			from := bits.TrailingZeros64(set)
			run := bits.TrailingZeros64(^(set >> from))
			fx.settled(id, start+mq.Seq(from), start+mq.Seq(from+run-1))
			set &^= (1<<run - 1) << from
		}
		seq = end + 1
	}
	return gone
}

// mask has the bits of lo..hi, which are in one word.
func mask(lo, hi mq.Seq) uint64 {
	return (^uint64(0) >> (wordSeqs - 1 - (hi - lo))) << (lo % wordSeqs)
}

// empty lets go of the chunks; a short list is kept for the next message.
func (q *Queue) empty(spare *spares) {
	for i := range q.chunks[q.head:] {
		spare.put(q.chunks[int(q.head)+i].bitmap)
	}
	const keep = 4
	if cap(q.chunks) <= keep {
		clear(q.chunks)
		q.chunks = q.chunks[:0]
	} else {
		q.chunks = nil
	}
	q.head, q.base, q.front, q.holes = 0, 0, q.lastSeq+1, 0
}

// trim lets go of the chunks before front.
func (q *Queue) trim(spare *spares) {
	for number := uint64(q.front) >> chunkBits; q.base < number; q.base++ {
		c := &q.chunks[q.head]
		spare.put(c.bitmap)
		*c = chunk{}
		q.head++
	}
	n := len(q.chunks) - int(q.head)
	if int(q.head) < n {
		return
	}
	if cap(q.chunks) > 64 && n < cap(q.chunks)/4 {
		q.chunks = append(make([]chunk, 0, 2*n), q.chunks[q.head:]...)
	} else {
		copy(q.chunks, q.chunks[q.head:])
		clear(q.chunks[n:])
		q.chunks = q.chunks[:n]
	}
	q.head = 0
}

// spares are bitmaps that are not in use, so that out-of-order settling does
// not allocate.
type spares struct{ free []*bitmap }

const sparesMax = 64

func (s *spares) get() *bitmap {
	n := len(s.free)
	if n == 0 {
		return new(bitmap)
	}
	b := s.free[n-1]
	s.free = s.free[:n-1]
	return b
}

func (s *spares) put(b *bitmap) {
	if b != nil && len(s.free) < sparesMax {
		*b = bitmap{}
		s.free = append(s.free, b)
	}
}
