package amqp

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// Bounds of what waits while a channel is busy with a slow method. When it is
// full, the reader waits.
const (
	backlogBytesMax  = 1 << 20
	backlogFramesMax = 1024
)

// slot is the place of one channel number on a connection. Channels come and
// go in it.
//
// Whoever has the baton runs the slot's frames and owns its fields: the
// connection's reader, except while a slow method runs. That one runs on a
// goroutine of its own (away), which then works off the frames that the reader
// put into the backlog, and hands the baton back once there are none.
type slot struct {
	conn   *conn
	number uint16

	ch      *channel  // nil: not open
	closing bool      // we sent channel.close and wait for close-ok
	left    time.Time // when the client closed the channel
	away    bool      // the baton is not with the reader
	content assembly

	// class and method name the method in hand: the offender, if there is one.
	class, method uint16

	busy atomic.Bool // the baton is not with the reader; set by the reader only
	mu   sync.Mutex  // guards all below
	room sync.Cond   // on mu: the backlog has shrunk
	// backlog holds copies of frames, backlogBytes what they count for.
	backlog      []wire.Frame
	backlogBytes int
}

func newSlot(c *conn, number uint16) *slot {
	s := &slot{conn: c, number: number}
	s.room.L = &s.mu
	return s
}

// channelFrame hands a frame to its channel. Only the reader calls it.
func (c *conn) channelFrame(f wire.Frame) {
	s := c.lastSlot
	if s == nil || s.number != f.Channel {
		if s = c.slot(f); s == nil {
			return
		}
		c.lastSlot = s
	}
	if c.gathering != nil && (c.gathering != s || !gathers(f)) {
		c.settleGathered()
	}
	if s.busy.Load() && s.putOff(f) {
		return
	}
	s.handle(f)
}

// slot returns the slot of a frame's channel, or nil if there is none and the
// frame does not open it.
func (c *conn) slot(f wire.Frame) *slot {
	if s := c.slots[f.Channel]; s != nil {
		return s
	}
	if f.Channel > c.channelMax {
		c.fail(mq.Errorf(mq.NotAllowed, "number of channels opened (%d) has reached the negotiated channel_max (%d)", len(c.slots), c.channelMax), 0, 0) // RabbitMQ blames no method either
		return nil
	}
	if !opens(f) {
		var class, method uint16 // of content there is no offending method
		if f.Type == wire.FrameMethod {
			class, method, _ = wire.MethodID(f.Payload)
		}
		c.fail(notOpen(f), class, method)
		return nil
	}
	s := newSlot(c, f.Channel)
	c.slots[f.Channel] = s
	return s
}

// leftGrace is how long after its channel.close a client may send on a channel
// without harm: its threads need not know of each other.
const leftGrace = 200 * time.Millisecond

// unopened is the error of a frame for a channel that is not open, nil if it
// was on its way when the client closed the channel. RabbitMQ too ignores such
// frames for a moment, until the channel's process has gone.
func (s *slot) unopened(f wire.Frame) error {
	if !s.left.IsZero() && time.Since(s.left) < leftGrace {
		return nil
	}
	return notOpen(f)
}

// opens reports whether a frame is channel.open.
func opens(f wire.Frame) bool {
	class, method, ok := wire.MethodID(f.Payload)
	return ok && f.Type == wire.FrameMethod && class == classChannel && method == methodOpen
}

// notOpen is the error of a frame for a channel that is not open and that does
// not open it.
func notOpen(f wire.Frame) *mq.Error {
	if f.Type != wire.FrameMethod {
		return mq.Errorf(mq.UnexpectedFrame, "expected method frame, got non method frame instead")
	}
	return mq.Errorf(mq.ChannelError, "expected 'channel.open'")
}

// putOff copies a frame into the backlog, waiting for room. False means that
// the baton has come back.
func (s *slot) putOff(f wire.Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy.Load() && (s.backlogBytes >= backlogBytesMax || len(s.backlog) >= backlogFramesMax) {
		s.room.Wait()
	}
	if !s.busy.Load() {
		return false
	}
	f.Payload = slices.Clone(f.Payload)
	s.backlog = append(s.backlog, f)
	s.backlogBytes += len(f.Payload)
	return true
}

// slowly runs f where it may wait for the broker, with SlowTimeout to do it.
// From the reader that is a new goroutine, which takes the baton with it.
func (s *slot) slowly(f func(ctx context.Context) error) error {
	return s.unhurried(func(ctx context.Context) error {
		ctx, cancel := s.limited(ctx)
		defer cancel()
		return f(ctx)
	})
}

// unhurried is slowly with all the time that the connection lasts.
func (s *slot) unhurried(f func(ctx context.Context) error) error {
	if s.away {
		return f(s.conn.ctx)
	}
	s.away = true
	s.busy.Store(true)
	s.conn.slow.Go(func() {
		handed := false
		defer func() {
			if !handed { // a panic, which ends the connection
				s.handBack(true)
			}
		}()
		defer s.conn.recovered("slow method")
		if err := f(s.conn.ctx); err != nil {
			s.fail(err)
		}
		s.workOff()
		handed = true
	})
	return nil
}

// limited is ctx for the next SlowTimeout.
func (s *slot) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.conn.server.config.SlowTimeout)
}

// workOff handles the backlog until it is empty, and then hands the baton back.
func (s *slot) workOff() {
	for {
		f, ok := s.nextPutOff()
		if !ok {
			// What these frames published must not wait for the reader's next pause.
			s.conn.session.Flush()
			if s.handBack(false) {
				return
			}
			continue
		}
		s.conn.out.waitRoom()
		s.handle(f)
	}
}

func (s *slot) nextPutOff() (wire.Frame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.backlog) == 0 {
		return wire.Frame{}, false
	}
	f := s.backlog[0]
	s.backlog[0] = wire.Frame{}
	s.backlog = s.backlog[1:]
	s.backlogBytes -= len(f.Payload)
	s.room.Signal()
	return f, true
}

// handBack returns the baton to the reader, unless there is a backlog and
// anyway is not set. It reports whether the reader has it.
func (s *slot) handBack(anyway bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.backlog) > 0 && !anyway {
		return false
	}
	s.backlog, s.backlogBytes = nil, 0
	s.away = false
	s.busy.Store(false)
	s.room.Broadcast()
	return true
}

// handle runs one frame with the baton in hand.
func (s *slot) handle(f wire.Frame) {
	if s.conn.closing.Load() {
		return
	}
	if err := s.frame(f); err != nil {
		s.fail(err)
	}
}

// frame runs one frame.
func (s *slot) frame(f wire.Frame) error {
	if s.closing {
		return s.closingFrame(f)
	}
	if f.Type != wire.FrameMethod {
		if s.ch == nil {
			s.class, s.method = 0, 0
			return s.unopened(f)
		}
		return s.contentFrame(f)
	}
	class, method, ok := wire.MethodID(f.Payload)
	if s.content.stage != stageNone { // the publish in hand is the offender
		return s.content.unexpected()
	}
	s.class, s.method = class, method
	if s.ch == nil && !opens(f) {
		return s.unopened(f)
	}
	if ok && class == classBasic {
		switch method {
		case methodPublish:
			return s.publish(f.Payload)
		case methodAck, methodNack, methodReject:
			return s.settlement(method, f.Payload)
		}
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		return err
	}
	return s.run(m)
}

// closingFrame ignores what was under way when we closed the channel, until
// the client has seen that (§1.5.2.5). A crossing close gets its answer.
func (s *slot) closingFrame(f wire.Frame) error {
	class, method, _ := wire.MethodID(f.Payload)
	if f.Type != wire.FrameMethod || class != classChannel {
		return nil
	}
	switch method {
	case methodChannelCloseOk:
		s.closing = false
	case methodClose:
		s.conn.out.method(s.number, &wire.ChannelCloseOk{})
	}
	return nil
}

// fail is the one way of an error to the client: it closes the channel, or the
// connection if the error is hard.
func (s *slot) fail(err error) {
	c := s.conn
	if c.ctx.Err() != nil {
		return // the connection is going, and the error says no more than that
	}
	e := c.show(err, wire.MethodName(s.class, s.method))
	if e.Hard() || s.ch == nil {
		c.fail(e, s.class, s.method)
		return
	}
	c.server.count.channelErrors.Add(1)
	c.log.Warn("closing channel", "chan", s.number, "err", e.Error(), "method", wire.MethodName(s.class, s.method), "user", c.user)
	ch := s.ch
	if s.content.stage != stageNone {
		s.content = assembly{}
	}
	s.settleBeforeLeaving()
	s.closing = true
	c.out.closing(ch, &wire.ChannelClose{ReplyCode: e.Code, ReplyText: e.Error(), ClassID: s.class, MethodID: s.method})
	s.leave(ch, func() {})
}
