package queue

import (
	"encoding/binary"
	"errors"

	"warren/mq"
)

// RefusalsKept is for how many batches of a node it is remembered which of
// their messages were refused. A home node must not have more batches with
// messages unanswered than that: then whatever it asks again about is there.
const RefusalsKept = 32

// Refusal is a queue that does not take a message of a batch, by the decision
// of the leader that proposes it. Its Apply may come in a later term than the
// decision: it stays a fact that the message was refused then, and every
// replica and every answer says so.
type Refusal struct {
	Message uint32 // counted from 0 over the messages of the batch
	Queue   uint32 // its place in the list of that message's queues
	// Bury puts the message into the queue all the same, for nothing but to
	// leave it for the dead-letter exchange. It is refused nevertheless.
	Bury bool
}

// Run is a run of messages of a batch, both ends included.
type Run struct{ First, Last uint32 }

// refused is what is remembered of a batch that was refused in part.
type refused struct {
	seq  uint64
	runs []Run // never changed: results share it
	sum  uint64
}

// AppendRefusing appends a home node's batch like AppendBatch, except that some
// queues do not take some of its messages. refusals are in the order of
// Message, then Queue, each pair once. Of a message that nobody takes the entry
// has only its place in the batch: the log of a full queue does not grow by
// what it refuses.
func AppendRefusing(dst []byte, o Origin, refusals []Refusal, ops []byte) []byte {
	ops = withoutRefused(ops, refusals)
	n := uvarintLen(uint64(o.Node)) + uvarintLen(uint64(o.Session)) + uvarintLen(o.Seq) + uvarintLen(uint64(len(refusals))) + len(ops)
	before := uint32(0)
	for _, r := range refusals {
		n += uvarintLen(uint64(r.Message-before)) + uvarintLen(r.queueAndBury())
		before = r.Message
	}
	dst = append(dst, partRefusing)
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(o.Node))
	dst = binary.AppendUvarint(dst, uint64(o.Session))
	dst = binary.AppendUvarint(dst, o.Seq)
	dst = binary.AppendUvarint(dst, uint64(len(refusals)))
	before = 0
	for _, r := range refusals {
		dst = binary.AppendUvarint(dst, uint64(r.Message-before))
		dst = binary.AppendUvarint(dst, r.queueAndBury())
		before = r.Message
	}
	return append(dst, ops...)
}

// withoutRefused is a copy of ops in which messages that no queue takes have
// neither queues nor content.
func withoutRefused(ops []byte, refusals []Refusal) []byte {
	out := make([]byte, 0, len(ops))
	for message := uint32(0); len(ops) > 0; {
		opcode, payload, rest, _ := nextPart(ops)
		whole := ops[:len(ops)-len(rest)]
		ops = rest
		kind := OpKind(opcode)
		if !kind.message() {
			out = append(out, whole...)
			continue
		}
		var end wholeEnd
		if kind == EnqueueWhole {
			end, _ = parseWhole(payload)
			kind, payload = end.kind, end.enqueue
		}
		if kind.once() {
			_, payload, _ = parseOnce(payload, kind == EnqueueFenced)
		}
		queues, _ := uvarint(payload)
		taken := queues
		for ; len(refusals) > 0 && refusals[0].Message == message; refusals = refusals[1:] {
			if r := refusals[0]; !r.Bury && uint64(r.Queue) < queues {
				taken--
			}
		}
		message++
		switch {
		case taken > 0:
			out = append(out, whole...)
		case OpKind(opcode) == EnqueueWhole: // it still ends what came of it
			out = AppendWhole(out, int(end.total), int(end.bodyBytes), AppendEnqueue(nil, nil, 0, 0, 0, nil))
		default:
			out = AppendEnqueue(out, nil, 0, 0, 0, nil)
		}
	}
	return out
}

func (r *Refusal) queueAndBury() uint64 {
	v := uint64(r.Queue) << 1
	if r.Bury {
		v |= 1
	}
	return v
}

var errRefusals = errors.New("refusals of a batch are malformed")

// parseRefusing checks the payload of a partRefusing but for its operations.
func parseRefusing(b []byte) (o Origin, r refusals, ops []byte, err error) {
	o, b, err = parseBatch(b)
	if err != nil {
		return o, r, nil, err
	}
	n, b := uvarint(b)
	r.left, r.b = n, b
	if b == nil || n > uint64(len(b)) {
		return o, r, nil, errRefusals
	}
	walk := r
	var before Refusal
	for i := range n {
		if !walk.next() {
			return o, r, nil, errRefusals
		}
		if at := walk.at; i > 0 && (at.Message < before.Message || at.Message == before.Message && at.Queue <= before.Queue) {
			return o, r, nil, errRefusals
		}
		before = walk.at
	}
	return o, r, walk.b, nil
}

// refusals reads the refusals of a batch one after the other.
type refusals struct {
	b    []byte
	left uint64
	at   Refusal
}

// next goes on to the next one, if there is one and it is well formed.
func (r *refusals) next() bool {
	if r.left == 0 {
		return false
	}
	r.left--
	distance, b := uvarint(r.b)
	v, b := uvarint(b)
	message := uint64(r.at.Message) + distance
	if b == nil || distance > 1<<32-1 || message > 1<<32-1 || v>>1 > 1<<32-1 {
		return false
	}
	r.at, r.b = Refusal{uint32(message), uint32(v >> 1), v&1 == 1}, b
	return true
}

// applyRefusing is applyOps of a batch that is refused in part. It returns
// which messages are: those that r names, whether or not the queue is still
// among theirs, and those that come too late.
func (s *State) applyRefusing(n *node, ops []byte, r refusals, fx *Effects) (runs []Run) {
	more := r.next()
	for message := uint32(0); len(ops) > 0; {
		opcode, payload, rest, _ := nextPart(ops)
		ops = rest
		kind := OpKind(opcode)
		if !kind.message() {
			s.applyOther(n, kind, payload, fx)
			continue
		}
		e, once, ok := n.message(kind, payload)
		isRefused := !ok || more && r.at.Message == message
		for ids, place := e.queues, uint32(0); len(ids) > 0; place++ {
			var id uint64
			id, ids = uvarint(ids)
			switch {
			case !more || r.at.Message != message || r.at.Queue != place:
				isRefused = s.enqueue(mq.QueueID(id), &e, once, false, fx) || isRefused
				continue
			case r.at.Bury:
				s.enqueue(mq.QueueID(id), &e, once, true, fx)
			}
			more = r.next()
		}
		if isRefused {
			runs = appendRun(runs, message)
		}
		for more && r.at.Message == message {
			more = r.next()
		}
		message++
	}
	return runs
}

func appendRun(runs []Run, message uint32) []Run {
	if n := len(runs); n > 0 && runs[n-1].Last+1 == message {
		runs[n-1].Last = message
		return runs
	}
	return append(runs, Run{message, message})
}

// remember keeps what was refused of a node's newest batch. A batch sent again
// is answered with it, so that a refused message is never confirmed and a
// confirmed one never refused, whoever leads by then. It is safe to forget the
// oldest: see RefusalsKept.
func (n *node) remember(seq uint64, runs []Run) {
	if len(runs) == 0 {
		return
	}
	if len(n.refused) == RefusalsKept {
		n.refused = append(n.refused[:0], n.refused[1:]...)
	}
	r := refused{seq: seq, runs: runs}
	r.sum = r.weigh()
	n.refused = append(n.refused, r)
}

// refusedOf returns which messages of a batch were refused.
func (n *node) refusedOf(seq uint64) []Run {
	for i := len(n.refused) - 1; i >= 0; i-- {
		if n.refused[i].seq == seq {
			return n.refused[i].runs
		}
	}
	return nil
}

// Seen reports whether a batch was applied, or will never be.
func (s *State) Seen(o Origin) bool {
	for i := range s.nodes {
		if n := &s.nodes[i]; n.number == o.Node {
			return o.Session < n.session || o.Session == n.session && o.Seq <= n.last
		}
	}
	return false
}

// appendRefused appends what is remembered of a node:
//
//	uvarint batches, each: uvarint seq | uvarint runs, each: uvarint distance from the run before | uvarint last-first
func appendRefused(dst []byte, batches []refused) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(batches)))
	for _, batch := range batches {
		dst = binary.AppendUvarint(dst, batch.seq)
		dst = AppendRuns(dst, batch.runs)
	}
	return dst
}

// AppendRuns appends runs, which are in order and do not touch.
func AppendRuns(dst []byte, runs []Run) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(runs)))
	next := uint32(0)
	for _, r := range runs {
		dst = binary.AppendUvarint(dst, uint64(r.First-next))
		dst = binary.AppendUvarint(dst, uint64(r.Last-r.First))
		next = r.Last
	}
	return dst
}

// ParseRuns reads what AppendRuns wrote and returns what follows; nil if it is
// malformed.
func ParseRuns(b []byte) (runs []Run, rest []byte) {
	n, b := uvarint(b)
	if b == nil || n > uint64(len(b))/2 {
		return nil, nil
	}
	next := uint64(0)
	for i := range n {
		var distance, length uint64
		distance, b = uvarint(b)
		length, b = uvarint(b)
		if b == nil || i > 0 && distance < 2 || distance > 1<<32-1 || length > 1<<32-1 {
			return nil, nil
		}
		first := next + distance
		next = first + length
		if next > 1<<32-1 {
			return nil, nil
		}
		runs = append(runs, Run{uint32(first), uint32(next)})
	}
	return runs, b
}

func (n *node) restoreRefused(b []byte) ([]byte, error) {
	batches, b := uvarint(b)
	if b == nil || batches > RefusalsKept {
		return nil, errSnapshot
	}
	for range batches {
		var r refused
		r.seq, b = uvarint(b)
		if k := len(n.refused); b == nil || r.seq > n.last || k > 0 && n.refused[k-1].seq >= r.seq {
			return nil, errSnapshot
		}
		if r.runs, b = ParseRuns(b); len(r.runs) == 0 {
			return nil, errSnapshot
		}
		r.sum = r.weigh()
		n.refused = append(n.refused, r)
	}
	return b, nil
}
