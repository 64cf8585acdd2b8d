package broker

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strconv"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
	"warren/storage/segment"
)

// An exchange of type x-delayed-message keeps a message that asks for a delay,
// and routes it, by the type in x-delayed-type, when the delay is over. The
// time is a wall clock time that the home node of the publisher computes; the
// log only carries it, and the leader acts on it: it publishes the message
// like a dead letter, at least once, and drops it when its queues have it.
const (
	delayedType = "x-delayed-type"
	delayHeader = "x-delay"
	// delayMsMax is the longest delay; a message that asks for more is not
	// delayed at all (RabbitMQ's plugin likewise).
	delayMsMax = 1<<32 - 1
	// delayedShownMax is how many delayed messages are listed at once.
	delayedShownMax = 1000
)

// delayOver is why a message leaves the queue of its delayed exchange.
const delayOver reason = "delayed"

// delayOf is the delay that a message asks for in its headers.
func delayOf(headers mq.Table) (ms int64, ok bool) {
	v, _ := headers.Get(delayHeader)
	ms, ok = mq.Int(v)
	if s, isString := v.(string); isString {
		n, err := strconv.ParseInt(s, 10, 64)
		ms, ok = n, err == nil
	}
	return ms, ok && ms > 0 && ms <= delayMsMax
}

// delaying are the messages of a delayed exchange by when they are due: 16
// bytes for each.
type delaying struct {
	heap   delays // only a list until sorted
	known  bool   // all that was there when this leader began are in it
	sorted bool
}

// delays are messages by when they are due, in a heap.
type delays []delayed

type delayed struct {
	dueMs int64
	seq   mq.Seq
}

func (d delays) Len() int           { return len(d) }
func (d delays) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d delays) Less(i, j int) bool { return d[i].before(d[j]) }

// before is also the order of those that are due together: as published.
func (d delayed) before(e delayed) bool {
	return d.dueMs < e.dueMs || d.dueMs == e.dueMs && d.seq < e.seq
}

// Push and Pop are heap's.
func (d *delays) Push(x any) { *d = append(*d, x.(delayed)) }

func (d *delays) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// add notes a message that came in.
func (d *delaying) add(x delayed) {
	if d.sorted {
		heap.Push(&d.heap, x)
		return
	}
	d.heap = append(d.heap, x)
}

// newDelays finds out when the messages of a queue are due.
func (s *Shard) newDelays(q *ledQueue) *delaying {
	d := &delaying{}
	s.scan(q, func(seq mq.Seq, r *segment.Record) { d.heap = append(d.heap, delayed{r.ExpiryMs, seq}) }, &d.known)
	return d
}

// releaseDue sends on what is due, and watches what is due next. Runs with mu
// held.
func (s *Shard) releaseDue(q *ledQueue, st *queue.Queue) {
	if q.delays == nil {
		q.delays = s.newDelays(q)
	}
	d := q.delays
	if !d.known {
		return // touched when it is: they go in the order in which they are due
	}
	if !d.sorted {
		heap.Init(&d.heap)
		d.sorted = true
	}
	now := s.nowMs()
	for len(d.heap) > 0 {
		next := d.heap[0]
		switch {
		case !st.Live(next.seq) || q.d.Held(next.seq): // cancelled
			heap.Pop(&d.heap)
		case next.dueMs > now:
			s.lead.expiries.set(q, next.dueMs)
			return
		case q.d.Withdrawn() >= withdrawnMax: // some have to arrive first: their settling touches the queue
			s.lead.expiries.set(q, 0)
			return
		default:
			heap.Pop(&d.heap)
			s.leave(q, next.seq, delayOver)
		}
	}
	s.lead.expiries.set(q, 0)
}

// undelay makes the message that goes on from a delayed exchange. As its sign
// of that, the delay in its headers is negative, and so no exchange on its way
// delays it once more.
func undelay(q *meta.Queue, flags uint8, c mq.Content) (burial, error) {
	p, err := wire.ParseProperties(c.Properties())
	if err != nil {
		return burial{}, fmt.Errorf("properties of a delayed message: %w", err)
	}
	b := burial{exchange: q.Name, keys: routingKeys(c, p.Headers), flags: flags, ttlMs: -1}
	blind, _ := p.Headers.Get(blindCarbonCopy)
	if list, ok := blind.([]any); ok { // it has waited for this
		b.keys = appendKeys(b.keys, list)
		p.Headers = slices.DeleteFunc(slices.Clone(p.Headers), func(f mq.Field) bool { return f.Key == blindCarbonCopy })
	}
	if p.Has(wire.HasExpiration) {
		if ms, err := strconv.ParseInt(p.Expiration, 10, 64); err == nil && ms >= 0 {
			b.ttlMs = ms // from now on
		}
	}
	p.Headers = slices.Clone(p.Headers)
	for i := range p.Headers {
		if p.Headers[i].Key == delayHeader {
			p.Headers[i].Value = negative(p.Headers[i].Value)
		}
	}
	properties := wire.AppendProperties(nil, p)
	b.content = append(mq.NewContent(string(c.Exchange()), string(c.RoutingKey()), properties, len(c.Body())), c.Body()...)
	return b, nil
}

// negative is a delay with its sign changed; unsigned numbers become signed.
func negative(v any) any {
	if s, ok := v.(string); ok {
		return "-" + s
	}
	n, _ := mq.Int(v)
	return -n
}

// Delayed is a message that waits in a delayed exchange.
type Delayed struct {
	Seq        mq.Seq // its name there
	DueMs      int64  // wall clock, milliseconds since 1970
	Exchange   string // that it was published to
	RoutingKey string
	BodyBytes  uint64
}

// Delayed lists messages that wait in a delayed exchange, in the order in
// which they were published, from seq from on and at most delayedShownMax (1000)
// of them: the caller goes on after the last one. 404 if there is no such exchange.
func (b *Broker) Delayed(ctx context.Context, vhost, exchange string, from mq.Seq) ([]Delayed, error) {
	q, err := b.keeper(vhost, exchange, meta.KeepsDelayed)
	if err != nil {
		return nil, err
	}
	r, err := b.callLeader(ctx, callDelayed, q.Group, fields.AppendUint(fields.AppendUint(nil, uint64(q.ID)), uint64(from)))
	if err != nil {
		return nil, err
	}
	p := parser{fields.Read(r)}
	var all []Delayed
	for p.More() && p.Err() == nil {
		all = append(all, Delayed{mq.Seq(p.Uint()), p.Int(), p.Text(), p.Text(), p.Uint()})
	}
	return all, p.Err()
}

// listDelayed answers Delayed. What is on its way already is not listed.
func (s *Shard) listDelayed(a asked, rec *meta.Queue, p *parser) {
	from := mq.Seq(p.Uint())
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	q := s.queue(rec)
	var out []byte
	n := 0
	s.list(q, a, func() bool {
		st := s.state.Queue(rec.ID)
		if st == nil {
			a.ok(out)
			return true
		}
		for seq, ok := st.Next(from); ok && n < delayedShownMax; seq, ok = st.Next(seq + 1) {
			from = seq + 1
			if q.d.Held(seq) {
				continue
			}
			if !s.bodies.Here(uint64(q.id), uint64(seq)) {
				from = seq
				return false
			}
			n++
			r := s.record(q, seq)
			c := mq.Content(r.Body)
			out = fields.AppendInt(fields.AppendUint(out, uint64(seq)), r.ExpiryMs)
			out = fields.AppendBytes(fields.AppendBytes(out, c.Exchange()), c.RoutingKey())
			out = fields.AppendUint(out, uint64(len(c.Body())))
		}
		a.ok(out)
		return true
	})
}

// CancelDelayed takes a message out of a delayed exchange, for good, and says
// whether it was still waiting there. 404 if there is no such exchange.
func (b *Broker) CancelDelayed(ctx context.Context, vhost, exchange string, seq mq.Seq) (cancelled bool, err error) {
	q, err := b.keeper(vhost, exchange, meta.KeepsDelayed)
	if err != nil {
		return false, err
	}
	r, err := b.callLeader(ctx, callCancelDelayed, q.Group, fields.AppendUint(fields.AppendUint(nil, uint64(q.ID)), uint64(seq)))
	if err != nil {
		return false, err
	}
	p := parser{fields.Read(r)}
	return p.Bool(), p.Err()
}

// cancelDelayed answers CancelDelayed, when the message is gone for good. The
// question may be asked twice: what it cancelled the first time it answers
// then as not waiting.
func (s *Shard) cancelDelayed(a asked, rec *meta.Queue, p *parser) {
	seq := mq.Seq(p.Uint())
	st := s.state.Queue(rec.ID)
	switch {
	case p.Err() != nil:
		a.fail(errFrame)
		return
	case !s.lead.opened:
		a.tryAgain()
		return
	case st == nil || !st.Live(seq) || s.queue(rec).d.Held(seq):
		a.ok(fields.AppendBool(nil, false))
		return
	}
	q := s.queue(rec)
	q.d.Withdraw(seq)
	q.drop(seq)
	if q.cancels == nil {
		q.cancels = map[mq.Seq]asked{}
	}
	q.cancels[seq] = a
	s.settleDropped(q)
}

// cancelled answers those whose messages an entry has settled.
func (q *ledQueue) cancelled(first, last mq.Seq) {
	for seq, a := range q.cancels {
		if first <= seq && seq <= last {
			delete(q.cancels, seq)
			a.ok(fields.AppendBool(nil, true))
		}
	}
}
