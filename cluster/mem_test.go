package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/raftlog"
	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// memNet connects the groups of a test by channels.
type memNet struct {
	mu    sync.Mutex
	nodes map[string]*memTransport
	cut   map[string]bool
	open  map[string]*Group // for reports
	// hold is how long a node that was just opened has no vote for others.
	hold time.Duration
	// scanned, if set, is called when Raft has read the log that it begins with.
	scanned func()
	// uncommitted entries are what reports say that a leader has besides.
	uncommitted uint64
}

func (n *memNet) set(id string, g *Group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open[id] = g
}

// memTransport is Raft's own in-memory transport with what a group asks for besides.
type memTransport struct {
	*raft.InmemTransport
	net      *memNet
	id       string
	standing *standing
	rpcs     chan raft.RPC
	ended    chan struct{}
	once     sync.Once
	pacer    atomic.Pointer[pacer]
	news     herald
	hold     time.Time // no votes for others until then
}

// guard keeps from Raft what the real transport keeps from it.
func (t *memTransport) guard() {
	for {
		select {
		case rpc := <-t.InmemTransport.Consumer():
			if r, refused := t.standing.refuse(rpc.Command, raft.RPCHeader{}); refused {
				rpc.Respond(r.Response, r.Error)
				continue
			}
			if t.holds(rpc) {
				continue
			}
			t.pass(rpc)
		case <-t.ended:
			return
		}
	}
}

// SetHeartbeatHandler is the last of what Raft does before it runs.
func (t *memTransport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.InmemTransport.SetHeartbeatHandler(f)
	if t.net.scanned != nil {
		t.net.scanned()
	}
}

func (t *memTransport) Consumer() <-chan raft.RPC { return t.rpcs }

func (t *memTransport) Close() error {
	t.once.Do(func() { close(t.ended) })
	return t.InmemTransport.Close()
}

func (t *memTransport) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	if !t.standing.leads() {
		return errMustNotLead
	}
	return t.InmemTransport.RequestVote(id, to, q, r)
}

func (t *memTransport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	if !t.standing.leads() {
		return errMustNotLead
	}
	return t.InmemTransport.RequestPreVote(id, to, q, r)
}

// AppendEntries tells the herald of successes, as the real transport does.
func (t *memTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	err := t.InmemTransport.AppendEntries(id, to, a, r)
	if err == nil && r.Success && r.Term == a.Term && !isHeartbeat(a) {
		t.news.succeeded(string(to), a)
	}
	return err
}

// announce is groupTransport's.
func (t *memTransport) announce(n commitNews) { t.news.announce(n) }

func (t *memTransport) sendNews(to string, a *raft.AppendEntriesRequest) (bool, error) {
	a.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.id)}
	var r raft.AppendEntriesResponse
	err := t.InmemTransport.AppendEntries(raft.ServerID(to), raft.ServerAddress(to), a, &r)
	return r.Success, err
}

func (t *memTransport) lease(uint64, []string, string, time.Duration) bool { return true }

// pass hands a request to Raft as the real transport does.
func (t *memTransport) pass(rpc raft.RPC) {
	send := func() bool {
		select {
		case t.rpcs <- rpc:
			return true
		case <-t.ended:
			return false
		}
	}
	a, ok := rpc.Command.(*raft.AppendEntriesRequest)
	p := t.pacer.Load()
	if !ok || p == nil {
		send()
		return
	}
	caller, answer := rpc.RespChan, make(chan raft.RPCResponse, 1)
	rpc.RespChan = answer
	changed := *a // the sender's own; it may be sent to others
	rpc.Command = &changed
	says := p.tell(&changed)
	if !send() {
		return
	}
	select {
	case r := <-answer:
		p.heard(&changed, says, r)
		caller <- r
	case <-t.ended:
	}
}

// pace is groupTransport's.
func (t *memTransport) pace(p *pacer) { t.pacer.Store(p) }

// holds answers who asks for a vote while there is none to be had.
func (t *memTransport) holds(rpc raft.RPC) bool {
	if !time.Now().Before(t.hold) {
		return false
	}
	switch rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		rpc.Respond(&raft.RequestVoteResponse{}, nil)
	case *raft.RequestPreVoteRequest:
		rpc.Respond(&raft.RequestPreVoteResponse{}, nil)
	default:
		return false
	}
	return true
}

func (t *memTransport) injectTimeoutNow() {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: make(chan raft.RPCResponse, 1)}
	if _, refused := t.standing.refuse(rpc.Command, raft.RPCHeader{}); refused {
		return
	}
	go func() {
		select {
		case t.rpcs <- rpc:
		case <-t.ended:
		}
	}()
}

// AppendEntriesPipeline is refused, as by the real transport.
func (t *memTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (n *memNet) join(id string, s *standing) *memTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, in := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), 500*time.Millisecond)
	t := &memTransport{InmemTransport: in, net: n, id: id, standing: s, rpcs: make(chan raft.RPC), ended: make(chan struct{}), hold: time.Now().Add(n.hold)}
	t.news.send = t.sendNews
	go t.guard()
	n.nodes[id] = t
	n.connect()
	return t
}

// isolate cuts a node off, or lets it back.
func (n *memNet) isolate(id string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = cut
	n.connect()
}

func (n *memNet) connect() {
	for a, t := range n.nodes {
		for b, u := range n.nodes {
			if a == b {
				continue
			}
			if n.cut[a] || n.cut[b] {
				t.Disconnect(raft.ServerAddress(b))
			} else {
				t.Connect(raft.ServerAddress(b), u.InmemTransport)
			}
		}
	}
}

// journal is a Machine that writes down what it is told.
type journal struct {
	mu      sync.Mutex
	entries []string
	indexes []uint64
	roles   []string // "lead 2", "follow"
	stuck   <-chan struct{}
}

func (j *journal) Apply(batch []Entry) []any {
	if j.stuck != nil {
		<-j.stuck
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	results := make([]any, len(batch))
	for i, e := range batch {
		j.entries = append(j.entries, string(e.Data))
		j.indexes = append(j.indexes, e.Index)
		results[i] = "did " + string(e.Data)
	}
	return results
}

type journalSnapshot struct{ text []byte }

func (s journalSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.text)
	return int64(n), err
}
func (journalSnapshot) Release() {}

func (j *journal) Snapshot() (Snapshot, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b bytes.Buffer
	for i, e := range j.entries {
		b.Write(binary.LittleEndian.AppendUint64(nil, j.indexes[i]))
		b.WriteString(e + "\n")
	}
	return journalSnapshot{b.Bytes()}, nil
}

func (j *journal) Restore(r io.Reader) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	j.entries, j.indexes = nil, nil
	for len(b) > 0 {
		end := 8 + bytes.IndexByte(b[8:], '\n')
		j.indexes = append(j.indexes, binary.LittleEndian.Uint64(b))
		j.entries = append(j.entries, string(b[8:end]))
		b = b[end+1:]
	}
	return nil
}

func (j *journal) Lead(term uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.roles = append(j.roles, fmt.Sprintf("lead %d, %d applied", term, len(j.entries)))
}

func (j *journal) Follow() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.roles = append(j.roles, "follow")
}

func (j *journal) read() (entries, roles []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries), slices.Clone(j.roles)
}

// memNode is one member of a memCluster.
type memNode struct {
	id      string
	dir     string
	machine *journal
	group   *Group // nil while it is down
	fatal   chan error
	wal     *raftlog.WAL // open while the node is up, if the cluster has wal
}

// memCluster is one group on several nodes in one process.
type memCluster struct {
	t     testing.TB
	net   *memNet
	opts  GroupOptions
	wal   bool // the node's log is a WAL, and not a file for the group
	nodes []*memNode

	heartbeat time.Duration
	cache     int64         // bytes of entries in memory; 0 is what it is in earnest, and -1 none
	ahead     int64         // bytes; 0 is what it is in earnest
	stuck     chan struct{} // if set, no machine applies anything until it is closed
	// dress makes the machine that a group gets of a node's; nil leaves it.
	dress func(n *memNode) Machine
}

const testGroup = 5

// newMemCluster prepares n nodes; the first founders of them start the group.
func newMemCluster(t testing.TB, n, founders int, meta bool) *memCluster {
	c := &memCluster{t: t, wal: !meta, heartbeat: time.Second, net: &memNet{nodes: map[string]*memTransport{}, cut: map[string]bool{}, open: map[string]*Group{}}, opts: GroupOptions{Meta: meta}}
	for i := range n {
		id := string(rune('a' + i))
		if i < founders {
			c.opts.Bootstrap = append(c.opts.Bootstrap, id)
		}
		c.nodes = append(c.nodes, &memNode{id: id, dir: t.TempDir(), fatal: make(chan error, 8)})
	}
	return c
}

// runningCluster is such a cluster that runs until the end of the test, and its leader.
func runningCluster(t *testing.T, n, founders int, meta bool) (c *memCluster, leader *memNode) {
	t.Helper()
	c = newMemCluster(t, n, founders, meta)
	c.start()
	t.Cleanup(c.stop)
	return c, c.leader()
}

func (c *memCluster) open(n *memNode) error {
	n.machine = &journal{stuck: c.stuck}
	o := c.opts
	if !slices.Contains(o.Bootstrap, n.id) {
		o.Bootstrap = nil
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() && os.Getenv("RAFT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.id)
	}
	n.openWAL(c.t, c.wal, c.cache)
	var m Machine = n.machine
	if c.dress != nil {
		m = c.dress(n)
	}
	g, err := openGroup(c.t.Context(), groupSeat{
		id: n.id, dir: n.dir, log: log,
		fatal:     func(err error) { n.fatal <- err },
		profile:   groupProfile{heartbeat: c.heartbeat, cacheMax: c.cache, aheadMax: c.ahead},
		wal:       n.wal,
		report:    c.report,
		terms:     func(ctx context.Context, _ uint64) (uint64, error) { return c.terms(ctx, n.id) },
		transport: func(_ uint64, s *standing, _ *snapshot.Store) groupTransport { return c.net.join(n.id, s) },
	}, testGroup, m, o)
	n.group = g
	c.net.set(n.id, g)
	if err != nil {
		n.closeWAL(c.t)
	}
	return err
}

// report is what a node says of its replica, if it can be reached.
func (c *memCluster) report(_ context.Context, id string, _ uint64) (replicaReport, error) {
	c.net.mu.Lock()
	g, cut, more := c.net.open[id], c.net.cut[id], c.net.uncommitted
	c.net.mu.Unlock()
	if g == nil || cut {
		return replicaReport{}, errTest
	}
	r, err := g.report()
	r.last += more
	return r, err
}

// terms asks all the others, as Cluster.askTerms does.
func (c *memCluster) terms(ctx context.Context, self string) (term uint64, err error) {
	for _, n := range c.nodes {
		if n.id == self {
			continue
		}
		r, err := c.report(ctx, n.id, testGroup)
		if err != nil {
			return 0, err
		}
		term = max(term, r.term)
	}
	return term, nil
}

func (n *memNode) openWAL(t testing.TB, wanted bool, cache int64) {
	t.Helper()
	if !wanted {
		return
	}
	w, err := raftlog.OpenWAL(vfs.OS{}, filepath.Join(n.dir, "wal"), raftlog.Options{
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { n.fatal <- err }, FileBytes: 1 << 20, CacheBytes: cache,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.wal = w
}

func (n *memNode) closeWAL(t testing.TB) {
	t.Helper()
	if n.wal == nil {
		return
	}
	if err := n.wal.Close(); err != nil {
		t.Errorf("close the log of %s: %v", n.id, err)
	}
	n.wal = nil
}

func (c *memCluster) start() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := c.open(n); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *memCluster) stop() {
	c.t.Helper()
	for _, n := range c.nodes {
		c.close(n)
	}
	pause(time.Minute) // Raft leaves calls behind that end by their timeouts
}

func (c *memCluster) close(n *memNode) {
	c.t.Helper()
	if n.group == nil {
		return
	}
	c.net.set(n.id, nil)
	if err := n.group.Close(c.t.Context()); err != nil {
		c.t.Errorf("close %s: %v", n.id, err)
	}
	n.closeWAL(c.t)
	n.group = nil
}

// eventually waits, on the bubble's clock, until f is true.
func (c *memCluster) eventually(what string, f func() bool) {
	c.t.Helper()
	limit := time.Now().Add(60 * time.Second)
	for !f() {
		if time.Now().After(limit) {
			c.t.Fatalf("not within a minute: %s", what)
		}
		pause(time.Millisecond)
	}
}

// settled is a cluster of three that all have the same ten entries, and its
// leader. The caller stops it.
func settled(t testing.TB) (c *memCluster, leader *memNode) {
	c = newMemCluster(t, 3, 3, false)
	c.start()
	leader = c.leader()
	c.mustProposeMany(leader, "e", 10)
	c.converged(leader)
	return c, leader
}

// pause lets the bubble's clock run.
func pause(d time.Duration) { <-time.After(d) }

// leader waits for a node that was told to lead.
func (c *memCluster) leader(among ...*memNode) (leader *memNode) {
	c.t.Helper()
	if len(among) == 0 {
		among = c.nodes
	}
	c.eventually("a leader", func() bool {
		for _, n := range among {
			if n.group == nil {
				continue
			}
			if _, ok := n.group.Leading(); ok {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

func (c *memCluster) others(not *memNode) (others []*memNode) {
	for _, n := range c.nodes {
		if n != not {
			others = append(others, n)
		}
	}
	return others
}

// propose puts one entry into the log and waits for its result.
func propose(g *Group, text string) (any, error) {
	type answer struct {
		result any
		err    error
	}
	done := make(chan answer, 1)
	g.Propose([]byte(text), func(r any, err error) { done <- answer{r, err} })
	a := <-done
	return a.result, a.err
}

func (c *memCluster) mustPropose(n *memNode, text string) {
	c.t.Helper()
	if _, err := propose(n.group, text); err != nil {
		c.t.Fatalf("propose %q: %v", text, err)
	}
}

func (c *memCluster) mustProposeMany(n *memNode, prefix string, count int) {
	c.t.Helper()
	var wg sync.WaitGroup
	for i := range count {
		wg.Add(1)
		n.group.Propose([]byte(fmt.Sprintf("%s%d", prefix, i)), func(_ any, err error) {
			if err != nil {
				c.t.Errorf("propose %s%d: %v", prefix, i, err)
			}
			wg.Done()
		})
	}
	wg.Wait()
}

// converged waits until all nodes that are up have applied the same entries as n.
func (c *memCluster) converged(n *memNode) {
	c.t.Helper()
	c.eventually("every replica has applied the same", func() bool {
		want, _ := n.machine.read()
		for _, o := range c.nodes {
			if o.group == nil {
				continue
			}
			if got, _ := o.machine.read(); !slices.Equal(got, want) {
				return false
			}
		}
		return true
	})
}

// alternates checks the promise that there is a follow between two leads.
func alternates(t *testing.T, roles []string) {
	t.Helper()
	for i, r := range roles {
		if lead := strings.HasPrefix(r, "lead"); lead != (i%2 == 0) {
			t.Fatalf("leads and follows do not alternate: %q", roles)
		}
	}
}

// bubble runs a test on fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

var errTest = errors.New("for the test")

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
