package raftlog

import (
	"errors"
	"sync"
	"time"
)

// ErrHung is what Options.Fatal hears of a disk that does not answer, as
// opposed to one that has answered with an error.
var ErrHung = errors.New("the disk has not answered")

// watchdogSteps is how many looks make up the time after which a disk counts
// as hung.
const watchdogSteps = 10

// watchdog watches one write at a time. It counts looks rather than time: a
// process that was frozen (SIGSTOP, a paused machine) finds that much time has
// passed, but it has looked only once, and its disk may be in order.
type watchdog struct {
	step       time.Duration
	slowSteps  int
	slow, hung func()

	mu    sync.Mutex
	timer *time.Timer // nil between writes
	looks int
	run   int // number of the write that is watched
}

// newWatchdog calls slow when a write takes longer than slowAfter and hung
// when it takes longer than hungAfter.
func newWatchdog(slowAfter, hungAfter time.Duration, slow, hung func()) *watchdog {
	step := max(hungAfter/watchdogSteps, time.Millisecond)
	return &watchdog{step: step, slowSteps: max(1, int(slowAfter/step)), slow: slow, hung: hung}
}

// begin starts to watch a write.
func (w *watchdog) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run++
	w.looks = 0
	if w.timer != nil {
		w.timer.Stop()
	}
	run := w.run
	w.timer = time.AfterFunc(w.step, func() { w.look(run) })
}

// end says that the write is done.
func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run++
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watchdog) look(run int) {
	w.mu.Lock()
	if w.run != run {
		w.mu.Unlock()
		return
	}
	w.looks++
	looks := w.looks
	w.timer = time.AfterFunc(w.step, func() { w.look(run) })
	w.mu.Unlock()
	switch looks {
	case w.slowSteps:
		w.slow()
	case watchdogSteps:
		w.hung()
	}
}
