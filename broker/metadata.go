package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// metaGroup is the group of the metadata; every node replicates it.
const metaGroup mq.GroupID = 0

// changeWait is how long a client waits for a topology change when no
// metadata leader can be reached.
const changeWait = 15 * time.Second

// metadata is this node's replica of the metadata, and while it leads, the
// place where changes are proposed and their visibility is awaited.
type metadata struct {
	lane    Lane
	slog    *slog.Logger
	nowMs   func() int64
	changed func([]meta.Change) // called in order, after the View has them; must not block
	report  func(index uint64)  // tells the leader how far this replica is
	ready   chan struct{}
	inbox   chan wanted   // to run
	busy    chan struct{} // has as many in it as entries are in flight
	done    chan struct{}
	ending  sync.Once
	work    sync.WaitGroup

	view atomic.Pointer[meta.View]

	mu      sync.Mutex
	log     Log
	state   *meta.State   // touched by Apply and Restore only
	moved   chan struct{} // closed and replaced whenever the View moves on
	leading uint64        // term; 0 while following
	visible *visibility   // of the term

	milestones metaMilestones
}

func newMetadata(lane Lane, nowMs func() int64, log *slog.Logger) *metadata {
	m := &metadata{
		lane: lane, slog: log.With("group", "metadata"), nowMs: nowMs, ready: make(chan struct{}),
		inbox: make(chan wanted, metadataInbox), busy: make(chan struct{}, metadataBusy), done: make(chan struct{}),
		state: meta.New(), moved: make(chan struct{}),
	}
	m.view.Store(m.state.View())
	return m
}

// View is the newest state that this node has applied. It never changes.
func (m *metadata) View() *meta.View { return m.view.Load() }

func (m *metadata) start(log Log) {
	m.mu.Lock()
	m.log = log
	m.mu.Unlock()
	close(m.ready)
	m.work.Go(m.run)
}

// committed is the result of a metadata entry: where it is, and what became
// of its operations.
type committed struct {
	index   uint64
	results []meta.Result
}

// apply takes committed entries, and answers what became of each.
func (m *metadata) apply(batch []Entry) []any {
	out := make([]any, len(batch))
	var changes []meta.Change
	for i, e := range batch {
		if e.Index > m.milestones.next { // which only this goroutine changes
			m.reach(e.Index)
		}
		results, c, err := m.state.Apply(e.Index, e.Term, e.Data)
		if err != nil {
			panic(fmt.Sprintf("metadata entry %d of term %d cannot be applied: %v", e.Index, e.Term, err))
		}
		out[i] = committed{e.Index, results}
		changes = append(changes, c...)
	}
	m.publish(changes)
	return out
}

// publish makes the state visible on this node and says so.
func (m *metadata) publish(changes []meta.Change) {
	v := m.state.View()
	m.view.Store(v)
	m.mu.Lock()
	close(m.moved)
	m.moved = make(chan struct{})
	m.mu.Unlock()
	if len(changes) > 0 {
		m.changed(changes)
	}
	m.report(v.Index())
}

// await returns once this node has applied index.
func (m *metadata) await(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		moved := m.moved
		m.mu.Unlock()
		if m.View().Index() >= index {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lead makes this node the one that proposes changes.
func (m *metadata) lead(term uint64) {
	<-m.ready
	m.mu.Lock()
	m.leading, m.milestones.led = term, term
	m.visible = newVisibility(m.lane, m.slog)
	m.mu.Unlock()
	f := fields.AppendUint(fields.AppendUint([]byte{frameLead}, uint64(metaGroup)), term)
	m.lane.Send(m.lane.Self(), f)
	for _, p := range m.lane.Peers() {
		m.lane.Send(p, append([]byte(nil), f...))
	}
	m.slog.Info("leading", "term", term)
}

func (m *metadata) follow() {
	m.mu.Lock()
	v := m.visible
	m.leading, m.visible = 0, nil
	m.mu.Unlock()
	if v != nil {
		v.end()
		m.slog.Info("no longer leading")
	}
}

func (m *metadata) leader() (term uint64, v *visibility) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leading, m.visible
}

func (m *metadata) peerUp(id mq.NodeID) {
	if term, v := m.leader(); v != nil {
		m.lane.Send(id, fields.AppendUint(fields.AppendUint([]byte{frameLead}, uint64(metaGroup)), term))
	}
}

func (m *metadata) peerDown(id mq.NodeID) {
	if _, v := m.leader(); v != nil {
		v.lost(id)
	}
}

// applied hears how far a node's metadata is, and what level it knows; a build
// from before levels says nothing of that.
func (m *metadata) applied(from mq.NodeID, p *parser) {
	index, level := p.Uint(), uint64(1)
	if p.More() {
		level = p.Uint()
	}
	if _, v := m.leader(); v != nil && p.Err() == nil {
		v.reached(from, index, int(min(level, math.MaxInt32)))
	}
}

// serve answers a question to the metadata leader.
func (m *metadata) serve(a asked, kind byte, p *parser) {
	if _, v := m.leader(); v == nil {
		a.notLead()
		return
	}
	switch kind {
	case callReadIndex:
		// Every change that was ever acknowledged is applied here, as long as
		// nobody else leads; the lease says so.
		if !m.log.Lease() {
			a.tryAgain()
			return
		}
		a.ok(fields.AppendUint(nil, m.View().Index()))
	case callPropose:
		m.propose(a, p.Rest())
	default:
		a.fail(errFrame)
	}
}

// propose takes in the operations of one node. They are committed with those
// of others in one entry, and answered when every live node has applied them.
//
// There is no dedupe here, and none is needed: a node asks again only after it
// heard "not leading", "try again" or lost the connection, asks in order, and
// its operations in between are all of one client waiting for this answer. An
// earlier copy stands before the later one in the log, or in an entry of an
// earlier term that can no longer be committed; the term in the entry voids it
// if it is appended later still.
func (m *metadata) propose(a asked, ops []byte) {
	parsed, err := meta.ParseOps(ops)
	if err != nil {
		a.fail(fmt.Errorf("operations of node %s: %w", a.from, err))
		return
	}
	select {
	case m.inbox <- wanted{a, parsed}:
	default:
		a.tryAgain() // its node asks again in a moment
	}
}

// wanted are the operations of one node that wait to be proposed.
type wanted struct {
	asked asked
	ops   []meta.Op
}

const (
	// metadataInbox is how many callers may wait for the proposer.
	metadataInbox = 4096
	// metadataBusy is how many entries are in flight: while they are, what arrives
	// gathers into the next one. An entry costs every node a transaction of its
	// log and two syncs, whatever is in it; a second one in flight would not be
	// sent before the first is answered, and share the changes with it.
	metadataBusy = 1
)

// run proposes what comes in, as much as there is in one entry, until stop.
// Frames must not wait for the log: it can take a second to say no.
func (m *metadata) run() {
	var first *wanted
	for {
		if first == nil {
			select {
			case w := <-m.inbox:
				first = &w
			case <-m.done:
				return
			}
		}
		select {
		case m.busy <- struct{}{}:
		case <-m.done:
			return
		}
		var all []wanted
		all, first = m.gather(*first)
		m.proposeEntry(all)
	}
}

// stop ends run and waits for it.
func (m *metadata) stop() {
	m.ending.Do(func() { close(m.done) })
	m.work.Wait()
}

// gather takes what is waiting, up to what fits into an entry. The next does
// not fit any more, if it is not nil.
func (m *metadata) gather(first wanted) (all []wanted, next *wanted) {
	all = append(all, first)
	for ops := len(first.ops); ; {
		select {
		case w := <-m.inbox:
			if ops += len(w.ops); ops > meta.OpsMax {
				return all, &w
			}
			all = append(all, w)
		default:
			return all, nil
		}
	}
}

// proposeEntry makes one entry of what it is given. busy has room again once
// that is answered.
func (m *metadata) proposeEntry(all []wanted) {
	term, v := m.leader()
	if v == nil {
		<-m.busy
		for _, w := range all {
			w.asked.notLead()
		}
		return
	}
	var ops []meta.Op
	for _, w := range all {
		ops = append(ops, w.ops...)
	}
	entry := meta.AppendEntry(nil, term, m.nowMs(), ops...)
	m.log.Propose(entry, func(result any, err error) {
		<-m.busy
		c, ok := result.(committed)
		for _, w := range all {
			if err != nil || !ok {
				w.asked.tryAgain()
				continue
			}
			m.answer(v, w.asked, c.index, c.results[:len(w.ops)])
			c.results = c.results[len(w.ops):]
		}
	})
}

// answer tells one node what became of its operations, once they are visible.
func (m *metadata) answer(v *visibility, a asked, index uint64, results []meta.Result) {
	for i := range results {
		if results[i].Stale {
			a.tryAgain()
			return
		}
	}
	reply := meta.AppendResults(fields.AppendUint(nil, index), results)
	v.await(index, func(visible bool) {
		if visible {
			a.ok(reply)
		} else {
			a.tryAgain() // committed; the next leader finds it done, and knows who has applied it
		}
	})
}

// Propose commits operations and returns when every live node has applied
// them, this one included.
func (b *Broker) Propose(ctx context.Context, ops ...meta.Op) ([]meta.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	r, err := b.callLeader(ctx, callPropose, metaGroup, meta.AppendOps(nil, ops...))
	if err != nil {
		return nil, err
	}
	p := parser{fields.Read(r)}
	index := p.Uint()
	results, err := meta.ParseResults(p.Rest())
	if err != nil {
		return nil, fmt.Errorf("answer of the metadata leader: %w", err)
	}
	if len(results) != len(ops) {
		return nil, errors.New("answer of the metadata leader: wrong number of results")
	}
	return results, b.explain(ctx, metaGroup, b.meta.await(ctx, index))
}

// ReadIndex returns once this node's View is at least as new as every change
// that was acknowledged to any client before the call.
func (b *Broker) ReadIndex(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	r, err := b.callLeader(ctx, callReadIndex, metaGroup, nil)
	if err != nil {
		return err
	}
	p := parser{fields.Read(r)}
	return b.explain(ctx, metaGroup, b.meta.await(ctx, p.Uint()))
}

// View is the newest metadata that this node has applied.
func (b *Broker) View() *meta.View { return b.meta.View() }
