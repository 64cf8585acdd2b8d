package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// resealEntries is how many entries of an old file are sealed at a time.
const resealEntries = 64

// raftKeys are the keys that Raft v1.8.0 stores.
var raftKeys = [][]byte{[]byte("CurrentTerm"), []byte("LastVoteTerm"), []byte("LastVoteCand")}

// verify reads all that the file holds and checks it. One from before the seals
// is sealed first; the mark is set when all is done, so that a crash in between
// does it again.
func (b *Bolt) verify() error {
	_, err := b.Get(sealedKey)
	switch {
	case err == nil:
		return b.verifyEach()
	case err.Error() != "not found": // raft-boltdb's
		return err
	}
	if err := b.resealValues(); err != nil {
		return err
	}
	if err := b.resealEntries(); err != nil {
		return err
	}
	return b.setOnce(sealedKey, []byte{1})
}

// setOnce is Set for who opens the file: on a full disk it fails, and the next
// try to open it goes on.
func (b *Bolt) setOnce(k, v []byte) error {
	return b.write("seal "+string(k), func() error { return b.BoltStore.Set(k, sealValue(k, v)) })
}

func (b *Bolt) verifyEach() error {
	for _, k := range raftKeys {
		if _, err := b.Get(k); err != nil && err.Error() != "not found" {
			return err
		}
	}
	first, last, err := b.bounds()
	if err != nil || first == 0 {
		return err
	}
	var l raft.Log
	b.whole = first
	for i := first; i <= last; i++ {
		if err := b.read(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			b.whole = i + 1 // what a snapshot stands for, if nothing is wrong
		} else if err != nil {
			return err
		}
	}
	return nil
}

// WholeFrom is the entry from which the log had no gap when it was opened; 0 if
// it was empty.
func (b *Bolt) WholeFrom() (uint64, error) { return b.whole, nil }

func (b *Bolt) bounds() (first, last uint64, err error) {
	if first, err = b.FirstIndex(); err == nil {
		last, err = b.LastIndex()
	}
	return first, last, err
}

func (b *Bolt) resealValues() error {
	for _, k := range raftKeys {
		v, err := b.raw(k)
		if errors.Is(err, ErrDamaged) {
			return err
		}
		if err != nil {
			continue // there is none
		}
		if _, err := unsealValue(k, v); err == nil {
			continue // an earlier try came this far
		}
		if err := b.setOnce(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bolt) resealEntries() error {
	first, last, err := b.bounds()
	if err != nil || first == 0 {
		return err
	}
	b.whole = first
	var batch []*raft.Log
	for i := first; i <= last; i++ {
		l := new(raft.Log)
		if err := b.guard(func() error { return b.BoltStore.GetLog(i, l) }); errors.Is(err, raft.ErrLogNotFound) {
			b.whole = i + 1
			continue
		} else if err != nil {
			return fmt.Errorf("entry %d: %w: %w", i, ErrDamaged, err)
		}
		if err := unsealEntry(i, l); err != nil {
			batch = append(batch, l)
		}
		if len(batch) == resealEntries || i == last {
			if err := b.write("seal entries", func() error { return b.BoltStore.StoreLogs(sealed(batch)) }); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}
