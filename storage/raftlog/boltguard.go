package raftlog

import (
	"fmt"
	"runtime/debug"
)

// guard runs one use of bbolt, which trusts its file: it panics over a page that
// is not as it was written, and faults where the disk cannot be read, since the
// file is mapped into memory. Either is damage, and must cost this group only.
// bbolt has not committed anything then, and may hold locks for ever: nothing
// more is asked of it.
//
// What this cannot help is a page that bbolt meets as it takes back a failed
// write: it reads all pages then, on a goroutine of its own. A process that dies
// of that finds the page at its next start.
func (b *Bolt) guard(use func() error) (err error) {
	if why := b.broken.Load(); why != nil {
		return *why
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			why := fmt.Errorf("%s: %w: %v", b.path, ErrDamaged, p)
			b.broken.CompareAndSwap(nil, &why)
			err = why
		}
	}()
	return use()
}

// Close closes the file. Of one that is broken the mapping stays, and the lock
// on the file goes, so that it can be opened again.
func (b *Bolt) Close() error {
	if b.broken.Load() != nil {
		return b.file.Close()
	}
	return b.BoltStore.Close()
}

// lookFirst checks the file's skeleton before a term or a vote is written, as
// long as there is nothing else in it: that is a few pages, and terms and votes
// are rare. bbolt would end the process over a bad one.
func (b *Bolt) lookFirst() error {
	first, err := b.FirstIndex()
	if err == nil && first == 0 {
		err = checkBolt(b.path)
	}
	return err
}

func (b *Bolt) raw(k []byte) (v []byte, err error) {
	err = b.guard(func() (err error) { v, err = b.BoltStore.Get(k); return err })
	return v, err
}

// FirstIndex is raft.LogStore's.
func (b *Bolt) FirstIndex() (index uint64, err error) {
	err = b.guard(func() (err error) { index, err = b.BoltStore.FirstIndex(); return err })
	return index, err
}

// LastIndex is raft.LogStore's.
func (b *Bolt) LastIndex() (index uint64, err error) {
	err = b.guard(func() (err error) { index, err = b.BoltStore.LastIndex(); return err })
	return index, err
}
