package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"warren/mq"
)

// An entry is what a leader proposes:
//
//	u8 0xB7 | u8 version | uvarint decidedTerm | varint nowMs | parts
//	part: u8 opcode | uvarint len | payload
const (
	entryMagic   = 0xB7
	entryVersion = 1
)

// The opcodes of parts. All but partPurge mean the same whenever they are
// applied, and twice is once.
const (
	partBatch       = 0x10 // uvarint node | uvarint session | uvarint seq | operations
	partRefusing    = 0x12 // uvarint node | uvarint session | uvarint seq | uvarint n | n x (uvarint message distance | uvarint queue<<1|bury) | operations
	partDrop        = 0x24 // a range
	partPurge       = 0x25 // uvarint queue | uvarint upTo | uvarint token | uvarint n | n x uvarint distance
	partReserve     = 0x26 // uvarint queue | uvarint upTo
	partDelete      = 0x27 // uvarint queue
	partReturn      = 0x28 // uvarint queue | uvarint n | n x (uvarint seq distance | uvarint failed | uvarint acquired)
	partReturnLater = 0x29 // the same, and for each a uvarint due time
	partUnstage     = 0x2A // uvarint node | uvarint session. Since level 3, as EnqueuePart
)

// AppendEntry begins an entry. decidedTerm is the term that its decisions were
// made in: a part that is fenced (a purge) does nothing in any other one.
// nowMs is only carried.
func AppendEntry(dst []byte, decidedTerm uint64, nowMs int64) []byte {
	dst = append(dst, entryMagic, entryVersion)
	dst = binary.AppendUvarint(dst, decidedTerm)
	return binary.AppendVarint(dst, nowMs)
}

// AppendBatch appends a home node's batch of operations, which is applied once
// however often it is proposed. ops must have passed CheckOps.
func AppendBatch(dst []byte, o Origin, ops []byte) []byte {
	n := uvarintLen(uint64(o.Node)) + uvarintLen(uint64(o.Session)) + uvarintLen(o.Seq) + len(ops)
	dst = append(dst, partBatch)
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(o.Node))
	dst = binary.AppendUvarint(dst, uint64(o.Session))
	dst = binary.AppendUvarint(dst, o.Seq)
	return append(dst, ops...)
}

// AppendReserve appends a reservation: the delivered high-water mark of q is
// upTo, unless it is higher already.
func AppendReserve(dst []byte, q mq.QueueID, upTo mq.Seq) []byte {
	dst = append(dst, partReserve)
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(q))+uvarintLen(uint64(upTo))))
	dst = binary.AppendUvarint(dst, uint64(q))
	return binary.AppendUvarint(dst, uint64(upTo))
}

// AppendPurge appends a purge: what is live in q up to and with upTo goes,
// except those listed (in ascending order). It is fenced: in another term than
// it was decided in it does nothing and has no effect, not even a Purged,
// because what was checked out may be something else by then.
func AppendPurge(dst []byte, q mq.QueueID, upTo mq.Seq, except []mq.Seq, token uint64) []byte {
	if !slices.IsSorted(except) {
		except = slices.Sorted(slices.Values(except))
	}
	n := uvarintLen(uint64(q)) + uvarintLen(uint64(upTo)) + uvarintLen(token) + uvarintLen(uint64(len(except)))
	before := mq.Seq(0)
	for _, seq := range except {
		n += uvarintLen(uint64(seq - before))
		before = seq
	}
	dst = append(dst, partPurge)
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(q))
	dst = binary.AppendUvarint(dst, uint64(upTo))
	dst = binary.AppendUvarint(dst, token)
	dst = binary.AppendUvarint(dst, uint64(len(except)))
	before = 0
	for _, seq := range except {
		dst = binary.AppendUvarint(dst, uint64(seq-before))
		before = seq
	}
	return dst
}

// AppendDelete appends the end of q: of its messages and of its mark. An
// enqueue or a reservation that comes after it makes a new, empty q.
func AppendDelete(dst []byte, q mq.QueueID) []byte {
	dst = append(dst, partDelete)
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(q))))
	return binary.AppendUvarint(dst, uint64(q))
}

// AppendDrop appends the leader's own settlement of first..last: what it
// handed out without ack, or found expired.
func AppendDrop(dst []byte, q mq.QueueID, first, last mq.Seq) []byte {
	return appendRange(dst, partDrop, q, first, last)
}

// parseEntry checks an entry to its last byte and returns its parts.
func parseEntry(b []byte) (decidedTerm uint64, parts []byte, err error) {
	if len(b) < 2 || b[0] != entryMagic {
		return 0, nil, errors.New("not an entry of a queue group")
	}
	if b[1] != entryVersion {
		return 0, nil, fmt.Errorf("entry has version %d, known is %d", b[1], entryVersion)
	}
	decidedTerm, b = uvarint(b[2:])
	_, b = uvarint(b) // nowMs: a varint has the form of a uvarint
	if b == nil {
		return 0, nil, errors.New("entry is cut short")
	}
	parts = b
	for len(b) > 0 {
		opcode, payload, rest, err := nextPart(b)
		if err != nil {
			return 0, nil, err
		}
		if err := checkPart(opcode, payload); err != nil {
			return 0, nil, err
		}
		b = rest
	}
	return decidedTerm, parts, nil
}

func checkPart(opcode byte, payload []byte) error {
	switch opcode {
	case partBatch:
		_, ops, err := parseBatch(payload)
		if err != nil {
			return err
		}
		return checkOps(ops)
	case partRefusing:
		_, _, ops, err := parseRefusing(payload)
		if err != nil {
			return err
		}
		return checkOps(ops)
	case partDrop:
		_, _, _, err := parseRange(payload)
		return err
	case partPurge:
		_, err := parsePurge(payload)
		return err
	case partReserve:
		_, _, err := parseReserve(payload)
		return err
	case partReturn, partReturnLater:
		return checkReturn(payload, opcode == partReturnLater)
	case partDelete:
		_, err := parseDelete(payload)
		return err
	case partUnstage:
		_, _, err := parseUnstage(payload)
		return err
	}
	return fmt.Errorf("unknown part %#x in an entry", opcode)
}

func parseBatch(b []byte) (o Origin, ops []byte, err error) {
	node, b := uvarint(b)
	session, b := uvarint(b)
	seq, b := uvarint(b)
	if b == nil || node > 1<<32-1 {
		return o, nil, errors.New("batch is malformed")
	}
	return Origin{uint32(node), mq.SessionID(session), seq}, b, nil
}

// purge is the payload of a partPurge; except are n uvarints, all well formed,
// each the distance from the one before.
type purge struct {
	queue  mq.QueueID
	upTo   mq.Seq
	token  uint64
	except []byte
}

func parsePurge(b []byte) (purge, error) {
	q, b := uvarint(b)
	upTo, b := uvarint(b)
	token, b := uvarint(b)
	n, b := uvarint(b)
	p := purge{mq.QueueID(q), mq.Seq(upTo), token, b}
	if b == nil || n > uint64(len(b)) {
		return p, errors.New("purge is malformed")
	}
	var at uint64
	for range n {
		var distance uint64
		if distance, b = uvarint(b); b == nil || at+distance < at {
			return p, errors.New("purge is malformed")
		}
		at += distance
	}
	if len(b) != 0 {
		return p, errors.New("purge is malformed")
	}
	return p, nil
}

func parseReserve(b []byte) (mq.QueueID, mq.Seq, error) {
	q, b := uvarint(b)
	upTo, b := uvarint(b)
	if b == nil || len(b) != 0 {
		return 0, 0, errors.New("reservation is malformed")
	}
	return mq.QueueID(q), mq.Seq(upTo), nil
}

func parseDelete(b []byte) (mq.QueueID, error) {
	q, b := uvarint(b)
	if b == nil || len(b) != 0 {
		return 0, errors.New("deletion is malformed")
	}
	return mq.QueueID(q), nil
}
