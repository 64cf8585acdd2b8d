// Package amqptest has what tests of the AMQP front door need: a Broker in
// memory and a client that speaks frame by frame. It knows neither
// replication nor persistence, and its Broker does only as much as clients'
// scripts need.
package amqptest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"warren/amqp"
	"warren/mq"
)

// Broker is a broker in memory: direct, fanout and topic exchanges, queues,
// consumers with prefetch. Safe for concurrent use.
type Broker struct {
	// Before, if set, is called before each Session.Change, Consume, Get and
	// Publish with its name; its error is the answer, and it may block.
	Before func(ctx context.Context, call string) error
	// Alarm, if set, says why the next publish waits, and returns when it need
	// not any more.
	Alarm func(waits func(reason string))

	mu        sync.Mutex
	queues    map[string]*queue
	exchanges map[string]*exchange
	sessions  map[*session]struct{}
	nextID    uint64
	hold      bool // confirms wait for Decide
	held      []heldConfirm
	drained   int
	settled   []mq.Verdict
	flushes   int
}

type heldConfirm struct {
	to  mq.Confirmer
	tag uint64
}

type exchange struct {
	kind     string
	internal bool
	bindings []binding
}

type binding struct{ queue, key string }

// New returns a Broker with the user guest, the vhost / and amq.direct,
// amq.fanout and amq.topic.
func New() *Broker {
	return &Broker{
		queues: map[string]*queue{}, sessions: map[*session]struct{}{},
		exchanges: map[string]*exchange{
			"amq.direct": {kind: "direct"}, "amq.fanout": {kind: "fanout"}, "amq.topic": {kind: "topic"},
		},
	}
}

// Login implements amqp.Broker: guest, or any user whose password is his name.
func (b *Broker) Login(_ context.Context, c mq.Credentials) (string, error) {
	if c.User == "" || c.User != c.Password {
		return "", mq.Errorf(mq.AccessRefused, "%s login refused: user '%s' - invalid credentials", c.Mechanism, c.User)
	}
	if c.User == "panic" {
		panic("asked for")
	}
	return c.User, nil
}

// Open implements amqp.Broker.
func (b *Broker) Open(_ context.Context, user, vhost string, forced func(*mq.Error)) (amqp.Session, error) {
	if vhost != "/" {
		return nil, mq.Errorf(mq.NotAllowed, "vhost %s not found", vhost)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &session{broker: b, user: user, forced: forced, consumers: map[mq.ConsumerID]*consumer{}}
	b.sessions[s] = struct{}{}
	return s, nil
}

// HoldConfirms makes publishes wait for Decide.
func (b *Broker) HoldConfirms() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold = true
}

// Waiting is how many publishes wait for Decide.
func (b *Broker) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.held)
}

// Decide gives the outcome of the publish with the given tag.
func (b *Broker) Decide(tag uint64, o mq.Outcome) {
	b.mu.Lock()
	var to mq.Confirmer
	for i, h := range b.held {
		if h.tag == tag {
			to = h.to
			b.held = append(b.held[:i], b.held[i+1:]...)
			break
		}
	}
	b.mu.Unlock()
	if to == nil {
		panic(fmt.Sprintf("no publish %d waits", tag))
	}
	to.Confirm(tag, o)
}

// Sessions is how many connections are open.
func (b *Broker) Sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// Drained is how many messages clients' sockets took.
func (b *Broker) Drained() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drained
}

// Settled are the verdicts of all settlements so far, one for each message.
func (b *Broker) Settled() []mq.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]mq.Verdict(nil), b.settled...)
}

// Ready is how many messages of a queue wait for a consumer.
func (b *Broker) Ready(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[name]; q != nil {
		return len(q.ready)
	}
	return 0
}

// TakeBack takes from the consumers of a queue all that they hold, as a
// consumer timeout does, and hands it out again.
func (b *Broker) TakeBack(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[name]
	taken := map[*consumer][]mq.Seq{}
	for seq, u := range q.out {
		if u.consumer != nil {
			taken[u.consumer] = append(taken[u.consumer], seq)
		}
	}
	for c, seqs := range taken {
		for _, seq := range seqs {
			q.settle(seq, mq.Requeue)
		}
		c.to.(mq.Recaller).Recalled(seqs)
	}
	q.dispatch()
}

// Force asks every connection to close.
func (b *Broker) Force(e *mq.Error) {
	b.mu.Lock()
	var all []func(*mq.Error)
	for s := range b.sessions {
		all = append(all, s.forced)
	}
	b.mu.Unlock()
	for _, f := range all {
		f(e)
	}
}

// change carries out an op. mu is held.
func (b *Broker) change(s *session, op mq.Op) (mq.Reply, error) {
	switch op := op.(type) {
	case mq.QueueDeclare:
		return b.declareQueue(s, op)
	case mq.QueueDelete:
		q := b.queues[op.Name]
		if q == nil {
			return mq.Reply{}, nil
		}
		if op.IfEmpty && len(q.ready) > 0 {
			return mq.Reply{}, mq.Errorf(mq.PreconditionFailed, "queue '%s' in vhost '/' not empty", op.Name)
		}
		return mq.Reply{Messages: uint32(len(q.ready))}, b.deleteQueue(q)
	case mq.QueuePurge:
		q, err := b.queue(op.Name)
		if err != nil {
			return mq.Reply{}, err
		}
		n := len(q.ready)
		q.ready = nil
		return mq.Reply{Messages: uint32(n)}, nil
	case mq.QueueBind:
		if _, err := b.queue(op.Queue); err != nil {
			return mq.Reply{}, err
		}
		x, err := b.exchange(op.Exchange)
		if err == nil {
			x.bindings = append(x.bindings, binding{op.Queue, op.RoutingKey})
		}
		return mq.Reply{}, err
	case mq.ExchangeDeclare:
		if _, err := b.exchange(op.Name); err != nil && op.Passive {
			return mq.Reply{}, err
		} else if err != nil {
			b.exchanges[op.Name] = &exchange{kind: op.Type, internal: op.Internal}
		}
	case mq.ExchangeDelete:
		delete(b.exchanges, op.Name)
	}
	return mq.Reply{}, nil
}

func (b *Broker) declareQueue(s *session, op mq.QueueDeclare) (mq.Reply, error) {
	q := b.queues[op.Name]
	switch {
	case q == nil && op.Passive:
		return mq.Reply{}, noQueue(op.Name)
	case q != nil && q.owner != nil && q.owner != s:
		return mq.Reply{}, mq.Errorf(mq.ResourceLocked, "cannot obtain exclusive access to locked queue '%s' in vhost '/'", op.Name)
	case q == nil:
		if op.Name == "" {
			b.nextID++
			op.Name = fmt.Sprintf("amq.gen-%d", b.nextID)
		}
		b.nextID++
		q = &queue{broker: b, name: op.Name, id: mq.QueueID(b.nextID), out: map[mq.Seq]unsettled{}}
		if op.Exclusive {
			q.owner = s
		}
		b.queues[op.Name] = q
	}
	return mq.Reply{Queue: q.name, Messages: uint32(len(q.ready)), Consumers: uint32(len(q.consumers))}, nil
}

func (b *Broker) deleteQueue(q *queue) error {
	delete(b.queues, q.name)
	for _, c := range q.consumers {
		delete(c.session.consumers, c.id)
		go c.to.Cancelled(mq.Errorf(mq.NotFound, "queue '%s' is gone", q.name)) // it must not see our lock
	}
	return nil
}

func (b *Broker) queue(name string) (*queue, error) {
	if q := b.queues[name]; q != nil {
		return q, nil
	}
	return nil, noQueue(name)
}

func noQueue(name string) error {
	return mq.Errorf(mq.NotFound, "no queue '%s' in vhost '/'", name)
}

func (b *Broker) exchange(name string) (*exchange, error) {
	if x := b.exchanges[name]; x != nil {
		return x, nil
	}
	return nil, mq.Errorf(mq.NotFound, "no exchange '%s' in vhost '/'", name)
}

// route returns the queues of a message. mu is held.
func (b *Broker) route(name, key string) ([]*queue, error) {
	if name == "" {
		if q := b.queues[key]; q != nil {
			return []*queue{q}, nil
		}
		return nil, nil
	}
	x, err := b.exchange(name)
	if err != nil {
		return nil, err
	}
	var to []*queue
	for _, bind := range x.bindings {
		if q := b.queues[bind.queue]; q != nil && matches(x.kind, bind.key, key) {
			to = append(to, q)
		}
	}
	return to, nil
}

func matches(kind, pattern, key string) bool {
	switch kind {
	case "fanout":
		return true
	case "topic":
		return topic(strings.Split(pattern, "."), strings.Split(key, "."))
	}
	return pattern == key
}

func topic(pattern, words []string) bool {
	switch {
	case len(pattern) == 0:
		return len(words) == 0
	case pattern[0] == "#":
		return topic(pattern[1:], words) || len(words) > 0 && topic(pattern, words[1:])
	}
	return len(words) > 0 && (pattern[0] == "*" || pattern[0] == words[0]) && topic(pattern[1:], words[1:])
}
