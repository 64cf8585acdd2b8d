package segment

// mark is what can be told of a message at once, wherever it is.
type mark struct{ flags, prio uint8 }

// marks are those of a chunk whose messages differ, by slot: two bytes for each.
type marks struct{ of []mark }

// mark works out the marks of a chunk that is in memory, of those flags.
func (c *viewedChunk) mark(flags uint8) {
	first := true
	c.marks = nil
	for slot := c.prefix; slot < c.slots; slot++ {
		r := &c.recs[slot]
		m := mark{r.flags & flags, r.prio}
		switch {
		case c.isDead(slot):
		case first:
			c.alike, first = m, false
		case c.marks != nil:
			c.marks.of[slot] = m
		case m != c.alike:
			c.marks = &marks{make([]mark, c.slots)}
			for i := range slot {
				c.marks.of[i] = c.alike
			}
			c.marks.of[slot] = m
		}
	}
}

// Mark returns the priority of message seq of queue q, and those of its flags
// that the Pager's Sense names, without asking for it. Without a Pager these
// are all of its flags.
func (s *Store) Mark(q, seq uint64) (flags, prio uint8, ok bool) {
	qu := s.queue(q)
	if qu == nil {
		return 0, 0, false
	}
	at := qu.search(seq)
	if at == len(qu.chunks) || !qu.chunks[at].alive(seq) {
		return 0, 0, false
	}
	c := qu.chunks[at]
	m := c.alike
	switch {
	case c.hot != nil:
		r := &c.hot.recs[seq-c.first]
		m = mark{r.flags, r.prio}
		if s.folder != nil {
			m.flags &= s.folder.pager.sense.Flags
		}
	case c.marks != nil:
		m = c.marks.of[seq-c.first]
	}
	return m.flags, m.prio, true
}
