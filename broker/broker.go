package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
	"warren/storage/segment"
)

// Broker is the broker's part of one node: its replica of the metadata, its
// shards, its clients' sessions and the outboxes between them.
type Broker struct {
	lane      Lane
	slog      *slog.Logger
	nowMs     func() int64
	loopback  map[string]bool // users that may only come from this machine
	level     int             // that this node says it knows
	fatal     func(error)
	meta      *metadata
	leaders   *leaders
	alarms    *alarms
	calls     *calls
	traces    traces
	consumers *consumers
	routers   *routers
	agreement agreement

	requesters *requesters
	replyLinks *replyLinks
	loans      *loans
	fetches    *fetches

	// resuming orders what a client settles against what a new leader is told
	// that it holds: written while a leader is told, read while a delivery or
	// a return changes it.
	resuming sync.RWMutex
	resumes  map[mq.GroupID]uint64 // how many leaders of a group were told; guarded by resuming

	mu       sync.RWMutex
	number   uint32 // this node's in the metadata
	session  mq.SessionID
	local    *Shard // queues in this node's memory, for the session
	shards   map[mq.GroupID]*Shard
	outboxes map[mq.GroupID]*outbox
	sessions map[uint64]*Session // by connection number
	conns    uint64              // the last of these
	lostRun  chan struct{}
	closed   bool

	disowned sync.Map      // consumers whose leader is being told that they have ended
	placed   atomic.Uint32 // queues that GroupFor has placed
}

// Options are what a Broker needs besides its Lane.
type Options struct {
	NowMs         func() int64 // wall clock in milliseconds
	LoopbackUsers []string     // users that may only connect from this machine
	Log           *slog.Logger
	Level         int         // 0: Level; a lower one is how an older build behaves
	Fatal         func(error) // ends the process, which cannot go on
}

// New returns a broker that is not yet part of anything: groups are added,
// then OpenSession makes it serve clients.
func New(lane Lane, o Options) *Broker {
	b := &Broker{
		lane: lane, slog: o.Log, nowMs: o.NowMs, loopback: map[string]bool{}, level: o.Level, fatal: o.Fatal,
		leaders: newLeaders(), alarms: newAlarms(), calls: newCalls(lane), consumers: newConsumers(),
		shards: map[mq.GroupID]*Shard{}, outboxes: map[mq.GroupID]*outbox{}, sessions: map[uint64]*Session{},
		lostRun: make(chan struct{}, 1), resumes: map[mq.GroupID]uint64{},
	}
	if b.level == 0 {
		b.level = Level
	}
	for _, u := range o.LoopbackUsers {
		b.loopback[u] = true
	}
	b.routers = newRouters()
	b.agreement.groups = map[mq.GroupID]*comparison{}
	b.requesters, b.replyLinks = newRequesters(), newReplyLinks(lane)
	b.loans, b.fetches = newLoans(), newFetches()
	b.meta = newMetadata(lane, o.NowMs, o.Log)
	b.meta.changed, b.meta.report = b.changed, b.reportApplied
	return b
}

// AddShard adds this node's replica of a queue group, which pages bodies out to
// folder, and closes that in the end; with nil they stay in memory.
func (b *Broker) AddShard(g mq.GroupID, folder *segment.Folder) *Shard {
	s := b.newShard(g, folder)
	b.mu.Lock()
	b.shards[g] = s
	b.mu.Unlock()
	return s
}

func (b *Broker) newShard(g mq.GroupID, folder *segment.Folder) *Shard {
	s := NewShard(g, b.lane, b, b.nowMs, folder, b.slog)
	s.loans = b.loans
	return s
}

// RemoveShard forgets the replica of a group that this node no longer has.
func (b *Broker) RemoveShard(g mq.GroupID) {
	b.mu.Lock()
	s := b.shards[g]
	delete(b.shards, g)
	b.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// Shard returns this node's replica of a group, or nil.
func (b *Broker) Shard(g mq.GroupID) *Shard {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if _, local := g.Local(); local {
		if b.local != nil && b.local.group == g {
			return b.local
		}
		return nil
	}
	return b.shards[g]
}

func (b *Broker) allShards() []*Shard {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*Shard, 0, len(b.shards)+1)
	for _, s := range b.shards {
		out = append(out, s)
	}
	if b.local != nil {
		out = append(out, b.local)
	}
	return out
}

// OpenSession makes this node a member that serves clients: it is noted in
// the metadata with its name and address, and a new run of it begins. It takes
// as long as it takes for a metadata leader to answer.
func (b *Broker) OpenSession(ctx context.Context, name, addr string) error {
	self := b.lane.Self()
	for {
		r, err := b.Propose(ctx, meta.NodePut{ID: self, Name: name, Addr: addr}, meta.SessionOpen{Node: self})
		if err == nil {
			err = errors.Join(r[0].Error(), r[1].Error())
		}
		if err == nil {
			number, _ := r[0].Value.(uint32)
			session, _ := r[1].Value.(mq.SessionID)
			b.began(number, session)
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("opening this node's session: %w", ctx.Err())
		}
		b.slog.Info("waiting for the metadata leader", "err", err)
		wait := time.NewTimer(100 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// began starts a run of this node: its memory's shard, and the consumers that
// it already has (after a partition) under their new session.
func (b *Broker) began(number uint32, session mq.SessionID) {
	local := b.newShard(mq.LocalGroup(session), nil)
	b.mu.Lock()
	old := b.local
	b.number, b.session, b.local = number, session, local
	b.mu.Unlock()
	if old != nil {
		old.Follow()
	}
	local.Start(&localLog{shard: local, term: uint64(session)})
	local.Lead(uint64(session))
	for _, n := range append(b.lane.Peers(), b.lane.Self()) {
		for _, g := range b.leaders.led(n) {
			b.resume(g, n)
		}
	}
	b.slog.Info("session opened", "session", uint64(session), "number", number)
	if b.gone(local.group) {
		b.loseRun() // ended before this node took it for its own
	}
}

// LostRun tells that the rest of the cluster has declared this run of the node
// over while it was cut off: OpenSession must be called again.
func (b *Broker) LostRun() <-chan struct{} { return b.lostRun }

func (b *Broker) run() (number uint32, session mq.SessionID) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.number, b.session
}

// gone reports whether a group was the memory of a run that is over.
func (b *Broker) gone(g mq.GroupID) bool {
	s, local := g.Local()
	if !local {
		return false
	}
	v := b.View()
	if uint64(s) > v.Index() {
		return false // not applied here yet
	}
	_, ok := v.SessionNode(s)
	return !ok
}

// outbox returns the way to a group.
func (b *Broker) outbox(g mq.GroupID) (*outbox, error) {
	b.mu.RLock()
	o := b.outboxes[g]
	b.mu.RUnlock()
	if o != nil {
		return o, nil
	}
	if b.gone(g) {
		return nil, errGroupGone
	}
	b.resuming.Lock() // a leader that announces itself now finds the outbox or is known to it
	defer b.resuming.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if o := b.outboxes[g]; o != nil {
		return o, nil
	}
	if b.session == 0 {
		// Other nodes without one would count their batches under the same name,
		// and one would be taken for a copy of another.
		return nil, errNoSession
	}
	o = newOutbox(g, Origin{b.number, b.session}, b.lane)
	o.large.able = func() bool { return levelOf(b.View()) >= levelParts }
	if k, ok, _ := b.leaders.of(g); ok {
		o.to, o.term = k.node, k.term
	}
	b.outboxes[g] = o
	return o, nil
}

func (b *Broker) knownOutbox(g mq.GroupID) *outbox {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.outboxes[g]
}

// changed hears what a metadata entry did. Runs on the goroutine that applies
// metadata: it must not wait for anything.
func (b *Broker) changed(changes []meta.Change) {
	b.queuesChanged(changes) // first: the others may end some of these queues
	b.queuesCreated(changes)
	for _, c := range changes {
		switch c := c.(type) {
		case meta.QueueDeleted:
			b.queueDeleted(c.Queue)
		case meta.SessionEnded:
			b.sessionEnded(c.Node, c.Session)
		case meta.TracingChanged:
			b.tracingChanged()
		case meta.SettingsChanged:
			b.checkLevel()
		case meta.VHostDeleted:
			b.forceSessions(func(s *Session) bool { return s.vhost == c.Name }, "vhost '%s' is down", c.Name)
		case meta.UserDeleted:
			b.forceSessions(func(s *Session) bool { return s.user == c.Name }, "user '%s' is deleted", c.Name)
		}
	}
}

// forceSessions ends the connections of clients that have lost what they stood
// on, in RabbitMQ's words.
func (b *Broker) forceSessions(which func(*Session) bool, why, name string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, s := range b.sessions {
		if which(s) {
			s.force(mq.Errorf(mq.ConnectionForced, why, name))
		}
	}
}

// queueDeleted ends what this node has of a queue.
func (b *Broker) queueDeleted(q *meta.Queue) {
	if s := b.Shard(q.Group); s != nil {
		s.queueDeleted(q.ID)
	}
	for _, c := range b.consumers.onQueue(q) {
		if c.session.forget(c) && c.sink != nil {
			c.sink.Cancelled(meta.NoQueue(q.VHost, q.Name))
		}
	}
	if q.Exclusive {
		b.mu.RLock()
		s := b.sessions[q.OwnerConn]
		b.mu.RUnlock()
		if s != nil {
			s.lostExclusive(q.ID)
		}
	}
}

// sessionEnded ends what this node has of a run of some node.
func (b *Broker) sessionEnded(node mq.NodeID, session mq.SessionID) {
	for _, s := range b.allShards() {
		s.sessionEnded(session)
	}
	g := mq.LocalGroup(session)
	b.leaders.forget(g)
	b.mu.Lock()
	o := b.outboxes[g]
	delete(b.outboxes, g)
	mine := node == b.lane.Self() && session == b.session && !b.closed
	b.mu.Unlock()
	if o != nil {
		o.end(mq.Gone)
	}
	if mine {
		b.loseRun()
	}
}

func (b *Broker) loseRun() {
	b.slog.Warn("this node was counted as ended while it was cut off; its transient and exclusive queues are gone")
	select {
	case b.lostRun <- struct{}{}:
	default:
	}
}

func (b *Broker) isClosed() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.closed
}

// reportApplied tells the metadata leader how far this node is, and what it knows.
func (b *Broker) reportApplied(index uint64) {
	if k, ok, _ := b.leaders.of(metaGroup); ok {
		b.lane.Send(k.node, fields.AppendUint(fields.AppendUint([]byte{frameApplied}, index), uint64(b.level)))
	}
}

// Sweep looks for leftovers; call it every minute or so.
func (b *Broker) Sweep() {
	for _, s := range b.allShards() {
		s.sweep()
	}
	b.dropOrphans()
}

// dropOrphans deletes the exclusive queues of connections that are no more: a
// connection can end while nothing can be deleted, or a declare be committed
// after its client was told that it was not.
func (b *Broker) dropOrphans() {
	_, session := b.run()
	var ops []meta.Op
	b.mu.RLock()
	for q := range b.View().QueuesOf(mq.LocalGroup(session)) {
		if q.Exclusive && b.sessions[q.OwnerConn] == nil && len(ops) < meta.OpsMax {
			ops = append(ops, meta.QueueDelete{IfID: q.ID})
		}
	}
	b.mu.RUnlock()
	if len(ops) == 0 {
		return
	}
	go func() { // ends after changeWait at the latest
		if _, err := b.Propose(context.Background(), ops...); err != nil && !b.isClosed() {
			b.slog.Warn("exclusive queues of ended connections not deleted", "queues", len(ops), "err", err)
		}
	}()
}
