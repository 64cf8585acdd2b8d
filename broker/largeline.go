package broker

import (
	"context"
	"slices"

	"warren/fsm/queue"
	"warren/mq"
)

// A message that is too large for one batch goes to its group in parts, each a
// numbered operation like all others, so that whatever keeps batches in order,
// sends them again and answers them does so for parts, too. The state machine
// puts them together (queue.EnqueuePart), and their end is the message: it is
// what the group answers for, what a queue may refuse, and what has a place in
// the order of messages.
//
// One message after the other does so, with no more than partsBusy parts
// unanswered. Whatever else the node has for the group goes in between.

const (
	// partBytes is how much of a content goes in one part; what is not larger goes
	// as a whole.
	partBytes = 256 << 10
	// partsBusy is how many parts may be unanswered. It bounds what any other
	// message has before it, here and at the leader.
	partsBusy = 2
	// wholeBytesMax is the largest content that goes as a whole, while some node of
	// the cluster does not know of parts: it has to fit a frame between nodes.
	wholeBytesMax = 31 << 20
)

// largeLine are the messages of an outbox that go in parts, in the order in
// which they do. There is one for each publisher, who waits meanwhile and whose
// own it is, and those of dead letters, which have a bound of their own
// (lettersBusyBytes); so the line needs none.
type largeLine struct {
	waiting []*largeMessage
	last    uint64 // number of the newest
	owed    int    // bytes that have not been put into batches
	busy    int    // parts that are unanswered
	// forwarded is how many of those waiting outbox.forward has put there.
	forwarded int
	// able reports whether all nodes know of parts; nil if they do not.
	able func() bool
}

// largeMessage is a message that goes in parts, or one that comes after such a one.
type largeMessage struct {
	number    uint64     // counted from 1
	content   mq.Content // nil if it is not large: then end has it
	at        int        // up to here it has been put into batches
	end       []byte     // the operation that follows its last part
	w         waiter
	forwarded bool
	over      bool // it has been put to its end, or w was told that it will not be
}

// takes reports whether a message goes in parts.
func (l *largeLine) takes(m *outgoing) bool {
	return len(m.content) > partBytes && l.able != nil && l.able()
}

// remove takes a message out of the line. What has come of it to the state
// machine goes with the next one, or the session. Runs with outbox.mu held.
func (l *largeLine) remove(x *largeMessage) {
	if i := slices.Index(l.waiting, x); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.owed -= len(x.content) - x.at
		if x.forwarded {
			l.forwarded--
		}
	}
	x.over, x.content = true, nil
}

// enqueueLarge is enqueue of a message that goes in parts. It returns when the
// end has its place among the messages, so that the next ones of its publisher
// come after it. If ctx ends before that, the message does not go. Runs with mu held.
func (b *outbox) enqueueLarge(ctx context.Context, t *target, m *outgoing, expiryMs int64, w waiter) error {
	x := b.line(t, m, expiryMs, w)
	b.feed()
	b.send(false)
	if err := b.wait(ctx, func() bool { return !x.over }); err != nil {
		b.large.remove(x)
		b.feed()
		b.send(false)
		return err
	}
	return nil // also if the outbox has ended: then w was told
}

// line puts a message in line; feed follows. Runs with mu held.
func (b *outbox) line(t *target, m *outgoing, expiryMs int64, w waiter) *largeMessage {
	l := &b.large
	l.last++
	x := &largeMessage{number: l.last, w: w}
	if l.takes(m) {
		x.content = m.content
		x.end = queue.AppendWhole(nil, len(m.content), len(m.content.Body()), appendMessage(nil, t, m, expiryMs, nil))
	} else {
		x.end = appendMessage(nil, t, m, expiryMs, m.content)
	}
	l.waiting = append(l.waiting, x)
	l.owed += len(x.content)
	if w.confirm != nil {
		b.watch()
	}
	return x
}

// feed puts parts into batches until enough are unanswered. Runs with mu held.
func (b *outbox) feed() {
	l := &b.large
	for len(l.waiting) > 0 && l.busy < partsBusy {
		x, before := l.waiting[0], b.size()
		if n := min(partBytes, len(x.content)-x.at); n > 0 {
			b.messages = queue.AppendPart(b.messages, x.at, len(x.content), x.content[x.at:x.at+n])
			x.at += n
			l.owed -= n
			l.busy++
			b.parts++
		}
		if x.at == len(x.content) {
			b.messages = append(b.messages, x.end...)
			b.awaitMessage(x.w)
			l.remove(x)
			b.room.Broadcast()
		}
		b.added(before)
	}
}

// giveUpLarge takes out the messages that were in line at a mark and that
// somebody waits for who does not wait for as long as it takes. Runs with mu held.
func (b *outbox) giveUpLarge(late mark) (over []waiter) {
	for _, x := range slices.Clone(b.large.waiting) {
		if x.number <= late.large && x.w.confirm != nil && !waitsOn(x.w.confirm) {
			over = append(over, x.w)
			b.large.remove(x)
		}
	}
	if len(over) > 0 {
		b.feed()
		b.send(false)
		b.room.Broadcast()
	}
	return over
}

// endLarge empties the line. Runs with mu held.
func (b *outbox) endLarge() (over []waiter) {
	for _, x := range slices.Clone(b.large.waiting) {
		over = append(over, x.w)
		b.large.remove(x)
	}
	return over
}

// fits checks a message against what its way to its queues can take.
func (b *Broker) fits(c mq.Content) error {
	if len(c) > wholeBytesMax && levelOf(b.View()) < levelParts {
		return mq.Errorf(mq.PreconditionFailed, "message size %d is larger than configured max size %d", len(c.Body()), wholeBytesMax)
	}
	return nil
}
