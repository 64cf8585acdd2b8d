package cluster

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Raft takes committed entries out of the log as soon as it hears of them, and
// queues them for the Machine: as many as 128 batches, which may be all of a
// log that is replayed after a start. A Machine that has to write bodies to disk
// on the way is slower than that. So Raft hears of entries only as the Machine
// comes up to them, and bytes bound what waits.
//
// A follower is told later what is committed, which is Raft's to bear at any
// time: its main loop answers heartbeats meanwhile. A leader finds out by
// itself, all at once; its main loop is kept waiting where it reads, and it has
// nothing else to do before the Machine can lead. Others send its heartbeats.
const (
	// aheadTold is how many bytes of entries a follower may know to be committed
	// before the Machine has applied them, and aheadRead how many a leader reads.
	aheadTold = 32 << 20
	aheadRead = 48 << 20
	// aheadPatience is how long a leader waits for a Machine that does not move,
	// before it reads the next entry after all.
	aheadPatience = time.Second
	// batchEntries is how many entries Raft gathers before it hands them on.
	batchEntries = 16
)

// reaching is a log that knows how long its entries are. A log.bolt does not.
type reaching interface {
	// Reach is the last entry up to to, such that those between after and it
	// have fewer than so many bytes together.
	Reach(after, to uint64, bytes int64) uint64
}

// reach is how far Raft may go on from what the Machine has applied. There is
// always an entry with data in it that the Machine has not applied, so that it
// moves on.
func (g *Group) reach(to uint64, bytes int64) uint64 {
	if log, ok := g.stores.log.(reaching); ok {
		return log.Reach(g.apply.applied.Load(), to, bytes)
	}
	return to
}

// holdBack keeps Raft from reading an entry to be applied while too much waits
// for the Machine already. Other entries are read to be sent, or to say what
// precedes those: followers must hear what is committed while the leader's own
// Machine is far from it. Once the Machine leads, Raft has what it applies at
// hand, and reads what a follower lacks.
func (g *Group) holdBack(index uint64) {
	r := g.raft.Load()
	if r == nil || g.leaders.term() != 0 || index > r.CommitIndex() || !r.appliesNext(index) {
		return
	}
	defer r.takes(index)
	if g.near(index) {
		return
	}
	patience := time.NewTimer(aheadPatience)
	defer patience.Stop()
	for {
		_, moved := g.apply.watch()
		if g.near(index) {
			return
		}
		select {
		case <-moved:
			patience.Reset(aheadPatience)
		case <-patience.C:
			return
		case <-r.ended:
			return
		}
	}
}

// appliesNext reports whether an entry is the one that Raft reads next to apply
// it, which it does in order. Whoever reads that one to send it waits as well,
// but for no longer.
func (r *groupRaft) appliesNext(index uint64) bool {
	return index == max(r.taken.Load(), r.AppliedIndex())+1
}

// takes notes that an entry is read to be applied.
func (r *groupRaft) takes(index uint64) {
	for old := r.taken.Load(); old < index && !r.taken.CompareAndSwap(old, index); old = r.taken.Load() {
	}
}

// near reports whether an entry may be read. What Raft has gathered and not
// handed on is fewer than a batch, and must not be waited for.
func (g *Group) near(index uint64) bool {
	return index <= g.apply.applied.Load()+batchEntries || g.reach(index, g.seat.profile.aheadRead()) == index
}

// pacer changes what requests to a follower's Raft say is committed. It belongs
// to the goroutine that hands requests to one run of Raft.
type pacer struct {
	reach func(commit uint64) uint64
	// known is an entry that is committed, and was the leader's when this log had
	// it, as all before it: it may be told with any request and in any term. That
	// is read by others.
	known atomic.Uint64
}

// tell is called with a request before Raft gets it, and returns what heard
// needs. A heartbeat, which names no commit, takes along what was held back.
func (p *pacer) tell(a *raft.AppendEntriesRequest) (says uint64) {
	says = a.LeaderCommitIndex
	a.LeaderCommitIndex = p.reach(max(says, p.known.Load()))
	return says
}

// heard is called with Raft's answer. A success says that this log is the
// leader's up to the last entry that was sent or named; of what follows that,
// this log may have something else.
func (p *pacer) heard(a *raft.AppendEntriesRequest, says uint64, answer raft.RPCResponse) {
	r, ok := answer.Response.(*raft.AppendEntriesResponse)
	if !ok || answer.Error != nil || !r.Success {
		return
	}
	same := a.PrevLogEntry
	if n := len(a.Entries); n > 0 {
		same = a.Entries[n-1].Index
	}
	p.known.Store(max(p.known.Load(), min(says, same)))
}
