package cluster

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// proposalsMax bounds the proposals of one group that Raft has not answered.
const proposalsMax = 1024

// proposal is one entry on its way.
type proposal struct {
	future raft.ApplyFuture
	done   func(result any, err error)
}

// completer answers proposals in the order they were made, on one goroutine.
type completer struct {
	// wedged is called when Raft has refused proposals for longer than a
	// leadership transfer can last.
	wedged      func()
	wedgedAfter time.Duration

	mu      sync.Mutex // guards what follows
	waiting []proposal // waiting[0] is the one whose future run waits for
	epoch   int        // counts flushes: a run of an older one has nothing to say
	closed  bool
	arrived chan struct{} // cap 1: waiting grew
	left    chan struct{} // cap 1: waiting shrank

	answering sync.Mutex // held around one done, so that flush waits for it

	pushed, failed      atomic.Uint64
	refusedAt, refusing time.Time // newest, and first of a row; owned by run
}

func newCompleter(wedgedAfter time.Duration, wedged func()) *completer {
	return &completer{
		wedged: wedged, wedgedAfter: wedgedAfter,
		arrived: make(chan struct{}, 1), left: make(chan struct{}, 1),
	}
}

// waitRoom waits until fewer than proposalsMax proposals are unanswered.
// One caller at a time.
func (c *completer) waitRoom(d time.Duration) bool {
	if c.len() < proposalsMax {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-c.left:
			if c.len() < proposalsMax {
				return true
			}
		case <-timer.C:
			return false
		}
	}
}

func (c *completer) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// push never blocks. Proposals that found no room come too, as failures, so
// that dones stay in order; their number is bounded by their callers having
// waited a second each.
func (c *completer) push(p proposal) {
	c.pushed.Add(1)
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.waiting = append(c.waiting, p)
	}
	c.mu.Unlock()
	if closed { // nothing is ahead of it, and nobody runs any more
		c.failed.Add(1)
		go p.done(nil, ErrGroupClosed)
		return
	}
	signal(c.arrived)
}

// run answers proposals until the next flush.
func (c *completer) run() {
	c.mu.Lock()
	epoch := c.epoch
	c.mu.Unlock()
	for {
		c.mu.Lock()
		if c.epoch != epoch || c.closed { // it may begin after the last flush
			c.mu.Unlock()
			signal(c.arrived) // it may have been meant for our successor
			return
		}
		if len(c.waiting) == 0 {
			c.mu.Unlock()
			<-c.arrived
			continue
		}
		p := c.waiting[0]
		c.mu.Unlock()

		err := p.future.Error() // Raft leaves it unanswered for ever if it shuts down at a bad moment
		if !c.answer(epoch, p, err) {
			return
		}
	}
}

// answer reports false if the proposal was flushed meanwhile.
func (c *completer) answer(epoch int, p proposal, err error) bool {
	c.answering.Lock()
	defer c.answering.Unlock()
	c.mu.Lock()
	if c.epoch != epoch {
		c.mu.Unlock()
		return false
	}
	c.waiting[0] = proposal{}
	c.waiting = c.waiting[1:]
	if len(c.waiting) == 0 {
		c.waiting = nil
	}
	c.mu.Unlock()
	signal(c.left)
	if err != nil {
		c.failed.Add(1)
		c.watchRefusals(err)
		p.done(nil, err)
		return true
	}
	c.refusing = time.Time{}
	p.done(p.future.Response(), nil)
	return true
}

// watchRefusals notices a leader that believes itself to be handing over for
// ever (hashicorp/raft #696): it holds leadership and refuses every proposal.
func (c *completer) watchRefusals(err error) {
	if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		c.refusing = time.Time{}
		return
	}
	now := time.Now()
	if c.refusing.IsZero() || now.Sub(c.refusedAt) > c.wedgedAfter {
		c.refusing = now
	}
	c.refusedAt = now
	if now.Sub(c.refusing) > c.wedgedAfter {
		c.refusing = time.Time{}
		c.wedged()
	}
}

// drain waits until everything is answered, for at most d.
func (c *completer) drain(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for c.len() > 0 {
		select {
		case <-c.left:
		case <-timer.C:
			return
		}
	}
}

// flush answers what is left with err, in order. Call it once Raft has
// stopped: the run that waits for it may never hear, so flush starts another
// one, unless last is set. A run that is stuck in a future that Raft forgot
// stays behind, with nothing but that future.
func (c *completer) flush(err error, last bool) {
	c.answering.Lock()
	defer c.answering.Unlock()
	c.mu.Lock()
	rest := c.waiting
	c.waiting, c.closed = nil, last
	c.epoch++
	c.mu.Unlock()
	for _, p := range rest {
		c.failed.Add(1)
		p.done(nil, err)
	}
	if last {
		signal(c.arrived)
		return
	}
	go c.run()
}

// signal wakes the reader of a cap-1 mailbox.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
