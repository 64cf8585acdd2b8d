package broker

import (
	"encoding/binary"
	"errors"

	"warren/fsm/queue"
)

// Frames between nodes start with their kind; the rest are uvarints and
// length-prefixed bytes in the order that the builder beside each handler
// writes them. "home" is the node of the client, "leader" the node that leads
// the group.
const (
	frameLead        = 1 + iota // leader to all: I lead this group in this term; answer with what is unanswered and frameResume
	frameBatch                  // home to leader: one numbered batch of an outbox
	frameResults                // leader to home: which batches are committed
	frameDeliver                // leader to home: messages for consumers
	frameCredit                 // home to leader: clients' sockets took messages
	frameReturn                 // home to leader: unsettled messages go back to their place
	frameResume                 // home to leader: my consumers, and what they hold
	frameApplied                // any to metadata leader: how far my metadata is
	frameCall                   // a request that wants one answer
	frameReply                  // that answer
	frameAgain                  // leader to all: send again what is unanswered
	frameReject                 // home to leader: unsettled messages go to the dead-letter exchange
	frameAlarm                  // any to all: why publishers have to wait for me; empty: they need not any more
	frameRecall                 // leader to home: deliveries are taken back, their consumers held them for too long
	frameDirect                 // home of a publisher to that of a requester: a direct reply
	frameDirectTaken            // and back: how many bytes of these were taken
	frameFail                   // home to leader: unsettled messages go back, and that counts as failed
	frameLent                   // leader to home: a message for a consumer, its body to be fetched
	frameDirectLent             // home of a publisher to that of a requester: a direct reply, its body to be fetched
	frameRepaid                 // borrower to lender: that body is not needed any more
)

// someRefused is added to the code of a result: runs of refused messages follow it.
const someRefused = 0x80

// batchVoid is the code of a result, beside those of queue.Code: the batch cannot
// be read. Nodes know it from levelFenced on.
const batchVoid = 0x7f

var errFrame = errors.New("malformed frame")

// parser reads a frame's fields; after the first fault all further reads give
// zero values and err is set.
type parser struct {
	b   []byte
	err error
}

func (p *parser) fail() { p.b, p.err = nil, errFrame }

func (p *parser) byte() byte {
	if len(p.b) == 0 {
		p.fail()
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}

func (p *parser) uint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) int() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.fail()
		return 0
	}
	p.b = p.b[n:]
	return v
}

// bytes is a slice of the frame.
func (p *parser) bytes() []byte {
	n := p.uint()
	if n > uint64(len(p.b)) {
		p.fail()
		return nil
	}
	s := p.b[:n:n]
	p.b = p.b[n:]
	return s
}

// runs reads which messages of a batch were refused.
func (p *parser) runs() []queue.Run {
	runs, rest := queue.ParseRuns(p.b)
	if rest == nil {
		p.fail()
		return nil
	}
	p.b = rest
	return runs
}

func (p *parser) string() string { return string(p.bytes()) }
func (p *parser) bool() bool     { return p.byte() != 0 }

// count reads how many items follow, each of which takes at least one byte.
func (p *parser) count() int {
	n := p.uint()
	if n > uint64(len(p.b)) {
		p.fail()
		return 0
	}
	return int(n)
}

func appendUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
func appendBytes(b, v []byte) []byte       { return append(appendUint(b, uint64(len(v))), v...) }
func appendString(b []byte, s string) []byte {
	return append(appendUint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendInt(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }
