package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"warren/mq"
)

// OpKind says what an operation of a home node's batch does. It is its opcode.
type OpKind uint8

const (
	Enqueue     OpKind = 0x11 // a message enters one or more queues
	EnqueueOnce OpKind = 0x13 // the same, unless it has been there (AppendEnqueueOnce)
	// EnqueueFenced is the same, and not after a later term of its source has
	// spoken. Nodes of a level that cannot read it must have gone before it is sent.
	EnqueueFenced OpKind = 0x14
	// EnqueuePart is some of the content of a message, and EnqueueWhole the message
	// once all of it has come (whole.go). The same goes for levels.
	EnqueuePart  OpKind = 0x15
	EnqueueWhole OpKind = 0x16
	Settle       OpKind = 0x20 // a range of one queue is done with
)

// message reports whether an operation brings a message.
func (k OpKind) message() bool { return k == Enqueue || k.once() || k == EnqueueWhole }

// once reports whether it brings one that may have been there.
func (k OpKind) once() bool { return k == EnqueueOnce || k == EnqueueFenced }

// Persistent is the bit of an enqueue's flags that says delivery mode 2.
const Persistent uint8 = 1

// Op is one operation of a batch, decoded in place.
type Op struct {
	Kind OpKind // Enqueue for all that bring a message
	// Queues are those that an Enqueue goes to; valid until the callback returns.
	Queues          []mq.QueueID
	Flags, Priority uint8
	ExpiryMs        int64
	Content         mq.Content // nil of one that came in parts: only Apply knows it
	wholeBody       int64      // of such a one
	// Queue, First and Last are the range of a Settle. First > Last is empty.
	Queue       mq.QueueID
	First, Last mq.Seq
}

// BodyBytes is the size of the body of the message that an Enqueue brings.
func (op *Op) BodyBytes() int64 {
	if op.Content == nil {
		return op.wholeBody
	}
	return int64(len(op.Content.Body()))
}

// AppendEnqueue appends an operation that puts content into every one of
// queues, each once. expiryMs is only carried.
//
//	uvarint len | ...: uvarint n | n x uvarint queue | u8 flags | u8 priority | varint expiryMs | content
func AppendEnqueue(dst []byte, queues []mq.QueueID, flags, priority uint8, expiryMs int64, content []byte) []byte {
	n := uvarintLen(uint64(len(queues))) + 2 + varintLen(expiryMs) + len(content)
	for _, q := range queues {
		n += uvarintLen(uint64(q))
	}
	dst = append(dst, byte(Enqueue))
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(len(queues)))
	for _, q := range queues {
		dst = binary.AppendUvarint(dst, uint64(q))
	}
	dst = append(dst, flags, priority)
	dst = binary.AppendVarint(dst, expiryMs)
	return append(dst, content...)
}

// AppendSettle appends an operation that takes first..last out of q: acked,
// rejected or dropped. What is not live there is ignored.
//
//	uvarint len | ...: uvarint queue | uvarint first | uvarint last-first
func AppendSettle(dst []byte, q mq.QueueID, first, last mq.Seq) []byte {
	return appendRange(dst, byte(Settle), q, first, last)
}

func appendRange(dst []byte, opcode byte, q mq.QueueID, first, last mq.Seq) []byte {
	// last-first wraps if the range is empty, and wraps back when it is read:
	// a range has no bytes that cannot be read.
	span := uint64(last - first)
	dst = append(dst, opcode)
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(q))+uvarintLen(uint64(first))+uvarintLen(span)))
	dst = binary.AppendUvarint(dst, uint64(q))
	dst = binary.AppendUvarint(dst, uint64(first))
	return binary.AppendUvarint(dst, span)
}

// CheckOps checks the operations of a batch and calls each, unless it is nil,
// for every one of them until one is bad. Ops that pass can be applied by every
// replica. It is stricter than Apply: the content of a message must be an
// mq.Content, so that whoever reads it later may rely on that, and no window is
// named twice by one message.
func CheckOps(ops []byte, each func(op Op)) error {
	_, err := checkEach(ops, each)
	return err
}

// SoundPart is what comes before the first bad one of ops: a batch by itself.
func SoundPart(ops []byte) []byte {
	bad, _ := checkEach(ops, nil)
	return ops[:len(ops)-len(bad)]
}

// checkEach is CheckOps, and returns what is left from the bad one on.
func checkEach(ops []byte, each func(op Op)) (bad []byte, err error) {
	var queues []mq.QueueID
	for len(ops) > 0 {
		opcode, payload, rest, err := nextPart(ops)
		if err != nil {
			return ops, err
		}
		op := Op{Kind: OpKind(opcode)}
		switch op.Kind {
		case Enqueue, EnqueueOnce, EnqueueFenced:
			e, o, err := parseAnyEnqueue(op.Kind, payload)
			if err != nil {
				return ops, err
			}
			if o != nil && o.repeats() {
				return ops, errWindowTwice
			}
			op.Kind = Enqueue
			content, ok := mq.ParseContent(e.content)
			if !ok {
				return ops, errors.New("enqueue: content is malformed")
			}
			queues = e.appendQueues(queues[:0])
			op.Queues, op.Flags, op.Priority, op.ExpiryMs, op.Content = queues, e.flags, e.priority, e.expiryMs, content
		case EnqueuePart:
			if _, err = parsePiece(payload); err != nil {
				return ops, err
			}
		case EnqueueWhole:
			w, err := parseWhole(payload)
			if err != nil {
				return ops, err
			}
			e, _, _ := parseAnyEnqueue(w.kind, w.enqueue)
			op.Kind, op.wholeBody = Enqueue, int64(w.bodyBytes)
			queues = e.appendQueues(queues[:0])
			op.Queues, op.Flags, op.Priority, op.ExpiryMs = queues, e.flags, e.priority, e.expiryMs
		case Settle:
			if op.Queue, op.First, op.Last, err = parseRange(payload); err != nil {
				return ops, err
			}
		default:
			return ops, fmt.Errorf("unknown operation %#x in a batch", opcode)
		}
		if each != nil {
			each(op)
		}
		ops = rest
	}
	return nil, nil
}

// checkOps checks what Apply relies on.
func checkOps(ops []byte) error {
	for len(ops) > 0 {
		opcode, payload, rest, err := nextPart(ops)
		if err != nil {
			return err
		}
		switch OpKind(opcode) {
		case Enqueue, EnqueueOnce, EnqueueFenced:
			_, _, err = parseAnyEnqueue(OpKind(opcode), payload)
		case EnqueuePart:
			_, err = parsePiece(payload)
		case EnqueueWhole:
			_, err = parseWhole(payload)
		case Settle:
			_, _, _, err = parseRange(payload)
		default:
			err = fmt.Errorf("unknown operation %#x in a batch", opcode)
		}
		if err != nil {
			return err
		}
		ops = rest
	}
	return nil
}

// enqueue is the payload of an Enqueue; queues are uvarints, all well formed.
type enqueue struct {
	queues, content []byte
	flags, priority uint8
	expiryMs        int64
}

// appendQueues appends the queues.
func (e *enqueue) appendQueues(dst []mq.QueueID) []mq.QueueID {
	for ids := e.queues; len(ids) > 0; {
		var id uint64
		id, ids = uvarint(ids)
		dst = append(dst, mq.QueueID(id))
	}
	return dst
}

// parseAnyEnqueue reads what brings a message; o is nil for an Enqueue.
func parseAnyEnqueue(kind OpKind, b []byte) (e enqueue, o *once, err error) {
	if kind.once() {
		var once once
		if once, b, err = parseOnce(b, kind == EnqueueFenced); err != nil {
			return e, nil, err
		}
		o = &once
	}
	e, err = parseEnqueue(b)
	return e, o, err
}

var errEnqueue = errors.New("enqueue is malformed")

func parseEnqueue(b []byte) (e enqueue, err error) {
	n, b := uvarint(b)
	if b == nil || n > uint64(len(b)) { // a queue is at least a byte
		return e, errEnqueue
	}
	e.queues = b
	for range n {
		if _, b = uvarint(b); b == nil {
			return e, errEnqueue
		}
	}
	e.queues = e.queues[:len(e.queues)-len(b)]
	if len(b) < 2 {
		return e, errEnqueue
	}
	e.flags, e.priority = b[0], b[1]
	expiryMs, size := binary.Varint(b[2:])
	if size <= 0 {
		return e, errEnqueue
	}
	e.expiryMs, e.content = expiryMs, b[2+size:]
	return e, nil
}

func parseRange(b []byte) (q mq.QueueID, first, last mq.Seq, err error) {
	id, b := uvarint(b)
	from, b := uvarint(b)
	span, b := uvarint(b)
	if b == nil || len(b) != 0 {
		return 0, 0, 0, errors.New("range is malformed")
	}
	return mq.QueueID(id), mq.Seq(from), mq.Seq(from + span), nil
}

// nextPart splits off u8 opcode | uvarint len | payload.
func nextPart(b []byte) (opcode byte, payload, rest []byte, err error) {
	n, rest := uvarint(b[1:])
	if rest == nil || n > uint64(len(rest)) {
		return 0, nil, nil, fmt.Errorf("part %#x is cut short", b[0])
	}
	return b[0], rest[:n:n], rest[n:], nil
}

// uvarint splits a number off b. The rest is nil if there is none, also if b
// is nil, so that only the last of several reads has to be checked.
func uvarint(b []byte) (uint64, []byte) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:]
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil
	}
	return v, b[n:]
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func varintLen(v int64) int { return uvarintLen(uint64(v)<<1 ^ uint64(v>>63)) }
