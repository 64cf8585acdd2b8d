package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// HalfDone is what an injector answers to have a call fail with Err when half of
// what it was to write, to sync or to reserve is done. Of other calls nothing is
// done.
type HalfDone struct{ Err error }

func (h *HalfDone) Error() string { return "half done: " + h.Err.Error() }

// Unwrap makes the error that it stands for known.
func (h *HalfDone) Unwrap() error { return h.Err }

// Done is what an injector answers to have a call fail with Err although all of
// it is done: the error came after that, or is of something else.
type Done struct{ Err error }

func (d *Done) Error() string { return "done: " + d.Err.Error() }

// Unwrap makes the error that it stands for known.
func (d *Done) Unwrap() error { return d.Err }

// memFile is an open file of a Mem.
type memFile struct {
	fs     *Mem
	node   *node
	name   string
	at     int64
	closed bool
}

// begin runs the injector and takes the lock, which whoever calls it gives back.
// As with a real file, nothing works that comes after Close.
func (f *memFile) begin(op Op) (after, err error) {
	after, err = f.fs.before(op, f.name)
	f.fs.mu.Lock()
	if f.closed {
		return nil, &fs.PathError{Op: string(op), Path: f.name, Err: fs.ErrClosed}
	}
	return after, err
}

func (f *memFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 {
		return n, nil
	}
	return n, err
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	after, err := f.begin(OpRead)
	defer f.fs.mu.Unlock()
	if err := errors.Join(err, after); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(b []byte) (int, error) { return f.write(b, -1) }

func (f *memFile) WriteAt(b []byte, off int64) (int, error) { return f.write(b, int(off)) }

// write writes at off, or at the end if that is negative.
func (f *memFile) write(b []byte, off int) (int, error) {
	after, err := f.begin(OpWrite)
	defer f.fs.mu.Unlock()
	if off < 0 {
		off = len(f.node.data)
	}
	if b, err = part(b, err); len(b) > 0 {
		f.node.write(b, off)
	}
	if err == nil {
		err = after
	}
	return len(b), err
}

// part is what is done of b when an injector has answered err.
func part[T any](b []T, err error) ([]T, error) {
	var half *HalfDone
	switch {
	case errors.As(err, &half):
		return b[:len(b)/2], half.Err
	case err != nil:
		return nil, err
	}
	return b, nil
}

func (f *memFile) SyncData() error { return f.Sync() }

func (f *memFile) DropCache() error { return nil }

// WriteOut is File.WriteOut. A disk may have what it has taken only in a memory
// of its own, so a crash takes what it will of it. What a failed one should have
// written is written by no later sync, as with Sync.
func (f *memFile) WriteOut(int64, int64) error {
	after, err := f.begin(OpWriteOut)
	defer f.fs.mu.Unlock()
	if err = errors.Join(err, after); err == nil || f.closed {
		return err
	}
	n := f.node
	n.doomed, n.unsynced = append(n.doomed, n.unsynced...), nil
	return err
}

func (f *memFile) Allocate(size int64) error {
	after, err := f.begin(OpAllocate)
	defer f.fs.mu.Unlock()
	grow, err := part(make([]byte, max(0, int(size)-len(f.node.data))), err)
	if len(grow) > 0 {
		f.node.write(grow, len(f.node.data))
	}
	if err == nil {
		err = after
	}
	return err
}

// Sync is File.Sync. As with a real one, what a failed one should have written
// is written by no later one, which says nothing of it: all the same it is read
// until the power goes.
func (f *memFile) Sync() error {
	after, err := f.begin(OpSync)
	defer f.fs.mu.Unlock()
	if f.closed {
		return err
	}
	n := f.node
	done, err := part(n.unsynced, err)
	if n.emptied && err == nil {
		n.synced, n.emptied = nil, false
	}
	for _, s := range done {
		n.harden(s)
	}
	n.doomed = append(n.doomed, n.unsynced[len(done):]...)
	n.unsynced = nil
	if err == nil {
		err = after
	}
	return err
}

func (f *memFile) Size() (int64, error) {
	after, err := f.begin(OpSize)
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), errors.Join(err, after)
}

// Close is io.Closer's. As with a real one the file is closed, whatever it
// answers.
func (f *memFile) Close() error {
	after, err := f.begin(OpClose)
	defer f.fs.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.fs.held--
	}
	return errors.Join(err, after)
}
