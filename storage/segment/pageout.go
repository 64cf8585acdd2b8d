package segment

import "time"

// victim is a chunk that is to be paged out, and how it looked when it was
// chosen.
type victim struct {
	queue *queue
	chunk *chunk
	view  viewedChunk
	move  bool // it has an extent already, in a file that is to go
}

// victims chooses chunks of bytes of memory, oldest first. It lets those go at
// once that have an extent or hold no message; the others it returns, to be
// written. The first time round it spares what a reader is at or comes to next,
// and tails that may be written to; if there is nothing else, these go as well.
func (s *Store) victims(bytes int64) (batch []victim) {
	if s.closed {
		return nil
	}
	now := time.Now().UnixMilli()
	for _, sparing := range []bool{true, false} {
		for h := s.ring.root.next; h != &s.ring.root && bytes > 0; {
			next := h.next
			c, qu := h.chunk, h.queue
			switch {
			case c.writing || now-h.loadedMs < keepLoaded.Milliseconds():
			case sparing && qu.spares(c):
			case c.live == 0: // a tail: others go with their last message
				bytes -= h.bytes
				s.release(qu, c)
				qu.chunks = qu.chunks[:len(qu.chunks)-1]
			case c.file != nil:
				bytes -= h.bytes
				s.pageDown(qu, c)
			default:
				c.sealed, c.writing = true, true
				v := victim{queue: qu, chunk: c, view: c.capture()}
				v.view.mark(s.folder.pager.sense.Flags)
				c.alike, c.marks = v.view.alike, v.view.marks
				bytes -= h.bytes
				batch = append(batch, v)
			}
			h = next
		}
		if len(batch) > 0 || bytes <= 0 {
			return batch
		}
	}
	return batch
}

// spares reports whether a chunk had better stay: it is a tail, or where a
// reader is, or what comes after that.
func (q *queue) spares(c *chunk) bool {
	if c == q.tail() && !c.sealed {
		return true
	}
	for at := q.hint; q.reading && at < min(q.hint+2, len(q.chunks)); at++ {
		if q.chunks[at] == c {
			return true
		}
	}
	return false
}

// pageDown takes a chunk that has an extent out of memory.
func (s *Store) pageDown(qu *queue, c *chunk) {
	c.sealed = true
	if c.headMs = headUnknown; c.prefix < c.slots {
		c.headMs = c.hot.recs[c.prefix].expiryMs
	}
	s.cool(c)
	qu.paged++
	s.paged++
}

// written hears that a victim has its extent, or with no file in view that it
// could not be written.
func (s *Store) written(v *victim) {
	c := v.chunk
	c.writing = false
	switch {
	case v.view.file == nil: // stays in memory
	case c.gone || int(c.slots) != v.view.slots: // a tail that was moved has more in it now
		v.view.letGo()
	default:
		if c.file != nil { // moved
			c.file.letGo()
		}
		c.file, c.at, c.size, c.stored = v.view.file, v.view.at, v.view.size, v.view.stored
		// A reader may have come to it meanwhile: then it stays, and can go any time.
		if c.hot != nil && !v.move && !v.queue.readingIn(c) {
			s.pageDown(v.queue, c)
		}
	}
}

// readingIn reports whether a reader is in chunk c.
func (q *queue) readingIn(c *chunk) bool {
	return q.reading && q.hint < len(q.chunks) && q.chunks[q.hint] == c
}
