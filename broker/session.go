package broker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

// closeWait is how long the end of a session waits for its consumers and its
// exclusive queues to go.
const closeWait = 5 * time.Second

// Session is one client connection. Its methods may be called from several
// goroutines at once.
type Session struct {
	broker   *Broker
	vhost    string
	user     string
	conn     uint64
	topology *Topology
	forced   func(*mq.Error) // by force
	forcing  sync.Once
	routes   routeCache
	traced   atomic.Bool // copies of its messages go to the firehose
	channels atomic.Int64

	mu        sync.Mutex
	touched   []*outbox // Publish and Settle put something in since Flush
	consumers map[mq.ConsumerID]*consumer
	getters   map[mq.QueueID]*consumer // holders of what basic.get took
	exclusive map[mq.QueueID]struct{}
	closed    bool

	requesters map[mq.ConsumerID]struct{} // consumers of direct replies; guarded by mu
}

// Login checks who a client is.
func (b *Broker) Login(ctx context.Context, c mq.Credentials) (string, error) {
	return Login(ctx, b, c, b.loopback)
}

// Open begins a session in a vhost.
func (b *Broker) Open(ctx context.Context, user, vhost string, forced func(*mq.Error)) (*Session, error) {
	s, err := b.enter(ctx, user, vhost, forced)
	if err != nil {
		return nil, err
	}
	if err := s.checkConnections(ctx); err != nil {
		b.mu.Lock()
		delete(b.sessions, s.conn)
		b.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// enter adds a session to the others, if user may use the vhost.
func (b *Broker) enter(ctx context.Context, user, vhost string, forced func(*mq.Error)) (*Session, error) {
	if err := CheckVHost(ctx, b, user, vhost); err != nil {
		return nil, err
	}
	s := &Session{
		broker: b, vhost: vhost, user: user, forced: forced,
		consumers: map[mq.ConsumerID]*consumer{}, getters: map[mq.QueueID]*consumer{}, exclusive: map[mq.QueueID]struct{}{},
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
	s.topology.replay = s.replay
	b.sessions[s.conn] = s
	// The vhost or the user may have gone since they were checked. Whoever
	// hears of that later finds the session among the others.
	if v := b.View(); v.VHost(vhost) == nil || v.User(user) == nil {
		delete(b.sessions, s.conn)
		return nil, mq.Errorf(mq.NotAllowed, "access to vhost '%s' refused for user '%s'", vhost, user)
	} else {
		s.traced.Store(v.Tracing(vhost))
	}
	return s, nil
}

// force makes the client's connection end. The first reason counts.
func (s *Session) force(err *mq.Error) { s.forcing.Do(func() { s.forced(err) }) }

// Change carries out a topology change.
func (s *Session) Change(ctx context.Context, op mq.Op) (mq.Reply, error) {
	if r, mine, err := s.changeReply(ctx, op); mine {
		return r, err
	}
	r, err := s.topology.Change(ctx, op)
	if d, ok := op.(mq.QueueDeclare); ok && err == nil && d.Exclusive && !d.Passive {
		s.mu.Lock()
		if q := s.broker.View().Queue(s.vhost, r.Queue); q != nil {
			s.exclusive[q.ID] = struct{}{}
		}
		s.mu.Unlock()
	}
	return r, err
}

// lostExclusive hears that a queue of this connection is deleted.
func (s *Session) lostExclusive(id mq.QueueID) {
	s.mu.Lock()
	delete(s.exclusive, id)
	s.mu.Unlock()
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

// Close ends the session: what its client holds goes back to its place, and
// its exclusive queues go.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	own := slices.Collect(maps.Keys(s.exclusive))
	ending := make([]*consumer, 0, len(s.consumers))
	for _, c := range s.consumers {
		ending = append(ending, c)
	}
	requesters := slices.Collect(maps.Keys(s.requesters))
	s.mu.Unlock()
	for _, id := range requesters {
		s.dropRequester(id)
	}
	s.Flush()
	b := s.broker
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	var leaving sync.WaitGroup
	for _, c := range ending {
		c.end()
		b.consumers.remove(c)
		leaving.Go(func() {
			// If it fails: a new leader is not told of the consumer at all, and
			// this one is told when it delivers.
			if err := b.detach(ctx, c.leftover(), true); err != nil {
				b.slog.Debug("consumer not detached", "queue", c.queue.Name, "err", err)
			}
		})
	}
	leaving.Wait() // so that whoever comes after the close finds the messages, and no queue that was to go with it
	err := s.dropExclusive(ctx, own)
	b.mu.Lock()
	delete(b.sessions, s.conn)
	b.mu.Unlock()
	return err
}

// dropExclusive deletes the connection's queues.
func (s *Session) dropExclusive(ctx context.Context, own []mq.QueueID) error {
	var ops []meta.Op
	for _, id := range own {
		if s.broker.View().QueueByID(id) != nil {
			ops = append(ops, meta.QueueDelete{IfID: id})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err := s.broker.Propose(ctx, ops...)
	return err
}
