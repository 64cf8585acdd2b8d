package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
)

// Topics is what a shard asks of the metadata and says to it.
type Topics interface {
	View() *meta.View
	// Delete has a queue deleted on every node, and calls done when that is so, or
	// with an error after patience at the latest. Must not block.
	Delete(q *meta.Queue, patience time.Duration, done func(error))
	// Forward publishes dead letters, and returns those that reach no queue.
	// Of each of the others, to hears once. Must not block.
	Forward(letters []letter, to *deadLetters) (nowhere []letter)
	// ReadIndex blocks until View is at least as new as every change that was
	// acknowledged before the call.
	ReadIndex(ctx context.Context) error
}

// Shard is one group's queues on one node: the state machine that its log
// drives, the bodies, and, while this node leads the log, the dispatch to
// consumers on all nodes.
type Shard struct {
	group  mq.GroupID
	lane   Lane
	topics Topics
	slog   *slog.Logger
	nowMs  func() int64
	ready  chan struct{}   // closed once log is set
	folder *segment.Folder // where bodies are paged out to; nil if they stay in memory
	loans  *loans          // the node's

	mu      sync.Mutex // held for one batch of entries or one frame, never over I/O
	log     Log
	state   *queue.State
	bodies  *segment.Store
	fx      queue.Effects // scratch of Apply
	applied uint64
	lead    *lead // nil while another node leads
	stats   ShardStats
	// prioritized are the queues that some message stated a priority in. A
	// leader need not look for priorities in the others. It follows from the
	// log and from snapshots, so each replica finds the same and keeps it in
	// neither.
	prioritized map[mq.QueueID]bool
	marked      mq.QueueID // the one that was added last: messages come in runs
	damaged     error      // a message on this node's disk cannot be read, or the state is wrong

	milestones milestones
	led        uint64 // the latest term that this node led in
}

// ShardStats counts what a shard did as a leader.
type ShardStats struct {
	Enqueued, Delivered, Redelivered, Settled, Returned, Expired uint64
	Overflowed                                                   uint64 // out of a queue that was full
	Refused                                                      uint64 // by a queue that was full; once for each
	DeadLettered                                                 uint64 // taken by the queues that they went to
	Recalled                                                     uint64 // deliveries, for consumer timeouts
	Deduplicated                                                 uint64 // that had been there; once for each queue
}

// NewShard returns a shard with no messages and no log; Start gives it one. It
// pages bodies out to folder, if that is not nil.
func NewShard(g mq.GroupID, lane Lane, topics Topics, nowMs func() int64, folder *segment.Folder, log *slog.Logger) *Shard {
	s := &Shard{
		group: g, lane: lane, topics: topics, nowMs: nowMs, folder: folder, ready: make(chan struct{}),
		slog:  log.With("group", uint64(g)),
		state: queue.New(), prioritized: map[mq.QueueID]bool{},
	}
	s.bodies = s.newBodies()
	return s
}

// Start gives the shard its log. Entries may be applied before it.
func (s *Shard) Start(log Log) {
	s.mu.Lock()
	s.log = log
	s.mu.Unlock()
	close(s.ready)
}

// Apply takes committed entries. Every replica comes to the same state; the
// leader also answers the nodes that sent the batches, and dispatches.
func (s *Shard) Apply(batch []Entry) {
	s.ease() // a log that is replayed comes faster than a disk takes it
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		e := &batch[i]
		s.fx.Reset()
		if e.Index > s.milestones.next {
			s.reach(e.Index)
		}
		if err := s.state.Apply(e.Term, e.Data, &s.fx); err != nil {
			// No version of ours wrote this, and skipping it would make this
			// replica differ from the others.
			panic(fmt.Sprintf("group %d: entry %d of term %d cannot be applied: %v", s.group, e.Index, e.Term, err))
		}
		s.applied = e.Index
		s.keepBodies()
		if s.lead != nil {
			s.lead.applied(s, &s.fx)
		}
	}
	if s.lead != nil {
		s.lead.sendResults(s)
		s.dispatch()
	}
}

// keepBodies brings the bodies in line with what the entry did. Both halves
// can be repeated, so replaying the log after a restart is normal.
func (s *Shard) keepBodies() {
	for i := range s.fx.Enqueued {
		m := &s.fx.Enqueued[i]
		s.bodies.Put(uint64(m.Queue), uint64(m.Seq), m.Flags, m.Priority, m.ExpiryMs, m.Content)
		if hasPriority(m.Flags, m.Priority) && m.Queue != s.marked {
			s.prioritized[m.Queue], s.marked = true, m.Queue
		}
	}
	if s.lead != nil {
		s.lead.weigh(&s.fx)
	}
	for i := range s.fx.Settled {
		r := &s.fx.Settled[i]
		s.bodies.Drop(uint64(r.Queue), uint64(r.First), uint64(r.Last))
	}
	for _, q := range s.fx.Deleted {
		s.bodies.DropQueue(uint64(q))
		delete(s.prioritized, q)
		s.marked = 0
	}
}

// Applied is the index of the last entry that this replica has applied.
func (s *Shard) Applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// Leading reports whether this node dispatches the group, and in which term.
func (s *Shard) Leading() (term uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil {
		return 0, false
	}
	return s.lead.term, true
}

// Stats returns a copy of the counters.
func (s *Shard) Stats() ShardStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// QueueStat is how full a queue is.
type QueueStat struct {
	Ready, Unacked uint64 // Unacked are also those that wait for another attempt
	Consumers      uint32
	// active is the single active consumer, if the queue has one.
	active dispatch.Key
}

// Active reports whether a consumer of a node's session is the single active one.
func (st *QueueStat) Active(session mq.SessionID, id mq.ConsumerID) bool {
	return st.active == dispatch.Key{Session: session, Consumer: id}
}

// stat runs with mu held.
func (s *Shard) stat(id mq.QueueID) (st QueueStat) {
	if q := s.state.Queue(id); q != nil {
		st.Ready = q.Count()
	}
	if s.lead == nil {
		return st
	}
	if l := s.lead.queues[id]; l != nil {
		leaving := l.d.Leaving() // clients have done with these
		st.Ready -= min(uint64(leaving), st.Ready)
		st.Unacked = min(uint64(l.d.Unacked()-leaving+l.d.Deferred()), st.Ready)
		st.Ready -= st.Unacked
		st.Consumers = uint32(l.d.Consumers())
		st.active, _ = l.d.Active()
	}
	return st
}

// Stat returns the counts of a queue as this replica knows them; unacked and
// consumers are known to the leader only.
func (s *Shard) Stat(id mq.QueueID) QueueStat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stat(id)
}
