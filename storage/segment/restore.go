package segment

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"warren/internal/fields"
)

// Restore returns a store with the messages that a manifest lists, all of them
// paged out. Its files are those of that name in the folder linked, which are
// linked here, so that no body is read. Whatever is wrong with them is an error,
// or shows when a message is read.
func (f *Folder) Restore(owner Owner, manifestBytes []byte, linked string) (*Store, error) {
	m := manifest{fields.Read(manifestBytes)}
	files, err := m.files()
	if err != nil {
		return nil, err
	}
	if len(files) > 0 && linked == "" {
		return nil, fmt.Errorf("%w: the segments of a snapshot are not with it", ErrDamaged)
	}
	defer func() {
		for i := range files {
			if x := files[i].file; x != nil {
				x.letGo() // what holds a chunk stays
			}
		}
	}()
	f.endThose(files)
	for i := range files {
		if err := f.linkBack(&files[i], linked); err != nil {
			return nil, fmt.Errorf("restore segment %s: %w", files[i].name, err)
		}
	}
	s := f.NewStore(owner)
	if err := s.restore(&m, files); err != nil {
		owner.Lock()
		s.Close()
		owner.Unlock()
		return nil, err
	}
	return s, nil
}

// endThose has nothing more written to files that are to be restored: a peer may
// have them from here. One that went on would be in the next snapshot twice, by
// two names, and no peer takes that.
func (f *Folder) endThose(files []restoredFile) {
	for _, own := range f.list() {
		if slices.ContainsFunc(files, func(x restoredFile) bool { return x.id == own.id }) {
			own.ended.Store(true)
		}
	}
}

// linkBack gives a file of a snapshot a name here. A new one: the name that it
// had may be in use, or be about to be removed.
func (f *Folder) linkBack(x *restoredFile, linked string) error {
	fs := f.pager.fs
	name, _ := f.newName()
	path := filepath.Join(f.dir, name)
	if err := fs.Link(filepath.Join(linked, x.name), path); err != nil {
		return err
	}
	in, err := fs.Open(path)
	if err != nil {
		return errors.Join(err, fs.Remove(path))
	}
	x.file = &file{folder: f, name: name, id: x.id, f: in}
	x.file.size.Store(x.bytes)
	x.file.synced.Store(x.bytes) // before it was linked
	f.add(x.file)
	size, err := in.Size()
	if err == nil && size < x.bytes {
		err = fmt.Errorf("%w: %d of %d bytes are left", ErrDamaged, size, x.bytes)
	}
	return errors.Join(err, x.check())
}

func (x *restoredFile) check() error {
	var head [fileHead]byte
	if n, err := x.file.f.ReadAt(head[:], 0); n < len(head) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return checkHead(head[:], x.id)
}

// restore makes the chunks that are left in a manifest. Nobody else knows the
// store yet, but the Pager looks at it.
func (s *Store) restore(m *manifest, files []restoredFile) error {
	queues := m.Uint()
	for i, last := uint64(0), uint64(0); i < queues; i++ {
		id, chunks := m.Uint(), m.Uint()
		if m.Err() != nil || i > 0 && id <= last {
			return errManifest
		}
		last = id
		qu, err := m.queue(id, chunks, files)
		if len(qu.chunks) > 0 {
			s.owner.Lock()
			s.queues[id] = qu
			s.paged += qu.paged
			s.total += qu.bytes
			s.owner.Unlock()
		}
		if err != nil {
			return err
		}
	}
	if m.Err() != nil || m.More() {
		return errManifest
	}
	return nil
}

// queue reads a queue's chunks, up to the first that is wrong.
func (m *manifest) queue(id, chunks uint64, files []restoredFile) (*queue, error) {
	qu := &queue{id: id}
	for next := uint64(0); chunks > 0; chunks-- {
		c, err := m.chunk(next, files)
		if err != nil {
			return qu, err
		}
		c.file.hold()
		qu.chunks = append(qu.chunks, c)
		qu.bytes += c.liveBytes
		qu.paged++
		next = c.first + uint64(c.slots)
		qu.last, qu.begun = next-1, true
	}
	return qu, nil
}

// Live calls f for every queue with the ranges of its live messages, in order,
// until f answers false.
func (s *Store) Live(f func(q, first, last uint64) bool) {
	for id, qu := range s.queues {
		for _, c := range qu.chunks {
			for slot := int(c.prefix); slot < int(c.slots); slot++ {
				if c.isDead(slot) {
					continue
				}
				from := slot
				for slot+1 < int(c.slots) && !c.isDead(slot+1) {
					slot++
				}
				if !f(id, c.first+uint64(from), c.first+uint64(slot)) {
					return
				}
			}
		}
	}
}
