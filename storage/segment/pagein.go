package segment

import "time"

const (
	// aheadChunks are read before a reader comes to them, if they are not
	// bigger than aheadBytes.
	aheadChunks = 2
	aheadBytes  = 2 * chunkBytes
)

// want is something for the reader to read: a chunk, or with scan the index of
// one.
type want struct {
	store *Store
	queue *queue
	chunk *chunk
	view  viewedChunk // holds the file
	scan  *scan
}

// Paged reports whether any message of queue q is on disk only.
func (s *Store) Paged(q uint64) bool {
	if s.paged == 0 {
		return false
	}
	qu := s.queue(q)
	return qu != nil && qu.paged > 0
}

// Here reports whether message seq of queue q can be read at once, or is not
// there at all. If it is on disk, it is asked for, and so are those after it:
// the owner hears when it has arrived.
func (s *Store) Here(q, seq uint64) bool {
	if !s.Paged(q) {
		return true
	}
	qu := s.queue(q)
	at := qu.search(seq)
	if at == len(qu.chunks) || !qu.chunks[at].alive(seq) {
		return true
	}
	here := qu.chunks[at].hot != nil
	s.want(qu, qu.chunks[at])
	if qu.hint != at || !qu.reading {
		qu.hint, qu.reading = at, true
	}
	if s.folder.pager.hot.Load() > s.folder.pager.budget {
		return here // no room to read ahead
	}
	for _, c := range qu.chunks[at+1 : min(at+1+aheadChunks, len(qu.chunks))] {
		if c.size <= aheadBytes {
			s.want(qu, c)
		}
	}
	return here
}

// Expiry returns the expiry of message seq of queue q. If that is not known,
// because it is on disk, it is asked for like Here does.
func (s *Store) Expiry(q, seq uint64) (ms int64, known bool) {
	qu := s.queue(q)
	if qu == nil {
		return 0, true
	}
	at := qu.search(seq)
	if at == len(qu.chunks) || !qu.chunks[at].alive(seq) {
		return 0, true
	}
	c := qu.chunks[at]
	switch {
	case c.hot != nil:
		return c.hot.recs[seq-c.first].expiryMs, true
	case !c.expires:
		return 0, true
	}
	s.want(qu, c)
	return 0, false
}

// want asks for a chunk that is paged out.
func (s *Store) want(qu *queue, c *chunk) {
	if c.hot != nil || c.loading || s.closed {
		return
	}
	c.loading = true
	s.folder.pager.ask(want{store: s, queue: qu, chunk: c, view: c.capture()})
}

func (p *Pager) ask(w want) {
	p.mu.Lock()
	stopped := p.stopped
	if !stopped {
		p.wants = append(p.wants, w)
		p.changed.Broadcast()
	}
	p.mu.Unlock()
	if stopped {
		w.view.letGo()
	}
}

// readOn is the reader.
func (p *Pager) readOn() {
	for {
		p.mu.Lock()
		for len(p.wants) == 0 && !p.stopped {
			p.changed.Wait()
		}
		stopped := p.stopped
		p.mu.Unlock()
		if stopped {
			p.forgetWants()
			return
		}
		p.readNext()
	}
}

// readNext reads what was asked for first; false if there is nothing.
func (p *Pager) readNext() bool {
	p.mu.Lock()
	if len(p.wants) == 0 {
		p.mu.Unlock()
		return false
	}
	w := p.wants[0]
	p.wants = p.wants[1:]
	p.mu.Unlock()
	if w.scan != nil {
		p.readIndex(&w)
	} else {
		p.readChunk(&w)
	}
	w.view.letGo()
	return true
}

func (p *Pager) forgetWants() {
	p.mu.Lock()
	wants := p.wants
	p.wants = nil
	p.mu.Unlock()
	for i := range wants {
		wants[i].view.letGo()
	}
}

func (p *Pager) readChunk(w *want) {
	l, err := w.view.load(w.queue.id)
	p.stats.in.Add(1)
	p.stats.bytesIn.Add(uint64(w.view.size))
	s, c := w.store, w.chunk
	s.owner.Lock()
	defer s.owner.Unlock()
	c.loading = false
	switch {
	case s.closed || c.gone || c.hot != nil:
	case err != nil:
		c.loading = true // nobody asks for it again
		s.owner.Damaged(err)
	default:
		s.install(w.queue, c, l)
		s.owner.Arrived(w.queue.id)
	}
}

// install puts a chunk back in memory.
func (s *Store) install(qu *queue, c *chunk, l loaded) {
	h := &hot{recs: l.recs, blocks: l.blocks, current: -1, loadedMs: time.Now().UnixMilli()}
	s.heat(qu, c, h)
	s.account(h, l.bytes)
	c.shared, c.sealed = true, true
	qu.paged--
	s.paged--
	live := int64(0)
	for slot := int(c.prefix); slot < int(c.slots); slot++ {
		if !c.isDead(slot) {
			live += int64(h.recs[slot].bytes)
		}
	}
	qu.bytes += live - c.liveBytes // exact again
	s.total += live - c.liveBytes
	c.liveBytes = live
}
