package segment

import (
	"fmt"
	"math"
)

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
	// blocksMax keeps block numbers within the bits of hot.own and hot.seen.
	blocksMax = 64
)

// bitmap has a bit for every slot of a chunk.
type bitmap [chunkSlots / 64]uint64

func (b *bitmap) has(slot int) bool { return b[slot>>6]&(1<<(slot&63)) != 0 }
func (b *bitmap) set(slot int)      { b[slot>>6] |= 1 << (slot & 63) }

// chunk holds neighbouring messages of one queue: in memory, in an extent of a
// file, or both. These few words are all that stays of one that is paged out.
type chunk struct {
	first     uint64  // slot i is message first+i
	liveBytes int64   // of bodies; an estimate if some were dropped while paged out
	hot       *hot    // nil while paged out
	dead      *bitmap // of the slots above prefix; nil if none of them is dead
	marks     *marks  // of what is paged out; nil if all of it has that in alike

	// headMs is, while the chunk is paged out, when its first live message
	// expires, or headUnknown: those before it have gone since.
	headMs int64

	file *file  // nil if it has no extent
	at   uint32 // of the extent in file, in units of extentAlign
	size uint32 // of the extent

	slots  uint16 // sequence numbers spanned so far
	prefix uint16 // slots below are dead; dead says it of those above
	live   uint16 // messages
	stored uint16 // messages in the extent

	sealed  bool // nothing more is put here
	shared  bool // somebody else reads its blocks: they must not change any more
	writing bool // its extent is being written, by the Pager or for a snapshot
	expires bool // some message that was put has an expiry
	gone    bool // released

	loading loading
	alike   mark
}

// loading is whether a chunk is to be read, and for whom.
type loading uint8

const (
	notAsked   loading = iota
	readAhead          // nobody needs it yet
	askedFor           // somebody waits for it
	unreadable         // it is damaged
)

// headUnknown is no time that a message expires at.
const headUnknown = math.MinInt64

// hasRoom reports whether message seq, of n bytes, belongs in this chunk.
func (c *chunk) hasRoom(seq uint64, n int) bool {
	if c.sealed {
		return false
	}
	h := c.hot
	if c.slots == 0 {
		return h.putBytes == 0
	}
	return seq-c.first < chunkSlots && h.putBytes+int64(n) <= chunkBytes && len(h.blocks) < blocksMax
}

func (c *chunk) put(s *Store, seq uint64, r rec, body []byte) {
	h := c.hot
	if c.slots == 0 {
		c.first = seq
	}
	for uint64(c.slots) < seq-c.first { // settled before the snapshot that this comes from
		c.kill(int(c.slots))
		h.addRec(s, rec{hole: true})
		c.slots++
	}
	h.addBody(s, &r, body)
	h.addRec(s, r)
	c.outgrow()
	c.slots++
	c.live++
	c.liveBytes += int64(len(body))
	if r.expiryMs != 0 {
		c.expires = true
	}
}

// outgrow lets go of the extent that a snapshot wrote of a chunk in memory, which
// is not what the chunk is any more.
func (c *chunk) outgrow() {
	if c.file != nil {
		c.file.letGo()
		c.file = nil
	}
}

// spans reports whether seq is one of the chunk's slots.
func (c *chunk) spans(seq uint64) bool {
	return seq >= c.first && seq-c.first < uint64(c.slots)
}

// alive reports whether message seq is in the chunk and has not been dropped.
func (c *chunk) alive(seq uint64) bool {
	return c.spans(seq) && !c.isDead(int(seq-c.first))
}

func (c *chunk) isDead(slot int) bool {
	return slot < int(c.prefix) || c.dead != nil && c.dead.has(slot)
}

// drop forgets what lives of first..last and returns the bytes of it.
func (c *chunk) drop(s *Store, first, last uint64) (freed int64) {
	if c.slots == 0 {
		return 0
	}
	from, to := 0, int(c.slots)-1
	if first > c.first {
		from = int(min(first-c.first, uint64(c.slots)))
	}
	if last-c.first < uint64(to) {
		to = int(last - c.first)
	}
	if from <= int(c.prefix) && to == int(c.slots)-1 { // all that is left
		freed = c.liveBytes
		c.live, c.liveBytes, c.prefix = 0, 0, c.slots
		return freed
	}
	if c.hot != nil {
		freed = c.dropHot(s, from, to)
	} else {
		freed = c.dropPaged(from, to)
	}
	for c.dead != nil && c.prefix < c.slots && c.isDead(int(c.prefix)) {
		c.prefix++
	}
	c.liveBytes -= freed
	if c.liveBytes < 0 || c.live == 0 && c.liveBytes != 0 {
		panic(fmt.Sprintf("chunk at %d: %d messages, %d bytes live after a drop of %d..%d", c.first, c.live, c.liveBytes, first, last))
	}
	return freed
}

func (c *chunk) dropHot(s *Store, from, to int) (freed int64) {
	h := c.hot
	for slot := max(from, int(c.prefix)); slot <= to; slot++ {
		if c.isDead(slot) {
			continue
		}
		r := &h.recs[slot]
		freed += int64(r.bytes)
		c.live--
		if slot == int(c.prefix) {
			c.prefix++
		} else {
			c.kill(slot)
		}
		if h.own&(1<<r.block) == 0 && !c.shared { // a big body's own
			s.account(h, -int64(len(h.blocks[r.block])))
			h.blocks[r.block] = nil
		}
	}
	return freed
}

// dropPaged drops messages whose sizes are on disk: it takes them for average
// ones. What all of the chunk frees in the end is exact.
func (c *chunk) dropPaged(from, to int) (freed int64) {
	before := int64(c.live)
	for slot := max(from, int(c.prefix)); slot <= to; slot++ {
		if !c.isDead(slot) {
			c.live--
			c.kill(slot)
		}
	}
	if before == 0 || c.live == 0 {
		return c.liveBytes
	}
	return c.liveBytes / before * (before - int64(c.live))
}

// kill marks a slot as dead.
func (c *chunk) kill(slot int) {
	if slot == int(c.prefix) {
		c.prefix++
		c.headMs = headUnknown
		return
	}
	if c.dead == nil {
		c.dead = new(bitmap)
	}
	c.dead.set(slot)
}

// capture is the chunk as it is now, for another goroutine. It is to be
// released if it refers to a file.
func (c *chunk) capture() viewedChunk {
	v := c.viewed()
	if c.hot != nil {
		v.recs, v.blocks = c.hot.recs[:c.slots:c.slots], c.hot.blocks
		c.shared = true
		return v
	}
	v.holdExtent(c)
	return v
}

// captureSaved is capture for a snapshot: what is on disk already need not be
// written, and what is in memory only is remembered to be.
func (c *chunk) captureSaved() viewedChunk {
	if c.file == nil {
		v := c.capture()
		v.chunk = c
		return v
	}
	v := c.viewed()
	v.chunk = c
	v.holdExtent(c)
	return v
}

// viewed is what can be told of the chunk without its messages.
func (c *chunk) viewed() viewedChunk {
	v := viewedChunk{
		first: c.first, slots: int(c.slots), prefix: int(c.prefix), live: c.live,
		liveBytes: c.liveBytes, expires: c.expires, alike: c.alike, marks: c.marks,
	}
	if c.dead != nil {
		d := *c.dead
		v.dead = &d
	}
	return v
}

func (v *viewedChunk) holdExtent(c *chunk) {
	v.file, v.at, v.size, v.stored = c.file, c.at, c.size, c.stored
	v.file.hold()
}
