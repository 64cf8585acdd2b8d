package segment

import "time"

const (
	// aheadChunks are read before a reader comes to them, if they are not
	// bigger than aheadBytes.
	aheadChunks = 2
	aheadBytes  = 2 * chunkBytes
)

// want is something for the reader to read: a chunk, with scan the index of
// one, or with got one message of it.
type want struct {
	store *Store
	queue *queue
	chunk *chunk
	view  viewedChunk // holds the file
	scan  *scan
	ahead bool
	seq   uint64
	got   func(Record)
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
	s.want(qu, qu.chunks[at], askedFor)
	if qu.hint != at || !qu.reading {
		qu.hint, qu.reading = at, true
	}
	if s.folder.pager.hot.Load() > s.folder.pager.budget {
		return here // no room to read ahead
	}
	for _, c := range qu.chunks[at+1 : min(at+1+aheadChunks, len(qu.chunks))] {
		if c.size <= aheadBytes {
			s.want(qu, c, readAhead)
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
		c.hot.loadedMs = 0
		return c.hot.recs[seq-c.first].expiryMs, true
	case !c.expires:
		return 0, true
	case c.headMs != headUnknown && seq == c.first+uint64(c.prefix):
		return c.headMs, true
	}
	s.want(qu, c, askedFor)
	return 0, false
}

// want has a chunk read that is paged out. One that is to be read ahead, and is
// asked for now, comes with the others that are.
func (s *Store) want(qu *queue, c *chunk, how loading) {
	if c.hot != nil || c.loading >= how || s.closed {
		return
	}
	c.loading = how
	s.folder.pager.ask(want{store: s, queue: qu, chunk: c, view: c.capture(), ahead: how == readAhead})
}

func (p *Pager) ask(w want) {
	p.mu.Lock()
	stopped := p.stopped
	if !stopped {
		if w.ahead {
			p.aheads = append(p.aheads, w)
		} else {
			p.wants = append(p.wants, w)
		}
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
		for len(p.wants) == 0 && len(p.aheads) == 0 && !p.stopped {
			p.changed.Wait()
		}
		stopped := p.stopped
		p.mu.Unlock()
		if stopped {
			p.forgetWants()
			return
		}
		if p.makeRoom() {
			p.readNext()
		} else {
			p.pause()
		}
	}
}

// readNext reads what was asked for first, or else what is to be read ahead;
// false if there is nothing.
func (p *Pager) readNext() bool {
	w, ok := p.nextWant()
	switch {
	case !ok:
		return false
	case w.scan != nil:
		p.readIndex(&w)
	case w.got != nil:
		p.readOne(&w)
	case w.stands():
		p.readChunk(&w)
	}
	w.view.letGo()
	return true
}

func (p *Pager) nextWant() (w want, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := &p.wants
	if len(*from) == 0 {
		from = &p.aheads
	}
	if len(*from) == 0 {
		return w, false
	}
	w = (*from)[0]
	(*from)[0] = want{}
	*from = (*from)[1:]
	return w, true
}

func (p *Pager) forgetWants() {
	p.mu.Lock()
	wants := append(p.wants, p.aheads...)
	p.wants, p.aheads = nil, nil
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
	switch {
	case s.closed || c.gone || c.hot != nil || c.loading == unreadable:
	case err != nil:
		c.loading = unreadable // nobody asks for it again
		s.owner.Damaged(err)
	default:
		s.install(w.queue, c, l)
		s.owner.Arrived(w.queue.id)
	}
}

// install puts a chunk back in memory.
func (s *Store) install(qu *queue, c *chunk, l loaded) {
	h := &hot{recs: l.recs, blocks: l.blocks, current: -1, loaded: true}
	if c.loading == askedFor { // what was read ahead goes at once when somebody waits for its room
		h.loadedMs = time.Now().UnixMilli()
	}
	c.loading = notAsked
	s.heat(qu, c, h)
	s.account(h, l.bytes)
	s.folder.pager.loaded.Add(l.bytes)
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
