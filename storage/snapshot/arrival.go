package snapshot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"warren/storage/vfs"
)

var (
	errArriving  = errors.New("another snapshot is arriving")
	errWithdrawn = errors.New("this snapshot is not waited for any more")
)

// Lack is a file of an Arrival that is not here, or not all of it.
type Lack struct {
	File
	Index int   // in the list
	From  int64 // where it goes on
}

// Arrival is a snapshot that is being received. One goroutine uses it.
type Arrival struct {
	store *Store
	dir   string
	files []File
	lacks []Lack
	here  int   // files that were
	bytes int64 // that were, also of other files

	part  vfs.File // open for writing, nil if none is
	index int      // its place in files
	dirty int      // bytes written since a sync

	reader  *stateReader // of the state, once it is offered
	unsound bool         // nothing of it is to be used again
}

// offer is an Arrival that waits for Raft to make its snapshot.
type offer struct {
	arrival     *Arrival
	index, term uint64
}

// Arrive begins to receive a snapshot with the files that a peer lists. What is
// here of them, from an earlier try or in a snapshot of this node's, is not
// lacking. room hears how many bytes will be written for the files, before any
// is, and may refuse them. Nothing else may be arriving; Close ends it.
func (s *Store) Arrive(files []File, room func(bytes int64) error) (*Arrival, error) {
	if err := refuse(files); err != nil {
		return nil, err
	}
	s.mu.Lock()
	busy := s.arriving
	s.arriving = true
	s.mu.Unlock()
	if busy {
		return nil, errArriving
	}
	a := &Arrival{store: s, dir: s.incoming(), files: files}
	err := s.fs.MkdirAll(a.dir)
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(a.dir))
	}
	if err == nil {
		err = a.survey(room)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive a snapshot: %w", err), a.Close(false))
	}
	return a, nil
}

// Lacks lists what has to be sent, in the order of the list.
func (a *Arrival) Lacks() []Lack { return a.lacks }

// Here says how many of the files were here, and how many bytes, of the others,
// too.
func (a *Arrival) Here() (files int, bytes int64) { return a.here, a.bytes }

// partSyncBytes are written to a file before it is synced, so that the log's
// syncs on the same disk wait for no more than that.
const partSyncBytes = 16 << 20

// WriteAt adds to a file that is lacking: bytes follow each other, from
// Lack.From to the file's end. Then comes Finish, and then another file.
func (a *Arrival) WriteAt(index int, b []byte, off int64) error {
	err := a.openPart(index)
	if err == nil {
		_, err = a.part.WriteAt(b, off)
	}
	if a.dirty += len(b); err == nil && a.dirty >= partSyncBytes {
		a.dirty = 0
		if err = a.part.SyncData(); err != nil {
			err = errors.Join(err, a.dropPart())
		}
	}
	if err != nil {
		return fmt.Errorf("receive %s: %w", a.files[index].Name, err)
	}
	return nil
}

// dropPart removes the file that is being written: after a failed sync nobody
// knows what is in it, and a later sync would not say.
func (a *Arrival) dropPart() error {
	return errors.Join(a.closePart(), a.store.fs.Remove(a.place(&a.files[a.index])+partSuffix))
}

func (a *Arrival) openPart(index int) error {
	if a.part != nil && a.index == index {
		return nil
	}
	if err := a.closePart(); err != nil {
		return err
	}
	name := a.place(&a.files[index]) + partSuffix
	f, err := a.store.fs.Edit(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = a.store.fs.Create(name)
	}
	if err != nil {
		return err
	}
	a.part, a.index = f, index
	return nil
}

func (a *Arrival) closePart() error {
	f := a.part
	if a.part = nil; f == nil {
		return nil
	}
	return f.Close()
}

// Finish says that all of a file was written. Its bytes are durable before it
// gets the name from which it is linked into a snapshot, and a snapshot counts
// only after that: after a crash none does that lacks a byte. That the name is
// durable, too, only spares sending the file again. A file that is not what its
// ID promises, or cannot be synced, is removed.
func (a *Arrival) Finish(index int) error {
	err := a.openPart(index)
	if err == nil {
		err = a.finish(&a.files[index])
	}
	if err != nil {
		return fmt.Errorf("finish %s: %w", a.files[index].Name, err)
	}
	return nil
}

func (a *Arrival) finish(f *File) error {
	place := a.place(f)
	var err error
	if a.store.check != nil {
		err = a.store.check(a.part, f.Bytes, f.ID)
	}
	if err == nil {
		err = a.part.Sync()
	}
	if err != nil {
		return errors.Join(err, a.dropPart())
	}
	if err := a.closePart(); err != nil {
		return err
	}
	if err := a.store.fs.Rename(place+partSuffix, place); err != nil {
		return err
	}
	return a.store.fs.SyncDir(a.dir)
}

// KeepState takes the state, of exactly so many bytes. It is not synced: what
// Raft makes of it is.
func (a *Arrival) KeepState(r io.Reader, bytes int64) error {
	f, err := a.store.fs.Create(filepath.Join(a.dir, incomingState))
	if err != nil {
		return fmt.Errorf("receive state: %w", err)
	}
	n, err := copyTo(f, io.LimitReader(r, bytes))
	if err == nil {
		var more [1]byte
		var k int
		if k, err = io.ReadFull(r, more[:]); n != bytes || k != 0 {
			err = fmt.Errorf("%w: %d bytes of state, %d were announced", ErrRefused, n+int64(k), bytes)
		} else if err == io.EOF { // itself: a stream that was cut wraps it
			err = nil
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("receive state: %w", err)
	}
	return nil
}

// Offer has the files linked into the snapshot of that index and term which
// Raft makes of what it reads from the reader: see Sink.ReadFrom.
func (a *Arrival) Offer(index, term uint64) (io.Reader, error) {
	f, err := a.store.fs.Open(filepath.Join(a.dir, incomingState))
	if err != nil {
		return nil, fmt.Errorf("receive state: %w", err)
	}
	a.reader = &stateReader{file: f}
	a.store.mu.Lock()
	a.store.offered = &offer{a, index, term}
	a.store.mu.Unlock()
	return a.reader, nil
}

// Close ends the Arrival. landed says that Raft has the snapshot: what was
// gathered for it can go. Else it stays for the next one, and Raft, should it
// still read the state, gets an error.
func (a *Arrival) Close(landed bool) error {
	err := a.closePart()
	if a.reader != nil {
		err = errors.Join(err, a.reader.end())
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	waste := filepath.Join(a.dir, incomingState)
	if landed || a.unsound {
		waste = a.dir
	}
	err = errors.Join(err, a.store.fs.Remove(waste))
	a.store.offered, a.store.arriving = nil, false
	return err
}

// stateReader reads a state that arrived, until it is ended.
type stateReader struct {
	mu    sync.Mutex // Raft reads, and whoever ends it may not wait for Raft
	file  vfs.File
	ended bool
}

// Read implements io.Reader.
func (r *stateReader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return 0, errWithdrawn
	}
	return r.file.Read(b)
}

func (r *stateReader) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	return r.file.Close()
}

// ReadFrom takes the state of a snapshot that a peer sent, and links in the
// files that arrived for it. Raft copies such a state into the sink, and
// nothing else comes this way: who captures a state here calls Write and Link.
// So a snapshot that this node takes at the same index and at the same time is
// not mistaken for it. If the Arrival was closed meanwhile, the state ends with
// an error, and there is no snapshot without its files.
func (k *Sink) ReadFrom(r io.Reader) (int64, error) {
	k.received = true
	if err := k.linkOffered(); err != nil {
		return 0, err
	}
	return copyTo(k, r)
}

func (k *Sink) linkOffered() error {
	k.store.mu.Lock()
	o := k.store.offered
	k.store.mu.Unlock()
	if o == nil || o.index != k.meta.Index || o.term != k.meta.Term {
		return nil
	}
	for i := range o.arrival.files {
		f := &o.arrival.files[i]
		if err := k.Link(f.Name, o.arrival.place(f), f.Bytes, f.ID); err != nil {
			return err
		}
	}
	return nil
}
