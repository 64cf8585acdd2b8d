package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	handshakeTimeout = 5 * time.Second
	turnAwayMax      = 200 * time.Millisecond
	// strangersMax bounds connections that have not said a valid hello yet.
	strangersMax = 256
	// userTimeout ends a connection whose bytes nobody acknowledges; a receiver
	// that does not read for so long counts as well.
	userTimeout     = 5 * time.Second
	bulkUserTimeout = 60 * time.Second // a follower that restores may not read for a while
)

// mux is the one TCP port of a node. It knows hellos and roles, and hands each
// connection to its role's owner.
type mux struct {
	id       *identity
	creds    *credentials // nil without a secret
	log      *slog.Logger
	listener net.Listener
	accept   [roleEnd]func(ctx context.Context, c net.Conn, h hello) // closes c; set before run
	heard    func(id, addr string)                                   // a hello of a proven peer; set before run

	advertised atomic.Pointer[string]
	dialed     atomic.Uint64
	accepted   atomic.Uint64
	refused    atomic.Uint64

	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	complain map[string]time.Time // when an address's secret was last complained about
	stopped  bool
	work     sync.WaitGroup
}

// listenBoth listens on TCP and on UDP with the same port number.
func listenBoth(ctx context.Context, addr string) (net.Listener, net.PacketConn, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	for tries := 0; ; tries++ {
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen on cluster port: %w", err)
		}
		host, _, _ := net.SplitHostPort(addr)
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		var udp net.ListenConfig
		pc, err := udp.ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
		if err == nil {
			return ln, pc, nil
		}
		ln.Close()
		if !strings.HasSuffix(addr, ":0") || tries == 20 { // port 0: another pair may be free
			return nil, nil, fmt.Errorf("listen on cluster port: %w", err)
		}
	}
}

func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}
}

func newMux(id *identity, creds *credentials, ln net.Listener, log *slog.Logger) *mux {
	m := &mux{id: id, creds: creds, listener: ln, log: log, conns: map[net.Conn]struct{}{}, complain: map[string]time.Time{}}
	m.advertised.Store(new(string))
	return m
}

// run accepts connections until stop.
func (m *mux) run(ctx context.Context) {
	strangers := make(chan struct{}, strangersMax)
	for {
		c, err := m.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, mostly: they come back
			m.log.Warn("accept on cluster port", "err", err)
			rest(ctx, 50*time.Millisecond)
			continue
		}
		select {
		case strangers <- struct{}{}:
		default:
			m.refused.Add(1)
			c.Close()
			continue
		}
		if !m.keep(c) {
			return
		}
		m.work.Go(func() {
			defer m.drop(c)
			conn, h, err := m.welcome(ctx, c)
			<-strangers
			if errors.Is(err, io.EOF) { // a probe: it wanted to know whether the port is open
				return
			}
			if err != nil {
				m.refused.Add(1)
				m.log.Warn("cluster connection refused", "peer", c.RemoteAddr().String(), "err", err)
				return
			}
			m.accepted.Add(1)
			if h.addr != "" {
				m.heard(h.id, h.addr)
			}
			m.accept[h.role](ctx, &keptConn{Conn: conn, raw: c, mux: m}, h)
		})
	}
}

// welcome takes an accepted connection through TLS and the hello.
func (m *mux) welcome(ctx context.Context, c net.Conn) (net.Conn, hello, error) {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	conn := c
	if m.creds != nil {
		first := make([]byte, len(helloMagic))
		if _, err := io.ReadFull(c, first); err != nil {
			return nil, hello{}, err
		}
		if string(first) == helloMagic {
			m.turnAway(c, helloWantsSecret)
			return nil, hello{}, errNoSecret
		}
		t := tls.Server(&begunConn{Conn: c, first: first}, m.creds.config())
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, hello{}, acceptError(err)
		}
		conn = t
	}
	h, status, err := readHello(conn)
	if errors.Is(err, errHasSecret) {
		m.turnAway(c, helloHasNoSecret)
	}
	if err != nil && status == helloOK {
		return nil, h, err // not even a hello: no answer
	}
	self := m.id.get()
	if err == nil {
		status, err = m.judge(conn, self, h)
	}
	w := welcome{status: status, id: self.ID, clusterID: self.ClusterID, incarnation: self.Incarnation}
	if _, werr := conn.Write(appendWelcome(nil, w)); werr != nil && err == nil {
		err = fmt.Errorf("answer hello: %w", werr)
	}
	if status == helloBadRole || status == helloBadVersion {
		drain(c) // the rest of the hello was not read
	}
	if err != nil {
		return nil, h, err
	}
	setSocket(c, h.role)
	return conn, h, c.SetDeadline(time.Time{})
}

// turnAway tells a caller that speaks TLS where this node does not, or the other
// way round, and lets it read that before the connection is reset.
func (m *mux) turnAway(c net.Conn, status byte) {
	c.Write(appendWelcome(nil, welcome{status: status, id: m.id.get().ID}))
	drain(c)
}

// drain reads what is left, so that closing does not reset the connection
// before the other side has read its answer.
func drain(c net.Conn) {
	c.SetReadDeadline(time.Now().Add(turnAwayMax))
	io.CopyN(io.Discard, c, helloBytes+addrBytesMax+4096)
}

// begunConn is a connection whose first bytes were read already.
type begunConn struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (b *begunConn) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// judge decides what a well-formed hello is told.
func (m *mux) judge(conn net.Conn, self *nodeFile, h hello) (byte, error) {
	refuse := func(status byte) (byte, error) {
		return status, fmt.Errorf("%s from node %s: %w", h.role, h.id,
			welcome{status: status, id: self.ID, clusterID: self.ClusterID, incarnation: self.Incarnation}.err(helloVersion))
	}
	if t, ok := conn.(*tls.Conn); ok && !certifies(t.ConnectionState(), h.id) {
		return helloOtherNode, fmt.Errorf("node %s shows the certificate of another node", h.id)
	}
	formed := h.clusterID != "" && self.ClusterID != ""
	switch {
	case m.accept[h.role] == nil:
		return refuse(helloBadRole)
	case h.id == self.ID:
		return refuse(helloSelf)
	case h.target != "" && h.target != self.ID:
		return refuse(helloOtherNode)
	case formed && h.clusterID != self.ClusterID:
		return refuse(helloOtherCluster)
	case formed && h.incarnation != self.Incarnation:
		return refuse(helloOldTimes)
	case h.role.members() && !formed:
		return refuse(helloNotFormed)
	}
	return helloOK, nil
}

func acceptError(err error) error {
	if strings.Contains(err.Error(), "remote error") {
		return fmt.Errorf("the peer does not take this node's certificate, is the cluster secret the same? %w", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

// dial opens a connection of a role to addr, where node target should live
// (empty: any). It ends with ctx or after a handshakeTimeout.
func (m *mux) dial(ctx context.Context, addr, target string, r role) (net.Conn, welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, welcome{}, err
	}
	if !m.keep(raw) {
		return nil, welcome{}, net.ErrClosed
	}
	conn, w, err := m.introduce(ctx, raw, target, r)
	if err != nil {
		m.drop(raw)
		err = fmt.Errorf("%s to %s: %w", r, addr, err)
		m.complainOnce(addr, err)
		return nil, w, err
	}
	m.dialed.Add(1)
	return &keptConn{Conn: conn, raw: raw, mux: m}, w, nil
}

func (m *mux) introduce(ctx context.Context, raw net.Conn, target string, r role) (net.Conn, welcome, error) {
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	conn := raw
	if m.creds != nil {
		t := tls.Client(raw, m.creds.config())
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, welcome{}, dialError(err)
		}
		conn = t
	}
	self := m.id.get()
	h := hello{role: r, id: self.ID, target: target, clusterID: self.ClusterID,
		incarnation: self.Incarnation, addr: *m.advertised.Load()}
	if _, err := conn.Write(appendHello(nil, h)); err != nil {
		return nil, welcome{}, fmt.Errorf("say hello: %w", err)
	}
	w, err := readWelcome(conn)
	if err != nil {
		return nil, w, dialError(err)
	}
	if t, ok := conn.(*tls.Conn); ok && !certifies(t.ConnectionState(), w.id) {
		return nil, w, fmt.Errorf("node %s shows the certificate of another node", w.id)
	}
	if target != "" && w.id != target {
		return nil, w, welcome{status: helloOtherNode, id: w.id}.err(helloVersion)
	}
	setSocket(raw, r)
	return conn, w, raw.SetDeadline(time.Time{})
}

// dialError words what a failed handshake means to an operator.
func dialError(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return fmt.Errorf("%w: %w", errNoSecret, err)
	case strings.Contains(err.Error(), "remote error: tls"):
		return fmt.Errorf("%w: the peer does not take this node's certificate: %w", errOtherSecret, err)
	}
	return err
}

// complainOnce logs a secret that does not fit, once per address in 10 s: the
// callers retry for ever and would bury it.
func (m *mux) complainOnce(addr string, err error) {
	if !errors.Is(err, errOtherSecret) && !errors.Is(err, errWantsSecret) && !errors.Is(err, errNoSecret) {
		return
	}
	m.mu.Lock()
	due := time.Since(m.complain[addr]) > 10*time.Second
	if due {
		if len(m.complain) > 1000 { // addresses come from names and gossip
			clear(m.complain)
		}
		m.complain[addr] = time.Now()
	}
	m.mu.Unlock()
	if due {
		m.log.Warn("cluster secret does not fit", "peer", addr, "err", err)
	}
}

// setSocket sets what Linux needs to notice a silent peer (a lost one costs
// seconds, not minutes). A socket that refuses is used as it is.
func setSocket(c net.Conn, r role) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	t.SetNoDelay(true)
	limit := userTimeout
	if r == roleBulk {
		limit = bulkUserTimeout
	}
	if raw, err := t.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
		})
	}
}

// keep makes stop close c. It closes c itself if stop has come already.
func (m *mux) keep(c net.Conn) bool {
	m.mu.Lock()
	stopped := m.stopped
	if !stopped {
		m.conns[c] = struct{}{}
	}
	m.mu.Unlock()
	if stopped {
		c.Close()
	}
	return !stopped
}

func (m *mux) drop(c net.Conn) {
	m.mu.Lock()
	delete(m.conns, c)
	m.mu.Unlock()
	c.Close()
}

// stop closes the port and every connection, and waits for the accepted ones.
func (m *mux) stop() {
	m.listener.Close()
	m.mu.Lock()
	m.stopped = true
	conns := m.conns
	m.conns = map[net.Conn]struct{}{}
	m.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	m.work.Wait()
}

// keptConn is a connection that leaves the mux's list when closed.
type keptConn struct {
	net.Conn
	raw net.Conn
	mux *mux
}

// Close closes the connection at once, without TLS's farewell, which could
// wait for a peer that does not read.
func (c *keptConn) Close() error {
	c.mux.drop(c.raw)
	return nil
}

// rest waits for d or for ctx, and reports whether it was d.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
