package segment

// A snapshot does not copy bodies: Save writes what is in memory only, once,
// and the Pager need not write it again; what was on disk stays as it is. The
// snapshot then links the files, and AppendTo says what of them it refers to.
//
// This is safe to do with files that are appended to later, and that the Pager
// removes or writes anew: no byte below a file's size is ever written again,
// all that the manifest refers to is below what was synced before the link, and
// a link keeps the bytes whatever happens to the other name. The folder itself
// is never synced: its names need not survive.

const (
	// saveBytes and saveChunks are about how much is written between two looks
	// at the store, which hold the owner's lock for that long.
	saveBytes  = 4 << 20
	saveChunks = 64
)

// saving is a chunk of a View that is not on disk yet, or on one that is not
// to be trusted.
type saving struct {
	queue   uint64
	view    *viewedChunk
	claimed bool // the chunk will have the new extent
}

// SavedFile is a file that a saved View refers to.
type SavedFile struct {
	Name, Path string
	ID         string // two files of the same id have the same bytes, as far as both go
	Bytes      int64  // that are durable
}

// Save writes what the view has in memory, and makes all that it refers to
// durable. It lets go of the memory on its way. To be called from one
// goroutine, without the owner's lock. After an error, which is ErrDamaged if
// something cannot be read any more, the view is good for Release only.
func (v *View) Save() error {
	f := v.store.folder
	w := f.borrowSaving()
	defer f.giveBack(w)
	var batch []saving
	bytes := int64(0)
	for i := range v.queues {
		q := &v.queues[i]
		for j := range q.chunks {
			c := &q.chunks[j]
			if c.file != nil && !c.file.spoiled.Load() {
				continue
			}
			batch = append(batch, saving{queue: q.id, view: c})
			if bytes += c.liveBytes; bytes < saveBytes && len(batch) < saveChunks {
				continue
			}
			if err := v.store.save(w, batch); err != nil {
				return err
			}
			batch, bytes = batch[:0], 0
		}
	}
	if err := v.store.save(w, batch); err != nil {
		return err
	}
	return v.sync()
}

// save writes a batch.
func (s *Store) save(w *writer, batch []saving) error {
	s.owner.Lock()
	for i := range batch {
		batch[i].claim()
	}
	s.owner.Unlock()
	var failed error
	for i := range batch {
		if failed == nil {
			failed = batch[i].write(w)
		}
	}
	s.owner.Lock()
	for i := range batch {
		batch[i].saved()
	}
	s.owner.Unlock()
	return failed
}

// same says that the chunk has the same messages as when it was captured.
func (x *saving) same() bool {
	c, v := x.view.chunk, x.view
	return !c.gone && c.first == v.first && int(c.slots) == v.slots
}

// claim takes the extent that the Pager has written since, or keeps the Pager
// from writing one now. An extent that was written when some of what the view
// has was gone already is of no use.
func (x *saving) claim() {
	c, v := x.view.chunk, x.view
	switch {
	case !x.same():
	case c.file != nil && c.file != v.file && !c.file.spoiled.Load() && c.live == v.live:
		old := v.file
		v.holdExtent(c)
		v.alike, v.marks = c.alike, c.marks
		v.recs, v.blocks = nil, nil
		if old != nil {
			old.letGo()
		}
	case !c.writing:
		c.writing, x.claimed = true, true
	}
}

// write gives the view an extent, unless claim has found one.
func (x *saving) write(w *writer) error {
	v, old := x.view, x.view.file
	if old != nil && !old.spoiled.Load() {
		return nil
	}
	if v.recs == nil {
		l, err := v.load(x.queue)
		if err != nil {
			return err
		}
		v.recs, v.blocks = l.recs, l.blocks
	} else {
		v.mark(w.folder.pager.sense.Flags)
	}
	if err := w.write(x.queue, v); err != nil {
		return err
	}
	v.recs, v.blocks = nil, nil // not all of the view at once in memory
	if old != nil {
		old.letGo()
	}
	return nil
}

// saved gives the new extent to the chunk as well, if it is what it was.
func (x *saving) saved() {
	if !x.claimed {
		return
	}
	c, v := x.view.chunk, x.view
	c.writing = false
	if v.file == nil || v.file == c.file || !x.same() {
		return
	}
	if c.file != nil {
		c.file.letGo()
	}
	c.file, c.at, c.size, c.stored = v.file, v.at, v.size, v.stored
	c.alike, c.marks = v.alike, v.marks
	c.file.hold()
}

// savedFile is a file that a View refers to, and how much of it is durable.
type savedFile struct {
	file  *file
	bytes int64
}

// sync makes the extents durable, and lists their files.
func (v *View) sync() error {
	v.saved = nil
	upTo := map[*file]int64{}
	for i := range v.queues {
		q := &v.queues[i]
		for j := range q.chunks {
			c := &q.chunks[j]
			if _, known := upTo[c.file]; !known {
				v.saved = append(v.saved, savedFile{file: c.file})
			}
			upTo[c.file] = max(upTo[c.file], int64(c.at)*extentAlign+int64(c.size))
		}
	}
	for i := range v.saved {
		x := &v.saved[i]
		if err := x.file.syncUpTo(upTo[x.file]); err != nil {
			return err
		}
		x.bytes = x.file.synced.Load()
	}
	return nil
}

// Files are the files that a saved view refers to, in the manifest's order.
func (v *View) Files() []SavedFile {
	out := make([]SavedFile, len(v.saved))
	for i, x := range v.saved {
		out[i] = SavedFile{Name: x.file.name, Path: x.file.path(), ID: x.file.id, Bytes: x.bytes}
	}
	return out
}
