package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/fsm/meta"
	"warren/mq"
	"warren/storage/segment"
	"warren/storage/vfs"
)

// house is a cluster in memory: real brokers, lanes that are queues, and logs
// that commit at once on every live node. Tests choose who leads, cut lanes
// and end nodes.
type house struct {
	t      *testing.T
	nodes  []*houseNode
	groups map[mq.GroupID]*houseLog

	mu    sync.Mutex
	sees  func(from, to mq.NodeID, frame []byte)      // every frame that is sent; may be nil
	loses func(from, to mq.NodeID, frame []byte) bool // whether it does not arrive; may be nil
}

type houseNode struct {
	*Broker
	id    mq.NodeID
	house *house
	work  sync.WaitGroup
	pager *segment.Pager // nil: bodies stay in memory
	disk  *vfs.Mem       // of pager

	mu     sync.Mutex
	cond   *sync.Cond
	inbox  []houseFrame
	linked map[mq.NodeID]bool
	ended  bool
}

// houseFrame is a frame, or with do something else that keeps its place among them.
type houseFrame struct {
	from  mq.NodeID
	frame []byte
	do    func()
}

// folder is where a group's bodies are paged out to.
func (n *houseNode) folder(t *testing.T, g mq.GroupID) *segment.Folder {
	if n.pager == nil {
		return nil
	}
	f, err := n.pager.Folder(fmt.Sprintf("/groups/%d/segments", g))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (n *houseNode) Self() mq.NodeID { return n.id }

func (n *houseNode) Peers() (out []mq.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, up := range n.linked {
		if up {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (n *houseNode) Dead(id mq.NodeID) bool { return n.house.node(id).dead() }

func (n *houseNode) dead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ended
}

func (n *houseNode) Send(to mq.NodeID, frame []byte) bool {
	if to != n.id {
		n.mu.Lock()
		up := n.linked[to]
		n.mu.Unlock()
		if !up {
			return false
		}
	}
	if n.house.takes(n.id, to, frame) {
		return true
	}
	n.house.node(to).put(houseFrame{from: n.id, frame: frame})
	return true
}

// takes says what sees and loses say of a frame.
func (h *house) takes(from, to mq.NodeID, frame []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sees != nil {
		h.sees(from, to, frame)
	}
	return h.loses != nil && h.loses(from, to, frame)
}

func (n *houseNode) put(f houseFrame) {
	n.mu.Lock()
	n.inbox = append(n.inbox, f)
	n.cond.Signal()
	n.mu.Unlock()
}

func (n *houseNode) run() {
	for {
		n.mu.Lock()
		for len(n.inbox) == 0 && !n.ended {
			n.cond.Wait()
		}
		if n.ended {
			n.mu.Unlock()
			return
		}
		f := n.inbox[0]
		n.inbox = n.inbox[1:]
		up := f.from == n.id || n.linked[f.from]
		n.mu.Unlock()
		switch {
		case f.do != nil:
			f.do()
		case up:
			n.Frame(f.from, f.frame)
		}
	}
}

func (h *house) node(id mq.NodeID) *houseNode {
	for _, n := range h.nodes {
		if n.id == id {
			return n
		}
	}
	h.t.Fatalf("no node %s", id)
	return nil
}

// houseLog is one group's log on all nodes.
type houseLog struct {
	house *house
	group mq.GroupID

	mu      sync.Mutex
	entries []Entry
	term    uint64
	leader  mq.NodeID
	applied map[mq.NodeID]int
	refuse  func() bool // whether the next proposal fails though the leader stays; nil: none does
	doubt   func() bool // whether the next proposal is said to fail, and does not; nil: none is
}

// houseSeat is a node's place at a log.
type houseSeat struct {
	log  *houseLog
	node *houseNode
}

func (s houseSeat) Lease() bool { return true }

func (s houseSeat) Propose(entry []byte, done func(any, error)) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader != s.node.id || s.node.dead() || l.refuse != nil && l.refuse() {
		done(nil, errors.New("not the leader"))
		return
	}
	l.entries = append(l.entries, Entry{Index: uint64(len(l.entries) + 1), Term: l.term, Data: entry})
	var mine any
	for _, n := range l.house.nodes {
		if n.dead() {
			continue
		}
		r := l.catchUp(n)
		if n == s.node {
			mine = r
		}
	}
	if l.doubt != nil && l.doubt() {
		done(nil, errors.New("commit unknown"))
		return
	}
	done(mine, nil)
}

// catchUp applies what a node has not applied yet; the last result is returned.
func (l *houseLog) catchUp(n *houseNode) (result any) {
	for at := l.applied[n.id]; at < len(l.entries); at++ {
		l.applied[n.id] = at + 1
		if l.group == metaGroup {
			result = n.Metadata().Apply(l.entries[at : at+1])[0]
		} else {
			n.Shard(l.group).Apply(l.entries[at : at+1])
		}
	}
	return result
}

// lead moves a group's leadership.
func (h *house) lead(g mq.GroupID, to *houseNode) {
	l := h.groups[g]
	l.mu.Lock()
	old := l.leader
	l.term++
	l.leader = to.id
	term := l.term
	l.catchUp(to)
	l.mu.Unlock()
	if old != "" && !h.node(old).dead() {
		if g == metaGroup {
			h.node(old).Metadata().Follow()
		} else {
			h.node(old).Shard(g).Follow()
		}
	}
	if g == metaGroup {
		to.Metadata().Lead(term)
	} else {
		to.Shard(g).Lead(term)
	}
}

// newHouse starts n nodes with the metadata group and queue groups 1..groups,
// group g led by node (g-1) mod n.
func newHouse(t *testing.T, n, groups int) *house {
	t.Helper()
	return newPagedHouse(t, n, groups, 0)
}

// newPagedHouse is newHouse with nodes that keep no more than bodyMemory bytes
// of bodies in memory; 0 means all.
func newPagedHouse(t *testing.T, n, groups int, bodyMemory int64) *house {
	t.Helper()
	return buildHouse(t, n, groups, bodyMemory, func(int, *Options) {})
}

// buildHouse is newPagedHouse with other options for some of its nodes.
func buildHouse(t *testing.T, n, groups int, bodyMemory int64, tune func(i int, o *Options)) *house {
	t.Helper()
	h := &house{t: t, groups: map[mq.GroupID]*houseLog{}}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	for i := range n {
		node := &houseNode{id: mq.NodeID(fmt.Sprintf("node%d", i+1)), house: h, linked: map[mq.NodeID]bool{}}
		node.cond = sync.NewCond(&node.mu)
		if bodyMemory > 0 {
			node.disk = vfs.NewMem()
			node.pager = segment.NewPager(node.disk, bodyMemory, math.MaxInt64, BodySense(), log)
			t.Cleanup(node.pager.Close)
		}
		o := Options{NowMs: func() int64 { return time.Now().UnixMilli() }, Log: log.With("node", node.id)}
		tune(i, &o)
		node.Broker = New(node, o)
		h.nodes = append(h.nodes, node)
	}
	var replicas []mq.NodeID
	for _, a := range h.nodes {
		replicas = append(replicas, a.id)
		for _, b := range h.nodes {
			if a != b {
				a.linked[b.id] = true
			}
		}
	}
	for g := range mq.GroupID(groups + 1) {
		h.groups[g] = &houseLog{house: h, group: g, applied: map[mq.NodeID]int{}}
		for _, n := range h.nodes {
			if g == metaGroup {
				n.Metadata().Start(houseSeat{h.groups[g], n})
			} else {
				n.AddShard(g, n.folder(t, g)).Start(houseSeat{h.groups[g], n})
			}
		}
	}
	for _, n := range h.nodes {
		n.work.Go(n.run)
	}
	t.Cleanup(h.close)
	h.lead(metaGroup, h.nodes[0])
	first := meta.ClusterInit{ClusterID: "house", DefaultUser: "guest", DefaultVHost: "/"}
	for range groups {
		first.Groups = append(first.Groups, replicas)
	}
	if _, err := h.nodes[0].Propose(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for _, n := range h.nodes {
		if err := n.OpenSession(t.Context(), string(n.id), "addr"); err != nil {
			t.Fatal(err)
		}
	}
	for g := range mq.GroupID(groups) {
		h.lead(g+1, h.nodes[int(g)%n])
	}
	return h
}

func (h *house) close() {
	for _, n := range h.nodes {
		h.end(n)
	}
	for _, n := range h.nodes {
		n.work.Wait()
	}
}

// end is the death of a node.
func (h *house) end(n *houseNode) {
	n.mu.Lock()
	was := n.ended
	n.ended = true
	n.cond.Broadcast()
	n.mu.Unlock()
	if was {
		return
	}
	for _, other := range h.nodes {
		if other != n {
			h.cut(other, n)
		}
	}
	n.Broker.Close()
	for g, l := range h.groups {
		l.mu.Lock()
		if l.leader == n.id {
			l.leader = ""
		}
		l.mu.Unlock()
		if g != metaGroup {
			n.Shard(g).Follow()
		} else {
			n.Metadata().Follow()
		}
	}
}

// cut loses the connection between two nodes, with all that is on its way.
func (h *house) cut(a, b *houseNode) {
	for _, p := range [][2]*houseNode{{a, b}, {b, a}} {
		p[0].mu.Lock()
		p[0].linked[p[1].id] = false
		p[0].mu.Unlock()
	}
	for _, p := range [][2]*houseNode{{a, b}, {b, a}} {
		done := make(chan struct{})
		if p[0].dead() {
			continue
		}
		p[0].put(houseFrame{from: p[0].id, do: func() {
			p[0].drop(p[1].id)
			p[0].PeerDown(p[1].id)
			close(done)
		}})
		<-done
	}
}

// pause keeps a node from handling frames until resume is called.
func (n *houseNode) pause() (resume func()) {
	paused, resumed := make(chan struct{}), make(chan struct{})
	n.put(houseFrame{from: n.id, do: func() { close(paused); <-resumed }})
	<-paused
	return sync.OnceFunc(func() { close(resumed) })
}

// caughtUp waits until a node has handled all frames that it has now.
func (n *houseNode) caughtUp() {
	done := make(chan struct{})
	n.put(houseFrame{from: n.id, do: func() { close(done) }})
	<-done
}

// drop forgets frames of a lost connection.
func (n *houseNode) drop(from mq.NodeID) {
	n.mu.Lock()
	n.inbox = slices.DeleteFunc(n.inbox, func(f houseFrame) bool { return f.do == nil && f.from == from })
	n.mu.Unlock()
}

// mend connects two nodes again.
func (h *house) mend(a, b *houseNode) {
	for _, p := range [][2]*houseNode{{a, b}, {b, a}} {
		p[0].mu.Lock()
		p[0].linked[p[1].id] = true
		p[0].mu.Unlock()
	}
	for _, p := range [][2]*houseNode{{a, b}, {b, a}} {
		p[0].put(houseFrame{from: p[0].id, do: func() { p[0].PeerUp(p[1].id) }})
	}
}

// open begins a client's session on a node.
func (n *houseNode) open(t *testing.T) *Session {
	t.Helper()
	s, err := n.Open(t.Context(), "guest", "/", func(*mq.Error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// confirms is a publisher's ear.
type confirms struct {
	mu   sync.Mutex
	got  map[uint64]mq.Outcome
	more chan struct{}
}

func newConfirms() *confirms {
	return &confirms{got: map[uint64]mq.Outcome{}, more: make(chan struct{}, 1)}
}

func (c *confirms) Confirm(tag uint64, o mq.Outcome) {
	c.mu.Lock()
	if _, twice := c.got[tag]; twice {
		panic("confirmed twice")
	}
	c.got[tag] = o
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *confirms) of(tag uint64) mq.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[tag]
}

func (c *confirms) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// inbox is a consumer's end.
type inbox struct {
	mu        sync.Mutex
	got       []mq.Delivery
	cancelled error
	more      chan struct{}
}

func newInbox() *inbox { return &inbox{more: make(chan struct{}, 1)} }

func (i *inbox) Deliver(d mq.Delivery) {
	i.mu.Lock()
	i.got = append(i.got, d)
	i.mu.Unlock()
	i.wake()
}

func (i *inbox) Cancelled(err error) {
	i.mu.Lock()
	i.cancelled = err
	i.mu.Unlock()
	i.wake()
}

func (i *inbox) wake() {
	select {
	case i.more <- struct{}{}:
	default:
	}
}

func (i *inbox) all() []mq.Delivery {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.got)
}

// bubble runs a test on a clock that stands still while anything is being done:
// a delay is over when it is over, and not because the machine is busy.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { <-time.After(2 * changeWait) }) // calls that nobody waits for end by their time
		f(t)
	})
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}

func (s *Session) mustDeclare(t *testing.T, d mq.QueueDeclare) {
	t.Helper()
	if _, err := s.Change(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func (s *Session) mustPublish(t *testing.T, queue, body string, c mq.Confirmer, tag uint64) {
	t.Helper()
	p := &mq.Publish{Content: append(mq.NewContent("", queue, []byte{0, 0}, len(body)), body...), ExpirationMs: -1, Confirm: c, Tag: tag}
	if o, err := s.Publish(t.Context(), p); err != nil || o != mq.Pending {
		t.Fatalf("publish to %q: %v, %v", queue, o, err)
	}
	s.Flush()
}

func (s *Session) mustConsume(t *testing.T, spec mq.ConsumeSpec, to mq.Sink) mq.ConsumerID {
	t.Helper()
	id, err := s.Consume(t.Context(), spec, to)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *Session) settle(t *testing.T, v mq.Verdict, ds ...mq.Delivery) {
	t.Helper()
	var h []mq.Held
	for i := range ds {
		h = append(h, ds[i].Held())
	}
	if err := s.Settle(t.Context(), mq.Settlement{Verdict: v, Held: h}); err != nil {
		t.Fatal(err)
	}
	s.Flush()
}
