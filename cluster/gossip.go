package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	metaVersion  = 1
	metaPrepared = 1 << 0 // flag: helps to found a cluster, the outcome is open
	nameBytesMax = 128
	// leaveTimeout is how long a stopping node waits for its farewell to go out.
	leaveTimeout = 500 * time.Millisecond
	udpBytesMax  = 65536
)

// Member is what gossip says about a node: a hint, never a decision.
type Member struct {
	ID          string
	Name        string // as configured, for people
	Addr        string // where it says it is reached: host:port
	Alive       bool
	ClusterID   string // empty: it belongs to none yet
	Incarnation uint32
	Prepared    bool // it promised to help to found a cluster
	Expect      int  // its BootstrapExpect

	seen  string    // ip:port that gossip reaches it at
	since time.Time // of Alive's present value
}

// appendMeta encodes what a node tells about itself: version u8, flags u8,
// expect u8, incarnation u32, cluster id[16], then name and address, each with
// a u8 length. At most 407 bytes; memberlist allows 512.
func appendMeta(dst []byte, m Member) []byte {
	flags := byte(0)
	if m.Prepared {
		flags |= metaPrepared
	}
	dst = append(dst, metaVersion, flags, byte(min(m.Expect, 255)))
	dst = binary.BigEndian.AppendUint32(dst, m.Incarnation)
	dst = appendID(dst, m.ClusterID)
	name := m.Name[:min(len(m.Name), nameBytesMax)]
	dst = append(append(dst, byte(len(name))), name...)
	addr := m.Addr[:min(len(m.Addr), addrBytesMax)]
	return append(append(dst, byte(len(addr))), addr...)
}

// readMeta decodes a node's meta. Bytes after the known fields are a later
// version's.
func readMeta(n *memberlist.Node) (Member, error) {
	m := Member{ID: n.Name, seen: net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))}
	b := n.Meta
	if !validID(n.Name) || len(b) < 24 || b[0] < metaVersion {
		return m, fmt.Errorf("member %q at %s is not a warren node", n.Name, m.seen)
	}
	m.Prepared, m.Expect = b[1]&metaPrepared != 0, int(b[2])
	m.Incarnation = binary.BigEndian.Uint32(b[3:])
	m.ClusterID = readID(b[7:])
	b = b[7+idBytes:]
	for _, field := range []*string{&m.Name, &m.Addr} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return m, fmt.Errorf("member %s: malformed meta", n.Name)
		}
		*field, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	if m.Addr == "" {
		m.Addr = m.seen
	}
	if m.ClusterID != "" && !validID(m.ClusterID) {
		return m, fmt.Errorf("member %s: malformed cluster id", n.Name)
	}
	return m, nil
}

// gossip is memberlist behind the cluster port: it finds nodes and says who
// seems to be alive.
type gossip struct {
	id   *identity
	log  *slog.Logger
	self Member // id, name, addr, expect
	list *memberlist.Memberlist
	wire *gossipWire

	mu      sync.Mutex
	members map[string]Member // without self
	changed chan struct{}     // closed at the next change
}

// startGossip starts memberlist over wire.
func startGossip(id *identity, self Member, key []byte, wire *gossipWire, log *slog.Logger) (*gossip, error) {
	g := &gossip{id: id, log: log, self: self, wire: wire, members: map[string]Member{}, changed: make(chan struct{})}
	c := memberlist.DefaultLANConfig()
	c.Name = self.ID
	c.Transport = wire
	c.BindPort, c.AdvertisePort = int(wire.advertise.Port()), int(wire.advertise.Port())
	c.SecretKey = key
	c.EnableCompression = false
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = key != nil, key != nil
	// A node that comes back somewhere else is let in again.
	c.DeadNodeReclaimTime = 10 * time.Second
	c.TCPTimeout = 3 * time.Second
	c.PushPullInterval = 15 * time.Second
	c.GossipInterval = 250 * time.Millisecond
	c.DNSConfigPath = "" // names are resolved before they get here
	c.Logger = stdlog.New(gossipLog{log}, "", 0)
	c.Delegate, c.Events, c.Alive = g, g, g
	list, err := memberlist.Create(c)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.mu.Lock()
	g.list = list
	g.mu.Unlock()
	return g, nil
}

// announce spreads this node's meta after its identity changed.
func (g *gossip) announce() {
	if err := g.list.UpdateNode(leaveTimeout); err != nil {
		g.log.Debug("announce", "err", err) // the next push/pull carries it
	}
}

// stop says farewell and ends memberlist.
func (g *gossip) stop() {
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.log.Debug("leave gossip", "err", err)
	}
	if err := g.list.Shutdown(); err != nil {
		g.log.Debug("stop gossip", "err", err)
	}
}

// me is this node as a member.
func (g *gossip) me() Member {
	f := g.id.get()
	m := g.self
	m.Alive, m.ClusterID, m.Incarnation, m.Prepared = true, f.ClusterID, f.Incarnation, f.Prepared != nil
	return m
}

// view is everyone, this node included, in order of id, and a mailbox that is
// closed when the view changes.
func (g *gossip) view() ([]Member, <-chan struct{}) {
	g.mu.Lock()
	all := slices.Collect(maps.Values(g.members))
	changed := g.changed
	g.mu.Unlock()
	all = append(all, g.me())
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all, changed
}

func (g *gossip) member(id string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.members[id]
	return m, ok
}

func (g *gossip) set(n *memberlist.Node, alive bool) {
	m, err := readMeta(n)
	if err != nil || m.ID == g.self.ID {
		return
	}
	m.Alive, m.since = alive, time.Now()
	g.mu.Lock()
	if old, ok := g.members[m.ID]; ok && old.Alive == alive {
		m.since = old.since
	}
	g.members[m.ID] = m
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
}

// The callbacks of memberlist hold its lock: they only note and return.

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.set(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.set(n, true) }

// NotifyLeave implements memberlist.EventDelegate: dead, or left.
func (g *gossip) NotifyLeave(n *memberlist.Node) { g.set(n, false) }

// NotifyAlive implements memberlist.AliveDelegate: it keeps other clusters, and
// those that the survivors of this one cut off, out of this node's view.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	m, err := readMeta(n)
	if err != nil {
		return err
	}
	f := g.id.get()
	if m.ID == f.ID || m.ClusterID == "" || f.ClusterID == "" {
		return nil
	}
	if m.ClusterID != f.ClusterID {
		return fmt.Errorf("node %s belongs to cluster %s", m.ID, m.ClusterID)
	}
	if m.Incarnation != f.Incarnation {
		return fmt.Errorf("node %s is in incarnation %d", m.ID, m.Incarnation)
	}
	return nil
}

// NodeMeta implements memberlist.Delegate.
func (g *gossip) NodeMeta(int) []byte { return appendMeta(nil, g.me()) }

// NotifyMsg implements memberlist.Delegate; nothing is sent that way.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate; there are none of ours.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate; meta says it all.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// gossipLog gives memberlist's lines to slog. What it warns of is mostly
// another node being away, which others here notice and say better.
type gossipLog struct{ log *slog.Logger }

// Write implements io.Writer for one line.
func (w gossipLog) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(line, []byte("[ERR]")) {
		level = slog.LevelInfo
	}
	w.log.Log(context.Background(), level, "gossip", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}

// gossipWire is memberlist's way out: packets by UDP on the cluster port's
// number, streams through the mux.
type gossipWire struct {
	mux       *mux
	packets   net.PacketConn
	advertise netip.AddrPort
	inPackets chan *memberlist.Packet
	inStreams chan net.Conn
	ended     chan struct{}
	once      sync.Once
	work      sync.WaitGroup

	mu   sync.Mutex
	mine map[string]bool // addresses that turned out to be this node's own
}

var _ memberlist.NodeAwareTransport = (*gossipWire)(nil)

func newGossipWire(m *mux, pc net.PacketConn, advertise netip.AddrPort) *gossipWire {
	return &gossipWire{
		mux: m, packets: pc, advertise: advertise,
		inPackets: make(chan *memberlist.Packet), inStreams: make(chan net.Conn),
		ended: make(chan struct{}), mine: map[string]bool{},
	}
}

func (w *gossipWire) receive() {
	buf := make([]byte, udpBytesMax)
	for {
		n, from, err := w.packets.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			rest(endContext{w.ended}, 10*time.Millisecond) // the socket goes on
			continue
		}
		p := &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: from, Timestamp: time.Now()}
		select {
		case w.inPackets <- p:
		case <-w.ended:
			return
		}
	}
}

// acceptStream hands a connection to memberlist and waits until it is done.
func (w *gossipWire) acceptStream(ctx context.Context, c net.Conn, _ hello) {
	s := &heldConn{Conn: c, closed: make(chan struct{})}
	select {
	case w.inStreams <- s:
	case <-w.ended:
		c.Close()
		return
	case <-ctx.Done():
		c.Close()
		return
	}
	select {
	case <-s.closed:
	case <-ctx.Done():
		c.Close()
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (w *gossipWire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return w.advertise.Addr().Unmap().AsSlice(), int(w.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (w *gossipWire) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("gossip address: %w", err)
	}
	_, err = w.packets.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (w *gossipWire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return w.WriteTo(b, a.Addr)
}

// PacketCh implements memberlist.Transport.
func (w *gossipWire) PacketCh() <-chan *memberlist.Packet { return w.inPackets }

// DialTimeout implements memberlist.Transport.
func (w *gossipWire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (w *gossipWire) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(endContext{w.ended}, timeout)
	defer cancel()
	target := ""
	if validID(a.Name) {
		target = a.Name
	}
	c, _, err := w.mux.dial(ctx, a.Addr, target, roleGossip)
	if errors.Is(err, errSelf) {
		w.mu.Lock()
		w.mine[a.Addr] = true
		w.mu.Unlock()
	}
	return c, err
}

func (w *gossipWire) isMine(addr string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mine[addr] || addr == w.advertise.String()
}

// StreamCh implements memberlist.Transport.
func (w *gossipWire) StreamCh() <-chan net.Conn { return w.inStreams }

// Shutdown implements memberlist.Transport.
func (w *gossipWire) Shutdown() error {
	w.once.Do(func() {
		close(w.ended)
		w.packets.Close()
	})
	w.work.Wait()
	return nil
}
