package amqp

import (
	"sync"
	"sync/atomic"

	"warren/amqp/wire"
	"warren/mq"
)

// plainBytesMax is how much may wait for the socket that no link credit
// bounds: replies, returns, got messages. Beyond it the reader waits.
const plainBytesMax = 1 << 20

// itemBytes is what an item counts for besides its content.
const itemBytes = 128

// Rooms for items that a connection keeps while it is busy, and while idle.
const (
	busyItems = 1024
	idleItems = 32
)

// outbox is the mailbox of a connection's writer: all that goes to the client,
// in order. Deliveries in it are bounded by the link credit of their
// consumers, confirms by one item for each channel, the rest by plainBytesMax.
//
// Its mutex also guards what depends on the order of deliveries: each
// channel's ledger. So a delivery gets its tag and its place in one step.
type outbox struct {
	wake  chan struct{} // size 1; a full one says what is to be said
	plain atomic.Int64  // bytes that no link credit bounds

	mu    sync.Mutex // guards all below, and ledgers
	room  sync.Cond  // on mu: plain has shrunk, or dead
	items []item
	spare []item // the writer's last batch, emptied
	idle  bool   // the writer sleeps until wake
	shut  bool   // the connection's last method is in; nothing follows
	done  bool   // the writer is to end when items is empty
	dead  bool   // the socket takes no more
}

type itemKind uint8

const (
	itemMethod itemKind = iota
	itemDeliver
	itemGetOk
	itemReturn   // tag, if any, is confirmed after it
	itemConfirms // whatever the channel's confirms have
	itemDropped  // a delivery that the client does not get after all: its link credit goes back
)

type item struct {
	kind        itemKind
	redelivered bool
	noAck       bool // of itemGetOk
	channel     uint16
	remaining   uint32
	tag         uint64
	link        mq.ConsumerID
	content     mq.Content
	consumer    *consumer
	confirms    *confirms
	method      wire.Method
}

func newOutbox() *outbox {
	o := &outbox{wake: make(chan struct{}, 1)}
	o.room.L = &o.mu
	return o
}

// add appends an item. mu is held.
func (o *outbox) add(it item) {
	if o.shut || o.dead {
		return
	}
	switch it.kind {
	case itemMethod, itemGetOk, itemReturn:
		o.plain.Add(itemBytes + int64(len(it.content)))
	}
	o.items = append(o.items, it)
	o.rouse()
}

// rouse wakes the writer if it sleeps. mu is held.
func (o *outbox) rouse() {
	if !o.idle {
		return
	}
	o.idle = false
	select {
	case o.wake <- struct{}{}:
	default: // it was woken by its clock and has not seen the last one
	}
}

// method queues a method whatever the state of its channel.
func (o *outbox) method(channel uint16, m wire.Method) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.add(item{channel: channel, method: m})
}

// last queues the connection's last method, after which nothing is taken.
func (o *outbox) last(m wire.Method) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = false // a close-ok may follow our own close
	o.add(item{method: m})
	o.shut = true
	o.room.Broadcast() // nobody need wait to say more
}

// reply queues a method on a channel, unless the channel has closed.
func (o *outbox) reply(ch *channel, m wire.Method) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ch.ledger.closed {
		o.add(item{channel: ch.number, method: m})
	}
}

// closing queues the last method of a channel: our close, or the answer to the
// client's. From then on deliveries for it go to its orphans.
func (o *outbox) closing(ch *channel, m wire.Method) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ch.ledger.closed {
		return
	}
	ch.ledger.closed = true
	o.add(item{channel: ch.number, method: m, confirms: ch.confirms})
}

// giveBack queues a basic.return of an unroutable message, and after it the
// confirm of tag, if there is one.
func (o *outbox) giveBack(ch *channel, content mq.Content, tag uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !ch.ledger.closed {
		o.add(item{kind: itemReturn, channel: ch.number, content: content, tag: tag, confirms: ch.confirms})
	}
}

// confirmsReady says that c has something to tell.
func (o *outbox) confirmsReady(c *confirms) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !c.ch.ledger.closed {
		o.add(item{kind: itemConfirms, channel: c.ch.number, confirms: c})
	}
}

// waitRoom blocks while too much that is not deliveries waits for the socket.
func (o *outbox) waitRoom() {
	if o.plain.Load() <= plainBytesMax {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.plain.Load() > plainBytesMax && !o.dead && !o.shut {
		o.room.Wait()
	}
}

// take swaps the filled mailbox for the empty last batch. parked means that
// there is nothing and the caller must wait on wake; over, that nothing will
// come.
func (o *outbox) take(last []item, park bool) (batch []item, parked, over bool) {
	clear(last) // drop what the items point to
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(last) > 0 && cap(last) <= busyItems {
		o.spare = last[:0]
	}
	if o.dead {
		return nil, false, true
	}
	if len(o.items) == 0 {
		if o.idle = park && !o.done; o.idle && max(cap(o.items), cap(o.spare)) > idleItems {
			o.items, o.spare = nil, nil
		}
		return nil, o.idle, o.done
	}
	batch, o.items, o.spare = o.items, o.spare, nil
	return batch, false, false
}

// written says that n bytes which no link credit bounds were encoded.
func (o *outbox) written(n int64) {
	if n == 0 {
		return
	}
	if o.plain.Add(-n) <= plainBytesMax && o.plain.Load()+n > plainBytesMax {
		o.mu.Lock()
		o.room.Broadcast()
		o.mu.Unlock()
	}
}

// finish makes the writer end once it has written everything.
func (o *outbox) finish() { o.end(&o.done) }

// kill makes the writer end at once; what is queued is dropped.
func (o *outbox) kill() { o.end(&o.dead) }

func (o *outbox) end(how *bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	*how = true
	o.room.Broadcast()
	o.rouse()
}
