package cluster

import (
	"errors"
	"sync"
	"sync/atomic"
)

// errOlderInstall ends a snapshot in favour of a later one, or of a leader of a
// later term.
var errOlderInstall = errors.New("a later snapshot or leader has come meanwhile")

// turns lets one snapshot at a time into a group: the last that came. A leader
// that sends again has given up what it sent before, and of two leaders the one
// with the higher term counts.
type turns struct {
	busy chan struct{} // cap 1: taken while one works
	term atomic.Uint64 // of the one that counts; 0: none

	mu    sync.Mutex
	last  *turn // nil: none
	ended bool
}

// turn is one snapshot's. Its cut ends what it does, soon.
type turn struct {
	term uint64
	cut  func()
}

func newTurns() *turns { return &turns{busy: make(chan struct{}, 1)} }

// enter waits for the turn, and cuts short who has it.
func (t *turns) enter(me *turn) error {
	t.mu.Lock()
	switch {
	case t.ended:
		t.mu.Unlock()
		return errGroupGone
	case t.last != nil && t.last.term > me.term:
		t.mu.Unlock()
		return errOlderInstall
	case t.last != nil:
		t.last.cut()
	}
	t.last = me
	t.term.Store(me.term)
	t.mu.Unlock()
	t.busy <- struct{}{}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != me {
		<-t.busy
		return errOlderInstall
	}
	return nil
}

// leave ends the turn of who has entered.
func (t *turns) leave(me *turn) {
	t.mu.Lock()
	if t.last == me {
		t.last = nil
		t.term.Store(0)
	}
	t.mu.Unlock()
	<-t.busy
}

// outdate cuts short what a leader of an earlier term sends.
func (t *turns) outdate(term uint64) {
	if now := t.term.Load(); now == 0 || now >= term { // of every append: mostly this
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && t.last.term < term {
		t.last.cut()
	}
}

// close cuts the last one short, and waits until nobody works.
func (t *turns) close() {
	t.mu.Lock()
	t.ended = true
	if t.last != nil {
		t.last.cut()
		t.last = nil
	}
	t.mu.Unlock()
	t.busy <- struct{}{}
	<-t.busy
}
