package segment

const (
	// sparseShare is the part of a file, in per cent, that must be in use for it
	// to stay as it is.
	sparseShare = 35
	// compactBytes is how much is written anew at once, every compactEvery.
	compactBytes = 128 << 20
)

// endEmpty has the files go that are written to and hold nothing any more: a
// group that was drained, and is not written to, would keep one for good. Runs on
// the writer.
func (p *Pager) endEmpty() {
	for _, s := range p.largest() {
		if s.folder == nil {
			continue
		}
		s.folder.paging.endEmpty()
		if w := s.folder.takeSaving(); w != nil {
			w.endEmpty()
			s.folder.giveBack(w)
		}
	}
}

// compactOne looks for sparse files, and writes what is in use of one of them
// to the current file of its folder. The file goes when the last who reads it
// lets go of it.
func (p *Pager) compactOne() {
	if p.hot.Load() > p.budget {
		return // memory first
	}
	for _, s := range p.largest() {
		if sparse := s.sparsest(); sparse != nil {
			if err := p.compact(s, sparse); err != nil {
				p.log.Error("sparse segment stays", "file", sparse.name, "err", err)
			}
			return
		}
	}
}

// sparsest finds the file with the least part in use, if that is little. Runs
// on the writer.
func (s *Store) sparsest() *file {
	if s.folder == nil {
		return nil
	}
	files := s.folder.list()
	if len(files) < 2 {
		return nil
	}
	used := make(map[*file]int64, len(files))
	s.owner.Lock()
	for _, qu := range s.queues {
		for _, c := range qu.chunks {
			if c.file != nil {
				// Of what was written: that was little already if most had gone by then.
				used[c.file] += int64(c.size) * int64(c.live) / int64(max(1, c.stored))
			}
		}
	}
	s.owner.Unlock()
	var found *file
	for _, f := range files {
		n, inUse := used[f] // not in use here: a view, or another store of the folder, has it
		if f.growing.Load() || !inUse || n*100 >= f.size.Load()*sparseShare {
			continue
		}
		if found == nil || n*found.size.Load() < used[found]*f.size.Load() {
			found = f
		}
	}
	return found
}

// compact moves the chunks of a file.
func (p *Pager) compact(s *Store, f *file) error {
	s.owner.Lock()
	var batch []victim
	left := int64(compactBytes)
	for _, qu := range s.queues {
		for _, c := range qu.chunks {
			if c.file == f && c.live > 0 && !c.writing && left > 0 {
				c.writing = true
				left -= int64(c.size)
				batch = append(batch, victim{queue: qu, chunk: c, view: c.capture(), move: true})
			}
		}
	}
	s.owner.Unlock()
	var failed error
	for i := range batch {
		v := &batch[i]
		from := v.view
		v.view.file = nil
		var unread error
		if failed == nil && v.view.recs == nil {
			unread = v.reload(from)
			failed = unread
		}
		if failed == nil {
			failed = s.folder.paging.write(v.queue.id, &v.view)
		}
		v.view.recs, v.view.blocks = nil, nil // not all of the batch at once in memory
		s.owner.Lock()
		s.written(v)
		if unread != nil && !v.chunk.gone { // who does not say so tries for ever
			s.owner.Damaged(unread)
		}
		s.owner.Unlock()
		from.letGo()
	}
	return failed
}

// reload reads a victim's messages from where they are now.
func (v *victim) reload(from viewedChunk) error {
	l, err := from.load(v.queue.id)
	if err != nil {
		return err
	}
	v.view.recs, v.view.blocks = l.recs, l.blocks
	return nil
}
