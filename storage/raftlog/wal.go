package raftlog

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"warren/storage/vfs"
)

// WALFileBytes is the size of a WAL's files, unless its Options say otherwise.
const WALFileBytes = 64 << 20

const (
	walFileBytesMax = 1 << 30
	walCacheBytes   = 32 << 20
	// batchBytesMax is how much one write takes of what is queued; a single
	// larger request is written whole.
	batchBytesMax = 8 << 20
	// entryBytesMax bounds what is stored at once: offsets in a file have 32 bits.
	entryBytesMax = 1 << 30
	// pageBytes is how much of a file Linux keeps in one piece at the least.
	pageBytes = 4 << 10
)

// Errors of a WAL that callers test for.
var (
	// ErrDamaged says that bytes on disk are not those that were written.
	ErrDamaged = errors.New("the log is damaged")
	// ErrClosed says that the WAL is closed.
	ErrClosed = errors.New("the log is closed")
)

// WAL is the Raft logs of many groups in one sequence of files. Safe for
// concurrent use.
//
// There is at most one write at a time. Whoever stores something while none
// goes on does the write itself, for all that is queued by then, so that an
// idle WAL costs a lone append no change of goroutines; what is queued
// meanwhile goes together in the next write, by the first of those who wait.
type WAL struct {
	fs   vfs.FS
	dir  string
	opts Options

	fresh bool

	mu sync.Mutex
	// damage is why no group can be trusted but those in anew, which began anew
	// behind the damage, and damaged why one cannot. Set by recovery; Drop mends.
	damage  error
	damaged map[uint64]error
	anew    map[uint64]bool
	queue   []*request
	writing bool // somebody writes, and will wake the first in queue
	closed  bool
	groups  map[uint64]*GroupLog
	files   []*walFile // in order; the last one is written to

	// Owned by whoever writes.
	file    *walFile
	off     int64 // where the next write begins, and how much of file is synced
	prevSeq uint64
	prevEnd int64
	failed  error // of a write: the file cannot be trusted any more
	spent   bool  // the file is not written to any more
	cuts    int   // logs whose end is being replaced
	buf     []byte
	batch   []*request
	placed  []ref // of the batch's entries
	cached  int64 // bytes in all tails
	cache   []cachedEntry
	dog     *watchdog

	keeper keeper

	rounds, written, slow, carried, recycled atomic.Uint64
}

// cachedEntry is a place in the queue of entries that leave memory.
type cachedEntry struct {
	group *GroupLog
	index uint64
}

// walFile is one of the WAL's files.
type walFile struct {
	seq   uint64
	path  string
	f     vfs.File
	seed  uint32
	size  int64        // up to where it is allocated
	live  atomic.Int64 // bytes of entries that a group needs
	begun atomic.Bool  // something was written to it, and is durable
}

// WALStats are a WAL's figures.
type WALStats struct {
	Rounds     uint64 // writes, each with one sync
	Bytes      uint64 // written
	SlowWrites uint64
	Carried    uint64 // entries copied to let a file go
	Recycled   uint64 // files used again
	Files      int
	FileBytes  int64 // of all of them
}

// OpenWAL opens the WAL in dir, or makes it. The folder that dir is in must
// exist. What is on disk is read and checked once, and a file is begun; what a
// crash cut short is cut off. Damage to what may have been acknowledged is no
// error yet: Group answers it for each group that it may concern.
func OpenWAL(fs vfs.FS, dir string, o Options) (*WAL, error) {
	if o.Log == nil || o.Fatal == nil {
		return nil, errors.New("open log: no logger or no Fatal")
	}
	if o.FileBytes == 0 {
		o.FileBytes = WALFileBytes
	}
	if o.FileBytes < headerBytes+recordHead || o.FileBytes > walFileBytesMax {
		return nil, fmt.Errorf("open log: files of %d bytes, the limit is %d", o.FileBytes, walFileBytesMax)
	}
	switch {
	case o.CacheBytes == 0:
		o.CacheBytes = walCacheBytes
	case o.CacheBytes < 0:
		o.CacheBytes = 0
	}
	if o.SlowAfter == 0 {
		o.SlowAfter = time.Second
	}
	if o.HungAfter == 0 {
		o.HungAfter = 5 * time.Second
	}
	w := &WAL{fs: fs, dir: dir, opts: o, groups: map[uint64]*GroupLog{}, damaged: map[uint64]error{}, anew: map[uint64]bool{}}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", dir, err), w.closeFiles())
	}
	w.keeper.start()
	return w, nil
}

func (w *WAL) open() error {
	if err := w.fs.MkdirAll(w.dir); err != nil {
		return err
	}
	if err := w.fs.SyncDir(filepath.Dir(w.dir)); err != nil {
		return err
	}
	next, err := w.recover()
	if err != nil {
		return err
	}
	w.dog = newWatchdog(w.opts.SlowAfter, w.opts.HungAfter, func() {
		w.slow.Add(1)
		w.opts.Log.Warn("slow disk", "what", "write the log", "folder", w.dir, "slower_than", w.opts.SlowAfter)
	}, func() {
		w.opts.Fatal(fmt.Errorf("%s: write the log: %w for %s", w.dir, ErrHung, w.opts.HungAfter))
	})
	w.keeper.init(w, next)
	f, err := w.keeper.makeFile()
	if err != nil {
		return err
	}
	w.use(f)
	// This file says now where the one before it ends. From here on nothing that
	// a crash left behind that end can be taken for a record.
	return w.write(w.appendBatch(nil))
}

// Fresh reports whether OpenWAL found no file.
func (w *WAL) Fresh() bool { return w.fresh }

// Group is the log of a group; empty if the WAL has nothing of it. The error
// says which file is damaged, and where, if the group cannot be trusted: it
// must neither vote nor acknowledge.
func (w *WAL) Group(gid uint64) (*GroupLog, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.damage != nil && !w.anew[gid] {
		return nil, w.damage
	}
	if err := w.damaged[gid]; err != nil {
		return nil, err
	}
	return w.group(gid), nil
}

// group finds or makes a group's log. The lock is held.
func (w *WAL) group(gid uint64) *GroupLog {
	g := w.groups[gid]
	if g == nil {
		g = &GroupLog{wal: w, gid: gid, tail: tail{bytesMax: math.MaxInt64}, pinned: make(chan struct{}, 1)}
		w.groups[gid] = g
	}
	return g
}

// allGroups are the groups so far.
func (w *WAL) allGroups() []*GroupLog {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*GroupLog, 0, len(w.groups))
	for _, g := range w.groups {
		all = append(all, g)
	}
	return all
}

// Close waits for writes that go on, notes on disk that the log ends here, and
// closes the files. Nothing may be stored or read afterwards.
func (w *WAL) Close() error {
	err := w.submit(&request{do: doEnd}, true) // the last in the queue
	if errors.Is(err, ErrClosed) {
		return nil
	}
	w.keeper.end()
	if err != nil {
		err = fmt.Errorf("close log %s: %w", w.dir, err)
	}
	return errors.Join(err, w.closeFiles())
}

func (w *WAL) closeFiles() (err error) {
	if w.dog != nil {
		w.dog.end()
	}
	for _, f := range w.files {
		err = errors.Join(err, f.f.Close())
	}
	for len(w.keeper.spares) > 0 { // nobody takes one any more
		err = errors.Join(err, (<-w.keeper.spares).f.Close())
	}
	return err
}

// Stats are the figures so far.
func (w *WAL) Stats() WALStats {
	s := WALStats{
		Rounds: w.rounds.Load(), Bytes: w.written.Load(), SlowWrites: w.slow.Load(),
		Carried: w.carried.Load(), Recycled: w.recycled.Load(),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Files = len(w.files)
	for _, f := range w.files {
		s.FileBytes += f.size
	}
	return s
}
