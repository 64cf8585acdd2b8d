package queue

import (
	"cmp"
	"encoding/binary"
	"slices"

	"warren/mq"
)

// note is what is known of one live message besides that it is live. Few
// messages have one, and it goes with the message.
type note struct {
	at uint16 // seq modulo chunkSeqs
	Note
}

// Note is what is known of a live message besides that it is live.
type Note struct {
	Buried           bool   // it was refused, and is here only to leave for the dead-letter exchange
	Failed, Acquired uint32 // deliveries that failed, and all that ended with its return
}

// noteChunk holds the notes of one chunk of seqs, in their order, so that
// adding one moves no more than a chunk's.
type noteChunk struct {
	number uint64
	notes  []note
	due    []int64 // of each note; nil until one of them has a due time
}

// notes are those of one queue, by number; no chunk of them is empty.
type notes struct {
	chunks []noteChunk
	sum    uint64 // of weighNote of each
}

// find is where the notes of a chunk are or would be.
func (t *notes) find(number uint64) (int, bool) {
	if n := len(t.chunks); n == 0 || t.chunks[n-1].number < number {
		return n, false
	}
	return slices.BinarySearchFunc(t.chunks, number, func(c noteChunk, number uint64) int { return cmp.Compare(c.number, number) })
}

// find is where the first note at or after a place in the chunk is.
func (c *noteChunk) find(at uint16) (int, bool) {
	return slices.BinarySearchFunc(c.notes, at, func(n note, at uint16) int { return cmp.Compare(n.at, at) })
}

// note returns the note of a live message, made if need be.
func (q *Queue) note(seq mq.Seq) *Note {
	if q.notes == nil {
		q.notes = &notes{}
	}
	number, at := uint64(seq)>>chunkBits, uint16(seq%chunkSeqs)
	i, there := q.notes.find(number)
	if !there {
		q.notes.chunks = slices.Insert(q.notes.chunks, i, noteChunk{number: number})
	}
	c := &q.notes.chunks[i]
	k, there := c.find(at)
	if !there {
		c.notes = slices.Insert(c.notes, k, note{at: at})
		if c.due != nil {
			c.due = slices.Insert(c.due, k, 0)
		}
	}
	return &c.notes[k].Note
}

// Note returns what is known of a message; all zero of most.
func (q *Queue) Note(seq mq.Seq) Note {
	if c, k := q.noted(seq); c != nil {
		return c.notes[k].Note
	}
	return Note{}
}

// noted is where the note of a message is; nil if it has none.
func (q *Queue) noted(seq mq.Seq) (c *noteChunk, k int) {
	if q.notes == nil {
		return nil, 0
	}
	if i, there := q.notes.find(uint64(seq) >> chunkBits); there {
		c := &q.notes.chunks[i]
		if k, there := c.find(uint16(seq % chunkSeqs)); there {
			return c, k
		}
	}
	return nil, 0
}

// Noted reports whether there is a note of any message.
func (q *Queue) Noted() bool { return q.notes != nil }

// countReturn notes a return of a live message. Counts never fall, so that twice is
// once.
func (q *Queue) countReturn(r Returned, later bool, fx *Effects) {
	if !q.Live(r.Seq) {
		return
	}
	before := q.weighNoted(r.Seq)
	n := q.note(r.Seq)
	if later {
		q.postpone(r.Seq, r.DueMs, n.Acquired, r.Acquired)
	}
	n.Failed, n.Acquired = max(n.Failed, r.Failed), max(n.Acquired, r.Acquired)
	q.notes.sum += q.weighNoted(r.Seq) - before
	fx.Returned = append(fx.Returned, Returned{q.id, r.Seq, n.Failed, n.Acquired, q.Due(r.Seq)})
}

// bury notes that a message, which has no note yet, was refused.
func (q *Queue) bury(seq mq.Seq) {
	q.note(seq).Buried = true
	q.notes.sum += q.weighNoted(seq)
}

// forget drops the notes of first..last.
func (q *Queue) forget(first, last mq.Seq) {
	t := q.notes
	from, _ := t.find(uint64(first) >> chunkBits)
	to := from
	for ; to < len(t.chunks) && t.chunks[to].number <= uint64(last)>>chunkBits; to++ {
		c := &t.chunks[to]
		start := mq.Seq(c.number) << chunkBits
		lo, hi := 0, len(c.notes)
		if first > start {
			lo, _ = c.find(uint16(first - start))
		}
		if last-start < chunkSeqs-1 {
			hi, _ = c.find(uint16(last-start) + 1)
		}
		for k := lo; k < hi; k++ {
			t.sum -= c.weigh(k)
		}
		c.notes = slices.Delete(c.notes, lo, hi)
		if c.due != nil {
			c.due = slices.Delete(c.due, lo, hi)
		}
	}
	kept := slices.DeleteFunc(t.chunks[from:to], func(c noteChunk) bool { return len(c.notes) == 0 })
	t.chunks = slices.Delete(t.chunks, from+len(kept), to)
	if len(t.chunks) == 0 {
		q.notes = nil
	}
}

// EachNote calls f with every note, in the order of seqs.
func (q *Queue) EachNote(f func(seq mq.Seq, n Note)) {
	q.eachNote(func(seq mq.Seq, n Note, _ int64) { f(seq, n) })
}

// eachNote calls f with every note and its due time, in the order of seqs.
func (q *Queue) eachNote(f func(seq mq.Seq, n Note, dueMs int64)) {
	if q.notes == nil {
		return
	}
	for i := range q.notes.chunks {
		c := &q.notes.chunks[i]
		for k := range c.notes {
			due := int64(0)
			if c.due != nil {
				due = c.due[k]
			}
			f(mq.Seq(c.number)<<chunkBits|mq.Seq(c.notes[k].at), c.notes[k].Note, due)
		}
	}
}

// The bits that say what a note in a snapshot holds.
const (
	noteBuried = 1
	noteCounts = 2
	noteDue    = 4 // since snapshotVersionDue
)

// appendNotes appends the notes of a queue:
//
//	uvarint notes, each: uvarint distance from the one before | uvarint bits
//	                     and, with noteCounts: uvarint failed | uvarint acquired
//	                     and, with noteDue: uvarint due time
func (q *Queue) appendNotes(dst []byte) []byte {
	n := 0
	q.EachNote(func(mq.Seq, Note) { n++ })
	dst = binary.AppendUvarint(dst, uint64(n))
	before := mq.Seq(0)
	q.eachNote(func(seq mq.Seq, n Note, due int64) {
		bits := uint64(0)
		if n.Buried {
			bits |= noteBuried
		}
		if n.Failed|n.Acquired != 0 {
			bits |= noteCounts
		}
		if due != 0 {
			bits |= noteDue
		}
		dst = binary.AppendUvarint(dst, uint64(seq-before))
		dst = binary.AppendUvarint(dst, bits)
		if bits&noteCounts != 0 {
			dst = binary.AppendUvarint(dst, uint64(n.Failed))
			dst = binary.AppendUvarint(dst, uint64(n.Acquired))
		}
		if due != 0 {
			dst = binary.AppendUvarint(dst, uint64(due))
		}
		before = seq
	})
	return dst
}

func (q *Queue) restoreNotes(b []byte, version byte) ([]byte, error) {
	known := uint64(noteBuried | noteCounts)
	if version >= snapshotVersionDue {
		known |= noteDue
	}
	n, b := uvarint(b)
	seq := mq.Seq(0)
	for range n {
		var distance, bits uint64
		distance, b = uvarint(b)
		bits, b = uvarint(b)
		if b == nil || distance == 0 || distance > uint64(q.lastSeq-seq) || bits == 0 || bits > known {
			return nil, errSnapshot
		}
		seq += mq.Seq(distance)
		if !q.Live(seq) {
			return nil, errSnapshot
		}
		if b = q.restoreNote(seq, bits, b); b == nil {
			return nil, errSnapshot
		}
	}
	if b == nil {
		return nil, errSnapshot
	}
	return b, nil
}

// restoreNote reads what bits say that the note of seq has. The rest is nil if
// it is not there.
func (q *Queue) restoreNote(seq mq.Seq, bits uint64, b []byte) (rest []byte) {
	n := q.note(seq)
	n.Buried = bits&noteBuried != 0
	if bits&noteCounts != 0 {
		if n.Failed, n.Acquired, b = counts(b); n.Failed|n.Acquired == 0 {
			return nil
		}
	}
	if bits&noteDue != 0 {
		var due int64
		if due, b = dueTime(b); due == 0 {
			return nil
		}
		q.setDue(seq, due)
	}
	return b
}

// counts splits two numbers off b. The rest is nil if they are not there.
func counts(b []byte) (failed, acquired uint32, rest []byte) {
	f, b := uvarint(b)
	a, b := uvarint(b)
	if b == nil || f > 1<<32-1 || a > 1<<32-1 {
		return 0, 0, nil
	}
	return uint32(f), uint32(a), b
}
