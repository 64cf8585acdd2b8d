package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"warren/internal/fields"
	"warren/mq"
)

// Calls are the questions that one node asks the leader of a group.
const (
	callAttach        = 1 + iota // start a consumer
	callDetach                   // end it
	callGet                      // one message
	callStat                     // counts of a queue
	callPurge                    // drop what is ready
	callPropose                  // metadata: commit these operations
	callReadIndex                // metadata: how far is the leader
	callDelayed                  // messages of a delayed exchange
	callCancelDelayed            // take one of them out
	callRecent                   // what an exchange has kept of late
	callRequester                // any node: whether a consumer of direct replies is there
	callRemove                   // delete a queue if it is unused, or empty
	callMilestones               // any node: what its replicas have come to
	callTally                    // any node: how many connections or channels a vhost or user has there
	callFetch                    // any node: a piece of a body that it has lent
)

// Answers to a call.
const (
	answerOK       = iota
	answerError    // an mq.Error follows
	answerNotLead  // ask the leader: the caller waits for its announcement
	answerTryAgain // outcome unknown; the question may be asked again
)

var (
	errGroupGone     = mq.Errorf(mq.NotFound, "the node that held this queue has ended")
	errNoSession     = errors.New("this node has no session yet")
	errSessionClosed = mq.Errorf(mq.ConnectionForced, "the connection has ended")
	errRetry         = errors.New("ask again")
)

// How long a caller waits before it asks again: after an answer that was none,
// and while no leader is known (an announcement ends the wait at once).
const (
	callRetryMin = 20 * time.Millisecond
	callRetryMax = time.Second
)

// calls is this node's half of calls: the questions that await an answer.
type calls struct {
	lane Lane

	mu      sync.Mutex
	next    uint64
	pending map[uint64]pendingCall
}

type pendingCall struct {
	to    mq.NodeID
	reply chan []byte // cap 1; nil means the connection was lost. No chan once the caller has given up
	ears  *ears       // may be nil
}

// ears hear an answer that says yes where frames are taken: ahead of every later
// frame of the node that gave it.
type ears struct {
	heard func(from mq.NodeID, answer []byte) bool // false if it is none any more: to be asked again
	late  func(from mq.NodeID, answer []byte)      // instead, once the caller has given up
}

func newCalls(lane Lane) *calls { return &calls{lane: lane, pending: map[uint64]pendingCall{}} }

// ask sends one question and waits for its answer or the loss of the peer. The
// ears may be nil.
func (c *calls) ask(ctx context.Context, to mq.NodeID, kind byte, g mq.GroupID, body []byte, e *ears) ([]byte, error) {
	reply := make(chan []byte, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.pending[id] = pendingCall{to: to, reply: reply, ears: e}
	c.mu.Unlock()
	f := append(make([]byte, 0, 24+len(body)), frameCall)
	f = fields.AppendUint(f, id)
	f = append(f, kind)
	f = fields.AppendUint(f, uint64(g))
	f = append(f, body...)
	if !c.lane.Send(to, f) {
		c.forget(id)
		return nil, errRetry
	}
	select {
	case b := <-reply:
		return openReply(b)
	case <-ctx.Done():
		if !c.giveUp(id) {
			return openReply(<-reply) // it came in the same moment
		}
		return nil, ctx.Err()
	}
}

// giveUp ends the wait for an answer; false if that is here or coming now.
func (c *calls) giveUp(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, waits := c.pending[id]
	if delete(c.pending, id); waits && w.ears != nil {
		c.pending[id] = pendingCall{to: w.to, ears: w.ears}
	}
	return waits
}

// forget drops a question that was not sent.
func (c *calls) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// openReply takes an answer apart: its bytes, or the error that it is.
func openReply(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errRetry // connection lost
	}
	switch b[0] {
	case answerOK:
		return b[1:], nil
	case answerError:
		p := parser{fields.Read(b[1:])}
		e := &mq.Error{Code: mq.Code(p.Uint()), ChannelOnly: p.Bool(), Text: p.Text()}
		if p.Err() != nil {
			return nil, fmt.Errorf("error in a reply: %w", p.Err())
		}
		return nil, e
	default:
		return nil, errRetry
	}
}

// replied hears an answer.
func (c *calls) replied(p *parser) {
	id := p.Uint()
	if p.Err() != nil {
		return
	}
	c.mu.Lock()
	w, ok := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	switch {
	case !ok:
	case w.reply != nil:
		w.reply <- w.hear(p.Rest())
	default:
		if r, err := openReply(p.Rest()); err == nil {
			w.ears.late(w.to, r)
		}
	}
}

// hear is the reply that the caller gets: as if the connection were lost if the
// answer is none any more.
func (w *pendingCall) hear(reply []byte) []byte {
	if w.ears != nil && len(reply) > 0 && reply[0] == answerOK && !w.ears.heard(w.to, reply[1:]) {
		return nil
	}
	return reply
}

// lost fails every question to a peer whose connection is gone.
func (c *calls) lost(peer mq.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.pending {
		if w.to == peer {
			delete(c.pending, id)
			if w.reply != nil {
				w.reply <- nil
			}
		}
	}
}

// asked is a question at the node that answers it; exactly one of its methods
// is called, once, from any goroutine.
type asked struct {
	lane Lane
	from mq.NodeID
	id   uint64
}

func (a asked) answer(kind byte, body []byte) (sent bool) {
	f := append(make([]byte, 0, 16+len(body)), frameReply)
	f = fields.AppendUint(f, a.id)
	f = append(f, kind)
	return a.lane.Send(a.from, append(f, body...)) // a lost peer asks again
}

func (a asked) ok(body []byte) (sent bool) { return a.answer(answerOK, body) }
func (a asked) notLead()                   { a.answer(answerNotLead, nil) }
func (a asked) tryAgain()                  { a.answer(answerTryAgain, nil) }

func (a asked) fail(err error) {
	var e *mq.Error
	if !errors.As(err, &e) {
		e = mq.Errorf(mq.InternalError, "%v", err)
	}
	b := fields.AppendUint(nil, uint64(e.Code))
	b = fields.AppendBool(b, e.ChannelOnly)
	a.answer(answerError, fields.AppendString(b, e.Text))
}

// callLeader asks the leader of g, whoever that is, until it answers or ctx
// ends. All questions may be asked twice.
func (b *Broker) callLeader(ctx context.Context, kind byte, g mq.GroupID, body []byte) ([]byte, error) {
	return b.askLeader(ctx, kind, g, body, nil)
}

// askLeader is callLeader with ears for the answer.
func (b *Broker) askLeader(ctx context.Context, kind byte, g mq.GroupID, body []byte, e *ears) ([]byte, error) {
	for {
		if b.gone(g) {
			return nil, errGroupGone
		}
		k, known, changed := b.leaders.of(g)
		wait := callRetryMax
		if known {
			r, err := b.calls.ask(ctx, k.node, kind, g, body, e)
			if !errors.Is(err, errRetry) {
				return r, b.explain(ctx, g, err)
			}
			wait = callRetryMin
		}
		retry := time.NewTimer(wait)
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
		}
		retry.Stop()
		if ctx.Err() != nil {
			return nil, b.explain(ctx, g, ctx.Err())
		}
	}
}

// explain turns the end of a caller's patience into what a client should hear.
func (b *Broker) explain(ctx context.Context, g mq.GroupID, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return b.noLeader(g, err)
}

// noLeader is what a client hears when a group did not answer in time.
func (b *Broker) noLeader(g mq.GroupID, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := mq.Errorf(mq.InternalError, "no answer from the leader of group %d in time: is a majority of its nodes up?", uint64(g))
	if g == metaGroup {
		e.Text = "no answer from the metadata leader in time: is a majority of the cluster's nodes up?"
	}
	e.ChannelOnly = true
	return e
}
