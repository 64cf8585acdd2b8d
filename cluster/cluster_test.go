package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// soon is how long a test waits for what must happen.
const soon = time.Minute

// eventually waits until ok answers true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	w := &testWriter{t: t}
	t.Cleanup(func() { // memberlist's goroutines outlive its Shutdown by a moment
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// recorder is a LaneHandler that notes what it is told and checks the order of
// ups, frames and downs.
type recorder struct {
	mu     sync.Mutex
	up     map[string]bool
	ups    map[string]int
	downs  map[string]int
	frames map[string][][]byte
	faults []string
	block  chan struct{} // if set, Frame waits for it
}

func newRecorder() *recorder {
	return &recorder{up: map[string]bool{}, ups: map[string]int{}, downs: map[string]int{}, frames: map[string][][]byte{}}
}

func (r *recorder) PeerUp(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.up[id] {
		r.faults = append(r.faults, "up while up: "+id)
	}
	r.up[id] = true
	r.ups[id]++
}

func (r *recorder) PeerDown(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up[id] {
		r.faults = append(r.faults, "down while down: "+id)
	}
	r.up[id] = false
	r.downs[id]++
}

func (r *recorder) Frame(from string, frame []byte) {
	if r.block != nil {
		<-r.block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up[from] {
		r.faults = append(r.faults, "frame while down: "+from)
	}
	r.frames[from] = append(r.frames[from], frame)
}

func (r *recorder) isUp(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up[id]
}

func (r *recorder) count(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.frames[id])
}

func (r *recorder) upsOf(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ups[id]
}

func (r *recorder) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		t.Error(f)
	}
}

// node is a Cluster under test.
type node struct {
	*Cluster
	rec *recorder
	cfg Config
}

func loopback(t *testing.T) Config {
	return Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", HeartbeatTimeout: 3 * time.Second,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
}

// start starts a node; prepare, if not nil, runs before the network does.
func start(t *testing.T, cfg Config, prepare func(*Cluster)) *node {
	t.Helper()
	return startWith(t, cfg, testLog(t), prepare)
}

func startWith(t *testing.T, cfg Config, log *slog.Logger, prepare func(*Cluster)) *node {
	t.Helper()
	c, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Cluster: c, rec: newRecorder(), cfg: cfg}
	c.Handle(n.rec)
	if prepare != nil {
		prepare(c)
	}
	if err := c.Start(t.Context()); err != nil {
		c.Close(t.Context())
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	n.rec.check(t)
}

// crash ends a node without a farewell, as kill -9 would: the port first.
func (n *node) crash(t *testing.T) {
	t.Helper()
	n.mux.listener.Close()
	n.gossip.wire.packets.Close()
	n.stopRaft()
	n.mux.mu.Lock()
	n.mux.stopped = true
	for c := range n.mux.conns {
		c.Close()
	}
	n.mux.mu.Unlock()
	n.end()
}

// stopRaft ends the groups' Raft without handing leadership over.
func (n *node) stopRaft() {
	for _, g := range n.groups.all() {
		if r := g.raft.Load(); r != nil {
			r.Shutdown()
		}
	}
}

// formed waits for the node to belong to a cluster.
func (n *node) formed(t *testing.T) Formation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	f, err := n.Formed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// three starts three nodes that found a cluster.
func three(t *testing.T, change func(*Config)) []*node {
	t.Helper()
	var nodes []*node
	var join []string
	for range 3 {
		cfg := loopback(t)
		cfg.BootstrapExpect = 3
		cfg.Join = slices.Clone(join)
		if change != nil {
			change(&cfg)
		}
		n := start(t, cfg, nil)
		join = append(join, n.Advertised())
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.formed(t)
	}
	return nodes
}

func meshed(t *testing.T, nodes []*node) {
	t.Helper()
	eventually(t, "all lanes up", func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				if !a.rec.isUp(b.id) {
					return false
				}
			}
		}
		return true
	})
}

func TestThreeNodesFormOneCluster(t *testing.T) {
	t.Parallel() // it waits most of its time
	begin := time.Now()
	nodes := three(t, nil)
	t.Logf("formed after %s", time.Since(begin))
	first := nodes[0].formed(t)
	if !first.Bootstrap || first.Join || len(first.Founders) != 3 || !slices.IsSorted(first.Founders) {
		t.Errorf("formation %+v", first)
	}
	for _, n := range nodes {
		if f := n.formed(t); f.ClusterID != first.ClusterID || !slices.Equal(f.Founders, first.Founders) {
			t.Errorf("got %+v, want %+v", f, first)
		}
	}
	meshed(t, nodes)
	t.Logf("meshed after %s", time.Since(begin))
}

func TestFramesArriveInOrderAlsoToSelf(t *testing.T) {
	nodes := three(t, nil)
	meshed(t, nodes)
	const frames = 5000
	for i := range frames {
		for _, to := range nodes {
			f := make([]byte, 8+(i%5)*700)
			binary.BigEndian.PutUint64(f, uint64(i))
			if !nodes[1].Send(to.id, f) {
				t.Fatalf("send %d to %s refused", i, to.id)
			}
		}
	}
	for _, to := range nodes {
		eventually(t, "all frames", func() bool { return to.rec.count(nodes[1].id) == frames })
		to.rec.mu.Lock()
		for i, f := range to.rec.frames[nodes[1].id] {
			if got := binary.BigEndian.Uint64(f); got != uint64(i) || len(f) != 8+(i%5)*700 {
				t.Fatalf("frame %d is number %d of %d bytes", i, got, len(f))
			}
		}
		to.rec.mu.Unlock()
	}
}

func TestACutLaneGoesDownAndUpOnBothSides(t *testing.T) {
	nodes := three(t, nil)
	meshed(t, nodes)
	a, b := nodes[0], nodes[1]
	for range 3 {
		atA, atB := a.rec.upsOf(b.id), b.rec.upsOf(a.id)
		a.lanes.get(b.id).cut()
		eventually(t, "down and up again", func() bool { return a.rec.upsOf(b.id) > atA && b.rec.upsOf(a.id) > atB })
		before := b.rec.count(a.id)
		eventually(t, "a frame on the new lane", func() bool {
			a.Send(b.id, []byte("again"))
			return b.rec.count(a.id) > before
		})
	}
	if a.Dead(b.id) || b.Dead(a.id) {
		t.Error("a cut lane is not a crash")
	}
}

func TestALaneIsCutWhenTooMuchWaits(t *testing.T) {
	nodes := three(t, nil)
	meshed(t, nodes)
	a, b := nodes[0], nodes[1]
	b.rec.mu.Lock() // b's handler hangs
	frame := make([]byte, 1<<20)
	refused := 0
	for i := 0; i < 200 && refused == 0; i++ {
		if !a.Send(b.id, frame) {
			refused++
		}
	}
	b.rec.mu.Unlock()
	if refused == 0 || a.Stats().Lane.Cut == 0 {
		t.Errorf("refused %d, cut %d", refused, a.Stats().Lane.Cut)
	}
	eventually(t, "the lane is up again", func() bool { return a.rec.upsOf(b.id) >= 2 && b.rec.upsOf(a.id) >= 2 })
}

func TestALargeFrameArrives(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	meshed(t, nodes)
	big := make([]byte, 20<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	want := slices.Clone(big)
	if !nodes[0].Send(nodes[1].id, big) {
		t.Fatal("refused")
	}
	eventually(t, "the frame", func() bool { return nodes[1].rec.count(nodes[0].id) == 1 })
	nodes[1].rec.mu.Lock()
	defer nodes[1].rec.mu.Unlock()
	if !slices.Equal(nodes[1].rec.frames[nodes[0].id][0], want) {
		t.Error("the frame changed on its way")
	}
	if nodes[0].Send(nodes[1].id, make([]byte, frameBytesMax+1)) {
		t.Error("a frame above the limit was taken")
	}
}

func TestACrashIsNoticedAtOnce(t *testing.T) {
	nodes := three(t, nil)
	meshed(t, nodes)
	begin := time.Now()
	nodes[2].crash(t)
	for _, n := range nodes[:2] {
		eventually(t, "crash noticed", func() bool { return n.Dead(nodes[2].id) && !n.rec.isUp(nodes[2].id) })
		if n.Dead(nodes[0].id) || n.Dead(nodes[1].id) {
			t.Error("a living node is called dead")
		}
	}
	t.Logf("noticed after %s", time.Since(begin))
}

func TestANodeComesBackOnAnotherPort(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	meshed(t, nodes)
	for i := range nodes {
		n := nodes[i]
		eventually(t, "addresses saved", func() bool {
			for _, other := range nodes {
				if other != n && n.identity.get().Members[other.id] != other.Advertised() {
					return false
				}
			}
			return true
		})
		n.crash(t)
		n.stop(t)
		cfg := n.cfg
		cfg.Join = nil // only what node.json remembers
		again := start(t, cfg, nil)
		if f := again.formed(t); again.id != n.id || f.Join || f.ClusterID != nodes[0].identity.get().ClusterID {
			t.Errorf("came back as %s with %+v", again.id, f)
		}
		nodes[i] = again
		meshed(t, nodes)
	}
}

func TestAFourthNodeJoins(t *testing.T) {
	t.Parallel() // it waits most of its time
	var leader string
	var asked sync.Map
	cfgs := []Config{loopback(t), loopback(t), loopback(t)}
	var nodes []*node
	for i := range cfgs {
		cfgs[i].BootstrapExpect = 3
		for _, n := range nodes {
			cfgs[i].Join = append(cfgs[i].Join, n.Advertised())
		}
		nodes = append(nodes, start(t, cfgs[i], func(c *Cluster) {
			c.OnJoin(func(_ context.Context, id, name, addr string) error {
				if c.id != leader {
					return &Redirect{ID: leader}
				}
				asked.Store(id, name+" "+addr)
				return nil
			})
			leader = max(leader, c.id)
		}))
	}
	for _, n := range nodes {
		n.formed(t)
	}
	cfg := loopback(t)
	cfg.Name = "fourth"
	cfg.Join = []string{nodes[0].Advertised()}
	fourth := start(t, cfg, nil)
	f := fourth.formed(t)
	if !f.Join || f.Bootstrap || f.ClusterID != nodes[0].formed(t).ClusterID {
		t.Errorf("formation %+v", f)
	}
	if v, _ := asked.Load(fourth.id); v != "fourth "+fourth.Advertised() {
		t.Errorf("the leader was asked %q", v)
	}
	meshed(t, append(nodes, fourth))
}

func TestCallsReachTheOtherNodesHandler(t *testing.T) {
	cfg := loopback(t)
	a := start(t, cfg, func(c *Cluster) {
		c.OnCall(KindNode, func(_ context.Context, from string, req []byte) ([]byte, error) {
			if len(req) == 0 {
				return nil, fmt.Errorf("nothing asked")
			}
			return append([]byte(from+" said "), req...), nil
		})
		c.OnJoin(func(context.Context, string, string, string) error { return nil })
	})
	a.formed(t)
	cfg = loopback(t)
	cfg.Join = []string{a.Advertised()}
	b := start(t, cfg, nil)
	b.formed(t)
	got, err := b.Call(t.Context(), a.id, KindNode, []byte("hi"))
	if err != nil || string(got) != b.id+" said hi" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.Call(t.Context(), a.id, KindNode, nil); err == nil || err.Error() != "nothing asked" {
		t.Errorf("got %v, want the handler's error", err)
	}
	if _, err := b.Call(t.Context(), a.id, KindNode+1, nil); err == nil {
		t.Error("an unknown kind was answered")
	}
	if got, err := a.Call(t.Context(), a.id, KindNode, []byte("me")); err != nil || string(got) != a.id+" said me" {
		t.Errorf("to itself: %q, %v", got, err)
	}
}

func TestTwoProcessesCannotShareADataDirectory(t *testing.T) {
	n := start(t, loopback(t), nil)
	if _, err := New(n.cfg, testLog(t)); err == nil {
		t.Error("a second one opened it")
	}
}

// startLogged starts a node that logs into w.
func startLogged(t *testing.T, cfg Config, w *logged) *node {
	t.Helper()
	return startWith(t, cfg, slog.New(slog.NewTextHandler(w, nil)), nil)
}
