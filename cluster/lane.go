package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// laneBytesMax is what may wait for one peer; beyond it the lane is cut, and
	// both sides start afresh with what they still have.
	laneBytesMax = 64 << 20
	// frameBytesMax is the longest frame that Send takes and a peer may announce.
	frameBytesMax = 32 << 20
	// frameStepBytes is what is allocated for a frame before it has arrived.
	frameStepBytes = 2 << 20
	lanePing       = 1 << 31 // in the length: not a frame, only a sign of life
	pingEvery      = time.Second
	laneSilenceMax = 3 * pingEvery
	redialMin      = 10 * time.Millisecond
	redialMax      = time.Second
	laneReadBytes  = 64 << 10
)

// LaneHandler receives what the lanes bring. The calls for one peer never
// overlap and come in order: PeerUp, frames, PeerDown, PeerUp, … with an
// up between any two downs. Calls for different peers do overlap. A handler
// that does not return holds up that peer's lane, and after some seconds the
// peer cuts it.
type LaneHandler interface {
	// PeerUp says that frames can be sent to id and will come from it. For the
	// node's own id it comes once, when the cluster is joined.
	PeerUp(id string)
	// PeerDown says that no more frames of this lane come, and that some that
	// were sent may be lost.
	PeerDown(id string)
	// Frame hands over a frame, which is the handler's to keep and to change.
	Frame(from string, frame []byte)
}

// LaneStats are the figures of all lanes since the start.
type LaneStats struct {
	FramesSent, FramesReceived uint64
	BytesSent, BytesReceived   uint64
	Ups, Downs                 uint64
	Cut                        uint64 // lanes that ended because too much was waiting
	WaitingBytes               int64  // now
}

type laneCounters struct {
	framesSent, framesReceived, bytesSent, bytesReceived, ups, downs, cut atomic.Uint64
}

// lanes are the broker's connections: one per pair of nodes, dialled by the
// one with the lower id.
type lanes struct {
	self    string
	log     *slog.Logger
	handler LaneHandler
	dial    func(ctx context.Context, id string) (net.Conn, error)
	// up and down tell crash detection; they must not block.
	up, down func(id string)
	counters laneCounters

	mu    sync.RWMutex
	peers map[string]*lane
	ended bool
	work  sync.WaitGroup
}

// lane is the connection to one peer, or the lack of one. Its goroutine makes
// all the handler's calls for the peer.
type lane struct {
	id      string
	own     *lanes
	out     atomic.Pointer[outbox] // nil while down
	redial  chan struct{}          // cap 1: the address may be another now
	arrived chan net.Conn          // cap 1: the peer's newest connection
	stop    context.CancelFunc

	mu   sync.Mutex
	conn net.Conn // the one in use, for cut
}

func newLanes(self string, log *slog.Logger, dial func(context.Context, string) (net.Conn, error)) *lanes {
	return &lanes{self: self, log: log, dial: dial, peers: map[string]*lane{}, up: func(string) {}, down: func(string) {}}
}

// add opens a lane to a peer, if there is none; for the own id, the loopback.
func (ls *lanes) add(ctx context.Context, id string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.ended || ls.peers[id] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &lane{id: id, own: ls, redial: make(chan struct{}, 1), arrived: make(chan net.Conn, 1), stop: cancel}
	ls.peers[id] = l
	if id == ls.self {
		l.out.Store(newOutbox(laneBytesMax)) // a node can always talk to itself
		ls.work.Go(func() { l.loop(ctx) })
		return
	}
	ls.work.Go(func() { l.run(ctx) })
}

// remove ends the lane to a peer that left for good.
func (ls *lanes) remove(id string) {
	ls.mu.Lock()
	l := ls.peers[id]
	if id != ls.self {
		delete(ls.peers, id)
	}
	ls.mu.Unlock()
	if l != nil && id != ls.self {
		l.stop()
		l.cut()
	}
}

func (ls *lanes) get(id string) *lane {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	return ls.peers[id]
}

// send queues a frame for a peer; see Cluster.Send.
func (ls *lanes) send(to string, frame []byte) bool {
	l := ls.get(to)
	if l == nil || len(frame) > frameBytesMax {
		return false
	}
	out := l.out.Load()
	if out == nil {
		return false
	}
	f := outFrame{headBytes: 4, body: frame}
	binary.BigEndian.PutUint32(f.head[:], uint32(len(frame)))
	ok, full := out.push(f)
	if full {
		ls.counters.cut.Add(1)
		ls.log.Warn("lane cut: too much is waiting for the peer", "peer", to, "limit_bytes", laneBytesMax)
		l.cutOff(out)
	}
	if ok {
		ls.counters.framesSent.Add(1)
		ls.counters.bytesSent.Add(uint64(len(frame)))
	}
	return ok
}

// connected lists the peers with a lane, without self.
func (ls *lanes) connected() (ids []string) {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	for id, l := range ls.peers {
		if id != ls.self && l.out.Load() != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// accept takes a connection that a peer dialled. A newer one replaces an older
// one: the peer has given that up.
func (ls *lanes) accept(ctx context.Context, c net.Conn, from string) {
	ls.add(ctx, from)
	l := ls.get(from)
	if l == nil || from > ls.self {
		c.Close() // stopping, or the peer should have waited for this node's call
		return
	}
	before := l.current() // taken first: c itself may be in use a moment later
	for {
		select {
		case l.arrived <- c:
			if before != nil {
				before.Close()
			}
			return
		case old := <-l.arrived:
			old.Close()
		}
	}
}

// hurry makes the lane to a peer dial at once: there is news of its address.
func (ls *lanes) hurry(id string) {
	if l := ls.get(id); l != nil {
		select {
		case l.redial <- struct{}{}:
		default:
		}
	}
}

func (ls *lanes) stats() LaneStats {
	c := &ls.counters
	s := LaneStats{
		FramesSent: c.framesSent.Load(), FramesReceived: c.framesReceived.Load(),
		BytesSent: c.bytesSent.Load(), BytesReceived: c.bytesReceived.Load(),
		Ups: c.ups.Load(), Downs: c.downs.Load(), Cut: c.cut.Load(),
	}
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	for _, l := range ls.peers {
		if out := l.out.Load(); out != nil {
			s.WaitingBytes += int64(out.waiting())
		}
	}
	return s
}

// close ends every lane and waits for the handler's last calls.
func (ls *lanes) close() {
	ls.mu.Lock()
	ls.ended = true
	for _, l := range ls.peers {
		l.stop()
		l.cut()
	}
	ls.mu.Unlock()
	ls.work.Wait()
}

// cut ends the connection in use, if any.
func (l *lane) cut() {
	if c := l.current(); c != nil {
		c.Close()
	}
}

func (l *lane) current() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// cutOff ends the lane that out belongs to, and lets go of what waits in it.
func (l *lane) cutOff(out *outbox) {
	if l.out.CompareAndSwap(out, nil) {
		out.close()
		l.cut()
	}
}

func (l *lane) run(ctx context.Context) {
	wait := time.Duration(0) // a lane that held is dialled again at once
	for {
		c := l.connect(ctx, wait)
		if c == nil {
			break
		}
		start := time.Now()
		l.serve(ctx, c)
		wait = 0
		if time.Since(start) < redialMax {
			wait = redialMin
		}
	}
	select {
	case c := <-l.arrived:
		c.Close()
	default:
	}
}

// connect waits for the next connection: it dials after wait, or is dialled.
// nil: the end.
func (l *lane) connect(ctx context.Context, wait time.Duration) net.Conn {
	if l.id < l.own.self {
		select {
		case c := <-l.arrived:
			return c
		case <-ctx.Done():
			return nil
		}
	}
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-l.redial:
			wait = 0
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
		c, err := l.own.dial(ctx, l.id)
		if err == nil {
			return c
		}
		l.own.log.Debug("lane not up yet", "peer", l.id, "err", err)
		wait = min(max(2*wait, redialMin), redialMax)
	}
}

// serve is one epoch: from PeerUp to PeerDown.
func (l *lane) serve(ctx context.Context, c net.Conn) {
	out := newOutbox(laneBytesMax)
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if ctx.Err() != nil {
		c.Close()
		return
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		out.run(c, pingEvery, pingFrame)
		c.Close()
	})
	l.out.Store(out)
	l.own.counters.ups.Add(1)
	l.own.up(l.id)
	l.own.log.Info("lane up", "peer", l.id)
	l.own.handler.PeerUp(l.id)
	err := l.read(c)
	l.out.CompareAndSwap(out, nil)
	out.close()
	c.Close()
	writer.Wait()
	l.own.counters.downs.Add(1)
	if ctx.Err() == nil {
		l.own.down(l.id)
		l.own.log.Warn("lane down", "peer", l.id, "err", err)
	}
	l.own.handler.PeerDown(l.id)
}

func pingFrame() outFrame {
	f := outFrame{headBytes: 4}
	binary.BigEndian.PutUint32(f.head[:], lanePing)
	return f
}

func (l *lane) read(c net.Conn) error {
	r := bufio.NewReaderSize(&aliveReader{conn: c, silenceMax: laneSilenceMax}, laneReadBytes)
	var head [4]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == lanePing {
			continue
		}
		if n > frameBytesMax {
			return fmt.Errorf("%w: %d bytes on the lane", errFrameTooLong, n)
		}
		frame, err := readBody(r, int(n), frameStepBytes)
		if err != nil {
			return err
		}
		l.own.counters.framesReceived.Add(1)
		l.own.counters.bytesReceived.Add(uint64(n))
		l.own.handler.Frame(l.id, frame)
	}
}

// aliveReader ends a connection on which nothing, not even a ping, came for
// silenceMax. Time that the reader's owner spends elsewhere does not count.
type aliveReader struct {
	conn       net.Conn
	silenceMax time.Duration
	set        time.Time
}

// Read implements io.Reader.
func (a *aliveReader) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(a.set) > a.silenceMax/6 {
		a.set = now
		a.conn.SetReadDeadline(now.Add(a.silenceMax))
	}
	return a.conn.Read(b)
}

// loop is the node's lane to itself: the same promises without a socket.
func (l *lane) loop(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		if out := l.out.Load(); out != nil {
			l.cutOff(out)
		}
	})()
	for ctx.Err() == nil {
		out := l.out.Load()
		if out == nil { // cut because too much was waiting: start afresh
			out = newOutbox(laneBytesMax)
			l.out.Store(out)
			if ctx.Err() != nil {
				break
			}
		}
		l.own.counters.ups.Add(1)
		l.own.handler.PeerUp(l.id)
		l.pump(out)
		l.own.counters.downs.Add(1)
		l.own.handler.PeerDown(l.id)
	}
}

// pump hands what is pushed to the handler until the outbox is closed.
func (l *lane) pump(out *outbox) {
	var batch []outFrame
	for range out.wake {
		for done := 0; ; {
			var closed bool
			batch, closed = out.swap(batch, done)
			if closed {
				return
			}
			if len(batch) == 0 {
				break
			}
			done = 0
			for i := range batch {
				if out.isClosed() {
					return
				}
				done += batch[i].bytes()
				l.own.counters.framesReceived.Add(1)
				l.own.counters.bytesReceived.Add(uint64(len(batch[i].body)))
				l.own.handler.Frame(l.id, batch[i].body)
			}
		}
	}
}
