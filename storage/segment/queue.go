package segment

import "slices"

// queue is one queue's chunks, oldest first.
type queue struct {
	id      uint64
	chunks  []*chunk // never without a live message, except the last
	last    uint64   // highest sequence number that was put
	begun   bool     // something was put
	waiting bool     // in the ring of drained queues
	hint    int      // where find was successful last
	bytes   int64    // live
	paged   int      // chunks that are on disk only
	reading bool     // somebody has read, at hint
}

func (q *queue) tail() *chunk {
	if len(q.chunks) == 0 {
		return nil
	}
	return q.chunks[len(q.chunks)-1]
}

// find returns the chunk that seq belongs in, if there is one. Reading goes
// forward: it looks where it was last, and at the next.
func (q *queue) find(seq uint64) *chunk {
	for at := q.hint; at < min(q.hint+2, len(q.chunks)); at++ {
		c := q.chunks[at]
		if c.spans(seq) {
			q.hint = at
			return c
		}
	}
	at := q.search(seq)
	if at == len(q.chunks) || seq < q.chunks[at].first {
		return nil
	}
	q.hint = at
	return q.chunks[at]
}

// search returns the first chunk that does not end before seq.
func (q *queue) search(seq uint64) int {
	if len(q.chunks) > 0 { // settling is at the front, most of the time
		if c := q.chunks[0]; seq < c.first+uint64(c.slots) {
			return 0
		}
	}
	at, _ := slices.BinarySearchFunc(q.chunks, seq, func(c *chunk, seq uint64) int {
		if c.slots > 0 && c.first+uint64(c.slots) <= seq { // an empty one is the tail, and begun anew
			return -1
		}
		return 1
	})
	return at
}

func (q *queue) remove(at int) {
	if at == 0 { // without moving the others; append moves them when it needs room
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
	} else {
		q.chunks = slices.Delete(q.chunks, at, at+1)
	}
	if q.hint > 0 && at <= q.hint {
		q.hint--
	}
}

// drainedMax is how many queues may keep the memory of a drained tail chunk.
const drainedMax = 32

// drainedRing remembers the queues that drained last. A busy queue is drained
// every few messages and must not pay an allocation each time; a hundred
// thousand idle ones must not keep a chunk each.
type drainedRing struct {
	queues [drainedMax]*queue
	next   int
}

// push remembers q and returns the queues that it forgot for it.
func (r *drainedRing) push(q *queue) (forgotten []*queue) {
	if q.waiting {
		return nil
	}
	old := r.queues[r.next]
	r.queues[r.next] = q
	r.next = (r.next + 1) % drainedMax
	q.waiting = true
	if old == nil {
		return nil
	}
	old.waiting = false
	return []*queue{old}
}
