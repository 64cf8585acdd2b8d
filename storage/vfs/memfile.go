package vfs

import (
	"errors"
	"io"
)

// HalfDone is what an injector answers to have a call fail with Err when half of
// what it was to write, to sync or to reserve is done. Of other calls nothing is
// done.
type HalfDone struct{ Err error }

func (h *HalfDone) Error() string { return "half done: " + h.Err.Error() }

// Unwrap makes the error that it stands for known.
func (h *HalfDone) Unwrap() error { return h.Err }

// memFile is an open file of a Mem.
type memFile struct {
	fs   *Mem
	node *node
	name string
	at   int64
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
	if err := f.fs.before(OpRead, f.name); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(b []byte) (int, error) {
	b, err := part(b, f.fs.before(OpWrite, f.name))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if len(b) > 0 {
		f.node.write(b, len(f.node.data))
	}
	return len(b), err
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	b, err := part(b, f.fs.before(OpWrite, f.name))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if len(b) > 0 {
		f.node.write(b, int(off))
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

func (f *memFile) Allocate(size int64) error {
	err := f.fs.before(OpAllocate, f.name)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	grow, err := part(make([]byte, max(0, int(size)-len(f.node.data))), err)
	if len(grow) > 0 {
		f.node.write(grow, len(f.node.data))
	}
	return err
}

// Sync is File.Sync. As with a real one, what a failed one should have written
// is written by no later one, which says nothing of it: all the same it is read
// until the power goes.
func (f *memFile) Sync() error {
	err := f.fs.before(OpSync, f.name)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
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
	return err
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *memFile) Close() error { return nil }
