package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	probeTimeout = 300 * time.Millisecond
	// probeFastEvery and probeFastMax: a dying process closes its sockets one by
	// one, the port maybe last.
	probeFastEvery = 10 * time.Millisecond
	probeFastMax   = 20
	probeSlowEvery = time.Second
	// rankPatience is how long each rank of followers waits for the one before to
	// stand; a busy machine may see a crash late.
	rankPatience = 500 * time.Millisecond
	// standEvery is how often one that waits looks whether it is its turn.
	standEvery = 10 * time.Millisecond
	// electionMax is how long an election that is under way is given.
	electionMax = 150 * time.Millisecond
	// gossipDeadMin is how long gossip must call a node dead to be believed.
	gossipDeadMin = 10 * time.Second
)

// morgue finds out which peers have crashed: the lane broke and the port
// refuses connections, so that nothing of the process is left. A peer that
// hangs, or cannot be reached, is not crashed.
type morgue struct {
	log     *slog.Logger
	addrs   func(id string) []string
	laneUp  func(id string) bool
	crashed func(ctx context.Context, id string) // once per crash, on a goroutine of its own
	refuses func(ctx context.Context, id string) bool

	mu       sync.Mutex
	dead     map[string]bool
	watching map[string]chan struct{} // cap 1: the lane went down once more
	ended    bool
	work     sync.WaitGroup
}

func newMorgue(log *slog.Logger) *morgue {
	m := &morgue{log: log, dead: map[string]bool{}, watching: map[string]chan struct{}{}}
	m.refuses = m.allRefuse
	return m
}

func (m *morgue) isDead(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead[id]
}

// alive notes a sign of life.
func (m *morgue) alive(id string) {
	m.mu.Lock()
	delete(m.dead, id)
	m.mu.Unlock()
}

// watch probes a peer without a lane until it has one again. Probes that have
// become rare are frequent again: a lane that was up for a moment may have ended
// in a crash.
func (m *morgue) watch(ctx context.Context, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	if again := m.watching[id]; again != nil {
		signal(again)
		return
	}
	again := make(chan struct{}, 1)
	m.watching[id] = again
	m.work.Go(func() {
		m.probe(ctx, id, again)
		for !m.watched(id, again) {
			m.probe(ctx, id, again)
		}
	})
}

// watched ends the watch of a peer, unless its lane has gone down since.
func (m *morgue) watched(id string, again <-chan struct{}) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-again:
		return false
	default:
		delete(m.watching, id)
		return true
	}
}

func (m *morgue) probe(ctx context.Context, id string, again <-chan struct{}) {
	for n := 0; !m.laneUp(id); n++ {
		if m.refuses(ctx, id) && !m.laneUp(id) {
			m.mu.Lock()
			news := !m.dead[id]
			m.dead[id] = true
			m.mu.Unlock()
			if news {
				m.log.Warn("peer crashed: its port refuses connections", "peer", id)
				m.work.Go(func() { m.crashed(ctx, id) })
			}
			n = probeFastMax
		}
		wait := probeFastEvery
		if n >= probeFastMax {
			wait = probeSlowEvery
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-again:
			n = -1
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// allRefuse reports whether every known address of a peer refuses.
func (m *morgue) allRefuse(ctx context.Context, id string) bool {
	addrs := m.addrs(id)
	for _, addr := range addrs {
		d := net.Dialer{Timeout: probeTimeout}
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return false
		}
	}
	return len(addrs) > 0
}

func (m *morgue) close() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.work.Wait()
}

// succeed stands for election in the groups that a crashed node led, in the
// order of the followers' ids.
func (c *Cluster) succeed(ctx context.Context, id string) {
	c.callers.cut(id)
	var work sync.WaitGroup
	for _, g := range c.groups.all() {
		leader, term, _ := g.Leader()
		if t := c.groups.transport(g.gid); leader == "" && t != nil { // another one may have stood by now
			leader, term = t.lastLeader()
		}
		if r := g.raft.Load(); r != nil && leader == id {
			rank := slices.Index(c.heirs(g.voters(r), id), c.id)
			if rank >= 0 {
				work.Go(func() { c.stand(ctx, g, id, term, rank) })
			}
		}
	}
	work.Wait()
}

// heirs are the voters that may stand, in order.
func (c *Cluster) heirs(voters []string, crashed string) []string {
	heirs := slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == crashed || c.morgue.isDead(v) })
	slices.Sort(heirs)
	return heirs
}

// stand injects an election unless somebody else leads by then. The first rank
// does so at once; the others give those before them time, since two that stand
// in the same moment each get one vote, and Raft lets an election timeout pass
// before they try again. An earlier election that has had its time without a
// leader was lost by who stood, maybe because its log is behind: then it is the
// next one's turn at once.
func (c *Cluster) stand(ctx context.Context, g *Group, crashed string, term uint64, rank int) {
	begin, tried := time.Now(), time.Time{}
	for {
		leader, now, _ := g.Leader()
		if leader != "" && leader != crashed {
			return
		}
		if now != term && leader == "" && tried.IsZero() {
			tried = time.Now()
		}
		if tried.IsZero() && time.Since(begin) >= time.Duration(rank)*rankPatience ||
			!tried.IsZero() && time.Since(tried) >= electionMax {
			break
		}
		if !rest(ctx, standEvery) {
			return
		}
	}
	c.log.Info("standing for election: the leader crashed", "group", g.gid, "leader", crashed)
	g.InjectTimeoutNow()
}
