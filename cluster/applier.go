package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"warren/storage/snapshot"
)

// applier is the raft.BatchingFSM around a Machine. Being a batching one is
// not about speed only: a plain FSM never sees membership entries, and Raft
// then refuses to snapshot an idle group after every membership change.
//
// Raft calls ApplyBatch, Snapshot and Restore from one goroutine; Restore also
// from NewRaft, before that goroutine exists.
type applier struct {
	machine Machine
	fatal   func(error)
	// onRestore hears of every snapshot that Raft wants restored, before it is
	// (an error refuses it); the function it answers is called after it.
	onRestore func(m raft.SnapshotMeta) (after func(), err error)
	// onLanded hears what became of one that a leader sent.
	onLanded func(err error)
	// onApplied hears of every batch: how many real entries it had, and the last
	// entry of any kind.
	onApplied func(entries int, last *raft.Log)

	entries []Entry // reused between batches

	starting atomic.Bool // NewRaft runs: another snapshot may take the place of a bad one
	refused  error       // why snapshots were not restored while it ran
	config   atomic.Pointer[configuration]
	applied  atomic.Uint64 // newest index that the Machine has applied
	seen     uint64        // newest index of this run; lags behind applied while a restarted Raft replays
	growth   growth        // of the log since the last snapshot

	watching sync.Mutex
	changed  chan struct{} // closed and replaced when applied moves; nil while nobody waits
}

// configuration is a committed membership and the index of its entry.
type configuration struct {
	index   uint64
	servers []raft.Server
}

// errReplaying refuses a snapshot while a Raft that was restarted in place
// replays entries that the Machine has already applied: Raft would label the
// Machine's newer state with its older index.
var errReplaying = errors.New("no snapshot while entries are replayed")

// Apply is required by raft.FSM; Raft prefers ApplyBatch.
func (a *applier) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch hands the commands among logs to the Machine. Membership entries
// and our own no-ops (commands without data) need a slot in the answer only.
func (a *applier) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	applied := a.applied.Load()
	a.entries = a.entries[:0]
	first, bytes := -1, int64(0)
	flush := func() {
		if len(a.entries) == 0 {
			return
		}
		answers := a.machine.Apply(a.entries)
		if len(answers) != len(a.entries) {
			panic(fmt.Sprintf("machine answered %d results to %d entries", len(answers), len(a.entries)))
		}
		copy(results[first:], answers)
		clear(a.entries) // do not keep the data alive
		a.entries, first = a.entries[:0], -1
	}
	count := 0
	for i, l := range logs {
		if l.Type == raft.LogConfiguration {
			a.config.Store(&configuration{l.Index, raft.DecodeConfiguration(l.Data).Servers})
		}
		if l.Type != raft.LogCommand || len(l.Data) == 0 || l.Index <= applied {
			flush() // results of a run of entries are copied as one piece
			continue
		}
		if first < 0 {
			first = i
		}
		a.entries = append(a.entries, Entry{Index: l.Index, Term: l.Term, Data: l.Data})
		bytes += int64(len(l.Data))
		count++
	}
	flush()
	last := logs[len(logs)-1]
	a.seen = last.Index
	a.growth.add(bytes, int64(count))
	if last.Index > applied {
		a.setApplied(last.Index)
	}
	a.onApplied(count, last)
	return results
}

func (a *applier) setApplied(index uint64) {
	a.watching.Lock()
	a.applied.Store(index)
	changed := a.changed
	a.changed = nil
	a.watching.Unlock()
	if changed != nil {
		close(changed)
	}
}

// watch returns the applied index, and a mailbox that is closed once it moves.
func (a *applier) watch() (uint64, <-chan struct{}) {
	a.watching.Lock()
	defer a.watching.Unlock()
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.applied.Load(), a.changed
}

// Snapshot captures the Machine for Raft.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.seen < a.applied.Load() {
		return nil, errReplaying
	}
	s, err := a.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	at := a.growth.now()
	return capturedSnapshot{s, func() { a.growth.cover(at) }}, nil
}

// Restore replaces the Machine's state. During NewRaft an error makes Raft try
// the snapshot before. Later a leader has sent it, and an error leaves all as it
// was: the Machine has its state, and Raft v1.8.0 moves its indexes and cuts its
// log only after this. The leader hears of it, not that this replica has what
// the snapshot has, and sends it again in a while.
func (a *applier) Restore(rc io.ReadCloser) error {
	replaced, err := a.restore(rc)
	switch {
	case err == nil:
		a.onLanded(nil) // also if Raft has just begun: a leader may have sent it
	case a.starting.Load():
		a.refused = errors.Join(a.refused, err)
	case replaced: // there is no way back
		a.fatal(err)
	default:
		a.onLanded(err)
	}
	return err
}

func (a *applier) restore(rc io.ReadCloser) (replaced bool, err error) {
	r, ok := snapshotReader(rc)
	if !ok {
		return false, fmt.Errorf("restore: not a reader of our snapshot store: %T", rc)
	}
	meta := r.Meta()
	after, err := a.onRestore(meta)
	if err != nil {
		return false, fmt.Errorf("restore snapshot %s: %w", meta.ID, err)
	}
	if err := a.machine.Restore(r); err != nil {
		return false, fmt.Errorf("restore snapshot %s: %w", meta.ID, err)
	}
	// The checksum is checked at the end of the file: the state counts only
	// once the reader has said io.EOF.
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return true, fmt.Errorf("restore snapshot %s: %w", meta.ID, err)
	}
	if n != 0 {
		return true, fmt.Errorf("restore snapshot %s: the machine left %d bytes unread", meta.ID, n)
	}
	a.seen = meta.Index
	a.config.Store(&configuration{meta.ConfigurationIndex, meta.Configuration.Servers})
	a.growth.cover(a.growth.now())
	a.setApplied(meta.Index)
	after()
	return true, nil
}

// snapshotReader finds our snapshot store's reader below Raft's counting one.
func snapshotReader(rc io.ReadCloser) (*snapshot.Reader, bool) {
	for {
		switch r := rc.(type) {
		case *snapshot.Reader:
			return r, true
		case raft.ReadCloserWrapper:
			rc = r.WrappedReadCloser()
		default:
			return nil, false
		}
	}
}

// capturedSnapshot is a Machine's Snapshot as Raft wants it.
type capturedSnapshot struct {
	Snapshot
	written func() // it is on disk
}

// Persist writes the state. Raft closes or cancels the sink after us as well;
// the sink bears that.
func (c capturedSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := c.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	c.written()
	return nil
}
