package segment

import "time"

// What is read from disk counts against the budget like all else. Before it
// reads, the reader sees to it that there is room: it lets chunks go that are
// on disk as well. What only the writer can make room for it does not wait
// for: a share of the budget is the reader's, and one chunk may always come,
// so that whoever waits for a message gets it, whatever the rest is full of.

const (
	// readShare of the budget may be taken by what has come back, even if the
	// rest is full.
	readShare = 4
	// evictShare of the budget is made free at once, so that stores are not
	// looked through for every chunk.
	evictShare = 16
	// roomAgain is how soon the reader looks again for room, while all that has
	// come back has only just come, and is kept for those who asked for it.
	roomAgain = 10 * time.Millisecond
)

// makeRoom reports whether there is room for what is to be read next, after it
// has made some if that can be done. Runs on the reader.
func (p *Pager) makeRoom() bool {
	p.mu.Lock()
	var w want
	if len(p.wants) > 0 {
		w = p.wants[0]
	}
	p.mu.Unlock()
	if w.chunk == nil || w.scan != nil || w.got != nil { // these take no room, and what is read ahead gets none made
		return true
	}
	bytes := w.memory()
	if p.hasRoom(bytes) {
		return true
	}
	p.evict(max(bytes, p.budget/evictShare), true)
	if !p.hasRoom(bytes) {
		p.evict(bytes, false)
	}
	return p.hasRoom(bytes)
}

// hasRoom reports whether a chunk of so many bytes may come.
func (p *Pager) hasRoom(bytes int64) bool {
	loaded := p.loaded.Load()
	return loaded == 0 || p.hot.Load()+bytes <= p.budget || loaded+bytes <= p.budget/readShare
}

// pause waits a moment.
func (p *Pager) pause() {
	select {
	case <-time.After(roomAgain):
	case <-p.ending:
	}
}

// evict takes chunks out of memory that have come back from disk, bytes of
// them if it can; with sparing none that a reader is at, or comes to next.
func (p *Pager) evict(bytes int64, sparing bool) {
	for _, s := range p.largest() {
		if bytes <= 0 {
			return
		}
		s.owner.Lock()
		bytes -= s.evict(bytes, sparing)
		s.owner.Unlock()
	}
}

// evict is Pager.evict for one store.
func (s *Store) evict(bytes int64, sparing bool) (freed int64) {
	if s.closed {
		return 0
	}
	now := time.Now().UnixMilli()
	for h := s.ring.root.next; h != &s.ring.root && freed < bytes; {
		next := h.next
		c := h.chunk
		if h.loaded && !c.writing && now-h.loadedMs >= keepLoaded.Milliseconds() && !(sparing && h.queue.spares(c)) {
			freed += h.bytes
			s.pageDown(h.queue, c)
		}
		h = next
	}
	return freed
}

// stands reports whether a chunk is to be read still. One that is to be read
// ahead is not if there is no room: somebody may ask for it later.
func (w *want) stands() bool {
	s, c := w.store, w.chunk
	s.owner.Lock()
	defer s.owner.Unlock()
	if s.closed || c.gone || c.hot != nil {
		return false
	}
	if !w.ahead {
		return true
	}
	if c.loading != readAhead {
		return false // it has been asked for meanwhile
	}
	if p := s.folder.pager; p.hot.Load()+w.memory() > p.budget {
		c.loading = notAsked
		return false
	}
	return true
}

// memory is what a chunk takes when it is here.
func (w *want) memory() int64 { return int64(w.view.size) + int64(w.view.slots)*recBytes }
