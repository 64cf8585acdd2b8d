package dispatch

import (
	"slices"

	"warren/mq"
)

// The link credit that a consumer starts with: how much may be on its way to
// its home node, or wait there for the client's socket.
const (
	LinkMessages = 2000
	LinkBytes    = 8 << 20
)

// Key names whoever holds messages: a consumer, or what a session took with
// basic.get.
type Key struct {
	Session  mq.SessionID
	Consumer mq.ConsumerID
}

// Consumer is what a consumer asks for.
type Consumer struct {
	Key
	Prefetch  uint32 // deliveries that may be unsettled; 0 means any number
	NoAck     bool   // no limit by Prefetch: the leader settles what it sends
	Exclusive bool
	Priority  int32
	Patience  uint32 // how long it may hold a delivery, in the unit of Queue.Time; 0 means for ever
}

// holder is a consumer, or one that is gone (or was never there: basic.get)
// and still holds something. It is free when it is neither.
type holder struct {
	Consumer
	attached  bool
	suspended bool
	served    bool   // got something from this leader
	age       uint64 // order of attaching
	held      int    // checked out to it
	unsettled int    // of these, that use its prefetch
	messages  int    // link credit
	bytes     int

	queued     bool // in the ring of its level
	prev, next int32
}

// able reports whether h may get a message.
func (h *holder) able() bool {
	return h.attached && !h.suspended && h.messages > 0 && h.bytes > 0 &&
		(h.Prefetch == 0 || h.NoAck || h.unsettled < int(h.Prefetch))
}

// credit is how many messages h can take at once.
func (h *holder) credit() int {
	if h.Prefetch == 0 || h.NoAck {
		return h.messages
	}
	return min(h.messages, int(h.Prefetch)-h.unsettled)
}

// mayHold is how many deliveries h may hold, for WantReserve.
func (h *holder) mayHold() uint64 {
	if h.Prefetch == 0 || h.NoAck {
		return LinkMessages
	}
	return uint64(h.Prefetch)
}

// level is the ring of the able consumers of one priority. first is whose turn
// it is, nobody if it is negative.
type level struct {
	priority int32
	first    int32
	able     int
	attached int
}

const nobody = -1

// level returns the level of a priority, made if need be. Highest first.
func (q *Queue) level(priority int32) *level {
	i := 0
	for i < len(q.levels) && q.levels[i].priority > priority {
		i++
	}
	if i == len(q.levels) || q.levels[i].priority != priority {
		q.levels = slices.Insert(q.levels, i, level{priority: priority, first: nobody})
	}
	return &q.levels[i]
}

// refresh puts holder i into its ring, or out of it, as it is able. Whatever
// changes credit calls it.
func (q *Queue) refresh(i int32) {
	h := &q.holders[i]
	if able := h.able(); able == h.queued {
		return
	} else if !able {
		q.dequeue(i)
		return
	}
	l := q.level(h.Priority)
	if l.first == nobody {
		h.prev, h.next = i, i
		l.first = i
	} else { // before the first: the last in turn
		h.next, h.prev = l.first, q.holders[l.first].prev
		q.holders[h.prev].next, q.holders[h.next].prev = i, i
	}
	h.queued = true
	l.able++
	q.able++
}

func (q *Queue) dequeue(i int32) {
	h := &q.holders[i]
	l := q.level(h.Priority)
	if h.next == i {
		l.first = nobody
	} else {
		q.holders[h.prev].next, q.holders[h.next].prev = h.next, h.prev
		if l.first == i {
			l.first = h.next
		}
	}
	h.queued = false
	l.able--
	q.able--
}

// turn returns who gets the next message.
func (q *Queue) turn() int32 {
	if q.able == 0 {
		return nobody
	}
	if q.singleActive {
		// Nobody gets anything while another consumer holds something: so a switch
		// to a more urgent one waits until what the last active one holds is settled
		// or returned. One that was cancelled is not waited for.
		if a := q.active; a != nobody && q.holders[a].queued && q.holders[a].held == q.held-q.loose {
			return a
		}
		return nobody
	}
	for i := range q.levels {
		if q.levels[i].able > 0 {
			return q.levels[i].first
		}
	}
	return nobody
}

// elect chooses the single active consumer: the one of highest priority, and
// of these the one that is already, or else the oldest.
func (q *Queue) elect() {
	if !q.singleActive {
		return
	}
	best := int32(nobody)
	if q.active != nobody && q.holders[q.active].attached {
		best = q.active
	}
	for i := range q.holders {
		h := &q.holders[i]
		if !h.attached {
			continue
		}
		if best == nobody || h.Priority > q.holders[best].Priority ||
			h.Priority == q.holders[best].Priority && best != q.active && h.age < q.holders[best].age {
			best = int32(i)
		}
	}
	q.active = best
}

// holder returns the place of k, made if need be.
func (q *Queue) holder(k Key) int32 {
	if i, ok := q.byKey[k]; ok {
		return i
	}
	var i int32
	if n := len(q.free); n > 0 {
		i = q.free[n-1]
		q.free = q.free[:n-1]
	} else {
		i = int32(len(q.holders))
		q.holders = append(q.holders, holder{})
	}
	q.holders[i] = holder{Consumer: Consumer{Key: k}, suspended: slices.Contains(q.suspended, k.Session)}
	q.byKey[k] = i
	return i
}

// release frees the place of a holder that is not needed any more.
func (q *Queue) release(i int32) {
	if h := &q.holders[i]; !h.attached && h.held == 0 {
		delete(q.byKey, h.Key)
		*h = holder{}
		q.free = append(q.free, i)
	}
}
