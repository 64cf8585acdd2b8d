package dispatch

import (
	"slices"

	"warren/mq"
)

// Attach adds a consumer. For a Key that is there already it changes what the
// consumer asks for, keeps what it holds, and starts its link over: its node
// has resumed on a new connection.
func (q *Queue) Attach(c Consumer) error {
	i, known := q.byKey[c.Key]
	others := q.attached
	if known && q.holders[i].attached {
		others--
	}
	if others > 0 && (c.Exclusive || q.taken(c.Key)) {
		return ErrExclusive
	}
	i = q.holder(c.Key)
	h := &q.holders[i]
	if h.queued {
		q.dequeue(i)
	}
	if h.attached {
		q.leaveLevel(h)
	} else {
		q.ages++
		h.age, h.attached = q.ages, true
		q.attached++
		q.loose -= h.held
	}
	h.Consumer, h.messages, h.bytes = c, LinkMessages, LinkBytes
	q.level(c.Priority).attached++
	q.wanted += h.mayHold()
	q.refresh(i)
	q.elect()
	return nil
}

// Resize changes how many deliveries a consumer may hold unsettled. What it
// holds stays, and so does its link. Nothing happens if k is no consumer.
func (q *Queue) Resize(k Key, prefetch uint32) {
	i, ok := q.byKey[k]
	if !ok || !q.holders[i].attached {
		return
	}
	h := &q.holders[i]
	q.wanted -= h.mayHold()
	h.Prefetch = prefetch
	q.wanted += h.mayHold()
	q.refresh(i)
}

// Reschedule changes how long a consumer may hold a delivery, also those that it
// holds. Nothing happens if k is no consumer.
func (q *Queue) Reschedule(k Key, patience uint32) {
	if i, ok := q.byKey[k]; ok && q.holders[i].attached {
		q.holders[i].Patience = patience
	}
}

// taken reports whether a consumer other than k has the queue for itself.
func (q *Queue) taken(k Key) bool {
	for i := range q.holders {
		if h := &q.holders[i]; h.attached && h.Exclusive && h.Key != k {
			return true
		}
	}
	return false
}

// Detach ends a consumer, and says whether there was one. With requeue what k
// holds is ready again, except what is settling: a client that acks and closes
// its channel has acked. The rest, and without requeue all, stays checked out
// to k until it is settled or returned.
func (q *Queue) Detach(k Key, requeue bool) (existed bool) {
	i, ok := q.byKey[k]
	if !ok {
		return false
	}
	existed = q.holders[i].attached
	q.leave(i)
	if requeue {
		q.eachOf(i, func(seq mq.Seq, s slot) {
			if s&settling == 0 {
				q.giveBack(seq, s)
			}
		})
	}
	q.elect()
	return existed
}

// leave ends what holder i is as a consumer. What it holds stays with it.
func (q *Queue) leave(i int32) {
	h := &q.holders[i]
	if h.queued {
		q.dequeue(i)
	}
	if h.attached {
		h.attached = false
		q.attached--
		q.loose += h.held
		q.leaveLevel(h)
	}
	h.NoAck = false // what it claims from now on is to be settled
	q.release(i)
}

// leaveLevel notes that a consumer is gone from its level; an empty level goes.
func (q *Queue) leaveLevel(h *holder) {
	q.wanted -= h.mayHold()
	l := q.level(h.Priority)
	if l.attached--; l.attached == 0 {
		q.levels = slices.DeleteFunc(q.levels, func(l level) bool { return l.priority == h.Priority })
	}
}

// DropSession ends all that a node session has here, for good; what it holds
// is ready again, also what is settling: its settlements may never count now.
func (q *Queue) DropSession(s mq.SessionID) {
	for _, k := range q.Keys(s) {
		i := q.byKey[k]
		q.leave(i)
		q.eachOf(i, q.giveBack)
	}
	q.suspended = slices.DeleteFunc(q.suspended, func(x mq.SessionID) bool { return x == s })
	q.elect()
}

// Suspend stops deliveries to a session's consumers, also to those that attach
// later, or lets them go on. What they hold stays theirs.
func (q *Queue) Suspend(s mq.SessionID, on bool) {
	if on == slices.Contains(q.suspended, s) {
		return
	}
	if on {
		q.suspended = append(q.suspended, s)
	} else {
		q.suspended = slices.DeleteFunc(q.suspended, func(x mq.SessionID) bool { return x == s })
	}
	for i := range q.holders {
		if h := &q.holders[i]; h.Session == s {
			h.suspended = on
			q.refresh(int32(i))
		}
	}
}

// Link gives link credit back to a consumer, at most up to what it started
// with.
func (q *Queue) Link(k Key, messages, bytes int) {
	if i, ok := q.byKey[k]; ok {
		h := &q.holders[i]
		// Bounded on the way in: a peer's numbers must not overflow.
		h.messages = min(LinkMessages, h.messages+min(max(messages, 0), LinkMessages))
		h.bytes = min(LinkBytes, h.bytes+min(max(bytes, 0), 1<<40))
		q.refresh(i)
	}
}

// Sent takes the size of a delivery off its consumer's link credit, which may
// go below zero: the last message before it is used up may be of any size.
func (q *Queue) Sent(k Key, bytes int) {
	if i, ok := q.byKey[k]; ok {
		q.holders[i].bytes -= bytes
		q.refresh(i)
	}
}

// Consumers is how many consumers are attached.
func (q *Queue) Consumers() int { return q.attached }

// Keys returns whoever of session s is attached or holds something, in no
// particular order that means anything, but always the same one.
func (q *Queue) Keys(s mq.SessionID) []Key {
	var keys []Key
	for i := range q.holders {
		if h := &q.holders[i]; h.Session == s && (h.attached || h.held > 0) {
			keys = append(keys, h.Key)
		}
	}
	return keys
}

// Active returns the single active consumer.
func (q *Queue) Active() (Key, bool) {
	if q.active == nobody {
		return Key{}, false
	}
	return q.holders[q.active].Key, true
}

// What WantReserve asks for ahead of the cursor. The more it is, the fewer
// entries; the less, the fewer messages are wrongly told as redelivered after
// a failure.
const (
	reserveMin = 1024
	reserveMax = 1 << 16
)

// WantReserve is the delivered high-water mark to reserve: four times what the
// consumers may hold ahead of the cursor, within limits. What comes next of a
// sorted queue may be any seq up to the last, so it is ahead of that.
func (q *Queue) WantReserve() mq.Seq {
	from := q.cursor
	if q.sorted() {
		from = q.ranks.last + 1
	}
	return from + mq.Seq(min(max(reserveMin, 4*q.wanted), reserveMax))
}
