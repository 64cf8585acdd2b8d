package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"
)

// tail is the newest entries of a log, a contiguous run, bounded in bytes.
// Replication reads each entry once per follower right after it was stored,
// and a follower once more to apply it: from the file that is a decode and a
// copy each time.
type tail struct {
	bytesMax int64

	mu    sync.RWMutex
	logs  []raft.Log // logs[i] has index logs[0].Index+i
	bytes int64
}

// entryOverhead is what a cached entry costs besides its data.
const entryOverhead = 128

func entryBytes(l *raft.Log) int64 { return int64(len(l.Data)+len(l.Extensions)) + entryOverhead }

// add appends entries that are on disk now.
func (t *tail) add(logs []*raft.Log) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range logs {
		if n := len(t.logs); n > 0 && l.Index != t.logs[n-1].Index+1 {
			t.clear() // a gap after an installed snapshot, or a suffix written anew
		}
		t.logs = append(t.logs, *l)
		t.bytes += entryBytes(l)
	}
	for len(t.logs) > 0 && t.bytes > t.bytesMax {
		t.dropFirst()
	}
}

// get copies entry index, sharing its Data.
func (t *tail) get(index uint64, l *raft.Log) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.logs) == 0 || index < t.logs[0].Index {
		return false
	}
	at := index - t.logs[0].Index
	if at >= uint64(len(t.logs)) {
		return false
	}
	*l = t.logs[at]
	return true
}

// cut forgets first..last.
func (t *tail) cut(first, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.logs) == 0 {
		return
	}
	oldest, newest := t.logs[0].Index, t.logs[len(t.logs)-1].Index
	switch {
	case last < oldest || first > newest:
	case last >= newest: // a conflicting suffix
		for n := len(t.logs); n > 0 && t.logs[n-1].Index >= first; n = len(t.logs) {
			t.bytes -= entryBytes(&t.logs[n-1])
			t.logs[n-1] = raft.Log{}
			t.logs = t.logs[:n-1]
		}
	case first <= oldest: // a compacted prefix
		for len(t.logs) > 0 && t.logs[0].Index <= last {
			t.dropFirst()
		}
	default:
		t.clear()
	}
}

// evict forgets the entries up to index, to make room.
func (t *tail) evict(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.logs) > 0 && t.logs[0].Index <= index {
		t.dropFirst()
	}
}

func (t *tail) dropFirst() {
	t.bytes -= entryBytes(&t.logs[0])
	t.logs[0] = raft.Log{} // the slice's front stays reachable until append moves it
	t.logs = t.logs[1:]
}

func (t *tail) clear() {
	clear(t.logs)
	t.logs, t.bytes = t.logs[:0], 0
}

func (t *tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}

func (t *tail) size() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes
}
