package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"warren/storage/raftlog"
	"warren/storage/vfs"
)

// Config is what a node's cluster side needs to know.
type Config struct {
	// DataDir is the node's data directory; one process at a time may use it.
	DataDir string
	// Name is shown to people; up to 128 bytes. Default: the node's id.
	Name string
	// Listen is the cluster port, TCP and UDP, as host:port. An empty host is
	// every address, port 0 any free port. Default: :25672.
	Listen string
	// Advertise is where other nodes reach Listen, as host or host:port. Default:
	// Listen, with an address of this host in place of an empty one.
	Advertise string
	// Join lists addresses, as host:port, where other nodes may be found. Names
	// are resolved anew at each try; the node's own address does no harm.
	Join []string
	// BootstrapExpect is how many fresh nodes found a new cluster together. With
	// 0 or 1, a fresh node with a join list waits to be let in, and one without
	// founds a cluster of its own. At most 255.
	BootstrapExpect int
	// Secret is what the nodes of a cluster share: it makes their connections
	// mutual TLS and encrypts gossip. Empty: neither. At least 16 bytes.
	Secret []byte
	// HeartbeatTimeout is how long a group's followers wait for a silent leader:
	// Raft's heartbeat, election and leader lease timeouts. Default: 2 s.
	HeartbeatTimeout time.Duration
	// LogCacheBytes is how much of its newest log each group keeps in memory; the
	// groups of a WAL share four times as much. Default: 4 MiB.
	LogCacheBytes int64
	// LogStore is where the entries of groups are, but for the metadata group's:
	// LogStoreWAL or LogStoreBolt. It cannot change while there are any. Default:
	// LogStoreWAL.
	LogStore string
	// PullBytesPerSecond is how much of snapshots' files this node gets from others
	// or gives to them in a second. Default: 64 MiB.
	PullBytesPerSecond int64
	// Fatal ends the process after a failed fsync and the like: to go on would
	// break promises. It must not return. Default: panic.
	Fatal func(error)
}

// Values of Config.LogStore.
const (
	LogStoreWAL  = "wal"    // one log of all groups: one sync for whatever they store at a time
	LogStoreBolt = "boltdb" // a raft-boltdb file for each
)

// walDir is the WAL's folder in the data directory.
const walDir = "wal"

const (
	defaultListen        = ":25672"
	defaultHeartbeat     = 2 * time.Second
	heartbeatMin         = 50 * time.Millisecond
	defaultLogCacheBytes = 4 << 20
	secretBytesMin       = 16
)

// Validate checks the configuration and fills in the defaults.
func (c *Config) Validate() error {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.HeartbeatTimeout == 0 {
		c.HeartbeatTimeout = defaultHeartbeat
	}
	if c.LogCacheBytes == 0 {
		c.LogCacheBytes = defaultLogCacheBytes
	}
	if c.PullBytesPerSecond == 0 {
		c.PullBytesPerSecond = defaultPullBytesPerSecond
	}
	if c.LogStore == "" {
		c.LogStore = LogStoreWAL
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("data directory: none given"))
	}
	if len(c.Name) > nameBytesMax {
		errs = append(errs, fmt.Errorf("name: %d bytes long, the most is %d", len(c.Name), nameBytesMax))
	}
	if len(c.Advertise) > addrBytesMax {
		errs = append(errs, fmt.Errorf("advertised address: %d bytes long, the most is %d", len(c.Advertise), addrBytesMax))
	}
	for _, addr := range append([]string{c.Listen}, c.Join...) {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("address %q: %w", addr, err))
		}
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect >= foundersMax {
		errs = append(errs, fmt.Errorf("bootstrap expect: %d is not in 0..%d", c.BootstrapExpect, foundersMax-1))
	}
	if n := len(c.Secret); n > 0 && n < secretBytesMin {
		errs = append(errs, fmt.Errorf("secret: %d bytes long, the least is %d", n, secretBytesMin))
	}
	if c.LogStore != LogStoreWAL && c.LogStore != LogStoreBolt {
		errs = append(errs, fmt.Errorf("log store %q: must be %s or %s", c.LogStore, LogStoreWAL, LogStoreBolt))
	}
	if c.PullBytesPerSecond < pullBytesMax {
		errs = append(errs, fmt.Errorf("pull rate: %d bytes per second, the least is %d", c.PullBytesPerSecond, pullBytesMax))
	}
	if c.HeartbeatTimeout < heartbeatMin {
		errs = append(errs, fmt.Errorf("heartbeat timeout: %s, the least is %s", c.HeartbeatTimeout, heartbeatMin))
	}
	return errors.Join(errs...)
}

// Cluster is one node's place among the others. Safe for concurrent use.
type Cluster struct {
	cfg Config
	id  string
	log *slog.Logger

	identity *identity
	wal      *raftlog.WAL // nil with LogStoreBolt
	calls    *callTable
	callers  *callers
	lanes    *lanes
	book     *book
	groups   groupTable
	morgue   *morgue
	former   *former
	bulkRate *bucket
	pulls    pullCounters

	// Set by Start.
	mux    *mux
	gossip *gossip
	life   context.Context // of every goroutine below; Close ends it
	end    context.CancelFunc
	work   sync.WaitGroup
	closed sync.Once
}

// New locks the data directory, reads who this node is and what its groups'
// shared log holds; it opens no socket.
// After Handle, OnJoin and OnCall comes Start. Close is needed in any case.
func New(cfg Config, log *slog.Logger) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster config: %w", err)
	}
	id, err := openIdentity(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, id: id.get().ID, identity: id, calls: newCallTable(), bulkRate: &bucket{bytesPerSecond: cfg.PullBytesPerSecond}}
	if c.cfg.Name == "" {
		c.cfg.Name = c.id
	}
	c.log = log.With("id", c.id)
	if err := c.openWAL(); err != nil {
		return nil, errors.Join(err, id.close())
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.book = newBook(id, c.log)
	c.callers = newCallers(c.dial)
	c.groups = groupTable{groups: map[uint64]*Group{}, transports: map[uint64]*transport{}}
	c.lanes = newLanes(c.id, c.log, func(ctx context.Context, id string) (net.Conn, error) { return c.dial(ctx, id, roleLane) })
	c.morgue = newMorgue(c.log)
	c.morgue.addrs = c.book.find
	c.morgue.crashed = c.succeed
	c.morgue.laneUp = func(id string) bool { l := c.lanes.get(id); return l == nil || l.out.Load() != nil }
	c.lanes.up = func(id string) {
		c.morgue.alive(id)
		c.work.Go(func() { c.askBook(c.life, id) })
	}
	c.lanes.down = func(id string) { c.morgue.watch(c.life, id) }
	c.former = &former{
		id: id, log: c.log, expect: cfg.BootstrapExpect, join: cfg.Join, done: make(chan struct{}),
		call: c.Call,
	}
	c.calls.kinds[kindPrepare] = c.former.onPrepare
	c.calls.kinds[kindCommit] = c.former.onCommit
	c.calls.kinds[kindStatus] = c.former.onStatus
	c.calls.kinds[kindJoin] = c.former.onJoinCall
	c.calls.kinds[kindBook] = c.onBook
	c.calls.kinds[kindReplica] = c.onReplica
	return c, nil
}

// openWAL opens the log that Config.LogStore says, and refuses to leave behind
// groups whose entries are in the other one.
func (c *Cluster) openWAL() error {
	bolt, wal, known, err := groupsByStore(filepath.Join(c.cfg.DataDir, groupsDir))
	switch {
	case err != nil:
		return err
	case c.cfg.LogStore == LogStoreBolt && wal != "":
		return fmt.Errorf("the log of group %s is in %s: start the node with raft.log_store = wal", wal, filepath.Join(c.cfg.DataDir, walDir))
	case c.cfg.LogStore == LogStoreBolt:
		return nil
	case bolt != "":
		return fmt.Errorf("%s has a log of its own, %s: start the node with raft.log_store = boltdb", bolt, logFile)
	}
	dir := filepath.Join(c.cfg.DataDir, walDir)
	w, err := raftlog.OpenWAL(vfs.OS{}, dir, raftlog.Options{
		Log: c.log, Fatal: c.cfg.Fatal, CacheBytes: 4 * c.cfg.LogCacheBytes, Known: known,
	})
	if err != nil {
		return err
	}
	if w.Fresh() && wal != "" {
		return errors.Join(fmt.Errorf("the log of group %s must be in %s, and nothing is: restore it, or start with an empty directory", wal, dir),
			w.Close(), os.RemoveAll(dir)) // so that the next start says the same
	}
	c.wal = w
	return nil
}

// groupsByStore finds a queue group with a log of its own, and one with its
// entries in the WAL; and the numbers of all of the latter kind.
func groupsByStore(dir string) (bolt, wal string, known []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", nil, err
	}
	for _, e := range entries {
		group := filepath.Join(dir, e.Name())
		switch {
		case e.Name() == fmt.Sprintf("%08x", 0): // the metadata group
		case exists(filepath.Join(group, logFile)):
			bolt = group
		case exists(filepath.Join(group, stableFile)):
			wal = group
			if gid, err := strconv.ParseUint(e.Name(), 16, 64); err == nil {
				known = append(known, gid)
			}
		}
	}
	return bolt, wal, known, nil
}

// ID is the node's id for ever: 16 hex digits.
func (c *Cluster) ID() string { return c.id }

// Handle sets who receives the lanes' frames. Before Start.
func (c *Cluster) Handle(h LaneHandler) { c.lanes.handler = h }

// OnJoin sets who decides about nodes that want to join. Before Start.
func (c *Cluster) OnJoin(h JoinHandler) { c.former.onJoin = h }

// Start listens, looks for the other nodes and goes on doing so until Close.
// ctx bounds the start only. Formed tells when this node belongs to a cluster.
func (c *Cluster) Start(ctx context.Context) error {
	if c.lanes.handler == nil {
		return errors.New("start cluster: no lane handler")
	}
	creds, err := newCredentials(c.cfg.Secret, c.id)
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	key, err := gossipKey(c.cfg.Secret)
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	ln, udp, err := listenBoth(ctx, c.cfg.Listen)
	if err != nil {
		return err
	}
	said, ip, err := advertised(ctx, c.cfg.Advertise, ln.Addr(), c.cfg.Join)
	if err != nil {
		ln.Close()
		udp.Close()
		return fmt.Errorf("find the advertised address: %w", err)
	}
	m := newMux(c.identity, creds, ln, c.log)
	m.advertised.Store(&said)
	wire := newGossipWire(m, udp, ip)
	c.serveRoles(m, wire)
	c.mux = m
	wire.work.Go(wire.receive)
	self := Member{ID: c.id, Name: c.cfg.Name, Addr: said, Expect: c.cfg.BootstrapExpect}
	g, err := startGossip(c.identity, self, key, wire, c.log)
	if err != nil {
		wire.Shutdown()
		m.stop()
		return err
	}
	c.gossip = g
	seek := &seeker{names: c.cfg.Join, book: c.book, gossip: g, last: map[string]error{}}
	c.former.gossip, c.former.seek = g, seek
	c.log.Info("cluster port open", "listen", ln.Addr().String(), "advertise", said, "secret", creds != nil)
	c.work.Go(func() { m.run(c.life) })
	c.work.Go(func() { c.followGossip(c.life) })
	c.work.Go(func() { seek.run(c.life) })
	c.work.Go(func() { c.book.run(c.life, c.isMember) })
	c.work.Go(func() { c.former.run(c.life) })
	c.work.Go(func() { c.openLanes(c.life) })
	return nil
}

// serveRoles says what becomes of an accepted connection.
func (c *Cluster) serveRoles(m *mux, wire *gossipWire) {
	raft := func(_ context.Context, conn net.Conn, h hello) {
		c.report(h, serveRPC(conn, h, c.receiveRaft))
	}
	m.accept[roleControl], m.accept[roleData] = raft, raft
	m.accept[roleLane] = func(_ context.Context, conn net.Conn, h hello) {
		held := &heldConn{Conn: conn, closed: make(chan struct{})}
		c.lanes.accept(c.life, held, h.id)
		select { // the mux closes what this function leaves
		case <-held.closed:
		case <-c.life.Done(): // nobody may have taken it any more
		}
	}
	m.accept[roleBulk] = func(_ context.Context, conn net.Conn, h hello) {
		c.report(h, serveBulk(conn, c.groups.transport))
	}
	m.accept[roleGossip] = wire.acceptStream
	m.accept[roleCall] = func(ctx context.Context, conn net.Conn, h hello) {
		c.report(h, serveRPC(conn, h, func(q request) { c.calls.handle(ctx, q) }))
	}
	m.heard = c.heard
}

func (c *Cluster) report(h hello, err error) {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.log.Warn("connection of a peer ended", "peer", h.id, "role", h.role.String(), "err", err)
	}
}

func (c *Cluster) receiveRaft(q request) {
	t := c.groups.transport(q.head.group)
	if t == nil {
		q.answer(nil, fmt.Errorf("%w: %d", errNoGroup, q.head.group))
		return
	}
	t.receive(q)
}

// heard learns from a peer's hello, which is newer than any gossip.
func (c *Cluster) heard(id, addr string) {
	if c.book.prove(id, addr) {
		c.lanes.hurry(id)
	}
}

// isMember reports whether id is known to belong to this node's cluster.
func (c *Cluster) isMember(id string) bool {
	f := c.identity.get()
	if _, known := f.Members[id]; known || slices.Contains(f.Founders, id) {
		return id != f.ID
	}
	m, ok := c.gossip.member(id)
	return ok && m.ClusterID == f.ClusterID
}

// followGossip keeps the book, and after forming the lanes, up to gossip's news.
func (c *Cluster) followGossip(ctx context.Context) {
	last := map[string]Member{}
	for {
		members, changed := c.gossip.view()
		own := c.identity.get().ClusterID
		for _, m := range members {
			if m.ID == c.id || !m.Alive {
				continue
			}
			if old := last[m.ID]; old.Addr != m.Addr || old.seen != m.seen || !old.Alive {
				said, seen := c.book.hint(m.ID, m.Addr), c.book.hint(m.ID, m.seen)
				if said || seen {
					c.lanes.hurry(m.ID)
				}
			}
			if own != "" && m.ClusterID == own {
				c.openLane(m.ID)
			}
		}
		clear(last)
		for _, m := range members {
			last[m.ID] = m
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// openLanes opens the lanes to everyone known once the cluster is formed.
func (c *Cluster) openLanes(ctx context.Context) {
	select {
	case <-c.former.done:
	case <-ctx.Done():
		return
	}
	c.lanes.add(c.life, c.id)
	f := c.identity.get()
	ids := slices.Concat(f.Founders, slices.Collect(maps.Keys(f.Members)))
	members, _ := c.gossip.view()
	for _, m := range members {
		if m.ClusterID == f.ClusterID {
			ids = append(ids, m.ID)
		}
	}
	for _, id := range ids {
		c.openLane(id)
	}
	c.book.changed() // the members' addresses may be saved now
}

func (c *Cluster) openLane(id string) {
	select {
	case <-c.former.done:
	default:
		return
	}
	if id == c.id || c.book.forgotten(id) || c.lanes.get(id) != nil {
		return
	}
	c.lanes.add(c.life, id)
	c.morgue.watch(c.life, id)
}

// Formed waits until this node belongs to a cluster.
func (c *Cluster) Formed(ctx context.Context) (Formation, error) {
	select {
	case <-c.former.done:
		return c.former.formed, nil
	case <-ctx.Done():
		return Formation{}, fmt.Errorf("wait for the cluster to form: %w", ctx.Err())
	case <-c.life.Done():
		return Formation{}, errors.New("wait for the cluster to form: the node is stopping")
	}
}

// Founded notes that the groups which Formation.Bootstrap asked for exist, so
// that no later start makes them again.
func (c *Cluster) Founded() error {
	return c.identity.update(func(f *nodeFile) bool {
		founded := f.Founded
		f.Founded = true
		return !founded
	})
}

// Send queues a frame for a peer, in order, and never blocks. The frame belongs
// to the lane afterwards. False: the peer is down, or just went down because too
// much was waiting for it; the frame is not sent. True is no promise that it
// arrives: if it does not, PeerDown follows. To the node's own id it comes back
// by the handler on another goroutine. A frame has at most 32 MiB.
func (c *Cluster) Send(to string, frame []byte) bool { return c.lanes.send(to, frame) }

// Peers are the other nodes with a lane, in order of id.
func (c *Cluster) Peers() []string {
	ids := c.lanes.connected()
	slices.Sort(ids)
	return ids
}

// Members is gossip's view of everyone, this node included, in order of id.
func (c *Cluster) Members() []Member {
	members, _ := c.gossip.view()
	return members
}

// Dead reports whether a node has crashed: its port refuses connections, or
// gossip has called it dead for 10 s. A node that only hangs is not.
func (c *Cluster) Dead(id string) bool {
	if c.morgue.isDead(id) {
		return true
	}
	m, ok := c.gossip.member(id)
	l := c.lanes.get(id)
	return ok && !m.Alive && time.Since(m.since) >= gossipDeadMin && (l == nil || l.out.Load() == nil)
}

// Forget ends the lane to a node that was removed from the cluster, and its
// place in node.json.
func (c *Cluster) Forget(id string) {
	c.book.forget(id)
	c.lanes.remove(id)
	c.callers.cut(id)
	c.morgue.alive(id)
}

// Addr is the cluster port as it is open.
func (c *Cluster) Addr() net.Addr { return c.mux.listener.Addr() }

// Advertised is the address that this node tells others.
func (c *Cluster) Advertised() string { return *c.mux.advertised.Load() }

// Stats are the figures of the cluster side since the start.
type Stats struct {
	Dialed, Accepted, Refused uint64 // connections that got past, or not past, the hello
	Lane                      LaneStats
	WAL                       raftlog.WALStats
	Pull                      PullStats
	Groups                    []GroupStats
}

// Stats copies the figures.
func (c *Cluster) Stats() Stats {
	s := Stats{Lane: c.lanes.stats(), Pull: c.pulls.stats()}
	if c.mux != nil {
		s.Dialed, s.Accepted, s.Refused = c.mux.dialed.Load(), c.mux.accepted.Load(), c.mux.refused.Load()
	}
	if c.wal != nil {
		s.WAL = c.wal.Stats()
	}
	for _, g := range c.groups.all() {
		s.Groups = append(s.Groups, g.Stats())
	}
	return s
}

// PullStats are the figures of the files of snapshots, which are in Stats, too.
func (c *Cluster) PullStats() PullStats { return c.pulls.stats() }

// Close closes the groups that are still open, says farewell, closes the port
// and every connection, and waits for all goroutines. ctx bounds the farewells.
func (c *Cluster) Close(ctx context.Context) error {
	var err error
	c.closed.Do(func() {
		for _, g := range c.groups.all() {
			err = errors.Join(err, g.Close(ctx))
		}
		if c.gossip != nil {
			c.gossip.stop()
		}
		c.end()
		c.lanes.close()
		c.morgue.close()
		c.callers.close()
		if c.mux != nil {
			c.mux.stop()
		}
		c.calls.work.Wait()
		c.work.Wait()
		if c.wal != nil {
			err = errors.Join(err, c.wal.Close())
		}
		err = errors.Join(err, c.identity.close())
	})
	return err
}

// heldConn tells when it is closed.
type heldConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Close closes the connection.
func (h *heldConn) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Conn.Close()
}
