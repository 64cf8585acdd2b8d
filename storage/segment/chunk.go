package segment

import "fmt"

const (
	// chunkSlots is how many sequence numbers a chunk spans at most.
	chunkSlots = 1024
	// chunkBytes of bodies close a chunk; its last body may go beyond.
	chunkBytes = 1 << 20
	// bigBody is the size from which a body is kept rather than copied: the
	// copy would cost more than the rest of its log entry that it pins.
	bigBody = 64 << 10
	// blockBytesMax is the size that the blocks of a chunk grow to, from blockBytesMin.
	blockBytesMax = 256 << 10
	blockBytesMin = 512
	// blocksMax keeps block numbers within the bits of chunk.own and chunk.seen.
	blocksMax = 64
)

// rec is one message's place. It holds no pointer, so the collector does not
// look at a chunk's records.
type rec struct {
	expiryMs    int64
	off, bytes  uint32
	flags, prio uint8
	block       uint8
	hole        bool // the slot of a sequence number that was never put
}

// chunk holds neighbouring messages of one queue. What was written is never
// changed, only added to, so that a View needs no more than the lengths.
type chunk struct {
	first  uint64
	recs   []rec    // slot i is message first+i
	blocks [][]byte // bodies; no block ever moves, or changes its length
	dead   *[chunkSlots / 64]uint64

	prefix    int   // slots below are dead; dead says it of those above
	live      int   // messages
	liveBytes int64 // of their bodies
	putBytes  int64 // of all bodies since the chunk began
	current   int   // the block being filled; -1 before the first
	used      int   // bytes of it

	own, seen uint64 // bit i: block i was made here; was shown to a reader
	shared    bool   // a View knows this chunk
}

// hasRoom reports whether message seq, of n bytes, belongs in this chunk.
func (c *chunk) hasRoom(seq uint64, n int) bool {
	if len(c.recs) == 0 {
		return c.putBytes == 0
	}
	return seq-c.first < chunkSlots && c.putBytes+int64(n) <= chunkBytes && len(c.blocks) < blocksMax
}

func (c *chunk) put(s *Store, seq uint64, r rec, body []byte) {
	if len(c.recs) == 0 {
		c.first = seq
	}
	for uint64(len(c.recs)) < seq-c.first { // settled before the snapshot that this comes from
		c.kill(len(c.recs))
		c.recs = append(c.recs, rec{hole: true})
	}
	r.bytes = uint32(len(body))
	if len(body) >= bigBody {
		r.block = uint8(len(c.blocks))
		c.blocks = append(c.blocks, body[:len(body):len(body)])
	} else {
		if c.current < 0 || len(c.blocks[c.current])-c.used < len(body) {
			c.current, c.used = len(c.blocks), 0
			c.own |= 1 << c.current
			c.blocks = append(c.blocks, s.block(len(body), max(blockBytesMin, 2*len(body), int(c.putBytes))))
		}
		r.block, r.off = uint8(c.current), uint32(c.used)
		c.used += copy(c.blocks[c.current][c.used:], body)
	}
	if c.recs == nil {
		c.recs = make([]rec, 0, 4)
	}
	c.recs = append(c.recs, r)
	c.live++
	c.liveBytes += int64(len(body))
	c.putBytes += int64(len(body))
}

// alive reports whether message seq is in the chunk and has not been dropped.
func (c *chunk) alive(seq uint64) bool {
	if seq < c.first || seq-c.first >= uint64(len(c.recs)) {
		return false
	}
	return !c.isDead(int(seq - c.first))
}

func (c *chunk) isDead(slot int) bool {
	return slot < c.prefix || c.dead != nil && c.dead[slot>>6]&(1<<(slot&63)) != 0
}

func (c *chunk) record(seq uint64) Record {
	r := &c.recs[seq-c.first]
	c.seen |= 1 << r.block
	return r.record(c.blocks)
}

func (r *rec) record(blocks [][]byte) Record {
	b := blocks[r.block][r.off : r.off+r.bytes : r.off+r.bytes]
	return Record{Flags: r.flags, Priority: r.prio, ExpiryMs: r.expiryMs, Body: b}
}

// drop forgets what lives of first..last and returns the bytes of it.
func (c *chunk) drop(first, last uint64) (freed int64) {
	if len(c.recs) == 0 {
		return 0
	}
	from, to := 0, len(c.recs)-1
	if first > c.first {
		from = int(min(first-c.first, uint64(len(c.recs))))
	}
	if last-c.first < uint64(to) {
		to = int(last - c.first)
	}
	if from <= c.prefix && to == len(c.recs)-1 { // all that is left
		freed = c.liveBytes
		c.live, c.liveBytes, c.prefix = 0, 0, len(c.recs)
		return freed
	}
	for slot := max(from, c.prefix); slot <= to; slot++ {
		if c.isDead(slot) {
			continue
		}
		r := &c.recs[slot]
		freed += int64(r.bytes)
		c.live--
		if slot == c.prefix {
			c.prefix++
		} else {
			c.kill(slot)
		}
		if c.own&(1<<r.block) == 0 && !c.shared {
			c.blocks[r.block] = nil // a big body's own
		}
	}
	for c.dead != nil && c.prefix < len(c.recs) && c.isDead(c.prefix) {
		c.prefix++
	}
	c.liveBytes -= freed
	if c.live < 0 || c.liveBytes < 0 {
		panic(fmt.Sprintf("chunk at %d: %d messages, %d bytes live after a drop of %d..%d", c.first, c.live, c.liveBytes, first, last))
	}
	return freed
}

// kill marks a slot that is not next to the dead ones at the front.
func (c *chunk) kill(slot int) {
	if slot == c.prefix {
		c.prefix++
		return
	}
	if c.dead == nil {
		c.dead = new([chunkSlots / 64]uint64)
	}
	c.dead[slot>>6] |= 1 << (slot & 63)
}

// reset begins a chunk anew that no reader has seen. It keeps its largest
// block, if that is one of ours.
func (c *chunk) reset() {
	var keep []byte
	if c.current >= 0 {
		keep = c.blocks[c.current]
	}
	clear(c.blocks)
	*c = chunk{recs: c.recs[:0], blocks: c.blocks[:0], current: -1}
	if keep != nil {
		c.blocks, c.current, c.own = append(c.blocks, keep), 0, 1
	}
}
