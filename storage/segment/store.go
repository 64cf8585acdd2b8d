// Package segment keeps the message bodies of one group: chunks of neighbouring
// messages per queue, copied once and freed as a whole. When the bodies of a
// node's groups are more than a Pager's budget, it writes chunks to files and
// lets their memory go; who wants such a message asks for it, and hears when it
// is back. The package does not know what a body means, who may read it, or
// that there is a log.
package segment

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Record is a message as it was put.
type Record struct {
	Flags, Priority uint8
	ExpiryMs        int64
	Body            []byte // shared and immutable; stays valid after a Drop
	// Weight is what Sense.Weigh says of Body. Only a Scan sets it, of
	// messages that are paged out, whose Body is nil.
	Weight uint32
}

// Owner is whose Store it is. Its lock is held by whoever calls the Store, and
// by the Pager while it works on it.
type Owner interface {
	sync.Locker
	// Arrived says that messages of queue q that were asked for are in memory
	// now. Called with the lock held; they stay until it is let go, and for a
	// moment more.
	Arrived(q uint64)
	// Damaged says that a message cannot be read any more: what is on disk is
	// not what was written. Called with the lock held.
	Damaged(err error)
}

// Store holds the bodies of one group. It is not safe for concurrent use; a
// View taken from it is.
type Store struct {
	queues map[uint64]*queue
	total  int64

	// What follows is for a Store that pages; without a folder all is in memory.
	folder *Folder
	owner  Owner
	ring   ring         // hot chunks
	bytes  atomic.Int64 // of their memory; changed under the owner's lock
	paged  int          // chunks that are on disk only
	closed bool

	// recent is the queue of the last call: messages come in runs.
	recent *queue

	free    [][]byte // blocks of blockBytesMax that no reader has seen; at most freeBlocksMax
	drained drainedRing
}

// NewStore returns an empty store that keeps everything in memory.
func NewStore() *Store { return &Store{queues: make(map[uint64]*queue)} }

// NewStore returns an empty store that pages out to the folder.
func (f *Folder) NewStore(owner Owner) *Store {
	s := NewStore()
	s.folder, s.owner = f, owner
	s.ring.init()
	f.pager.add(s)
	return s
}

// Close lets go of everything. The store must not be used any more.
func (s *Store) Close() {
	s.closed = true
	for id := range s.queues {
		s.DropQueue(id)
	}
	if s.folder != nil {
		s.folder.pager.remove(s)
	}
}

// Put keeps message seq of queue q. Sequence numbers of a queue only grow: one
// at or below the highest that was put is known already, and ignored. Bodies
// below bigBody are copied, bigger ones are kept as they are.
func (s *Store) Put(q, seq uint64, flags, prio uint8, expiryMs int64, body []byte) {
	qu := s.queue(q)
	if qu == nil {
		qu = &queue{id: q}
		s.queues[q], s.recent = qu, qu
	}
	if seq <= qu.last && qu.begun {
		return
	}
	c := qu.tail()
	if c == nil || !c.hasRoom(seq, len(body)) {
		c = s.grow(qu, seq)
	}
	c.put(s, seq, rec{expiryMs: expiryMs, flags: flags, prio: prio}, body)
	qu.last, qu.begun = seq, true
	qu.bytes += int64(len(body))
	s.total += int64(len(body))
}

// grow begins a new tail chunk, and lets the old one go if nothing in it lives.
func (s *Store) grow(qu *queue, seq uint64) *chunk {
	if old := qu.tail(); old != nil && old.live == 0 {
		s.release(qu, old)
		qu.chunks = qu.chunks[:len(qu.chunks)-1]
	}
	c := &chunk{first: seq}
	s.heat(qu, c, &hot{current: -1})
	qu.chunks = append(qu.chunks, c)
	return c
}

// heat gives a chunk its part in memory.
func (s *Store) heat(qu *queue, c *chunk, h *hot) {
	h.chunk, h.queue = c, qu
	c.hot = h
	if s.folder != nil {
		s.ring.push(h)
	}
}

// cool takes a chunk's part in memory away.
func (s *Store) cool(c *chunk) {
	h := c.hot
	if h.loaded {
		s.folder.pager.loaded.Add(-h.bytes)
	}
	s.account(h, -h.bytes)
	if s.folder != nil {
		s.ring.remove(h)
	}
	c.hot = nil
}

// account counts memory that a chunk takes or gives back.
func (s *Store) account(h *hot, bytes int64) {
	h.bytes += bytes
	if s.folder != nil {
		s.bytes.Add(bytes)
		s.folder.pager.account(bytes)
	}
}

// Get returns message seq of queue q, if it is there and in memory.
func (s *Store) Get(q, seq uint64) (Record, bool) {
	qu := s.queue(q)
	if qu == nil {
		return Record{}, false
	}
	c := qu.find(seq)
	if c == nil || c.hot == nil || !c.alive(seq) {
		return Record{}, false
	}
	qu.reading = true
	return c.hot.record(int(seq - c.first)), true
}

// Drop forgets the messages first..last of queue q. Unknown ones are ignored.
func (s *Store) Drop(q, first, last uint64) {
	qu := s.queue(q)
	if qu == nil || last < first {
		return
	}
	at := qu.search(first)
	for at < len(qu.chunks) && qu.chunks[at].first <= last {
		c := qu.chunks[at]
		freed := c.drop(s, first, last)
		qu.bytes -= freed
		s.total -= freed
		switch {
		case c.live > 0:
			at++
		case at == len(qu.chunks)-1 && !c.sealed: // the tail: likely to be written to again
			s.drain(qu, c)
			at++
		default:
			s.release(qu, c)
			qu.remove(at)
		}
	}
}

// drain handles a tail chunk without live messages. If no reader has seen it,
// it begins anew in place; otherwise it goes on, and the memory of its dead
// bodies stays with it until it is full or until many other queues have drained.
func (s *Store) drain(qu *queue, c *chunk) {
	if !c.shared && c.hot.seen == 0 {
		c.reset(s)
	}
	c.outgrow() // it would keep a file of which nothing is needed
	for _, old := range s.drained.push(qu) {
		if t := old.tail(); t != nil && t.live == 0 {
			s.release(old, t)
			old.chunks = old.chunks[:len(old.chunks)-1]
		}
	}
}

// DropQueue forgets a queue and all that is in it.
func (s *Store) DropQueue(q uint64) {
	qu := s.queue(q)
	if qu == nil {
		return
	}
	for _, c := range qu.chunks {
		s.release(qu, c)
	}
	s.total -= qu.bytes
	qu.chunks, qu.bytes = nil, 0
	delete(s.queues, q)
	s.recent = nil
}

// Bytes is the size of the live bodies of queue q.
func (s *Store) Bytes(q uint64) int64 {
	if qu := s.queue(q); qu != nil {
		return qu.bytes
	}
	return 0
}

// Total is the size of all live bodies.
func (s *Store) Total() int64 { return s.total }

func (s *Store) queue(q uint64) *queue {
	if s.recent != nil && s.recent.id == q {
		return s.recent
	}
	qu := s.queues[q]
	if qu != nil {
		s.recent = qu
	}
	return qu
}

// freeBlocksMax bounds the blocks kept for reuse: 1 MiB a group.
const freeBlocksMax = 4

// release gives the memory of a dead chunk back, and its extent. Only blocks
// that no Get and no View has shown are written to again: a body that was
// handed out may still be on its way to a client's socket, and only the garbage
// collector knows when it has gone. So a follower, which never reads, recycles
// its blocks, and a leader leaves them to the collector.
func (s *Store) release(qu *queue, c *chunk) {
	c.gone = true
	if h := c.hot; h != nil {
		for i, b := range h.blocks {
			if !c.shared && len(s.free) < freeBlocksMax && len(b) == blockBytesMax && h.own&(1<<i) != 0 && h.seen&(1<<i) == 0 {
				s.free = append(s.free, b)
			}
		}
		s.cool(c)
	} else {
		qu.paged--
		s.paged--
	}
	if c.file != nil {
		c.file.letGo()
		c.file = nil
	}
}

// block returns room for at least n bytes, of which the caller wants twice as many
// or more. It is for as many bodies of that size as fit into what is wanted:
// neighbours are alike, mostly, and what is left over would stay empty.
func (s *Store) block(n, wanted int) []byte {
	if wanted >= blockBytesMax {
		if last := len(s.free) - 1; last >= 0 {
			b := s.free[last]
			s.free[last] = nil
			s.free = s.free[:last]
			return b
		}
		return make([]byte, blockBytesMax)
	}
	b := slices.Grow([]byte(nil), wanted-wanted%max(n, 1))
	return b[:cap(b)] // with what the allocator adds
}
