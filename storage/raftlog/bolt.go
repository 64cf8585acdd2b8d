// Package raftlog keeps Raft logs and votes on disk. It does not know what
// entries mean.
//
// WAL is the log of all the node's queue groups: one sequence of files, and one
// fdatasync for whatever the groups store at the same time. Bolt is one group's
// log in a file of its own, and every group's votes: two fdatasyncs and some
// rewritten pages for each write. Both are append-only to their callers: what
// was stored is there after a crash, or the store says that it is damaged.
//
// A store that cannot write its disk must not go on: after an error of fsync
// the kernel has dropped the pages it could not write, and a retry would call
// them durable. Raft itself only steps down on an error of StoreLogs, and
// panics if it cannot store a term; so every failed write ends the process
// through Options.Fatal, from here, before Raft hears of it. A full disk that
// refuses a write is the exception: bbolt rolls such a transaction back whole,
// nothing was acknowledged, and a later try may succeed. A term or a vote
// waits for room.
package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"warren/storage/vfs"
)

const (
	// lockWaitMax is how long OpenBolt waits for another process to let go of the file.
	lockWaitMax = 3 * time.Second
	// mmapBytes is address space, not memory: bbolt maps the file once instead
	// of stopping readers and writers to map it again as it grows.
	mmapBytes = 1 << 30
	// fullDiskPause is how soon a term or a vote is tried again on a full disk.
	fullDiskPause = 500 * time.Millisecond
)

// Options say how a log behaves. Log and Fatal are required.
type Options struct {
	Log *slog.Logger
	// Fatal ends the process. It is called from any goroutine; if it returns,
	// as in tests, the operation goes on and answers its error.
	Fatal func(error)
	// CacheBytes of the newest entries are kept in memory, shared with Raft
	// and the state machine; 4 MiB if 0 (a WAL's, for all of its groups: 32
	// MiB), none if negative.
	CacheBytes int64
	// FileBytes is the size of a WAL's files: 64 MiB if 0, at most 1 GiB. A Bolt
	// has no use for it.
	FileBytes int64
	// Known are the groups that may have entries in a WAL that is damaged beyond
	// telling. A Bolt has no use for it.
	Known []uint64
	// SlowAfter is when a write is logged and counted as slow (1 s if 0), and
	// HungAfter when it ends the process (5 s if 0): heartbeats do not wait for
	// the disk, so a leader whose disk hangs would otherwise stay leader.
	SlowAfter, HungAfter time.Duration
}

// Stats are a log's figures.
type Stats struct {
	Stores, StoredEntries, StoredBytes uint64
	StoreNanos                         uint64 // time spent in StoreLogs
	SlowWrites                         uint64
	CacheHits, CacheMisses             uint64
	CachedBytes                        int64
}

// Bolt is a log in a raft-boltdb file, with its newest entries in memory. It
// is a raft.LogStore and a raft.StableStore, safe for concurrent use.
type Bolt struct {
	*raftboltdb.BoltStore // reads, and writes that are not overridden below
	path                  string
	opts                  Options
	tail                  tail
	whole                 uint64 // see WholeFrom
	file                  *os.File
	broken                atomic.Pointer[error] // see guard

	stores, entries, bytes, nanos, slow atomic.Uint64
	hits, misses                        atomic.Uint64
}

// OpenBolt opens or makes the file at path. The folder must exist and be synced;
// it is synced again here, because bbolt does not: before anything is stored in
// the file it has its name for good, also one that a killed process has made.
// All of the file is read and checked: what is not as it was written is
// ErrDamaged, and the file is left as it is.
func OpenBolt(path string, o Options) (*Bolt, error) { return openBolt(path, o, (*Bolt).verify) }

// EmptyBolt opens the file at path and deletes all entries, whatever they are;
// the term and the vote stay, and are ErrDamaged if they are not as they were
// written.
func EmptyBolt(path string, o Options) (*Bolt, error) {
	return openBolt(path, o, func(b *Bolt) error {
		if err := b.DeleteRange(0, math.MaxUint64); err != nil {
			return err
		}
		return b.verify()
	})
}

func openBolt(path string, o Options, verify func(*Bolt) error) (*Bolt, error) {
	if o.Log == nil || o.Fatal == nil {
		return nil, errors.New("open log: no logger or no Fatal")
	}
	switch {
	case o.CacheBytes == 0:
		o.CacheBytes = 4 << 20
	case o.CacheBytes < 0:
		o.CacheBytes = 0
	}
	if o.SlowAfter == 0 {
		o.SlowAfter = time.Second
	}
	if o.HungAfter == 0 {
		o.HungAfter = 5 * time.Second
	}
	if err := checkBolt(path); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	b := &Bolt{path: path, opts: o, tail: tail{bytesMax: o.CacheBytes}}
	if err := b.guard(b.open); err != nil {
		if b.broken.Load() != nil && b.file != nil {
			err = errors.Join(err, b.file.Close())
		}
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	err := vfs.OS{}.SyncDir(filepath.Dir(path))
	if err == nil {
		err = verify(b)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", path, err), b.Close())
	}
	return b, nil
}

func (b *Bolt) open() (err error) {
	b.BoltStore, err = raftboltdb.New(raftboltdb.Options{Path: b.path, BoltOptions: &bbolt.Options{
		Timeout:         lockWaitMax,
		NoFreelistSync:  true, // or every commit writes the whole freelist
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mmapBytes,
		OpenFile: func(path string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(path, flag, mode)
			b.file = f
			return f, err
		},
	}})
	return err
}

// StoreLog is raft.LogStore's.
func (b *Bolt) StoreLog(l *raft.Log) error { return b.StoreLogs([]*raft.Log{l}) }

// StoreLogs makes entries durable. Their Data must not change from here on.
func (b *Bolt) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	err := b.write("store entries", func() error { return b.BoltStore.StoreLogs(sealed(logs)) })
	b.stores.Add(1)
	b.nanos.Add(uint64(time.Since(start)))
	if err != nil {
		b.tail.forget() // whatever the file holds now, Raft asks the file
		return err
	}
	var bytes uint64
	for _, l := range logs {
		bytes += uint64(len(l.Data))
	}
	b.entries.Add(uint64(len(logs)))
	b.bytes.Add(bytes)
	b.tail.add(logs)
	return nil
}

// GetLog reads one entry, from memory if it is among the newest. Its Data is
// shared: nobody may change it.
func (b *Bolt) GetLog(index uint64, l *raft.Log) error {
	if b.tail.get(index, l) {
		b.hits.Add(1)
		return nil
	}
	b.misses.Add(1)
	return b.read(index, l)
}

// read reads one entry from the file and checks it.
func (b *Bolt) read(index uint64, l *raft.Log) error {
	*l = raft.Log{}
	err := b.guard(func() error { return b.BoltStore.GetLog(index, l) })
	if err == nil {
		err = unsealEntry(index, l)
	} else if !errors.Is(err, raft.ErrLogNotFound) {
		err = fmt.Errorf("entry %d: %w: %w", index, ErrDamaged, err)
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", b.path, err)
	}
	return err
}

// DeleteRange deletes the entries first..last.
func (b *Bolt) DeleteRange(first, last uint64) error {
	b.tail.cut(first, last) // before the file: an entry must not be found that is going
	return b.write("delete entries", func() error { return b.BoltStore.DeleteRange(first, last) })
}

// Set is raft.StableStore's.
func (b *Bolt) Set(k, v []byte) error {
	if err := b.lookFirst(); errors.Is(err, ErrDamaged) {
		return err
	}
	return b.insist("store "+string(k), func() error { return b.BoltStore.Set(k, sealValue(k, v)) })
}

// Get is raft.StableStore's.
func (b *Bolt) Get(k []byte) ([]byte, error) {
	v, err := b.raw(k)
	if err != nil {
		return nil, err
	}
	return unsealValue(k, v)
}

// GetUint64 is raft.StableStore's.
func (b *Bolt) GetUint64(k []byte) (uint64, error) {
	v, err := b.Get(k)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s: %w: %d bytes", k, ErrDamaged, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// SetUint64 is raft.StableStore's.
func (b *Bolt) SetUint64(k []byte, v uint64) error {
	return b.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// insist writes what Raft cannot do without. On a full disk it waits for room,
// however long: the group can take no part in anything here until then, but a
// process that ended would come no further, and take its other groups with it.
func (b *Bolt) insist(what string, do func() error) error {
	for {
		if err := b.write(what, do); !refused(err) {
			return err
		}
		time.Sleep(fullDiskPause)
	}
}

// refused reports whether a full disk has refused a write. An fsync that fails
// for want of room is no better than any other that fails.
func refused(err error) bool {
	var call *fs.PathError
	return isFull(err) && errors.As(err, &call) && call.Op == "write"
}

// write runs one write under the watchdog, and ends the process if it fails.
func (b *Bolt) write(what string, do func() error) error {
	dog := newWatchdog(b.opts.SlowAfter, b.opts.HungAfter, func() {
		b.slow.Add(1)
		b.opts.Log.Warn("slow disk", "what", what, "file", b.path, "slower_than", b.opts.SlowAfter)
	}, func() {
		b.opts.Fatal(fmt.Errorf("%s: %s: %w for %s", b.path, what, ErrHung, b.opts.HungAfter))
	})
	dog.begin()
	err := b.guard(do)
	dog.end()
	if err == nil || errors.Is(err, ErrDamaged) { // nothing was written
		return err
	}
	err = fmt.Errorf("%s: %w", what, err)
	if refused(err) {
		b.opts.Log.Error("disk is full", "what", what, "file", b.path, "err", err)
		return err
	}
	b.opts.Fatal(fmt.Errorf("%s: %w", b.path, err))
	return err
}

// FileBytes is the size of the file; it never shrinks.
func (b *Bolt) FileBytes() int64 {
	info, err := os.Stat(b.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Stats are the log's figures so far. (BoltStore's own are not shown.)
func (b *Bolt) Stats() Stats {
	return Stats{
		Stores: b.stores.Load(), StoredEntries: b.entries.Load(), StoredBytes: b.bytes.Load(),
		StoreNanos: b.nanos.Load(), SlowWrites: b.slow.Load(),
		CacheHits: b.hits.Load(), CacheMisses: b.misses.Load(), CachedBytes: b.tail.size(),
	}
}
