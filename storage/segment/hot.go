package segment

// rec is one message's place. It holds no pointer, so the collector does not
// look at a chunk's records.
type rec struct {
	expiryMs    int64
	off, bytes  uint32
	flags, prio uint8
	block       uint8
	hole        bool // the slot of a sequence number that was never put
}

const (
	// recBytes is the size of a rec.
	recBytes = 24
	// recsMin is for how many there is room at first.
	recsMin = 4
	// recsFew are those of a short queue: up to here room grows by half only.
	recsFew = 32
)

// hot is the part of a chunk that is in memory. What was written is never
// changed, only added to, so that a View needs no more than the lengths.
type hot struct {
	recs   []rec
	blocks [][]byte // bodies; no block ever moves, or changes its length

	putBytes int64 // of all bodies since the chunk began
	current  int   // the block being filled; -1 if there is none
	used     int   // bytes of it

	own, seen uint64 // bit i: block i was made here; was shown to a reader

	bytes int64 // of memory, as the store has counted it
	// The store's ring of what may be paged out, oldest first.
	prev, next *hot
	chunk      *chunk
	queue      *queue
	loadedMs   int64 // when it came back from disk, 0 once it was read
	loaded     bool  // it came back from disk, and is counted in Pager.loaded
}

func (h *hot) addRec(s *Store, r rec) {
	if len(h.recs) == cap(h.recs) {
		more := min(cap(h.recs), chunkSlots-cap(h.recs))
		if cap(h.recs) < recsFew {
			more = max(recsMin, cap(h.recs)/2)
		}
		h.recs = append(make([]rec, 0, cap(h.recs)+more), h.recs...)
		s.account(h, int64(more)*recBytes)
	}
	h.recs = append(h.recs, r)
}

// addBody keeps a body and notes its place in r.
func (h *hot) addBody(s *Store, r *rec, body []byte) {
	r.bytes = uint32(len(body))
	h.putBytes += int64(len(body))
	if len(body) >= bigBody {
		r.block = uint8(len(h.blocks))
		h.blocks = append(h.blocks, body[:len(body):len(body)])
		s.account(h, int64(len(body)))
		return
	}
	if h.current < 0 || len(h.blocks[h.current])-h.used < len(body) {
		h.current, h.used = len(h.blocks), 0
		h.own |= 1 << h.current
		b := s.block(len(body), max(blockBytesMin, 2*len(body), int(h.putBytes)-len(body)))
		h.blocks = append(h.blocks, b)
		s.account(h, int64(len(b)))
	}
	r.block, r.off = uint8(h.current), uint32(h.used)
	h.used += copy(h.blocks[h.current][h.used:], body)
}

func (h *hot) record(slot int) Record {
	r := &h.recs[slot]
	h.seen |= 1 << r.block
	h.loadedMs = 0
	return r.record(h.blocks)
}

func (r *rec) record(blocks [][]byte) Record {
	b := blocks[r.block][r.off : r.off+r.bytes : r.off+r.bytes]
	return Record{Flags: r.flags, Priority: r.prio, ExpiryMs: r.expiryMs, Body: b}
}

// reset begins a chunk anew that no reader has seen. It keeps its largest
// block, if that is one of ours.
func (c *chunk) reset(s *Store) {
	h := c.hot
	var keep []byte
	if h.current >= 0 {
		keep = h.blocks[h.current]
	}
	clear(h.blocks)
	bytes := int64(cap(h.recs))*recBytes + int64(len(keep))
	s.account(h, bytes-h.bytes)
	if c.file != nil {
		c.file.letGo()
	}
	*c = chunk{hot: h}
	*h = hot{
		recs: h.recs[:0], blocks: h.blocks[:0], current: -1,
		bytes: h.bytes, prev: h.prev, next: h.next, chunk: c, queue: h.queue,
	}
	if keep != nil {
		h.blocks, h.current, h.own = append(h.blocks, keep), 0, 1
	}
}

// ring is a list of hot chunks in the order in which they came to memory.
type ring struct{ root hot }

func (r *ring) init() { r.root.prev, r.root.next = &r.root, &r.root }

func (r *ring) push(h *hot) {
	h.prev, h.next = r.root.prev, &r.root
	h.prev.next, r.root.prev = h, h
}

func (r *ring) remove(h *hot) {
	h.prev.next, h.next.prev = h.next, h.prev
	h.prev, h.next = nil, nil
}
