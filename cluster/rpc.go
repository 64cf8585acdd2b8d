package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Frames of the roles with requests and answers: u32 length of the body, u8
// type, u8 flags, u16 unused, u64 group (or kind of call), u64 correlation,
// body. Big-endian.
const rpcHeadBytes = 24

// Types of requests. An answer has the type of its request and flagAnswer.
const (
	typeAppend uint8 = 1 + iota
	typeVote
	typePreVote
	typeTimeoutNow
	typeInstall
	typeCall
	typePull  // on a bulk connection: a part of a snapshot's file
	typeState // on a bulk connection: all files are there
)

const (
	flagAnswer  = 1 << 0
	flagError   = 1 << 1 // the body is an error's text
	flagWorking = 1 << 2 // no answer yet: the other side is still at it
)

// Limits per role, in bytes of body. What is announced is never allocated
// before it arrives, beyond growStepBytes.
const (
	controlBytesMax = 64 << 10
	dataBytesMax    = 64 << 20
	callBytesMax    = 4 << 20
	growStepBytes   = 1 << 20
	// rpcOutboxBytesMax bounds what waits for one peer on one connection.
	rpcOutboxBytesMax = 256 << 20
	// answersMax bounds the requests of one connection that are being worked on.
	answersMax = 1024
)

var (
	errFrameTooLong = errors.New("frame longer than allowed")
	errPeerGone     = errors.New("connection to the peer is lost")
	errBusy         = errors.New("too much is waiting for the peer")
)

// remoteError is an error that the other side answered.
type remoteError struct{ text string }

func (e *remoteError) Error() string { return e.text }

type rpcHead struct {
	body  uint32
	typ   uint8
	flags uint8
	group uint64
	corr  uint64
}

func rpcFrame(h rpcHead, body []byte, more [][]byte) outFrame {
	f := outFrame{headBytes: rpcHeadBytes, body: body, more: more}
	f.headBytes = 0
	n := f.bytes()
	f.headBytes = rpcHeadBytes
	binary.BigEndian.PutUint32(f.head[0:], uint32(n))
	f.head[4], f.head[5] = h.typ, h.flags
	binary.BigEndian.PutUint64(f.head[8:], h.group)
	binary.BigEndian.PutUint64(f.head[16:], h.corr)
	return f
}

func parseRPCHead(b *[rpcHeadBytes]byte) rpcHead {
	return rpcHead{
		body: binary.BigEndian.Uint32(b[0:]), typ: b[4], flags: b[5],
		group: binary.BigEndian.Uint64(b[8:]), corr: binary.BigEndian.Uint64(b[16:]),
	}
}

// readRPC reads one frame. The body is freshly allocated.
func readRPC(r io.Reader, bytesMax uint32) (rpcHead, []byte, error) {
	var b [rpcHeadBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return rpcHead{}, nil, err
	}
	h := parseRPCHead(&b)
	if h.body > bytesMax {
		return h, nil, fmt.Errorf("%w: %d bytes, limit %d", errFrameTooLong, h.body, bytesMax)
	}
	body, err := readBody(r, int(h.body), growStepBytes)
	return h, body, err
}

// readBody reads n bytes. At most step bytes, or as many as have arrived
// already, are allocated ahead of their arrival.
func readBody(r io.Reader, n, step int) ([]byte, error) {
	buf := make([]byte, min(n, step))
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	for len(buf) < n {
		have := len(buf)
		next := make([]byte, min(n, have*2))
		copy(next, buf)
		if _, err := io.ReadFull(r, next[have:]); err != nil {
			return nil, err
		}
		buf = next
	}
	return buf, nil
}

func roleBytesMax(r role) uint32 {
	switch r {
	case roleControl:
		return controlBytesMax
	case roleData:
		return dataBytesMax
	default:
		return callBytesMax
	}
}

// rpcAnswer is what a call gets.
type rpcAnswer struct {
	body []byte
	err  error
}

// rpcConn is the calling end of a connection: many calls at a time, matched
// with their answers by correlation.
type rpcConn struct {
	conn net.Conn
	out  *outbox
	work sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan rpcAnswer // nil once the connection is lost
}

func newRPCConn(c net.Conn, r role) *rpcConn {
	rc := &rpcConn{conn: c, out: newOutbox(rpcOutboxBytesMax), pending: map[uint64]chan rpcAnswer{}}
	rc.work.Go(func() {
		rc.out.run(c, 0, nil) // why it ended shows in the reader, too
		rc.close()
	})
	rc.work.Go(func() { rc.read(roleBytesMax(r)) })
	return rc
}

func (c *rpcConn) read(bytesMax uint32) {
	defer c.close()
	r := bufio.NewReaderSize(c.conn, 16<<10)
	for {
		h, body, err := readRPC(r, bytesMax)
		if err != nil {
			return
		}
		a := rpcAnswer{body: body}
		if h.flags&flagError != 0 {
			a = rpcAnswer{err: &remoteError{string(body)}}
		}
		c.mu.Lock()
		waiting := c.pending[h.corr]
		delete(c.pending, h.corr)
		c.mu.Unlock()
		if waiting != nil { // else its caller has given up
			waiting <- a // cap 1, and only one answer per correlation
		}
	}
}

// close ends the connection and every pending call. It does not wait.
func (c *rpcConn) close() {
	c.conn.Close()
	c.out.close()
	c.mu.Lock()
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, waiting := range pending {
		waiting <- rpcAnswer{err: errPeerGone}
	}
}

func (c *rpcConn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending != nil
}

// call sends a request and waits for its answer. body and more may still be
// read after call has returned with an error: nobody may change them.
func (c *rpcConn) call(ctx context.Context, h rpcHead, body []byte, more [][]byte) ([]byte, error) {
	answer := make(chan rpcAnswer, 1)
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		return nil, errPeerGone
	}
	c.next++
	h.corr = c.next
	c.pending[h.corr] = answer
	c.mu.Unlock()
	ok, full := c.out.push(rpcFrame(h, body, more))
	if !ok {
		c.forget(h.corr)
		if full {
			return nil, errBusy
		}
		return nil, errPeerGone
	}
	select {
	case a := <-answer:
		return a.body, a.err
	case <-ctx.Done():
		c.forget(h.corr)
		return nil, ctx.Err()
	}
}

func (c *rpcConn) forget(corr uint64) {
	c.mu.Lock()
	delete(c.pending, corr)
	c.mu.Unlock()
}

// request is one request that a serving connection received. answer must be
// called once, from any goroutine; it does not block.
type request struct {
	from   string
	role   role
	head   rpcHead
	body   []byte
	answer func(body []byte, err error)
}

// serveRPC is the answering end: it reads requests of role h.role from c and
// hands them to handle, which must not block, until c ends.
func serveRPC(c net.Conn, h hello, handle func(request)) error {
	out := newOutbox(rpcOutboxBytesMax)
	var work sync.WaitGroup
	defer work.Wait()
	defer c.Close()
	defer out.close()
	work.Go(func() {
		out.run(c, 0, nil)
		c.Close()
	})
	busy := make(chan struct{}, answersMax)
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		head, body, err := readRPC(r, roleBytesMax(h.role))
		if errors.Is(err, errFrameTooLong) {
			return err
		}
		if err != nil {
			return nil // the peer went away; others notice and say so
		}
		answer := func(body []byte, err error) {
			a := rpcHead{typ: head.typ, flags: flagAnswer, group: head.group, corr: head.corr}
			if err != nil {
				a.flags |= flagError
				body = []byte(err.Error())
			}
			if _, full := out.push(rpcFrame(a, body, nil)); full {
				c.Close()
			}
			<-busy
		}
		busy <- struct{}{} // full: this peer asks more than it is answered, and waits
		handle(request{from: h.id, role: h.role, head: head, body: body, answer: answer})
	}
}

// callers keeps one calling connection per peer and role, dialled when needed.
type callers struct {
	dial func(ctx context.Context, id string, r role) (net.Conn, error)

	mu     sync.Mutex
	slots  map[callerKey]*callerSlot
	closed bool
	conns  sync.WaitGroup
}

type callerKey struct {
	id   string
	role role
}

// callerSlot is guarded by callers.mu.
type callerSlot struct {
	conn     *rpcConn
	dialing  chan struct{} // closed when the attempt that is under way ends
	err      error         // of the last attempt
	failedAt time.Time
}

// redialAfter spares a peer that just refused from every group's next attempt.
const redialAfter = 50 * time.Millisecond

func newCallers(dial func(context.Context, string, role) (net.Conn, error)) *callers {
	return &callers{dial: dial, slots: map[callerKey]*callerSlot{}}
}

// call sends a request to a peer, over the connection that is there or a new one.
func (p *callers) call(ctx context.Context, id string, r role, h rpcHead, body []byte, more [][]byte) ([]byte, error) {
	c, err := p.get(ctx, callerKey{id, r})
	if err != nil {
		return nil, fmt.Errorf("%s to node %s: %w", r, id, err)
	}
	answer, err := c.call(ctx, h, body, more)
	if err != nil {
		var remote *remoteError
		if errors.As(err, &remote) {
			return nil, err
		}
		return nil, fmt.Errorf("%s to node %s: %w", r, id, err)
	}
	return answer, nil
}

func (p *callers) get(ctx context.Context, k callerKey) (*rpcConn, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, net.ErrClosed
		}
		s := p.slots[k]
		if s == nil {
			s = new(callerSlot)
			p.slots[k] = s
		}
		conn, dialing := s.conn, s.dialing
		err := s.err
		recent := time.Since(s.failedAt) < redialAfter
		if dialing == nil && (conn == nil || !conn.alive()) && !recent {
			dialing = make(chan struct{})
			s.dialing, s.conn = dialing, nil
			p.conns.Go(func() { p.connect(ctx, k, s) })
			conn = nil
		}
		p.mu.Unlock()
		switch {
		case conn != nil && conn.alive():
			return conn, nil
		case dialing == nil:
			if err == nil {
				err = errPeerGone
			}
			return nil, err
		}
		select {
		case <-dialing:
			if err := p.failure(s); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *callers) failure(s *callerSlot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.err
}

// connect dials for a slot. It outlives the call that asked first: others wait
// for it too.
func (p *callers) connect(ctx context.Context, k callerKey, s *callerSlot) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handshakeTimeout)
	c, err := p.dial(ctx, k.id, k.role)
	cancel()
	p.mu.Lock()
	s.err = err
	if err != nil {
		s.failedAt = time.Now()
	} else if p.closed {
		c.Close()
	} else {
		rc := newRPCConn(c, k.role)
		s.conn = rc
		p.conns.Go(rc.work.Wait)
	}
	close(s.dialing)
	s.dialing = nil
	p.mu.Unlock()
}

// cut closes the connections to a peer that is known to be gone.
func (p *callers) cut(id string) {
	p.mu.Lock()
	var conns []*rpcConn
	for r := roleControl; r < roleEnd; r++ {
		if s := p.slots[callerKey{id, r}]; s != nil && s.conn != nil {
			conns = append(conns, s.conn)
		}
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
}

// close ends every connection and waits for their goroutines.
func (p *callers) close() {
	p.mu.Lock()
	p.closed = true
	var conns []*rpcConn
	for _, s := range p.slots {
		if s.conn != nil {
			conns = append(conns, s.conn)
		}
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
	p.conns.Wait()
}
