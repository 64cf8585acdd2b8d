package broker

import (
	"cmp"
	"slices"
	"sync"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// consumer is a consumer on its home node. It outlives the leaders of its
// queue: each new one is told of it, and of what it holds.
type consumer struct {
	id      mq.ConsumerID
	session *Session
	queue   *meta.Queue
	spec    mq.ConsumeSpec
	sink    mq.Sink // nil for the holder of what basic.get took

	mu sync.Mutex
	// timeoutMs is how long it may hold a delivery; 0 means for ever. Guarded by
	// mu: it changes with the queue's policies.
	timeoutMs uint64
	prefetch  uint32 // spec's, until basic.qos changes it; guarded by mu
	held      held   // guarded by mu
	waiting   arrivals
	attached  bool // a leader has taken it, and the next one must
	ended     bool // no delivery may reach the sink any more
	leaving   bool // being cancelled: a new leader need not attach it

	// passing is held while something that has waited is handed on: it is not
	// recalled between being held and being the sink's.
	passing sync.Mutex
}

// deliver hands one message on, behind what waits, unless the consumer has
// ended. Calls do not overlap: only the present leader's frames come this far,
// one at a time.
func (c *consumer) deliver(d mq.Delivery) bool {
	c.mu.Lock()
	wanted := !c.ended && c.sink != nil
	waits := len(c.waiting.line) > 0
	switch {
	case !wanted:
	case waits:
		c.waiting.add(newArrival(d, nil))
	case !c.spec.NoAck:
		c.held.add(d.Seq)
	}
	c.mu.Unlock()
	if wanted && !waits {
		c.hand(d)
	}
	return wanted
}

// hand gives a message to the sink.
func (c *consumer) hand(d mq.Delivery) {
	if c.session.traced.Load() {
		c.session.traceOut(c.queue.Name, &d)
	}
	c.sink.Deliver(d) // without mu: the sink has a lock of its own, which is held around settlements
}

// keep notes a message that basic.get took.
func (c *consumer) keep(seq mq.Seq) {
	c.mu.Lock()
	c.held.add(seq)
	c.mu.Unlock()
}

// release forgets settled messages.
func (c *consumer) release(first, last mq.Seq) {
	c.mu.Lock()
	for s := first; s <= last; s++ {
		c.held.remove(s)
	}
	c.mu.Unlock()
}

// leave marks the consumer as being cancelled.
func (c *consumer) leave() {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
}

// take marks the consumer as attached.
func (c *consumer) take() {
	c.mu.Lock()
	c.attached = true
	c.mu.Unlock()
}

// resize changes how many deliveries the client may hold unsettled.
func (c *consumer) resize(prefetch uint32) {
	c.mu.Lock()
	c.prefetch = prefetch
	c.mu.Unlock()
}

// mayHold is how many deliveries the client may hold, and each for how long.
func (c *consumer) mayHold() (prefetch uint32, timeoutMs uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prefetch, c.timeoutMs
}

// leftover is what its leader is to forget.
func (c *consumer) leftover() leftover {
	c.mu.Lock()
	defer c.mu.Unlock()
	return leftover{c.queue.Group, c.queue.ID, c.id, c.attached}
}

// end stops deliveries and says whether it was this call that did, and what was
// still waiting. That is not held here, but its leader may think so.
func (c *consumer) end() (ended bool, waited []*arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.ended
	c.ended = true
	return !was, c.waiting.drop(c.session.broker)
}

// state is what a new leader has to know.
func (c *consumer) state() (attach bool, held []mq.Seq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sink != nil && c.attached && !c.ended && !c.leaving, c.held.all()
}

// idle reports whether an ended consumer holds nothing any more.
func (c *consumer) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended && c.held.live == 0
}

// consumers is the registry of one node.
type consumers struct {
	mu      sync.RWMutex
	next    mq.ConsumerID
	byID    map[mq.ConsumerID]*consumer
	byGroup map[mq.GroupID]map[mq.ConsumerID]*consumer
}

func newConsumers() *consumers {
	return &consumers{byID: map[mq.ConsumerID]*consumer{}, byGroup: map[mq.GroupID]map[mq.ConsumerID]*consumer{}}
}

func (r *consumers) add(c *consumer) {
	c.id = r.number()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[c.id] = c
	g := r.byGroup[c.queue.Group]
	if g == nil {
		g = map[mq.ConsumerID]*consumer{}
		r.byGroup[c.queue.Group] = g
	}
	g[c.id] = c
}

// number names a consumer.
func (r *consumers) number() mq.ConsumerID {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	return r.next
}

func (r *consumers) remove(c *consumer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, c.id)
	if g := r.byGroup[c.queue.Group]; g != nil {
		delete(g, c.id)
		if len(g) == 0 {
			delete(r.byGroup, c.queue.Group)
		}
	}
}

func (r *consumers) get(id mq.ConsumerID) *consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

// of lists the consumers on queues of a group, the oldest first: under a new
// leader too the oldest one is the next single active consumer.
func (r *consumers) of(g mq.GroupID) []*consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*consumer, 0, len(r.byGroup[g]))
	for _, c := range r.byGroup[g] {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *consumer) int { return cmp.Compare(a.id, b.id) })
	return out
}

// on lists the consumers on some queues.
func (r *consumers) on(queues map[mq.QueueID]bool) []*consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*consumer
	for _, c := range r.byID {
		if queues[c.queue.ID] {
			out = append(out, c)
		}
	}
	return out
}

// onQueue lists the consumers on one queue.
func (r *consumers) onQueue(q *meta.Queue) []*consumer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*consumer
	for _, c := range r.byGroup[q.Group] {
		if c.queue.ID == q.ID {
			out = append(out, c)
		}
	}
	return out
}

// attached is a consumer on the way to a leader.
type attached struct {
	dispatch.Consumer
	queue mq.QueueID
}

func appendAttached(b []byte, c *consumer) []byte {
	prefetch, timeoutMs := c.mayHold()
	b = fields.AppendUint(b, uint64(c.id))
	b = fields.AppendUint(b, uint64(prefetch))
	b = fields.AppendBool(b, c.spec.NoAck)
	b = fields.AppendBool(b, c.spec.Exclusive)
	b = fields.AppendInt(b, int64(c.spec.Priority))
	return fields.AppendUint(b, timeoutMs)
}

func parseAttachedOne(p *parser) (a attached) {
	a.Consumer.Key.Consumer = mq.ConsumerID(p.Uint())
	a.Prefetch = uint32(p.Uint())
	a.NoAck, a.Exclusive = p.Bool(), p.Bool()
	a.Priority = int32(p.Int())
	a.Patience = patience(p.Uint())
	return a
}

// parseAttached reads a list of consumers, each with its queue.
func parseAttached(p *parser) []attached {
	var out []attached
	for range p.Count() {
		q := mq.QueueID(p.Uint())
		a := parseAttachedOne(p)
		a.queue = q
		out = append(out, a)
	}
	return out
}

// heldBy is what one consumer holds of one queue.
type heldBy struct {
	queue    mq.QueueID
	consumer mq.ConsumerID
	seqs     []mq.Seq
}

func appendHeld(b []byte, q mq.QueueID, c mq.ConsumerID, seqs []mq.Seq) []byte {
	b = fields.AppendUint(b, uint64(q))
	b = fields.AppendUint(b, uint64(c))
	b = fields.AppendUint(b, uint64(len(seqs)))
	var last mq.Seq
	for _, s := range seqs { // as differences: mostly one byte each
		b = fields.AppendInt(b, int64(s)-int64(last))
		last = s
	}
	return b
}

func parseHeld(p *parser) []heldBy {
	var out []heldBy
	for range p.Count() {
		h := heldBy{queue: mq.QueueID(p.Uint()), consumer: mq.ConsumerID(p.Uint())}
		var last int64
		n := p.Count()
		h.seqs = make([]mq.Seq, 0, n)
		for range n {
			last += p.Int()
			h.seqs = append(h.seqs, mq.Seq(last))
		}
		out = append(out, h)
	}
	return out
}
