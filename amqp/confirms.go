package amqp

import (
	"sync"

	"warren/amqp/wire"
	"warren/mq"
)

// confirms collects the outcomes of a channel's publishes, which come from the
// broker's goroutines in any order, until the writer tells the client. Tags
// count from 1 since confirm.select.
//
// What is decided without a gap goes out as one ack or nack with "multiple".
// What is decided beyond a gap waits for the gap while there is other work,
// and goes out one by one when the writer has nothing else to do.
type confirms struct {
	out *outbox
	ch  *channel

	mu   sync.Mutex // guards all below
	last uint64     // the newest tag handed out
	// window holds what is known of the tags base, base+1, …, last; [head:] in use.
	window []confirmState
	head   int
	base   uint64
	// loose are tags that were decided while an older one was not.
	loose     []uint64
	scheduled bool // an item for the writer is in the outbox
	silent    bool // the channel has closed: nothing is confirmed any more
}

type confirmState uint8

const (
	confirmWaits confirmState = iota
	confirmAck
	confirmNack
	confirmToldAck
	confirmToldNack
)

// told is the state of a tag once the client knows.
func (k confirmState) told() confirmState {
	switch k {
	case confirmAck:
		return confirmToldAck
	case confirmNack:
		return confirmToldNack
	}
	return k
}

// looseMax is how many tags may wait behind a gap before they go out one by
// one although the writer is busy.
const looseMax = 1024

func newConfirms(out *outbox, ch *channel) *confirms {
	return &confirms{out: out, ch: ch, base: 1}
}

// next hands out the tag of a publish.
func (c *confirms) next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head > 1024 && c.head > len(c.window)/2 {
		c.window = append(c.window[:0], c.window[c.head:]...)
		c.head = 0
	}
	c.window = append(c.window, confirmWaits)
	c.last++
	return c.last
}

// Confirm implements mq.Confirmer.
func (c *confirms) Confirm(tag uint64, o mq.Outcome) {
	if c.decide(tag, o) {
		c.out.confirmsReady(c)
	}
}

// decide notes an outcome and reports whether the writer has to be told.
func (c *confirms) decide(tag uint64, o mq.Outcome) (wake bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent || tag < c.base || tag > c.last {
		return false
	}
	at := &c.window[c.head+int(tag-c.base)]
	if *at != confirmWaits {
		return false
	}
	*at = confirmAck
	if o.Nacked() {
		*at = confirmNack
	}
	if tag != c.base {
		c.loose = append(c.loose, tag)
	}
	wake = !c.scheduled
	c.scheduled = true
	return wake
}

// silence stops confirming: the channel's close is on its way.
func (c *confirms) silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
	c.window, c.head, c.loose = nil, 0, nil // operators may still look
}

// collect appends frames for all that is decided without a gap. more says that
// something is decided beyond the gap; the writer calls collectLoose when idle.
func (c *confirms) collect(dst []byte, n *counters) (_ []byte, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduled = false
	if c.silent {
		return dst, false
	}
	for c.head < len(c.window) && c.window[c.head] != confirmWaits {
		// A run does not span what the client has been told to be otherwise: there
		// are clients that would believe the "multiple" that covers it.
		kind, untold, last := c.window[c.head], 0, uint64(0)
		for c.head < len(c.window) && (c.window[c.head] == kind || c.window[c.head] == kind.told()) {
			if c.window[c.head] != kind.told() {
				untold++
				last = c.base
			}
			c.head++
			c.base++
		}
		dst = c.append(dst, kind, last, untold, n)
	}
	if c.head == len(c.window) {
		c.window, c.head, c.loose = c.window[:0], 0, c.loose[:0]
		if cap(c.window) > 4*looseMax {
			c.window, c.loose = nil, nil
		}
	}
	if len(c.loose) > looseMax {
		return c.appendLoose(dst, n), false
	}
	return dst, len(c.loose) > 0
}

// collectLoose appends a frame for each that is decided beyond a gap.
func (c *confirms) collectLoose(dst []byte, n *counters) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		return dst
	}
	return c.appendLoose(dst, n)
}

func (c *confirms) appendLoose(dst []byte, n *counters) []byte {
	for _, tag := range c.loose {
		if tag < c.base {
			continue // a multiple has covered it
		}
		at := &c.window[c.head+int(tag-c.base)]
		dst = c.append(dst, *at, tag, 1, n)
		*at = at.told()
	}
	c.loose = c.loose[:0]
	return dst
}

// append appends one ack or nack for untold tags of which tag is the last.
func (c *confirms) append(dst []byte, kind confirmState, tag uint64, untold int, n *counters) []byte {
	switch {
	case untold == 0:
		return dst
	case kind == confirmNack:
		n.rejected.Add(uint64(untold))
		return wire.AppendNack(dst, c.ch.number, tag, untold > 1, false)
	}
	n.confirmed.Add(uint64(untold))
	return wire.AppendAck(dst, c.ch.number, tag, untold > 1)
}
