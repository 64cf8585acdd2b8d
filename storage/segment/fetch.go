package segment

import (
	"fmt"
	"hash/crc32"
)

// Away reports whether message seq of queue q is on disk only, and about how
// long its body is.
func (s *Store) Away(q, seq uint64) (bodyBytes int, away bool) {
	if !s.Paged(q) {
		return 0, false
	}
	qu := s.queue(q)
	at := qu.search(seq)
	if at == len(qu.chunks) || !qu.chunks[at].alive(seq) || qu.chunks[at].hot != nil {
		return 0, false
	}
	c := qu.chunks[at]
	return int(c.liveBytes / int64(c.live)), true
}

// Fetch reads message seq of queue q, which is away, by itself: for whoever
// takes one here and one there, and would have a chunk read for each. got is
// called with the owner's lock held, also if the message was dropped
// meanwhile. If it cannot be read, got is never called.
func (s *Store) Fetch(q, seq uint64, got func(Record)) {
	qu := s.queue(q)
	if qu == nil || s.closed {
		return
	}
	if at := qu.search(seq); at < len(qu.chunks) && qu.chunks[at].alive(seq) && qu.chunks[at].hot == nil {
		c := qu.chunks[at]
		s.folder.pager.ask(want{store: s, queue: qu, chunk: c, view: c.capture(), seq: seq, got: got})
	}
}

// readOne reads a message that was fetched.
func (p *Pager) readOne(w *want) {
	r, err := w.view.one(w.queue.id, w.seq, &p.index)
	p.stats.bytesIn.Add(uint64(w.view.indexBytes() + len(r.Body)))
	s := w.store
	s.owner.Lock()
	defer s.owner.Unlock()
	switch {
	case s.closed:
	case err != nil:
		s.owner.Damaged(err)
	default:
		w.got(r)
	}
}

// one reads a message of an extent, and of the rest only the index, into
// scratch.
func (c *viewedChunk) one(q, seq uint64, scratch *[]byte) (Record, error) {
	n := c.indexBytes()
	if cap(*scratch) < n {
		*scratch = make([]byte, n)
	}
	b := (*scratch)[:n]
	if err := c.read(b); err != nil {
		return Record{}, err
	}
	entries, bodyBytes, err := c.index(q, b)
	if err != nil {
		return Record{}, err
	}
	off, end := int64(extentHead+len(entries)), int64(extentHead+len(entries))+bodyBytes
	for ; len(entries) > 0; entries = entries[entryBytes:] {
		e := parseEntry(entries)
		if c.first+uint64(e.slot) < seq {
			off += int64(e.bytes)
			continue
		}
		if c.first+uint64(e.slot) > seq || off+int64(e.bytes) > end {
			break
		}
		body := make([]byte, e.bytes)
		if err := c.readAt(body, off); err != nil {
			return Record{}, err
		}
		if crc32.Checksum(body, castagnoli) != e.sum {
			break
		}
		return Record{Flags: e.flags, Priority: e.prio, ExpiryMs: e.expiryMs, Body: body}, nil
	}
	return Record{}, fmt.Errorf("%w: %s at %d: message %d", ErrDamaged, c.file.name, int64(c.at)*extentAlign, seq)
}
