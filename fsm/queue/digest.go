package queue

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"warren/mq"
)

// A digest says in eight bytes what a state is, so that replicas that have
// applied the same entries can see whether they have come to the same. It
// depends on the state alone, not on the way to it: a state that was restored,
// from a snapshot of whatever version, has the digest of the one that wrote it,
// and no snapshot has to carry it.
//
// It is kept up to date with what changes, without walking what does not. Of
// the live messages it takes the front, the last seq, and the holes between
// them: a queue that is emptied from its front costs nothing per message.

// DigestVersion names what Digest takes of a state. It changes with that:
// replicas that run different versions must not be compared.
const DigestVersion = 1

// The seeds tell digests of different things apart.
const (
	seedQueue  = 0xA0761D6478BD642F
	seedNode   = 0xE7037ED1A0B428DB
	seedHole   = 0x8EBC6AF09C88C6E3 // odd: it is a factor
	seedNote   = 0x589965CC75374CC3
	seedWindow = 0x1D8E4E27C47D124F
)

// dirtyKept is how long a list of changed queues is kept for reuse.
const dirtyKept = 1 << 12

// mix hashes one more number into h. It is no secret: it finds faults, not
// forgeries.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9E3779B97F4A7C15
	h ^= h >> 32
	h *= 0xD6E8FEB86659FD93
	return h ^ h>>32
}

// Digest returns the digest of the state as it is now. It takes time for what
// has changed since the last call, and for each node.
func (s *State) Digest() uint64 {
	for _, q := range s.dirty {
		q.dirty = false
		if !q.gone {
			d := q.digest()
			s.sum += d - q.folded
			q.folded = d
		}
	}
	clear(s.dirty)
	if s.dirty = s.dirty[:0]; cap(s.dirty) > dirtyKept {
		s.dirty = nil
	}
	d := s.sum
	for i := range s.nodes {
		d += s.nodes[i].digest()
	}
	return d
}

// touch notes that a queue changes. Every change of a queue comes after it.
func (s *State) touch(q *Queue) {
	if !q.dirty {
		q.dirty = true
		s.dirty = append(s.dirty, q)
	}
}

// changing returns a queue that is about to change, nil if there is none.
func (s *State) changing(id mq.QueueID) *Queue {
	q := s.Queue(id)
	if q != nil {
		s.touch(q)
	}
	return q
}

func (n *node) digest() uint64 {
	h := mix(mix(mix(seedNode, uint64(n.number)), uint64(n.session)), n.last)
	for i := range n.refused {
		h = mix(h, n.refused[i].sum)
	}
	if g := n.staged; g != nil {
		// DigestVersion stays: a state with parts is one that no older build can read.
		h = mix(mix(mix(h, g.total), uint64(len(g.bytes))), uint64(g.sum))
	}
	return h
}

// weigh is the part that a batch has in the digest of its node.
func (r *refused) weigh() uint64 {
	h := mix(seedNode, r.seq)
	for _, run := range r.runs {
		h = mix(h, uint64(run.First)<<32|uint64(run.Last))
	}
	return h
}

func (q *Queue) digest() uint64 {
	h := mix(mix(mix(seedQueue, uint64(q.id)), uint64(q.lastSeq)), uint64(q.highWater))
	h = mix(mix(mix(h, uint64(q.front)), q.count), q.holes)
	if q.notes != nil {
		h = mix(h, q.notes.sum)
	}
	for _, w := range q.remembered() {
		h = mix(h, w.digest())
	}
	return h
}

// hole is the part that some of 64 neighbouring seqs have in Queue.holes if
// they are holes: it adds up whichever of them become holes when. word is the
// seqs' number divided by 64. The factors are 64 bits and what they multiply 32,
// so that the highest bits of two words cannot cancel each other out.
func (q *Queue) hole(word, set uint64) (sum uint64) {
	salt := uint64(q.id) * seedHole
	if low := set & (1<<32 - 1); low != 0 {
		sum = low * mix(salt, 2*word)
	}
	if high := set >> 32; high != 0 {
		sum += high * mix(salt, 2*word+1)
	}
	return sum
}

// span is hole of all of lo..hi, which may be empty.
func (q *Queue) span(lo, hi mq.Seq) (sum uint64) {
	for seq := lo; seq <= hi; {
		end := min(hi, seq|(wordSeqs-1))
		sum += q.hole(uint64(seq)/wordSeqs, mask(seq, end))
		seq = end + 1
	}
	return sum
}

// holesIn is hole of those of lo..hi, which are in the chunk of b, that have a
// bit in it; or with flip all ones, that have none.
func (q *Queue) holesIn(b *bitmap, lo, hi mq.Seq, flip uint64) (sum uint64) {
	for seq := lo; seq <= hi; {
		end := min(hi, seq|(wordSeqs-1))
		sum += q.hole(uint64(seq)/wordSeqs, (b[seq%chunkSeqs/wordSeqs]^flip)&mask(seq, end))
		seq = end + 1
	}
	return sum
}

// allHoles works holes out from nothing, and how many messages are live.
func (q *Queue) allHoles() (holes, live uint64) {
	for i, c := range q.chunks[q.head:] {
		first := mq.Seq(q.base+uint64(i)) << chunkBits
		lo, hi := max(q.front, first), min(q.lastSeq, first|(chunkSeqs-1))
		switch {
		case c.bitmap != nil:
			for _, w := range c.bitmap {
				live += uint64(bits.OnesCount64(w))
			}
			holes += q.holesIn(c.bitmap, lo, hi, ^uint64(0))
		case c.live == 0:
			holes += q.span(lo, hi)
		default:
			live += uint64(hi-lo) + 1
		}
	}
	return holes, live
}

// weighNote is the part that a note has in notes.sum.
func weighNote(seq mq.Seq, n Note, dueMs int64) uint64 {
	h := mix(mix(seedNote, uint64(seq)), uint64(n.Failed)<<32|uint64(n.Acquired))
	if n.Buried {
		h = mix(h, 1)
	}
	return mix(h, uint64(dueMs))
}

// weighNoted is the part that the note of a message has in notes.sum; 0 if it
// has none.
func (q *Queue) weighNoted(seq mq.Seq) uint64 {
	c, k := q.noted(seq)
	if c == nil {
		return 0
	}
	return c.weigh(k)
}

func (c *noteChunk) weigh(k int) uint64 {
	due := int64(0)
	if c.due != nil {
		due = c.due[k]
	}
	return weighNote(mq.Seq(c.number)<<chunkBits|mq.Seq(c.notes[k].at), c.notes[k].Note, due)
}

// allNotes works notes.sum out from nothing.
func (q *Queue) allNotes() (sum uint64) {
	q.eachNote(func(seq mq.Seq, n Note, dueMs int64) { sum += weighNote(seq, n, dueMs) })
	return sum
}

// weigh is the part that a key has in window.sum.
func (k *seenKey) weigh() uint64 {
	h := mix(seedWindow, binary.LittleEndian.Uint64(k.key[:]))
	h = mix(h, binary.LittleEndian.Uint64(k.key[KeyBytes/2:]))
	return mix(mix(h, uint64(k.expiresMs)), uint64(k.seq))
}

// digest takes the keys, and of their order which is the first: that one is
// forgotten next, so another order shows before it matters.
func (w *window) digest() uint64 {
	h := mix(mix(mix(mix(seedWindow, w.id), w.term), uint64(len(w.byKey))), w.sum)
	if len(w.seen) > 0 {
		h = mix(h, w.seen[0].weigh())
	}
	return h
}

// allKeys works window.sum out from nothing.
func (w *window) allKeys() (sum uint64) {
	for i := range w.seen {
		if !w.seen[i].forgotten {
			sum += w.seen[i].weigh()
		}
	}
	return sum
}

// weigh works everything of a queue's digest out from nothing.
func (q *Queue) weigh() {
	q.holes, _ = q.allHoles()
	if q.notes != nil {
		q.notes.sum = q.allNotes()
	}
	for _, w := range q.remembered() {
		w.sum = w.allKeys()
	}
	q.folded = q.digest()
}

// Audit holds the state against what its digest was kept up to date with. An
// error means that something other than Apply has changed it, or that Apply is
// wrong: it must not go into a snapshot. It takes about as long as AppendTo.
func (s *State) Audit() error {
	for _, q := range s.order {
		if what := q.audit(); what != "" {
			return fmt.Errorf("%s of queue %d are not what the log has made of them", what, q.id)
		}
	}
	for i := range s.nodes {
		for k := range s.nodes[i].refused {
			if r := &s.nodes[i].refused[k]; r.weigh() != r.sum {
				return fmt.Errorf("refusals of node %d are not what the log has made of them", s.nodes[i].number)
			}
		}
	}
	return nil
}

// audit says what of a queue is wrong.
func (q *Queue) audit() string {
	if holes, live := q.allHoles(); holes != q.holes || live != q.count {
		return "messages"
	}
	if q.notes != nil && q.notes.sum != q.allNotes() {
		return "notes"
	}
	for _, w := range q.remembered() {
		if w.sum != w.allKeys() {
			return "keys"
		}
	}
	if !q.dirty && q.folded != q.digest() {
		return "counters"
	}
	return ""
}
