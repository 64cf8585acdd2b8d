package broker

import (
	"context"
	"math"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

// closeWait is how long the end of a session waits for its exclusive queues
// to go.
const closeWait = 5 * time.Second

// Session is one client connection. Its methods may be called from several
// goroutines at once.
type Session struct {
	broker   *Broker
	vhost    string
	user     string
	conn     uint64
	topology *Topology
	forced   func(*mq.Error)
	routes   routeCache

	mu        sync.Mutex
	touched   []*outbox // Publish and Settle put something in since Flush
	consumers map[mq.ConsumerID]*consumer
	getters   map[mq.QueueID]*consumer // holders of what basic.get took
	exclusive []mq.QueueID
	closed    bool
}

// Login checks who a client is.
func (b *Broker) Login(ctx context.Context, c mq.Credentials) (string, error) {
	return Login(ctx, b, c, b.loopback)
}

// Open begins a session in a vhost.
func (b *Broker) Open(ctx context.Context, user, vhost string, forced func(*mq.Error)) (*Session, error) {
	if err := CheckVHost(ctx, b, user, vhost); err != nil {
		return nil, err
	}
	s := &Session{
		broker: b, vhost: vhost, user: user, forced: forced,
		consumers: map[mq.ConsumerID]*consumer{}, getters: map[mq.QueueID]*consumer{},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, mq.Errorf(mq.ConnectionForced, "broker forced connection closure with reason 'shutdown'")
	}
	b.conns++
	s.conn = b.conns
	who := Identity{User: user, VHost: vhost, Conn: s.conn, Session: func() mq.SessionID { _, r := b.run(); return r }}
	s.topology = NewTopology(b, b, b, who)
	b.sessions[s] = struct{}{}
	return s, nil
}

// Change carries out a topology change.
func (s *Session) Change(ctx context.Context, op mq.Op) (mq.Reply, error) {
	r, err := s.topology.Change(ctx, op)
	if d, ok := op.(mq.QueueDeclare); ok && err == nil && d.Exclusive && !d.Passive {
		if q := s.broker.View().Queue(s.vhost, r.Queue); q != nil {
			s.mu.Lock()
			s.exclusive = append(s.exclusive, q.ID)
			s.mu.Unlock()
		}
	}
	return r, err
}

// touch notes an outbox for Flush.
func (s *Session) touch(o *outbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.touched {
		if t == o {
			return
		}
	}
	s.touched = append(s.touched, o)
}

// Flush sends what Publish and Settle gathered.
func (s *Session) Flush() {
	s.mu.Lock()
	if len(s.touched) == 0 {
		s.mu.Unlock()
		return
	}
	touched := s.touched
	s.touched = nil
	s.mu.Unlock()
	for _, o := range touched {
		o.flush()
	}
	s.mu.Lock()
	if s.touched == nil {
		clear(touched)
		s.touched = touched[:0]
	}
	s.mu.Unlock()
}

// Consume starts a consumer.
func (s *Session) Consume(ctx context.Context, spec mq.ConsumeSpec, to mq.Sink) (mq.ConsumerID, error) {
	q, err := s.topology.Readable(ctx, spec.Queue)
	if err != nil {
		return 0, err
	}
	c := &consumer{session: s, queue: q, spec: spec, sink: to}
	s.broker.consumers.add(c)
	s.mu.Lock()
	s.consumers[c.id] = c
	s.mu.Unlock()
	for {
		_, session := s.broker.run()
		body := appendUint(appendUint(nil, uint64(q.ID)), uint64(session))
		if _, err = s.broker.callLeader(ctx, callAttach, q.Group, appendAttached(body, c)); err == nil {
			return c.id, nil
		}
		if _, now := s.broker.run(); now == session || ctx.Err() != nil {
			break
		}
	}
	s.forget(c)
	if ctx.Err() != nil { // nobody knows whether it was attached
		go s.detach(context.WithoutCancel(ctx), c, true)
	}
	return 0, err
}

// forget ends a consumer on this node.
func (s *Session) forget(c *consumer) {
	c.end()
	s.broker.consumers.remove(c)
	s.mu.Lock()
	delete(s.consumers, c.id)
	s.mu.Unlock()
}

// detach tells the leader that a consumer has ended.
func (s *Session) detach(ctx context.Context, c *consumer, requeue bool) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	_, session := s.broker.run()
	body := appendUint(appendUint(nil, uint64(c.queue.ID)), uint64(session))
	body = appendBool(appendUint(body, uint64(c.id)), requeue)
	_, err := s.broker.callLeader(ctx, callDetach, c.queue.Group, body)
	return err
}

// Cancel ends a consumer; what its client holds stays with it until settled.
func (s *Session) Cancel(ctx context.Context, id mq.ConsumerID) error {
	s.mu.Lock()
	c := s.consumers[id]
	s.mu.Unlock()
	if c == nil {
		return nil // its queue was deleted: it has ended already
	}
	c.leave()
	err := s.detach(ctx, c, false)
	c.end()
	s.tidy(c)
	if e, ok := err.(*mq.Error); ok && e.Code == mq.NotFound {
		return nil
	}
	return err
}

// tidy forgets a cancelled consumer once nothing is held by it.
func (s *Session) tidy(c *consumer) {
	if c.idle() {
		s.forget(c)
	}
}

// Get takes one message.
func (s *Session) Get(ctx context.Context, queue string, noAck bool) (mq.Delivery, bool, error) {
	var d mq.Delivery
	q, err := s.topology.Readable(ctx, queue)
	if err != nil {
		return d, false, err
	}
	if singleActive(q) {
		return d, false, mq.Errorf(mq.ResourceLocked, "cannot obtain access to locked queue '%s' in vhost '%s'. basic.get operations are not supported by queues with single active consumer", q.Name, q.VHost)
	}
	c := s.getter(q)
	_, session := s.broker.run()
	body := appendUint(appendUint(nil, uint64(q.ID)), uint64(session))
	body = appendBool(appendUint(body, uint64(c.id)), noAck)
	r, err := s.broker.callLeader(ctx, callGet, q.Group, body)
	if err != nil {
		return d, false, err
	}
	p := parser{b: r}
	if !p.bool() {
		return d, false, nil
	}
	d = mq.Delivery{Consumer: c.id, Group: q.Group, Queue: q.ID, Seq: mq.Seq(p.uint()), Redelivered: p.bool(), Remaining: uint32(min(p.uint(), math.MaxUint32))}
	content, ok := mq.ParseContent(p.b)
	if !ok || p.err != nil {
		return d, false, errFrame
	}
	d.Content = content
	if !noAck {
		c.keep(d.Seq)
	}
	return d, true, nil
}

// getter is the holder of what this session takes from q by basic.get.
func (s *Session) getter(q *meta.Queue) *consumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.getters[q.ID]; c != nil {
		return c
	}
	c := &consumer{session: s, queue: q}
	s.broker.consumers.add(c)
	s.getters[q.ID] = c
	s.consumers[c.id] = c
	return c
}

// Settle settles deliveries.
func (s *Session) Settle(_ context.Context, st mq.Settlement) error {
	w := waiter{}
	if st.Confirm != nil {
		w = waiter{confirm: newJoint(countRuns(st.Held), waiter{st.Confirm, st.Tag})}
		if len(st.Held) == 0 {
			st.Confirm.Confirm(st.Tag, mq.Confirmed)
			return nil
		}
	}
	for rest := st.Held; len(rest) > 0; {
		n := runOf(rest)
		s.settleRun(st.Verdict, rest[:n], w)
		rest = rest[n:]
	}
	return nil
}

// runOf is how many deliveries at the front are of one consumer with rising,
// gapless places.
func runOf(h []mq.Held) int {
	n := 1
	for n < len(h) && h[n].Consumer == h[0].Consumer && h[n].Queue == h[0].Queue && h[n].Seq == h[n-1].Seq+1 {
		n++
	}
	return n
}

func countRuns(h []mq.Held) (runs int) {
	for len(h) > 0 {
		h = h[runOf(h):]
		runs++
	}
	return runs
}

func (s *Session) settleRun(v mq.Verdict, run []mq.Held, w waiter) {
	first, last := run[0], run[len(run)-1]
	c := s.broker.consumers.get(first.Consumer)
	if v == mq.Requeue {
		s.broker.giveBack(c, first, last)
		if w.confirm != nil {
			w.confirm.Confirm(w.tag, mq.Confirmed)
		}
	} else {
		s.settleRange(c, first, last, w)
	}
	if c != nil && c.sink != nil && c.idle() {
		s.forget(c)
	}
}

// settleRange puts a range into its group's outbox and forgets it here, as
// one step in the eyes of a new leader: it is told either that the range is
// held, or before that, that it is settled.
func (s *Session) settleRange(c *consumer, first, last mq.Held, w waiter) {
	b := s.broker
	o, err := b.outbox(first.Group)
	b.resuming.RLock()
	taken := err == nil && o.settle(first.Queue, first.Seq, last.Seq, w)
	if c != nil {
		c.release(first.Seq, last.Seq)
	}
	b.resuming.RUnlock()
	switch {
	case taken:
		s.touch(o)
	case w.confirm != nil: // the queue is gone, and all its messages with it
		w.confirm.Confirm(w.tag, mq.Confirmed)
	}
}

// giveBack returns messages to the leader. If there is none, the next one
// finds that nobody holds them.
func (b *Broker) giveBack(c *consumer, first, last mq.Held) {
	b.resuming.RLock()
	defer b.resuming.RUnlock()
	if c != nil {
		c.release(first.Seq, last.Seq)
	}
	k, ok, _ := b.leaders.of(first.Group)
	if !ok {
		return
	}
	seqs := make([]mq.Seq, 0, last.Seq-first.Seq+1)
	for q := first.Seq; q <= last.Seq; q++ {
		seqs = append(seqs, q)
	}
	b.sendReturn(first.Group, k.node, k.term, []heldBy{{first.Queue, first.Consumer, seqs}})
}

// Drained gives link credit back to the leader.
func (s *Session) Drained(id mq.ConsumerID, messages, bytes int) {
	b := s.broker
	c := b.consumers.get(id)
	if c == nil {
		return
	}
	k, ok, _ := b.leaders.of(c.queue.Group)
	if !ok {
		return // attached again, it starts with full credit
	}
	_, session := b.run()
	f := appendUint(append(make([]byte, 0, 48), frameCredit), uint64(c.queue.Group))
	f = appendUint(f, k.term)
	f = appendUint(f, uint64(session))
	f = appendUint(f, uint64(c.queue.ID))
	f = appendUint(f, uint64(id))
	f = appendUint(f, uint64(messages))
	b.lane.Send(k.node, appendUint(f, uint64(bytes)))
}

// Close ends the session: what its client holds goes back to its place, and
// its exclusive queues go.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	own := s.exclusive
	ending := make([]*consumer, 0, len(s.consumers))
	for _, c := range s.consumers {
		ending = append(ending, c)
	}
	s.mu.Unlock()
	s.Flush()
	b := s.broker
	for _, c := range ending {
		c.end()
		b.consumers.remove(c)
	}
	if len(ending) > 0 {
		go func() { // ends after changeWait for each at the latest; a new leader is not told of them at all
			for _, c := range ending {
				if err := s.detach(context.Background(), c, true); err != nil {
					b.slog.Debug("consumer not detached", "queue", c.queue.Name, "err", err)
				}
			}
		}()
	}
	err := s.dropExclusive(own)
	b.mu.Lock()
	delete(b.sessions, s)
	b.mu.Unlock()
	return err
}

// dropExclusive deletes the connection's queues.
func (s *Session) dropExclusive(own []mq.QueueID) error {
	var ops []meta.Op
	for _, id := range own {
		if s.broker.View().QueueByID(id) != nil {
			ops = append(ops, meta.QueueDelete{IfID: id})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	_, err := s.broker.Propose(ctx, ops...)
	return err
}
