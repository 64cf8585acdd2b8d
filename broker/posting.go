package broker

import (
	"slices"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

// What becomes of a dead letter that a full queue refuses: it stays in its
// source, checked out, and is sent again after a while, to the queues that have
// not got it. Others of the same source go on meanwhile. What is kept so is
// bounded; beyond that a letter that is refused is dropped, as RabbitMQ drops
// all of them unless x-dead-letter-strategy is at-least-once.
const (
	// lettersRefusedMax is how many letters of one group wait for room.
	lettersRefusedMax = lettersBusy
	// lettersRetryMax is how long a letter waits at most that was refused often:
	// each time twice as long as before.
	lettersRetryMax = 30 * time.Second
)

// posting makes one answer out of those of several targets of a letter.
type posting struct {
	to      *deadLetters
	letter  uint64
	targets []target

	mu     sync.Mutex // guards all below
	left   int
	failed mq.Outcome // Rejected if any is, else Refused if any is; 0 if none
	owed   []mq.QueueID
}

// Confirm hears of the target at place i.
func (p *posting) Confirm(i uint64, o mq.Outcome) {
	p.mu.Lock()
	if o.Nacked() {
		p.owed = append(p.owed, p.targets[i].queues...)
		if p.failed != mq.Rejected {
			p.failed = o
		}
	}
	p.left--
	last := p.left == 0
	p.mu.Unlock()
	if !last {
		return
	}
	a := lettersAnswer{p.letter, mq.Confirmed, p.owed}
	if len(p.owed) > 0 {
		a.outcome = p.failed
	}
	p.to.hear(a)
}

// aims are the targets of a letter that was routed to some. One that may refuse
// it is split, for each queue to be answered for by itself. If some queues have
// the letter already, it goes to the others, wherever it would be routed by now
// (an exchange may choose by chance), and not to those that have been deleted.
func (x *letter) aims(v *meta.View, dead *burial, routed []target) (out []target) {
	if len(x.owed) > 0 {
		for _, t := range routed {
			t.queues = slices.DeleteFunc(slices.Clone(t.queues), func(id mq.QueueID) bool { return !slices.Contains(x.owed, id) })
			out = append(out, t)
		}
		routed, out = append(out, x.astray(v, dead, out)...), nil
	}
	for _, t := range routed {
		step := max(1, len(t.queues))
		if t.flags&refusable != 0 {
			step = 1
		}
		for some := range slices.Chunk(t.queues, step) {
			t.queues = some
			out = append(out, t)
		}
	}
	return out
}

// astray are the targets of owed queues that a letter is not routed to any more.
func (x *letter) astray(v *meta.View, dead *burial, routed []target) []target {
	w := walk{view: v, content: dead.content, died: len(dead.deaths) > 0, seenQueue: map[mq.QueueID]bool{}}
	for _, t := range routed {
		for _, id := range t.queues {
			w.seenQueue[id] = true
		}
	}
	for _, id := range x.owed {
		if q := v.QueueByID(id); q != nil {
			w.reach(q)
		}
	}
	return w.targets
}

// done notes that a letter is not to be sent any more.
func (f *flights) done(x *letter) {
	if x.tries == 0 {
		return
	}
	if f.refused--; f.refused == 0 {
		f.lossy = false
	}
}

// neverDropped reports whether a queue's dead letters wait for room however many
// there are (x-dead-letter-strategy). Then withdrawnMax bounds them: what is
// beyond waits in the queue.
func neverDropped(q *meta.Queue) bool {
	s, _ := q.Effective().String("x-dead-letter-strategy")
	return s == "at-least-once"
}

// lettersRefused keeps letters for which there was no room, to be sent again,
// and drops those that are too many.
func (s *Shard) lettersRefused(l *lead, f *flights, letters []letter) {
	var dropped []letter
	lease := s.log.Lease()       // without it, perhaps they were refused because another node leads
	again := map[uint][]letter{} // by tries
	for _, x := range letters {
		if x.tries == 0 && f.refused >= lettersRefusedMax && lease && !neverDropped(x.queue) {
			dropped = append(dropped, x)
			continue
		}
		if x.tries == 0 {
			f.refused++
		}
		x.tries++
		again[x.tries] = append(again[x.tries], x)
	}
	for tries, xs := range again {
		wait := lettersRetryMax
		if tries < 16 {
			wait = min(wait, lettersRetry<<(tries-1))
		}
		s.lettersLater(l, xs, wait)
	}
	if len(dropped) > 0 && !f.lossy {
		f.lossy = true
		s.slog.Warn("dead letters dropped: the queue that they go to is full, and as many wait for room as may",
			"vhost", dropped[0].queue.VHost, "queue", dropped[0].queue.Name, "waiting", f.refused)
	}
	s.lettersGone(l, dropped, 0)
}
