package queue

import (
	"fmt"
	"slices"

	"warren/mq"
)

// State is the replicated state of one queue group. It belongs to one
// goroutine at a time.
type State struct {
	byID  map[mq.QueueID]*Queue
	order []*Queue // the same, by id: maps have no order that replicas share
	nodes []node   // by number
	last  *Queue   // the one touched last; most operations touch it again
	spare spares
	sum   uint64   // of the queues' digests, but for what has changed in dirty
	dirty []*Queue // those that have changed since the last Digest
}

// node is what is remembered of a home node: its latest session and the last
// batch of it that was applied. There is one per node that ever published here.
type node struct {
	number  uint32
	session mq.SessionID
	last    uint64
	refused []refused // of its last batches; at most RefusalsKept
	staged  *staged   // a message that comes in parts; nil while none does
}

// New returns the state before the first entry.
func New() *State {
	return &State{byID: map[mq.QueueID]*Queue{}}
}

// Apply applies one entry in the term that it was logged in and appends what
// came of it to fx; what is appended shares the entry's bytes. An error means
// that no version of ours that this one knows wrote the entry; nothing of it
// has been applied then, and the caller must stop.
func (s *State) Apply(term uint64, entry []byte, fx *Effects) error {
	decidedTerm, parts, err := parseEntry(entry)
	if err != nil {
		return fmt.Errorf("apply entry: %w", err)
	}
	// The bytes are known to be good from here on: the errors below are nil.
	for len(parts) > 0 {
		opcode, payload, rest, _ := nextPart(parts)
		parts = rest
		switch opcode {
		case partBatch:
			o, ops, _ := parseBatch(payload)
			if n := s.applyBatch(o, fx); n != nil {
				at := len(fx.Results) - 1
				runs := s.applyOps(n, ops, fx)
				n.remember(o.Seq, runs)
				fx.Results[at].Refused = runs
			}
		case partRefusing:
			o, r, ops, _ := parseRefusing(payload)
			if n := s.applyBatch(o, fx); n != nil {
				at := len(fx.Results) - 1
				runs := s.applyRefusing(n, ops, r, fx)
				n.remember(o.Seq, runs)
				fx.Results[at].Refused = runs
			}
		case partDrop:
			id, first, last, _ := parseRange(payload)
			s.settle(id, first, last, fx)
		case partPurge:
			if decidedTerm == term {
				p, _ := parsePurge(payload)
				s.purge(p, fx)
			}
		case partReserve:
			id, upTo, _ := parseReserve(payload)
			q := s.make(id)
			q.highWater = max(q.highWater, upTo)
			fx.Reserved = append(fx.Reserved, Reserved{id, q.highWater})
		case partReturn, partReturnLater:
			s.countReturns(payload, opcode == partReturnLater, fx)
		case partDelete:
			id, _ := parseDelete(payload)
			s.delete(id, fx)
		case partUnstage:
			number, session, _ := parseUnstage(payload)
			s.unstage(number, session)
		}
	}
	return nil
}

// applyBatch answers a home node's batch, and returns the node if the batch is
// its next one and has to be applied.
func (s *State) applyBatch(o Origin, fx *Effects) *node {
	n := s.node(o.Node)
	if o.Session > n.session {
		n.session, n.last, n.refused, n.staged = o.Session, 0, nil, nil
	}
	r := Result{Origin: o, Last: n.last}
	switch {
	case o.Session < n.session:
		r.Code, r.Last = Ended, 0
	case o.Seq <= n.last:
		r.Code, r.Refused = Duplicate, n.refusedOf(o.Seq)
	case o.Seq > n.last+1:
		r.Code = Gap
	default:
		n.last = o.Seq
		r.Code, r.Last = Applied, o.Seq
	}
	fx.Results = append(fx.Results, r)
	if r.Code == Applied {
		return n
	}
	return nil
}

// applyOps applies the operations of a batch of n, and returns which of its
// messages came too late, or not with all of their parts. They are answered as
// refused, not as taken: whoever sent them must not settle what they are copies of.
func (s *State) applyOps(n *node, ops []byte, fx *Effects) (late []Run) {
	message := uint32(0)
	for len(ops) > 0 {
		opcode, payload, rest, _ := nextPart(ops)
		ops = rest
		kind := OpKind(opcode)
		if !kind.message() {
			s.applyOther(n, kind, payload, fx)
			continue
		}
		e, once, ok := n.message(kind, payload)
		isLate := !ok
		for ids := e.queues; len(ids) > 0; {
			var id uint64
			id, ids = uvarint(ids)
			isLate = s.enqueue(mq.QueueID(id), &e, once, false, fx) || isLate
		}
		if isLate {
			late = appendRun(late, message)
		}
		message++
	}
	return late
}

// applyOther applies an operation that brings no message.
func (s *State) applyOther(n *node, kind OpKind, payload []byte, fx *Effects) {
	if kind == EnqueuePart {
		p, _ := parsePiece(payload)
		n.stage(p)
		return
	}
	id, first, last, _ := parseRange(payload)
	s.settle(id, first, last, fx)
}

func (s *State) enqueue(id mq.QueueID, e *enqueue, o *once, bury bool, fx *Effects) (late bool) {
	q := s.make(id)
	if o != nil {
		var enters bool
		if enters, late = q.admits(o, q.lastSeq+1, bury); !enters {
			if !late {
				fx.Filtered++
			}
			return late
		}
	}
	seq := q.push(&s.spare)
	if bury {
		q.bury(seq)
	}
	fx.Enqueued = append(fx.Enqueued, Enqueued{id, seq, e.flags, e.priority, bury, e.expiryMs, e.content})
	return false
}

func (s *State) settle(id mq.QueueID, first, last mq.Seq, fx *Effects) {
	if q := s.changing(id); q != nil {
		q.settle(first, last, &s.spare, fx)
	}
}

func (s *State) purge(p purge, fx *Effects) {
	done := Purged{Queue: p.queue, Token: p.token}
	if q := s.changing(p.queue); q != nil {
		before := q.count
		upTo := min(p.upTo, q.lastSeq)
		from, kept := mq.Seq(1), mq.Seq(0)
		for b := p.except; len(b) > 0; {
			var distance uint64
			distance, b = uvarint(b)
			if kept += mq.Seq(distance); kept > upTo {
				break
			}
			if kept >= from {
				q.settle(from, kept-1, &s.spare, fx)
				from = kept + 1
			}
		}
		q.settle(from, upTo, &s.spare, fx)
		done.Count = before - q.count
	}
	fx.Purged = append(fx.Purged, done)
}

// delete removes a queue. It is heard of in fx also if there was none.
func (s *State) delete(id mq.QueueID, fx *Effects) {
	if q := s.byID[id]; q != nil {
		q.settle(1, q.lastSeq, &s.spare, fx)
		delete(s.byID, id)
		s.sum -= q.folded
		q.gone = true
		i, _ := s.find(id)
		s.order = slices.Delete(s.order, i, i+1)
		s.last = nil
	}
	fx.Deleted = append(fx.Deleted, id)
}

// Queue returns a queue, nil if no enqueue or reservation has named it since
// it was last deleted. It is valid until the next Apply or Restore.
func (s *State) Queue(id mq.QueueID) *Queue {
	if s.last != nil && s.last.id == id {
		return s.last
	}
	q := s.byID[id]
	if q != nil {
		s.last = q
	}
	return q
}

// make returns a queue that is about to change, and makes it first if there is
// none.
func (s *State) make(id mq.QueueID) *Queue {
	if q := s.changing(id); q != nil {
		return q
	}
	q := &Queue{id: id, front: 1}
	s.touch(q)
	s.byID[id] = q
	i, _ := s.find(id)
	s.order = slices.Insert(s.order, i, q)
	s.last = q
	return q
}

func (s *State) find(id mq.QueueID) (int, bool) {
	if n := len(s.order); n == 0 || s.order[n-1].id < id { // ids grow
		return n, false
	}
	return slices.BinarySearchFunc(s.order, id, func(q *Queue, id mq.QueueID) int {
		switch {
		case q.id < id:
			return -1
		case q.id > id:
			return 1
		}
		return 0
	})
}

// node returns what is remembered of a node; it is valid until the next call.
func (s *State) node(number uint32) *node {
	i := 0
	for i < len(s.nodes) && s.nodes[i].number < number {
		i++
	}
	if i == len(s.nodes) || s.nodes[i].number != number {
		s.nodes = slices.Insert(s.nodes, i, node{number: number})
	}
	return &s.nodes[i]
}

// Queues returns the ids of all queues in ascending order.
func (s *State) Queues() []mq.QueueID {
	ids := make([]mq.QueueID, len(s.order))
	for i, q := range s.order {
		ids[i] = q.id
	}
	return ids
}
