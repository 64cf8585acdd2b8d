package amqp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// conn is one connection. Its fields belong to the reader goroutine unless
// they say otherwise; serve runs on it.
type conn struct {
	server *Server
	id     uint64
	log    *slog.Logger
	nc     net.Conn
	in     socket
	frames *wire.Reader
	out    *outbox

	// ctx ends when the connection is to end. Every call of the session has it.
	ctx    context.Context
	cancel context.CancelFunc
	slow   sync.WaitGroup // goroutines of slow methods

	user    string
	vhost   string
	session Session
	caps    capabilities
	login   mq.Credentials // how the client authenticated, without the password
	// properties are the client's, as it sent them.
	properties mq.Table

	frameMax   uint32
	channelMax uint16
	heartbeat  time.Duration

	slots    map[uint16]*slot
	lastSlot *slot // of the last frame: most frames are for the same channel
	// gathering is the slot whose settlements wait for more of their kind.
	gathering *slot
	// unanswered is set when the last that came was a publish that has no answer.
	unanswered bool

	closing   atomic.Bool         // the connection is to end; any goroutine
	forced    atomic.Bool         // Serve or the broker asked for it before there was a session
	opening   bool                // connection.open has come
	askedByIt bool                // the client sent connection.close
	lost      bool                // the client is gone: there is nobody to talk to
	toldOf    atomic.Bool         // the client has been sent connection.blocked; any goroutine
	waits     func(reason string) // heldBack, made once
	publishes atomic.Bool         // the client has published; any goroutine
	running   atomic.Bool         // the writer runs: what is queued is sent; any goroutine

	about    Connection    // what does not change once running is set; any goroutine, then
	channels atomic.Int64  // open; any goroutine
	sent     atomic.Uint64 // bytes; any goroutine

	listMu sync.Mutex
	listed map[uint16]*channel // open, by number; guarded by listMu
}

// capabilities are what the client said in its properties.
type capabilities struct {
	authenticationFailureClose, consumerCancelNotify, connectionBlocked bool
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *conn {
	id := s.nextID.Add(1)
	c := &conn{
		server: s, id: id, nc: nc, out: newOutbox(), slots: map[uint16]*slot{},
		log: s.log.With("conn", id, "peer", nc.RemoteAddr().String()),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.waits = c.heldBack
	c.in = socket{nc: nc, bytes: &s.count.bytesReceived, kicked: &c.closing, ack: quickAck(nc)}
	c.frames = wire.NewReader(&c.in, frameMin)
	return c
}

// serve speaks AMQP until the connection ends.
func (c *conn) serve() {
	defer c.cancel()
	if !c.handshake() {
		return
	}
	var writing sync.WaitGroup
	w := &writer{out: c.out, nc: c.nc, server: c.server, session: c.session, frameMax: c.frameMax, beat: c.heartbeat / 2, sent: &c.sent}
	writing.Go(func() {
		defer c.recovered("writer")
		w.run()
	})
	c.about = c.describe()
	c.running.Store(true)
	if c.forced.Load() { // while nobody could be told
		c.fail(errShutdown, 0, 0)
	}
	c.read()
	c.leave()
	// What is queued has as long to go out as the last words have.
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.server.config.CloseTimeout))
	c.out.finish()
	writing.Wait()
	if !c.lost {
		c.lastWords()
	}
	c.log.Info("connection closed", "user", c.user, "vhost", c.vhost)
}

// errShutdown is what a connection hears that is in the way of a stop.
var errShutdown = mq.Errorf(mq.ConnectionForced, "broker forced connection closure with reason 'shutdown'")

// read handles frames until the connection is to end.
func (c *conn) read() {
	defer c.recovered("reader")
	for !c.closing.Load() {
		if !c.frames.Ready() {
			c.beforeWaiting()
		}
		f, err := c.frames.Next()
		if err != nil {
			c.readFailed(err)
			return
		}
		c.out.waitRoom()
		if f.Channel == 0 {
			c.controlFrame(f)
		} else {
			c.channelFrame(f)
		}
	}
}

// beforeWaiting hands on all that was gathered from the frames so far.
func (c *conn) beforeWaiting() {
	c.settleGathered()
	c.session.Flush()
	if c.unanswered {
		c.unanswered = false
		c.in.acknowledge()
	}
}

func (c *conn) settleGathered() {
	if s := c.gathering; s != nil {
		c.gathering = nil
		if err := s.flushSettlements(); err != nil {
			s.fail(err)
		}
	}
}

// readFailed says why nothing more is read.
func (c *conn) readFailed(err error) {
	var fault *mq.Error
	switch {
	case errors.As(err, &fault):
		c.fail(fault, 0, 0)
	case errors.Is(err, errKicked):
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.log.Warn("missed heartbeats from client", "timeout", c.heartbeat)
		c.end()
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		c.log.Warn("client unexpectedly closed TCP connection", "user", c.user)
		c.end()
	default:
		c.log.Warn("read", "err", err, "user", c.user)
		c.end()
	}
}

// end makes everything of the connection stop, without a word to the client.
func (c *conn) end() {
	c.lost = true
	c.closing.Store(true)
	c.cancel()
}

// fail closes the connection with an error. Any goroutine may call it; the
// first error counts.
func (c *conn) fail(e *mq.Error, class, method uint16) {
	if !c.closing.CompareAndSwap(false, true) {
		return
	}
	c.server.count.connectionErrors.Add(1)
	level := slog.LevelWarn
	if e.Code == mq.ConnectionForced {
		level = slog.LevelInfo
	}
	c.log.Log(c.ctx, level, "closing connection", "err", e.Error(), "class", class, "method", method, "user", c.user)
	c.out.last(&wire.ConnectionClose{ReplyCode: e.Code, ReplyText: e.Error(), ClassID: class, MethodID: method})
	c.cancel()
	c.in.kick()
	// A client that does not read cannot hold the connection.
	_ = c.nc.SetWriteDeadline(time.Now().Add(c.server.config.CloseTimeout))
}

// force closes the connection because the broker or the server wants it gone.
func (c *conn) force(e *mq.Error) {
	if c.running.Load() {
		c.fail(e, 0, 0)
		return
	}
	c.forced.Store(true)
	if c.running.Load() { // the handshake ended just now
		c.fail(e, 0, 0)
		return
	}
	c.in.kick()
}

// leave ends what the connection had in the broker. When it returns, no
// goroutine but the writer is left.
func (c *conn) leave() {
	defer c.recovered("leave")
	c.closing.Store(true)
	c.cancel()
	c.slow.Wait()
	open := uint64(0)
	for _, s := range c.slots {
		if s.ch != nil {
			open++
			c.server.count.consumers.Add(-int64(len(c.out.allConsumers(s.ch))))
		}
	}
	c.server.count.channelsClosed.Add(open)
	if err := c.session.Close(); err != nil {
		c.log.Warn("close session", "err", err)
	}
	if c.askedByIt { // its exclusive queues are gone when it hears this
		c.out.last(&wire.ConnectionCloseOk{})
	}
}

// lastWords waits until the client has answered our close or has gone, so that
// the end of the socket does not overtake what was written to it.
func (c *conn) lastWords() {
	if c.askedByIt { // it has heard everything; once it reads the end, it goes
		t, ok := c.nc.(interface{ CloseWrite() error })
		if !ok || t.CloseWrite() != nil {
			return
		}
	}
	c.in.deaf = true
	c.in.until = time.Now().Add(c.server.config.CloseTimeout)
	for {
		f, err := c.frames.Next()
		var fault *mq.Error
		switch {
		case errors.As(err, &fault):
			_, _ = io.Copy(io.Discard, &c.in) // no frames any more, until the end or the deadline
			return
		case err != nil:
			return
		}
		if class, method, ok := wire.MethodID(f.Payload); f.Type == wire.FrameMethod && f.Channel == 0 && ok && class == classConnection && method == methodCloseOk {
			return
		}
	}
}

// recovered keeps a panic inside the connection. Deferred by each of its
// goroutines.
func (c *conn) recovered(where string) {
	v := recover()
	if v == nil {
		return
	}
	c.server.count.crashes.Add(1)
	c.log.Error("panic in connection", "where", where, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	c.fail(errInternal, 0, 0)
}

// errInternal is all that a client hears of an error that is not for it.
var errInternal = mq.Errorf(mq.InternalError, "internal error, see the broker's log")

// show turns any error into what the client may see. doing names the method.
func (c *conn) show(err error, doing string) *mq.Error {
	var e *mq.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		c.log.Warn("method timed out", "method", doing, "after", c.server.config.SlowTimeout)
		return &mq.Error{
			Code: mq.InternalError, ChannelOnly: true,
			Text: fmt.Sprintf("operation %s did not complete within %v", doing, c.server.config.SlowTimeout),
		}
	}
	c.log.Error("unexpected error", "method", doing, "err", err)
	return &mq.Error{Code: mq.InternalError, ChannelOnly: true, Text: "operation " + doing + " failed, see the broker's log"}
}
