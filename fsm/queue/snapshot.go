package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"

	"warren/mq"
)

// The state as bytes; the same state has the same bytes on every replica,
// whatever way it took to it:
//
//	u8 version
//	uvarint nodes,  each: uvarint number | uvarint session | uvarint last
//	uvarint queues, each: uvarint id | uvarint last seq | uvarint high water | uvarint live
//	                      and, if any is live: uvarint front | runs of chunks
//	run: uvarint n<<2 | kind, and for each of n bitmaps 16 x u64 little endian
//
// The chunks are those from front's to the last seq's. Version 2 has in addition
// what was refused after each node (appendRefused), and the notes of each queue
// after it (appendNotes). It is written only if there is any: who refuses
// nothing writes what any version of ours can read.
const (
	snapshotVersion      = 1
	snapshotVersionNotes = 2
	// Version 3 has in addition what each queue remembers (appendWindows) after its notes.
	snapshotVersionWindows = 3
	// Version 4 has in addition due times in notes (noteDue). As with the others,
	// a state without any is written as before, and older ones are read as before.
	snapshotVersionDue = 4
	// Version 5 has in addition the term of each window. That is safe for the same
	// reason: only an EnqueueFenced brings a term into the state.
	snapshotVersionTerms = 5
	// Version 6 has in addition, after all else, what has come of messages in parts
	// (appendStaged), so that a replica that is restored between two parts has them
	// when the end comes. That is safe for the same reason: only an EnqueuePart
	// brings that into the state, and all nodes can read this version by then.
	snapshotVersionStaged = 6
)

const (
	runFull   = 0 // everything live between front and the last seq
	runDead   = 1
	runBitmap = 2
)

// What Restore believes: seqMax so that counting on from it is safe, chunksMax
// (1 GiB of chunks) so that a few bytes cannot ask for all memory.
const (
	seqMax    = 1 << 62
	chunksMax = 1 << 26
)

// AppendTo appends the state.
func (s *State) AppendTo(dst []byte) []byte { return s.appendAs(dst, s.version()) }

// Capture returns what AppendTo appends, in pieces. Those after the first are
// shared with the state, and are what has come of large messages: it does not
// take longer because of them. They stay as they are whatever is applied later
// (see staged).
func (s *State) Capture() [][]byte {
	return append([][]byte{s.appendHead(nil, s.version())}, s.stagedBytes()...)
}

// appendAs appends the state as that version, which must be able to say it.
func (s *State) appendAs(dst []byte, version byte) []byte {
	dst = s.appendHead(dst, version)
	for _, b := range s.stagedBytes() {
		dst = append(dst, b...)
	}
	return dst
}

// appendHead appends all but the bytes of what is staged.
func (s *State) appendHead(dst []byte, version byte) []byte {
	dst = append(dst, version)
	dst = binary.AppendUvarint(dst, uint64(len(s.nodes)))
	for _, n := range s.nodes {
		dst = binary.AppendUvarint(dst, uint64(n.number))
		dst = binary.AppendUvarint(dst, uint64(n.session))
		dst = binary.AppendUvarint(dst, n.last)
		if version >= snapshotVersionNotes {
			dst = appendRefused(dst, n.refused)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.order)))
	for _, q := range s.order {
		dst = q.appendTo(dst)
		if version >= snapshotVersionNotes {
			dst = q.appendNotes(dst)
		}
		if version >= snapshotVersionWindows {
			dst = q.appendWindows(dst, version)
		}
	}
	if version >= snapshotVersionStaged {
		dst = s.appendStaged(dst)
	}
	return dst
}

// version is the lowest that can say this state.
func (s *State) version() byte {
	version := byte(snapshotVersion)
	for i := range s.nodes {
		if s.nodes[i].staged != nil {
			return snapshotVersionStaged
		}
	}
	for _, q := range s.order {
		switch {
		case q.hasTerms():
			return snapshotVersionTerms
		case q.hasDue():
			version = snapshotVersionDue
		case q.windows != nil:
			version = max(version, snapshotVersionWindows)
		}
	}
	if version > snapshotVersion {
		return version
	}
	for i := range s.nodes {
		if len(s.nodes[i].refused) > 0 {
			return snapshotVersionNotes
		}
	}
	for _, q := range s.order {
		if q.notes != nil {
			return snapshotVersionNotes
		}
	}
	return snapshotVersion
}

// Hash is a checksum of the state, for replicas to compare.
func (s *State) Hash() uint64 {
	return crc64.Checksum(s.AppendTo(nil), crc64.MakeTable(crc64.ECMA))
}

func (q *Queue) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(q.id))
	dst = binary.AppendUvarint(dst, uint64(q.lastSeq))
	dst = binary.AppendUvarint(dst, uint64(q.highWater))
	dst = binary.AppendUvarint(dst, q.count)
	if q.count == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(q.front))
	chunks := q.chunks[q.head:]
	for i := 0; i < len(chunks); {
		kind, n := q.kind(chunks, i), 1
		for i+n < len(chunks) && q.kind(chunks, i+n) == kind {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n)<<2|kind)
		if kind == runBitmap {
			for _, c := range chunks[i : i+n] {
				for _, w := range c.bitmap {
					dst = binary.LittleEndian.AppendUint64(dst, w)
				}
			}
		}
		i += n
	}
	return dst
}

// kind says what chunk i holds, not how it is kept: a chunk that has a bitmap
// may be full again.
func (q *Queue) kind(chunks []chunk, i int) uint64 {
	first := mq.Seq(q.base+uint64(i)) << chunkBits
	switch c := &chunks[i]; {
	case c.live == 0:
		return runDead
	case c.bitmap == nil, uint64(c.live) == uint64(min(q.lastSeq, first|(chunkSeqs-1))-max(q.front, first)+1):
		return runFull
	}
	return runBitmap
}

// Restore replaces the state by what AppendTo wrote. After an error the state
// is what it was.
func (s *State) Restore(b []byte) error {
	r, err := restore(b)
	if err != nil {
		return fmt.Errorf("restore queue group: %w", err)
	}
	*s = *r
	return nil
}

var errSnapshot = errors.New("snapshot is malformed")

func restore(b []byte) (*State, error) {
	if len(b) == 0 {
		return nil, errSnapshot
	}
	version := b[0]
	if version < snapshotVersion || version > snapshotVersionStaged {
		return nil, fmt.Errorf("snapshot has version %d, known are %d to %d", version, snapshotVersion, snapshotVersionStaged)
	}
	s := New()
	n, b := uvarint(b[1:])
	for range n {
		var number, session, last uint64
		number, b = uvarint(b)
		session, b = uvarint(b)
		last, b = uvarint(b)
		if k := len(s.nodes); b == nil || number > 1<<32-1 || k > 0 && s.nodes[k-1].number >= uint32(number) {
			return nil, errSnapshot
		}
		s.nodes = append(s.nodes, node{number: uint32(number), session: mq.SessionID(session), last: last})
		if version >= snapshotVersionNotes {
			var err error
			if b, err = s.nodes[len(s.nodes)-1].restoreRefused(b); err != nil {
				return nil, err
			}
		}
	}
	n, b = uvarint(b)
	for range n {
		q := &Queue{}
		var err error
		if b, err = q.restore(b); err == nil && version >= snapshotVersionNotes {
			b, err = q.restoreNotes(b, version)
		}
		if err == nil && version >= snapshotVersionWindows {
			b, err = q.restoreWindows(b, version)
		}
		if err != nil {
			return nil, err
		}
		if k := len(s.order); k > 0 && s.order[k-1].id >= q.id {
			return nil, errSnapshot
		}
		q.weigh()
		s.sum += q.folded
		s.order = append(s.order, q)
		s.byID[q.id] = q
	}
	if b != nil && version >= snapshotVersionStaged {
		return s, s.restoreStaged(b)
	}
	if b == nil || len(b) != 0 {
		return nil, errSnapshot
	}
	return s, nil
}

func (q *Queue) restore(b []byte) ([]byte, error) {
	id, b := uvarint(b)
	last, b := uvarint(b)
	highWater, b := uvarint(b)
	count, b := uvarint(b)
	if b == nil || last > seqMax || count > last {
		return nil, errSnapshot
	}
	q.id, q.lastSeq, q.highWater, q.count = mq.QueueID(id), mq.Seq(last), mq.Seq(highWater), count
	q.front = q.lastSeq + 1
	if count == 0 {
		return b, nil
	}
	front, b := uvarint(b)
	if b == nil || front == 0 || front > last {
		return nil, errSnapshot
	}
	q.front, q.base = mq.Seq(front), front>>chunkBits
	left := last>>chunkBits - q.base + 1
	if left > chunksMax {
		return nil, errSnapshot
	}
	for left > 0 {
		var run uint64
		run, b = uvarint(b)
		n := run >> 2
		if b == nil || n == 0 || n > left || run&3 > runBitmap || run&3 == runBitmap && n > uint64(len(b))/(chunkSeqs/8) {
			return nil, errSnapshot
		}
		left -= n
		b = q.restoreRun(n, run&3, b)
	}
	return b, q.checkRestored()
}

func (q *Queue) restoreRun(n, kind uint64, b []byte) []byte {
	for range n {
		var c chunk
		first := mq.Seq(q.base+uint64(len(q.chunks))) << chunkBits
		switch kind {
		case runFull:
			c.live = uint16(min(q.lastSeq, first|(chunkSeqs-1)) - max(q.front, first) + 1)
		case runBitmap:
			c.bitmap = new(bitmap)
			for w := range c.bitmap {
				c.bitmap[w] = binary.LittleEndian.Uint64(b[w*8:])
			}
			b = b[chunkSeqs/8:]
			all := bitmap{}
			all.fill(max(q.front, first), min(q.lastSeq, first|(chunkSeqs-1)))
			c.live = c.bitmap.count(&all)
		case runDead:
			if first|(chunkSeqs-1) > q.lastSeq {
				c.bitmap = new(bitmap) // incomplete: nil would mean full with the next push
			}
		}
		q.chunks = append(q.chunks, c)
	}
	return b
}

// count returns how many bits are set, 0 if any is set that is not in all.
func (b *bitmap) count(all *bitmap) (n uint16) {
	for w := range b {
		if b[w]&^all[w] != 0 {
			return 0
		}
		for set := b[w]; set != 0; set &= set - 1 {
			n++
		}
	}
	return n
}

// checkRestored holds a queue against what it says of itself.
func (q *Queue) checkRestored() error {
	var count uint64
	for i := range q.chunks {
		c := &q.chunks[i]
		count += uint64(c.live)
		if c.bitmap != nil && (c.live == 0) != (*c.bitmap == bitmap{}) {
			return errSnapshot
		}
	}
	if count != q.count || !q.Live(q.front) {
		return errSnapshot
	}
	return nil
}
