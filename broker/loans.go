package broker

import (
	"math/rand/v2"
	"sync"

	"warren/internal/fields"
	"warren/mq"
)

// A large body does not travel between nodes in one frame: it would hold up all
// that comes behind it. The node that has it sends the rest of the message and
// lends the body, under a number; the other one fetches it in pieces, and says
// when it is done. Nodes know of this from levelParts on.

const (
	// lendAbove is the longest message, in bytes, that is sent in one frame; a
	// longer one is lent.
	lendAbove = 256 << 10
	// pieceBytes is how much of a body is fetched at once.
	pieceBytes = 256 << 10
)

var errNotLent = mq.Errorf(mq.NotFound, "no such body is lent to this node")

// loans are the bodies that this node lends. A loan holds its body in memory,
// whatever becomes of the message, until its borrower is done or is lost. Link
// credit, or that of direct replies, bounds what a borrower can have.
type loans struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]loan
}

type loan struct {
	borrower mq.NodeID
	content  mq.Content // nobody changes it
}

// newLoans begins with a number of its own, so that nobody who still asks for
// what an earlier run of this node has lent gets another body.
func newLoans() *loans { return &loans{last: rand.Uint64() >> 1, open: map[uint64]loan{}} }

// lend keeps a message's body for a node.
func (l *loans) lend(to mq.NodeID, c mq.Content) (number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.open[l.last] = loan{to, c}
	return l.last
}

// content is the message of a loan.
func (l *loans) content(to mq.NodeID, number uint64) (mq.Content, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, ok := l.open[number]
	if !ok || x.borrower != to {
		return nil, errNotLent
	}
	return x.content, nil
}

// piece is a part of a loan's body, not empty.
func (l *loans) piece(to mq.NodeID, number, from, bytes uint64) ([]byte, error) {
	c, err := l.content(to, number)
	if err != nil {
		return nil, err
	}
	body := c.Body()
	if n := uint64(len(body)); bytes == 0 || bytes > pieceBytes || from > n || bytes > n-from {
		return nil, errFrame
	}
	return body[from : from+bytes], nil
}

// over ends a loan. It may be said twice.
func (l *loans) over(by mq.NodeID, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[number].borrower == by {
		delete(l.open, number)
	}
}

// lost ends what was lent to a node: it forgets what it borrowed as well when a
// connection is gone.
func (l *loans) lost(by mq.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for number, x := range l.open {
		if x.borrower == by {
			delete(l.open, number)
		}
	}
}

// serve answers who fetches a piece.
func (l *loans) serve(a asked, p *parser) {
	number, from, bytes := p.Uint(), p.Uint(), p.Uint()
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	piece, err := l.piece(a.from, number, from, bytes)
	if err != nil {
		a.fail(err)
		return
	}
	a.ok(piece)
}

// appendLent writes what a borrower has to know: the message without its body,
// and where that is.
func appendLent(f []byte, head mq.Content, bodyBytes int, number uint64) []byte {
	return fields.AppendUint(fields.AppendUint(fields.AppendBytes(f, head), uint64(bodyBytes)), number)
}

// lends reports whether a node can borrow.
func (s *Shard) lends(to mq.NodeID) bool {
	return to == s.lane.Self() || levelOf(s.topics.View()) >= levelParts
}
