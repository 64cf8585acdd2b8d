package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// barrierRetry is the pause between two tries to pass the first entry of a new
// leader through the log.
const barrierRetry = 20 * time.Millisecond

// leadership tells the Machine when to lead and when to follow. Raft's edges
// only wake it: which term this node leads in is read from Raft, since edges
// come late, and a loss and a gain in a row look like nothing happened.
type leadership struct {
	group *Group
	woken chan struct{} // cap 1

	led      atomic.Uint64 // the term that the Machine leads in; 0: it follows
	restarts atomic.Uint64

	restart atomic.Pointer[restartReason]
}

// restartReason asks for a restart of the group's Raft in place.
type restartReason struct {
	why     string
	wipeLog bool // the log holds nothing that the newest snapshot does not, but for an uncommitted tail
}

func (l *leadership) term() uint64 { return l.led.Load() }
func (l *leadership) wake()        { signal(l.woken) }

// requestRestart makes the leadership goroutine restart Raft over the same stores.
func (l *leadership) requestRestart(r restartReason) {
	l.restart.CompareAndSwap(nil, &r)
	l.wake()
}

// drain keeps Raft's main loop from blocking on its edges.
func (l *leadership) drain(r *groupRaft) {
	for {
		select {
		case <-r.notify:
			l.wake()
		case <-r.ended:
			return
		}
	}
}

// run owns the Machine's leadership until the group stops.
func (l *leadership) run(ctx context.Context) {
	for {
		select {
		case <-l.woken:
		case <-ctx.Done():
			l.follow()
			return
		}
		if why := l.restart.Swap(nil); why != nil {
			l.follow()
			l.group.restartInPlace(*why)
		}
		l.settle(ctx)
	}
}

// settle brings the Machine in line with Raft.
func (l *leadership) settle(ctx context.Context) {
	var refusedSince time.Time
	for {
		r := l.group.raft.Load()
		term, leads := r.leads()
		if led := l.led.Load(); led != 0 && (!leads || led != term) {
			l.follow()
		}
		if !leads || l.led.Load() == term || l.group.closing.Load() || l.restart.Load() != nil {
			return // whoever asks for a restart wakes run
		}
		err := l.barrier(ctx, r)
		if now, still := r.leads(); !still || now != term {
			continue // a term is led once: whatever the barrier said is history
		}
		if err == nil {
			l.lead(term)
			continue
		}
		if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			switch {
			case refusedSince.IsZero():
				refusedSince = time.Now()
			case time.Since(refusedSince) > l.group.wedgedAfter():
				l.requestRestart(restartReason{why: "a leadership transfer does not end"})
				return
			}
		}
		if !l.pause(ctx, barrierRetry) {
			return
		}
	}
}

// barrier passes a no-op through the log and the Machine. It is Raft's Barrier
// but for its kind: being a command, it moves the applied index of every
// replica past the leader's first entry, which no Machine ever sees.
func (l *leadership) barrier(ctx context.Context, r *groupRaft) error {
	return l.group.wait(ctx, r, r.ApplyLog(raft.Log{}, proposeWaitMax))
}

func (l *leadership) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *leadership) lead(term uint64) {
	l.group.log.Info("leading", "term", term)
	l.led.Store(term) // first, so that the Machine finds its lease in Lead
	l.group.machine.Lead(term)
}

func (l *leadership) follow() {
	if term := l.led.Swap(0); term != 0 {
		l.group.log.Info("no longer leading", "term", term)
		l.group.machine.Follow()
	}
}

// leads reports the term that this node leads in. A term is led at most once,
// and terms only grow: the same term before and after means the state belongs to it.
func (r *groupRaft) leads() (term uint64, ok bool) {
	if r == nil {
		return 0, false
	}
	term = r.CurrentTerm()
	ok = r.State() == raft.Leader
	return term, ok && r.CurrentTerm() == term
}

// transferLog remembers to whom leadership was offered in the current term.
type transferLog struct {
	mu    sync.Mutex
	term  uint64
	tried map[string]time.Time
}

// transferAgain is how soon a leader that must not lead offers that to the same
// peer again: who was behind may have caught up.
const transferAgain = 10 * time.Second

// try reports whether peer may be tried in term, and remembers that it was. A
// leader that must lead no more may try it again after a while.
func (t *transferLog) try(term uint64, peer string, must bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term != term || t.tried == nil {
		t.term, t.tried = term, make(map[string]time.Time)
	}
	last, tried := t.tried[peer]
	if tried && !(must && time.Since(last) >= transferAgain) {
		return false
	}
	t.tried[peer] = time.Now()
	return true
}

// forget takes back that peer was tried in term.
func (t *transferLog) forget(term uint64, peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term == term {
		delete(t.tried, peer)
	}
}
