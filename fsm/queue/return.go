package queue

import (
	"encoding/binary"
	"errors"

	"warren/mq"
)

// AppendReturn appends what is known now of messages of q that came back from
// their consumers, in ascending order. It says how often each has, not that it
// has once more: a leader may propose it twice, and another leader, which has
// not heard of the first, the same again. So it need not be fenced.
func AppendReturn(dst []byte, q mq.QueueID, back []Returned) []byte {
	return appendReturn(dst, partReturn, q, back)
}

// AppendReturnLater is AppendReturn of messages that have due times, or 0: what
// was noted of an earlier return's is replaced (see Queue.Due). With AppendReturn
// it stays.
func AppendReturnLater(dst []byte, q mq.QueueID, back []Returned) []byte {
	return appendReturn(dst, partReturnLater, q, back)
}

func appendReturn(dst []byte, opcode byte, q mq.QueueID, back []Returned) []byte {
	n := uvarintLen(uint64(q)) + uvarintLen(uint64(len(back)))
	before := mq.Seq(0)
	for _, r := range back {
		n += uvarintLen(uint64(r.Seq-before)) + uvarintLen(uint64(r.Failed)) + uvarintLen(uint64(r.Acquired))
		if opcode == partReturnLater {
			n += uvarintLen(uint64(r.DueMs))
		}
		before = r.Seq
	}
	dst = append(dst, opcode)
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(q))
	dst = binary.AppendUvarint(dst, uint64(len(back)))
	before = 0
	for _, r := range back {
		dst = binary.AppendUvarint(dst, uint64(r.Seq-before))
		dst = binary.AppendUvarint(dst, uint64(r.Failed))
		dst = binary.AppendUvarint(dst, uint64(r.Acquired))
		if opcode == partReturnLater {
			dst = binary.AppendUvarint(dst, uint64(r.DueMs))
		}
		before = r.Seq
	}
	return dst
}

var errReturn = errors.New("return is malformed")

func checkReturn(b []byte, later bool) error {
	_, b = uvarint(b)
	n, b := uvarint(b)
	if b == nil || n > uint64(len(b)) {
		return errReturn
	}
	var seq uint64
	for range n {
		var r Returned
		var distance uint64
		distance, b = uvarint(b)
		r.Failed, r.Acquired, b = counts(b)
		if later {
			_, b = dueTime(b)
		}
		if b == nil || distance == 0 || seq+distance < seq || r.Failed|r.Acquired == 0 {
			return errReturn
		}
		seq += distance
	}
	if len(b) != 0 {
		return errReturn
	}
	return nil
}

// countReturns applies the payload of a partReturn, or with later of a
// partReturnLater, which is well formed.
func (s *State) countReturns(b []byte, later bool, fx *Effects) {
	id, b := uvarint(b)
	n, b := uvarint(b)
	q := s.changing(mq.QueueID(id))
	if q == nil {
		return
	}
	r := Returned{Queue: q.id}
	for range n {
		var distance uint64
		distance, b = uvarint(b)
		r.Seq += mq.Seq(distance)
		r.Failed, r.Acquired, b = counts(b)
		if later {
			r.DueMs, b = dueTime(b)
		}
		q.countReturn(r, later, fx)
	}
}
