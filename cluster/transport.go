package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"warren/internal/fields"
	"warren/storage/snapshot"
)

const (
	// dataTimeoutMin is the least that an AppendEntries with entries may take:
	// the follower's fsync is in it.
	dataTimeoutMin = 10 * time.Second
	// dataBytesPerSecondMin is the slowest link that a timeout allows for.
	dataBytesPerSecondMin = 1 << 20
	// inboxMax bounds the requests that wait for one group's Raft.
	inboxMax = 64
	// leaseHold is how long a leader that told another to take over trusts no
	// lease: that node may win an election at any moment, whatever others answer.
	leaseHold = 3 * time.Second
	// returnWait is how long a request waits for the return of a peer before Raft
	// hears that it has failed: as long as for one that hangs.
	returnWait = dataTimeoutMin
	// returnLook is how often it looks.
	returnLook = 100 * time.Millisecond
)

var (
	errNoGroup   = errors.New("no such group on this node")
	errGroupBusy = errors.New("the group's inbox is full")
	errGroupGone = errors.New("the group is closed on this node")
)

// transport is one group's raft.Transport over the node's connections. Raft
// addresses are node ids.
//
// Three things that hashicorp/raft v1.8.0 offers are not used, because they
// lose or wedge data there: the heartbeat fast path runs Raft's code on a
// second goroutine, and its pipeline parks for ever after a refused append.
// Both are legal to leave out. Pre-vote on the other hand is silently off
// unless the transport has it.
type transport struct {
	gid       uint64
	self      string
	calls     *callers
	reachable func(id string) bool // the lane to a peer is up, or it has none
	dialBulk  func(ctx context.Context, id string) (bulkConn, error)
	gone      func(*transport) // takes it out of the node's table
	notBefore time.Time        // no votes for others until then; see withhold
	callMax   time.Duration    // for votes and heartbeats
	log       *slog.Logger
	standing  *standing // what this replica may do

	snapshots *snapshot.Store        // where what peers send arrives
	patience  time.Duration          // with a silent peer on a bulk connection
	rate      *bucket                // of the node
	figures   *pullCounters          // of the node
	room      func() (uint64, error) // on the disk

	led   atomic.Pointer[reign] // the newest that it has heard of; nil if none
	rpcs  chan raft.RPC
	inbox chan inbound
	ended chan struct{}
	once  sync.Once
	work  sync.WaitGroup
	acks  ackTable
	turns *turns // of snapshots that arrive
	pacer atomic.Pointer[pacer]
	news  herald
}

// reign is who led in a term.
type reign struct {
	id   string
	term uint64
}

// inbound is a request for this group's Raft.
type inbound struct {
	rpc  raft.RPC // without RespChan
	done func(raft.RPCResponse)
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func (t *transport) start() {
	t.rpcs = make(chan raft.RPC)
	t.inbox = make(chan inbound, inboxMax)
	t.ended = make(chan struct{})
	t.turns = newTurns()
	t.news.send = t.sendNews
	t.work.Go(t.serve)
}

// serve hands requests to Raft one after the other, in the order of arrival,
// which for one leader is the order of sending.
func (t *transport) serve() {
	for {
		select {
		case in := <-t.inbox:
			in.done(t.ask(in.rpc))
		case <-t.ended:
			return
		}
	}
}

// announce is groupTransport's.
func (t *transport) announce(n commitNews) { t.news.announce(n) }

// sendNews is herald's.
func (t *transport) sendNews(to string, a *raft.AppendEntriesRequest) (bool, error) {
	a.RPCHeader = t.header()
	body, _ := encodeAppend(a)
	b, err := t.call(raft.ServerAddress(to), roleControl, typeAppend, t.callMax, body, nil)
	if err != nil {
		return false, err
	}
	var r raft.AppendEntriesResponse
	err = decodeAppendAnswer(b, &r)
	return r.Success, err
}

// pace is groupTransport's.
func (t *transport) pace(p *pacer) { t.pacer.Store(p) }

// ask hands a request to Raft, and an AppendEntries at the Machine's pace.
func (t *transport) ask(rpc raft.RPC) raft.RPCResponse {
	a, ok := rpc.Command.(*raft.AppendEntriesRequest)
	p := t.pacer.Load()
	if !ok || p == nil {
		return t.pass(rpc)
	}
	says := p.tell(a)
	r := t.pass(rpc)
	p.heard(a, says, r)
	return r
}

func (t *transport) pass(rpc raft.RPC) raft.RPCResponse {
	answer := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answer
	select {
	case t.rpcs <- rpc:
	case <-t.ended:
		return raft.RPCResponse{Error: errGroupGone}
	}
	select {
	case r := <-answer:
		return r
	case <-t.ended:
		return raft.RPCResponse{Error: errGroupGone}
	}
}

// deliver queues a request. done is called once, maybe before it returns.
func (t *transport) deliver(in inbound) {
	select {
	case <-t.ended:
		in.done(raft.RPCResponse{Error: errGroupGone})
		return
	default:
	}
	select {
	case t.inbox <- in:
	default:
		in.done(raft.RPCResponse{Error: errGroupBusy})
		return
	}
	select {
	case <-t.ended: // Close may have emptied the inbox already
		t.empty()
	default:
	}
}

func (t *transport) empty() {
	for {
		select {
		case in := <-t.inbox:
			in.done(raft.RPCResponse{Error: errGroupGone})
		default:
			return
		}
	}
}

// Close takes the group off the node's connections, which go on serving the
// others. Requests that wait are answered with an error.
func (t *transport) Close() error {
	t.once.Do(func() {
		t.gone(t)
		close(t.ended)
	})
	t.work.Wait()
	t.news.close()
	t.empty()
	t.turns.close() // last: a snapshot may have waited in the inbox
	return nil
}

// Consumer is where Raft takes requests from, heartbeats among them.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr is the node's id.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.self) }

// SetHeartbeatHandler is ignored; see transport.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline is refused; see transport.
func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// EncodePeer is the id itself.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer is the id itself.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// call sends one request and waits for its answer. Raft gives no context: the
// end of the group ends the call.
func (t *transport) call(to raft.ServerAddress, r role, typ uint8, timeout time.Duration, body []byte, more [][]byte) ([]byte, error) {
	ctx, cancel := t.context(timeout)
	defer cancel()
	return t.calls.call(ctx, string(to), r, rpcHead{typ: typ, group: t.gid}, body, more)
}

func (t *transport) context(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(endContext{t.ended}, timeout)
}

// AppendEntries sends entries, or a heartbeat if there are none. Heartbeats go
// by their own connection, so that no entry delays them.
func (t *transport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	by, timeout := roleControl, t.callMax
	body, data := encodeAppend(a)
	if len(a.Entries) > 0 {
		n := len(body)
		for _, d := range data {
			n += len(d)
		}
		by = roleData
		timeout = dataTimeoutMin + time.Duration(n/dataBytesPerSecondMin)*time.Second
	}
	sent := time.Now()
	b, err := t.call(to, by, typeAppend, timeout, body, data)
	if err != nil {
		if !isHeartbeat(a) {
			t.awaitReturn(string(to))
		}
		return err
	}
	if err := decodeAppendAnswer(b, r); err != nil {
		return err
	}
	if r.Success && r.Term == a.Term {
		t.acks.note(string(to), a.Term, sent)
		if !isHeartbeat(a) {
			t.news.succeeded(string(to), a)
		}
	}
	return nil
}

// isHeartbeat tells a heartbeat from a request of the goroutine that replicates,
// which says at least what precedes its entries.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.LeaderCommitIndex == 0
}

// awaitReturn waits for a peer that is away. Raft doubles its pause after each
// request that fails, to ten seconds, and nothing ends a pause early: a follower
// that was away for some seconds got no entry for as long after its return, and
// was no help if the other one crashed meanwhile. Heartbeats have pauses of their
// own, which stay short.
func (t *transport) awaitReturn(id string) {
	ctx, cancel := t.context(returnWait)
	defer cancel()
	for !t.reachable(id) && rest(ctx, returnLook) {
	}
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(_ raft.ServerID, to raft.ServerAddress, v *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	if !t.standing.leads() {
		return errMustNotLead
	}
	b, err := t.call(to, roleControl, typeVote, t.callMax, encodeVote(v), nil)
	if err != nil {
		return err
	}
	return decodeVoteAnswer(b, r)
}

// RequestPreVote asks whether a vote would be granted.
func (t *transport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, v *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	if !t.standing.leads() {
		return errMustNotLead
	}
	b, err := t.call(to, roleControl, typePreVote, t.callMax, encodePreVote(v), nil)
	if err != nil {
		return err
	}
	return decodePreVoteAnswer(b, r)
}

// TimeoutNow makes another node stand for election. This node's lease ends
// before it is sent, since the other may win as soon as it has it.
func (t *transport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	t.acks.hold()
	defer t.acks.hold()
	b, err := t.call(to, roleControl, typeTimeoutNow, t.callMax, appendRPCHeader(nil, q.RPCHeader), nil)
	if err != nil {
		return err
	}
	d := decoder{fields.Read(b)}
	r.RPCHeader = d.rpcHeader()
	return d.done()
}

// injectTimeoutNow makes this node stand for election, as if its dead leader
// had asked it to. The vote rules decide the rest.
func (t *transport) injectTimeoutNow() {
	h := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.self), Addr: []byte(t.self)}
	t.deliver(inbound{rpc: raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: h}}, done: func(raft.RPCResponse) {}})
}

// lease reports whether a quorum of voters, selfID included if it is one,
// answered with success in term to something sent less than window ago.
func (t *transport) lease(term uint64, voters []string, selfID string, window time.Duration) bool {
	return t.acks.lease(term, voters, selfID, time.Now().Add(-window))
}

// lastLeader is who led last and when, as far as is known here. Raft forgets that
// when somebody stands for election.
func (t *transport) lastLeader() (id string, term uint64) {
	if l := t.led.Load(); l != nil {
		return l.id, l.term
	}
	return "", 0
}

// receive takes a request from a connection.
func (t *transport) receive(q request) {
	cmd, err := decodeRequest(q.head.typ, q.body)
	if err != nil {
		q.answer(nil, err)
		return
	}
	if a, ok := cmd.(*raft.AppendEntriesRequest); ok {
		t.turns.outdate(a.Term)
		if l := t.led.Load(); l == nil || l.term < a.Term { // else nothing is new, mostly
			t.led.Store(&reign{q.from, a.Term})
		}
	}
	if time.Now().Before(t.notBefore) {
		if r, held := t.withhold(cmd); held {
			q.answer(encodeAnswer(r))
			return
		}
	}
	if r, refused := t.standing.refuse(cmd, t.header()); refused {
		q.answer(encodeAnswer(r))
		return
	}
	t.deliver(inbound{rpc: raft.RPC{Command: cmd}, done: func(r raft.RPCResponse) { q.answer(encodeAnswer(r)) }})
}

// withhold refuses votes until notBefore. The hold stands for what a restarted
// node has forgotten, that it has a leader, and keeps that leader's lease true. A
// candidate that was told to stand, by a leader that gave up its lease for that or
// because the leader has crashed, gets votes from those that have not forgotten,
// too; refused, it would let an election timeout pass before it tries again.
func (t *transport) withhold(cmd any) (r raft.RPCResponse, held bool) {
	switch v := cmd.(type) {
	case *raft.RequestVoteRequest:
		return raft.RPCResponse{Response: &raft.RequestVoteResponse{RPCHeader: t.header()}}, !v.LeadershipTransfer
	case *raft.RequestPreVoteRequest:
		return raft.RPCResponse{Response: &raft.RequestPreVoteResponse{RPCHeader: t.header()}}, true
	}
	return r, false
}

func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.self), Addr: []byte(t.self)}
}

func decodeRequest(typ uint8, b []byte) (any, error) {
	switch typ {
	case typeAppend:
		return decodeAppend(b)
	case typeVote:
		return decodeVote(b)
	case typePreVote:
		return decodePreVote(b)
	case typeTimeoutNow:
		d := decoder{fields.Read(b)}
		return &raft.TimeoutNowRequest{RPCHeader: d.rpcHeader()}, d.done()
	default:
		return nil, fmt.Errorf("%w: unknown type %d", errCodec, typ)
	}
}

func encodeAnswer(r raft.RPCResponse) ([]byte, error) {
	if r.Error != nil {
		return nil, r.Error
	}
	switch a := r.Response.(type) {
	case *raft.AppendEntriesResponse:
		return encodeAppendAnswer(a), nil
	case *raft.RequestVoteResponse:
		return encodeVoteAnswer(a), nil
	case *raft.RequestPreVoteResponse:
		return encodePreVoteAnswer(a), nil
	case *raft.TimeoutNowResponse:
		return appendRPCHeader(nil, a.RPCHeader), nil
	case *raft.InstallSnapshotResponse:
		return encodeInstallAnswer(a), nil
	default:
		return nil, fmt.Errorf("raft answered with a %T", a)
	}
}

// InstallSnapshot sends a snapshot over a connection of its own. Raft waits for
// it on the goroutine that replicates to this one follower; heartbeats to it go
// on, and so does everything with the others. A leader that steps down, or whose
// follower hangs, hears of it by the connection's end or after bulkPatience, and
// Raft tries again, at first at once and later each 10 s or so.
func (t *transport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	ctx, cancel := t.context(handshakeTimeout)
	c, err := t.dialBulk(ctx, string(to))
	cancel()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(endContext{t.ended}, func() { c.Close() })()
	s := sender{conn: c, patience: t.patience, rate: t.rate, figures: t.figures}
	b, err := s.send(endContext{t.ended}, t.gid, q, data)
	if err != nil {
		return fmt.Errorf("snapshot to node %s: %w", to, err)
	}
	return decodeInstallAnswer(b, r)
}

// endContext is a context that ends when a channel is closed.
type endContext struct{ ended <-chan struct{} }

func (endContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (endContext) Value(any) any               { return nil }

func (c endContext) Done() <-chan struct{} { return c.ended }

func (c endContext) Err() error {
	select {
	case <-c.ended:
		return context.Canceled
	default:
		return nil
	}
}
