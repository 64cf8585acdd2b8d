package broker

import (
	"errors"

	"warren/fsm/queue"
	"warren/internal/fields"
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

// parser reads the fields of a frame.
type parser struct{ fields.Reader }

// runs reads which messages of a batch were refused.
func (p *parser) runs() []queue.Run {
	runs, rest := queue.ParseRuns(p.Rest())
	if rest == nil {
		p.Fail()
		return nil
	}
	p.Skip(rest)
	return runs
}
