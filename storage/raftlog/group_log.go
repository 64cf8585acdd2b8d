package raftlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// GroupLog is one group's part of a WAL. It is a raft.LogStore, safe for
// concurrent use.
//
// It is no raft.MonotonicLogStore, though it keeps no gaps. To such a store
// Raft v1.8.0 has a follower that installs a snapshot delete its whole log,
// also what follows the snapshot: entries that it has acknowledged, if the
// snapshot came late. And it goes on naming the last of them when it votes.
// Without that word Raft keeps what follows, and leaves out the entries that a
// newer snapshot stands for: an entry beyond the end of the log begins it anew.
type GroupLog struct {
	wal *WAL
	gid uint64

	mu    sync.RWMutex
	first uint64 // index of refs[0]
	refs  []ref  // of every entry, in order
	tail  tail   // the newest entries

	plan // owned by whoever writes

	pinned chan struct{}         // cap 1: this group alone keeps old files
	flaw   atomic.Pointer[error] // why an entry could not be carried

	live                          atomic.Int64 // bytes that the entries take in files
	stores, entries, bytes, nanos atomic.Uint64
	hits, misses                  atomic.Uint64
}

// plan is what a log will hold after the records written so far; next is 0
// while that is nothing.
type plan struct {
	begin, next uint64
	cut         bool // a suffix is gone and nothing was stored since
}

// ref is where an entry is. There is one in memory for every entry of every
// log, so it has 24 bytes.
type ref struct {
	term uint64
	file *walFile
	off  uint32
	size uint32 // of the payload
}

func (r *ref) room() int64 { return recordHead + int64(padded(int(r.size))) }

// FirstIndex is raft.LogStore's: 0 if there are no entries.
func (g *GroupLog) FirstIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if len(g.refs) == 0 {
		return 0, nil
	}
	return g.first, nil
}

// LastIndex is raft.LogStore's: 0 if there are no entries.
func (g *GroupLog) LastIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if len(g.refs) == 0 {
		return 0, nil
	}
	return g.first + uint64(len(g.refs)) - 1, nil
}

// WholeFrom is where the log begins: it never has a gap.
func (g *GroupLog) WholeFrom() (uint64, error) { return g.FirstIndex() }

// GetLog reads one entry, from memory if it is among the newest. Its Data is
// shared: nobody may change it.
func (g *GroupLog) GetLog(index uint64, l *raft.Log) error {
	if g.tail.get(index, l) {
		g.hits.Add(1)
		return nil
	}
	g.misses.Add(1)
	at, ok := g.find(index)
	for ok {
		err := at.read(g.gid, index, l)
		if err == nil {
			return nil
		}
		// The entry may have gone, or have been carried, and its old file been
		// used again, since find.
		now, still := g.find(index)
		if still && now == at {
			return fmt.Errorf("read entry %d of group %d: %w", index, g.gid, err)
		}
		at, ok = now, still
	}
	return raft.ErrLogNotFound
}

func (g *GroupLog) find(index uint64) (ref, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if index < g.first || index-g.first >= uint64(len(g.refs)) {
		return ref{}, false
	}
	return g.refs[index-g.first], true
}

// Reach is the last entry up to to, such that those between after and it, both
// left out, have fewer than so many bytes of data together. Entries that the log
// does not have count nothing.
func (g *GroupLog) Reach(after, to uint64, bytes int64) uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	end := min(to, g.first+uint64(len(g.refs)))
	for i := max(after+1, g.first); i < end; i++ {
		if bytes -= int64(g.refs[i-g.first].size); bytes <= 0 {
			return i
		}
	}
	return to
}

// Newest is how many of the newest entries, up to most, take no more than so
// many bytes of files together.
func (g *GroupLog) Newest(bytes int64, most int) (count uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for i := len(g.refs) - 1; i >= max(0, len(g.refs)-most); i-- {
		if bytes -= g.refs[i].room(); bytes < 0 {
			break
		}
		count++
	}
	return count
}

// read reads an entry from its file and checks it.
func (r *ref) read(gid, index uint64, l *raft.Log) error {
	b := make([]byte, recordHead+int(r.size))
	if _, err := r.file.f.ReadAt(b, int64(r.off)); err != nil {
		return fmt.Errorf("%s at %d: %w", r.file.path, r.off, err)
	}
	rec, ok := readHead(b, r.file.seed)
	payload := b[recordHead:]
	if !ok || rec.gid != gid || rec.index != index || rec.term != r.term || rec.payloadLen != r.size || !rec.payloadOK(payload, r.file.seed) {
		return fmt.Errorf("%s at %d: %w", r.file.path, r.off, ErrDamaged)
	}
	rec.entry(payload, l)
	return nil
}

// StoreLog is raft.LogStore's.
func (g *GroupLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs makes entries durable; they are when it returns nil. Their Data
// must not change from here on.
func (g *GroupLog) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	bytes := 0
	for _, l := range logs {
		bytes += entryRoom(l)
		if l.Index == 0 {
			return errors.New("store entries: one has the index 0")
		}
	}
	if len(logs) == 0 {
		return nil
	}
	if bytes > entryBytesMax {
		return fmt.Errorf("store entries: %d bytes at once, the limit is %d", bytes, entryBytesMax)
	}
	err := g.wal.submit(&request{group: g, do: doStore, logs: logs, bytes: bytes}, false)
	g.stores.Add(1)
	g.nanos.Add(uint64(time.Since(start)))
	if err != nil {
		return fmt.Errorf("store entries: %w", err)
	}
	g.entries.Add(uint64(len(logs)))
	g.bytes.Add(uint64(bytes))
	return nil
}

// DeleteRange deletes the entries first..last, which must be the beginning or
// the end of the log, or all of it. They are gone for good when it returns nil.
func (g *GroupLog) DeleteRange(first, last uint64) error {
	if err := g.wal.submit(&request{group: g, do: doDelete, first: first, last: last, bytes: recordHead}, false); err != nil {
		return fmt.Errorf("delete entries %d..%d: %w", first, last, err)
	}
	return nil
}

// Pinned says that old files stay because this group's log reaches into the
// oldest of them: a snapshot would let them go.
func (g *GroupLog) Pinned() <-chan struct{} { return g.pinned }

// Flaw is why old files cannot be let go of: an entry of this group in one of
// them is damaged. Pinned says when to look.
func (g *GroupLog) Flaw() error {
	if why := g.flaw.Load(); why != nil {
		return *why
	}
	return nil
}

// FileBytes is the room that the group's entries take in the WAL's files.
func (g *GroupLog) FileBytes() int64 { return g.live.Load() }

// Stats are the group's figures so far. SlowWrites are the WAL's.
func (g *GroupLog) Stats() Stats {
	return Stats{
		Stores: g.stores.Load(), StoredEntries: g.entries.Load(), StoredBytes: g.bytes.Load(),
		StoreNanos: g.nanos.Load(), SlowWrites: g.wal.slow.Load(),
		CacheHits: g.hits.Load(), CacheMisses: g.misses.Load(), CachedBytes: g.tail.size(),
	}
}

// put sets the entry at index, which ends the log. The lock is held.
func (g *GroupLog) put(index uint64, at ref) {
	if end := g.first + uint64(len(g.refs)); len(g.refs) > 0 && index > end {
		g.dropTo(end - 1)
	}
	g.dropFrom(index)
	if len(g.refs) == 0 {
		g.first = index
	}
	g.refs = append(g.refs, at)
	g.hold(at)
}

// dropTo forgets the entries up to index. The lock is held.
func (g *GroupLog) dropTo(index uint64) {
	n := 0
	for ; n < len(g.refs) && g.first <= index; n++ {
		g.release(g.refs[n])
		g.first++
	}
	if n > 0 {
		g.refs = append([]ref(nil), g.refs[n:]...) // rare; and the old array may be large
	}
}

// dropFrom forgets the entries from index on. The lock is held.
func (g *GroupLog) dropFrom(index uint64) {
	for n := len(g.refs); n > 0 && g.first+uint64(n)-1 >= index; n-- {
		g.release(g.refs[n-1])
		g.refs = g.refs[:n-1]
	}
}

func (g *GroupLog) hold(r ref) {
	r.file.live.Add(r.room())
	g.live.Add(r.room())
}

func (g *GroupLog) release(r ref) {
	if r.file != nil { // recovery leaves holes that a later record fills
		r.file.live.Add(-r.room())
		g.live.Add(-r.room())
	}
}
