package broker

import (
	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
)

// Bodies of a deep queue are on disk, and nobody waits for a disk with a
// shard's lock held. Who needs a message that is there asks for it, leaves the
// queue alone, and is called again when it has come: the queue is touched.

// pages is a shard as the owner of its bodies.
type pages struct{ s *Shard }

func (p pages) Lock()   { p.s.mu.Lock() }
func (p pages) Unlock() { p.s.mu.Unlock() }

// Arrived has whoever waits for messages of a queue look again.
func (p pages) Arrived(id uint64) {
	l := p.s.lead
	if l == nil {
		return
	}
	if q := l.queues[mq.QueueID(id)]; q != nil {
		l.touch(q)
		if l.letters != nil {
			l.letters.lines.look(q.id)
			l.letters.wake()
		}
		p.s.dispatch()
	}
}

// Damaged notes that this replica has lost a message, or that its state is not
// what its log makes of it. What it still has it goes on with, but nothing takes
// the place of what is lost.
func (p pages) Damaged(err error) {
	if p.s.damaged == nil {
		p.s.slog.Error("this replica is damaged: it should not lead any more", "err", err)
		p.s.damaged = err
	}
}

// Damaged is why this replica cannot hand out every message, nil if it can.
// Such a replica should not lead.
func (s *Shard) Damaged() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// newBodies returns an empty store for this shard.
func (s *Shard) newBodies() *segment.Store {
	if s.folder == nil {
		return segment.NewStore()
	}
	return s.folder.NewStore(pages{s})
}

// ease waits while the node's bodies are far more than memory may hold and are
// being written to disk. Runs without mu.
func (s *Shard) ease() {
	if s.folder != nil {
		s.folder.Ease()
	}
}

// Hurry ends all waiting for the disk to take bodies, for good: the replica is
// about to be closed, which waits for who applies its log.
func (s *Shard) Hurry() {
	if s.folder != nil {
		s.folder.Hurry()
	}
}

// close lets go of the bodies, and of the folder that they are paged out to.
func (s *Shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies.Close()
	s.bodies = segment.NewStore()
	if s.folder != nil {
		s.folder.Close()
	}
}

// headHere reports whether the message that comes next is in memory, or there
// is none.
func (s *Shard) headHere(q *ledQueue, st *queue.Queue) bool {
	seq, ok := q.d.First(st)
	return !ok || s.bodies.Here(uint64(q.id), uint64(seq))
}

// scan calls visit with every message that is in a queue now, and then sets
// known. If some are on disk that takes a while, and the queue is touched in
// the end. Runs with mu held.
func (s *Shard) scan(q *ledQueue, visit func(mq.Seq, *segment.Record), known *bool) {
	l, atOnce := s.lead, true
	s.bodies.Scan(uint64(q.id),
		func(seq uint64, r segment.Record) { visit(mq.Seq(seq), &r) },
		func() {
			*known = true
			if !atOnce && s.lead == l && l.queues[q.id] == q {
				l.touch(q)
				s.dispatch()
			}
		})
	atOnce = false
}

// listingsMax bounds the questions about one queue's messages that wait for
// some of them.
const listingsMax = 16

// listing is a question about messages that may be on disk. step answers it,
// or goes on as far as it can and returns false. Runs with mu held.
type listing struct {
	asked asked
	step  func() (done bool)
}

// list begins to answer a question about a queue's messages.
func (s *Shard) list(q *ledQueue, a asked, step func() bool) {
	switch {
	case step():
	case len(q.listings) >= listingsMax:
		a.tryAgain()
	default:
		q.listings = append(q.listings, listing{a, step})
	}
}

// goOnListing goes on with what waited for messages.
func (q *ledQueue) goOnListing() {
	waiting := q.listings[:0]
	for _, l := range q.listings {
		if !l.step() {
			waiting = append(waiting, l)
		}
	}
	clear(q.listings[len(waiting):])
	q.listings = waiting
}
