package queue

import "warren/mq"

// Origin names a batch of a home node: the unit that is applied once.
type Origin struct {
	Node    uint32       // the node's number, small and fixed
	Session mq.SessionID // that node's run
	Seq     uint64       // counted from 1 in each session, for each group
}

// Code says what became of a batch.
type Code uint8

const (
	Applied   Code = iota // all of its operations are in the state now
	Duplicate             // they have been for a while: Seq <= Last
	Gap                   // refused: Last+1 must come first
	Ended                 // refused for good: a later session of that node has spoken
)

// Result is the answer to one batch. Whatever else the entry held, every batch
// in it has exactly one.
type Result struct {
	Origin
	Code Code
	Last uint64 // the highest batch applied of that session; 0 if Ended
	// Refused are the messages that some queue did not take, of a batch that is
	// Applied or Duplicate. Not to be changed.
	Refused []Run
}

// Enqueued is one message that entered one queue.
type Enqueued struct {
	Queue    mq.QueueID
	Seq      mq.Seq
	Flags    uint8
	Priority uint8
	Buried   bool // refused: in the queue only to leave it for the dead-letter exchange
	ExpiryMs int64
	Content  []byte // part of the entry that was applied, or what was put together of parts
}

// Range is a run of seqs of one queue, both ends included.
type Range struct {
	Queue       mq.QueueID
	First, Last mq.Seq
}

// Reserved is a queue's delivered high-water mark after a reservation.
type Reserved struct {
	Queue     mq.QueueID
	HighWater mq.Seq
}

// Returned is a message that came back from a consumer, and how often that has
// happened by now. It says nothing of who has the message.
type Returned struct {
	Queue            mq.QueueID
	Seq              mq.Seq
	Failed, Acquired uint32 // see Note
	DueMs            int64  // see Queue.Due
}

// Purged is what a purge did. The ranges that it removed are in
// Effects.Settled too.
type Purged struct {
	Queue mq.QueueID
	Token uint64 // the proposer's own
	Count uint64
}

// Effects is what Apply did, for the caller to carry out in the order of the
// fields; Apply appends to it. A queue that is deleted is named in Deleted
// after what was live in it went into Settled. Do not let one Effects span a
// Delete and a later entry.
type Effects struct {
	Results  []Result
	Filtered uint64 // how often a message did not enter a queue, which remembers it
	Enqueued []Enqueued
	Settled  []Range // maximal runs that were live and are gone now
	Reserved []Reserved
	Returned []Returned
	Purged   []Purged
	Deleted  []mq.QueueID
}

// Reset empties fx, keeps its memory and lets go of the entries.
func (fx *Effects) Reset() {
	clear(fx.Enqueued)
	fx.Filtered = 0
	fx.Results, fx.Enqueued, fx.Settled = fx.Results[:0], fx.Enqueued[:0], fx.Settled[:0]
	fx.Reserved, fx.Returned = fx.Reserved[:0], fx.Returned[:0]
	fx.Purged, fx.Deleted = fx.Purged[:0], fx.Deleted[:0]
}

// settled notes that first..last of q are gone; neighbours become one run.
func (fx *Effects) settled(q mq.QueueID, first, last mq.Seq) {
	if n := len(fx.Settled); n > 0 {
		if p := &fx.Settled[n-1]; p.Queue == q && p.Last+1 == first {
			p.Last = last
			return
		}
	}
	fx.Settled = append(fx.Settled, Range{q, first, last})
}
