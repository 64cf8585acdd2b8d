package broker

import (
	"time"

	"warren/mq"
)

// A publisher whose message got no answer hears "rejected", basic.nack, once
// no leader of the group has answered anything for a while: most likely the
// group has lost its majority. It means that nobody knows. The batch stays in
// the outbox under its number, is sent to the next leader, and is committed
// then, but of that nobody is told: a waiter is told once.
const (
	// answerDeadline is longer than any election takes.
	answerDeadline = 30 * time.Second
	// lookEvery is how often an outbox looks; a waiter waits up to that much longer.
	lookEvery = 5 * time.Second
)

// mark is what was in an outbox at a look: all batches before seq, and so many
// waiters of the one that was to get that number. Messages that a later one got
// are in a later mark.
type mark struct {
	at                time.Time
	seq               uint64
	messages, settles int
	large             uint64 // the last that was in line to go in parts
}

// watch begins to look. Runs with mu held, for each waiter: it must cost next
// to nothing.
func (b *outbox) watch() {
	if b.looking {
		return
	}
	b.looking = true
	if b.looks == nil {
		b.looks = time.AfterFunc(lookEvery, func() { b.look(time.Now()) })
		return
	}
	b.looks.Reset(lookEvery)
}

// look gives up the waiters that were there an answerDeadline ago, if no leader
// has answered since, and goes on looking while anything is unanswered.
func (b *outbox) look(now time.Time) {
	b.mu.Lock()
	if b.heard || b.ended {
		b.marks, b.heard = nil, false
	}
	var late mark
	for len(b.marks) > 0 && now.Sub(b.marks[0].at) >= answerDeadline {
		late, b.marks = b.marks[0], b.marks[1:]
	}
	over := append(b.giveUp(late), b.giveUpLarge(late)...)
	b.looking = !b.ended && len(b.window)+b.size()+len(b.large.waiting) > 0
	if b.looking {
		b.marks = append(b.marks, mark{now, b.next, len(b.messageWait), len(b.settleWait), b.large.last})
		b.looks.Reset(lookEvery)
	} else {
		b.marks = nil
	}
	b.mu.Unlock()
	tell(over, mq.Rejected)
}

// giveUp takes out the waiters that a mark names. Runs with mu held.
func (b *outbox) giveUp(late mark) (over []waiter) {
	take := func(ws []waiter) {
		for i, w := range ws {
			if w.confirm != nil && !waitsOn(w.confirm) {
				over = append(over, w)
				ws[i] = waiter{}
			}
		}
	}
	takeSome := func(x *batch) {
		take(x.messageWait[:min(late.messages, len(x.messageWait))])
		take(x.settleWait[:min(late.settles, len(x.settleWait))])
	}
	for i := range b.window {
		switch s := &b.window[i]; {
		case s.seq < late.seq:
			take(s.messageWait)
			take(s.settleWait)
		case s.seq == late.seq:
			takeSome(&s.batch)
		}
	}
	if b.next == late.seq {
		takeSome(&b.batch)
	}
	return over
}

// waitsOn reports whether a waiter waits for as long as it takes. Dead letters
// do: they would only be sent once more, into the same outbox.
func waitsOn(c mq.Confirmer) bool {
	switch c := c.(type) {
	case *deadLetters:
		return true
	case *posting:
		return true
	case *joint:
		return waitsOn(c.to.confirm)
	}
	return false
}
