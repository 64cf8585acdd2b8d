package broker

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

const (
	// piecesAtOnce is how many pieces are on their way from one node at most:
	// what another frame of that node can be behind.
	piecesAtOnce = 2
	// pieceWait is how long a piece may take.
	pieceWait = 30 * time.Second
	// borrowedBytesMax is the longest body that a node may announce.
	borrowedBytesMax = queue.BodyBytesMax
)

// borrowed is a message whose body another node, or this one, lends.
type borrowed struct {
	lender    mq.NodeID
	number    uint64
	head      mq.Content // all before the body
	bodyBytes int
}

// bytes is how long the whole message is.
func (m *borrowed) bytes() int { return len(m.head) + m.bodyBytes }

// parseBorrowed reads what appendLent wrote.
func parseBorrowed(lender mq.NodeID, p *parser) *borrowed {
	head, sound := mq.ParseContent(p.Bytes())
	n, number := p.Uint(), p.Uint()
	if !sound || p.Err() != nil || n > borrowedBytesMax || len(head.Body()) > 0 {
		p.Fail()
		return nil
	}
	return &borrowed{lender, number, head, int(n)}
}

// fetches bounds what is fetched from each node at once.
type fetches struct {
	mu    sync.Mutex
	turns map[mq.NodeID]chan struct{} // cap piecesAtOnce: full while so many are on their way
}

func newFetches() *fetches { return &fetches{turns: map[mq.NodeID]chan struct{}{}} }

func (f *fetches) of(lender mq.NodeID) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.turns[lender] == nil {
		f.turns[lender] = make(chan struct{}, piecesAtOnce)
	}
	return f.turns[lender]
}

// repay tells the lender that its body is not needed any more. It may be said
// twice; a lender that is not reached has forgotten the loan.
func (b *Broker) repay(m *borrowed) {
	if m.lender == b.lane.Self() {
		b.loans.over(m.lender, m.number)
		return
	}
	b.lane.Send(m.lender, fields.AppendUint([]byte{frameRepaid}, m.number))
}

// repaid hears that a borrower is done.
func (b *Broker) repaid(from mq.NodeID, p *parser) {
	if number := p.Uint(); p.Err() == nil {
		b.loans.over(from, number)
	}
}

// own is a message that this node has lent to itself: as it is stored, without
// a copy, unless its head has been changed.
func (b *Broker) own(m *borrowed) (c mq.Content, ok bool) {
	if m.lender != b.lane.Self() {
		return nil, false
	}
	c, err := b.loans.content(m.lender, m.number)
	if err != nil || !bytes.Equal(c.Head(), m.head) {
		return nil, false
	}
	b.repay(m)
	return c, true
}

// fetch is the whole of a borrowed message. The loan is over afterwards.
func (b *Broker) fetch(ctx context.Context, m *borrowed) (mq.Content, error) {
	defer b.repay(m)
	if c, ok := b.own(m); ok {
		return c, nil
	}
	if m.lender == b.lane.Self() {
		c, err := b.loans.content(m.lender, m.number)
		if err != nil {
			return nil, err
		}
		return mq.Joined(m.bytes(), m.head, c.Body()), nil
	}
	out := make(mq.Content, m.bytes())
	copy(out, m.head)
	if err := b.fetchInto(ctx, m, out[len(m.head):]); err != nil {
		return nil, fmt.Errorf("body from %s: %w", m.lender, err)
	}
	return out, nil
}

// fetchInto fetches a body in pieces, several at once. The first fault ends all
// of them.
func (b *Broker) fetchInto(ctx context.Context, m *borrowed, body []byte) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next atomic.Int64
	pieces := func() {
		for {
			from := int(next.Add(pieceBytes)) - pieceBytes
			if from >= len(body) {
				return
			}
			if err := b.fetchPiece(ctx, m, body, from); err != nil {
				fail(err)
				return
			}
		}
	}
	var others sync.WaitGroup
	for range min(piecesAtOnce, (len(body)+pieceBytes-1)/pieceBytes) - 1 {
		others.Go(pieces)
	}
	pieces()
	others.Wait()
	return context.Cause(ctx)
}

// fetchPiece fetches the piece that begins at from.
func (b *Broker) fetchPiece(ctx context.Context, m *borrowed, body []byte, from int) error {
	turns := b.fetches.of(m.lender)
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turns }()
	ctx, cancel := context.WithTimeout(ctx, pieceWait)
	defer cancel()
	piece := body[from:min(from+pieceBytes, len(body))]
	q := fields.AppendUint(fields.AppendUint(fields.AppendUint(nil, m.number), uint64(from)), uint64(len(piece)))
	r, err := b.calls.ask(ctx, m.lender, callFetch, metaGroup, q, nil)
	switch {
	case err != nil:
		return err
	case len(r) != len(piece):
		return errFrame
	}
	copy(piece, r)
	return nil
}
