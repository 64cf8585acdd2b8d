package segment

// scan walks a queue's messages, of those on disk by their indexes alone.
type scan struct {
	store *Store
	queue *queue
	next  uint64 // goes on here
	last  uint64 // and ends here
	visit func(seq uint64, r Record)
	done  func()
}

// Scan calls visit with every live message of queue q that is there now, in
// order, and then done. If some are on disk, Scan returns early, and the rest
// is called later with the owner's lock held: of what is dropped meanwhile,
// visit may hear or not. Records of messages on disk have a Weight instead of
// a Body. If the queue goes or cannot be read, done is never called.
func (s *Store) Scan(q uint64, visit func(seq uint64, r Record), done func()) {
	qu := s.queue(q)
	if qu == nil {
		done()
		return
	}
	sc := &scan{store: s, queue: qu, last: qu.last, visit: visit, done: done}
	sc.goOn()
}

// goOn visits what is in memory, up to the first chunk that is not.
func (sc *scan) goOn() {
	qu := sc.queue
	for at := qu.search(sc.next); at < len(qu.chunks) && qu.chunks[at].first <= sc.last; at++ {
		c := qu.chunks[at]
		if c.hot == nil {
			sc.store.folder.pager.ask(want{store: sc.store, queue: qu, chunk: c, view: c.capture(), scan: sc})
			return
		}
		for slot := int(c.prefix); slot < int(c.slots); slot++ {
			if seq := c.first + uint64(slot); !c.isDead(slot) && seq >= sc.next && seq <= sc.last {
				sc.visit(seq, c.hot.recs[slot].record(c.hot.blocks))
			}
		}
		sc.next = c.first + uint64(c.slots)
	}
	sc.done()
}

// readIndex reads the index that a scan has come to, and goes on with it.
func (p *Pager) readIndex(w *want) {
	b := make([]byte, w.view.indexBytes())
	err := w.view.read(b)
	var entries []byte
	if err == nil {
		entries, _, err = w.view.index(w.queue.id, b)
	}
	s, c, sc := w.store, w.chunk, w.scan
	s.owner.Lock()
	defer s.owner.Unlock()
	switch {
	case s.closed:
		return
	case err != nil:
		s.owner.Damaged(err)
		return
	}
	for ; len(entries) > 0 && !c.gone; entries = entries[entryBytes:] {
		e := parseEntry(entries)
		if seq := c.first + uint64(e.slot); e.slot < int(c.slots) && !c.isDead(e.slot) && seq >= sc.next && seq <= sc.last {
			sc.visit(seq, Record{Flags: e.flags, Priority: e.prio, ExpiryMs: e.expiryMs, Weight: e.weight})
		}
	}
	sc.next = max(sc.next, w.view.first+uint64(w.view.slots))
	if s.queues[w.queue.id] == w.queue {
		sc.goOn()
	}
}
