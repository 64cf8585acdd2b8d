package amqp

import (
	"warren/amqp/wire"
	"warren/mq"
)

// controlFrame handles a frame on channel 0 of a running connection.
func (c *conn) controlFrame(f wire.Frame) {
	if f.Type == wire.FrameHeartbeat {
		return // that it came is all that it says
	}
	c.settleGathered()
	class, method, _ := wire.MethodID(f.Payload)
	if f.Type != wire.FrameMethod {
		c.fail(mq.Errorf(mq.UnexpectedFrame, "type %d on channel 0", f.Type), 0, 0)
		return
	}
	m, err := wire.ParseMethod(f.Payload)
	if err != nil {
		c.fail(c.show(err, wire.MethodName(class, method)), class, method)
		return
	}
	switch m := m.(type) {
	case *wire.ConnectionClose:
		c.log.Debug("client closes the connection", "code", uint16(m.ReplyCode), "text", m.ReplyText)
		c.askedByIt = true
		c.closing.Store(true)
	case *wire.ConnectionUpdateSecret:
		// The secret is for mechanisms whose passwords are tokens that run out
		// (RabbitMQ's extension). Passwords here do not, and a client that has
		// logged in has; so has it in RabbitMQ, which does not look at it either.
		c.log.Info("secret updated", "user", c.user, "reason", m.Reason)
		c.out.method(0, &wire.ConnectionUpdateSecretOk{})
	case *wire.ConnectionCloseOk:
		if c.closing.Load() { // the answer to our close came before the reader was stopped for it
			c.lost = true
			return
		}
		c.fail(unexpected("running"), class, method)
	default:
		c.fail(unexpected("running"), class, method)
	}
}

// Block tells every client that publishes, and understands it, that publishing
// waits, and why (connection.blocked). It holds nobody back itself.
func (s *Server) Block(reason string) {
	s.blocked.Store(&reason)
	s.eachConn(func(c *conn) {
		if c.publishes.Load() {
			c.tellBlocked()
		}
	})
}

// Unblock takes Block back.
func (s *Server) Unblock() {
	s.blocked.Store(nil)
	s.eachConn(func(c *conn) {
		if c.toldOf.CompareAndSwap(true, false) {
			c.out.method(0, &wire.ConnectionUnblocked{})
		}
	})
}

func (s *Server) eachConn(f func(*conn)) {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if c.running.Load() {
			f(c)
		}
	}
}

// heldBack tells a client that publishes, and understands it, that a publish
// of its waits and why.
func (c *conn) heldBack(reason string) {
	if c.caps.connectionBlocked && c.toldOf.CompareAndSwap(false, true) {
		c.out.method(0, &wire.ConnectionBlocked{Reason: reason})
	}
}

// goesOn takes heldBack back, unless Block holds.
func (c *conn) goesOn() {
	if c.toldOf.Load() && c.server.blocked.Load() == nil && c.toldOf.CompareAndSwap(true, false) {
		c.out.method(0, &wire.ConnectionUnblocked{})
	}
}

// tellBlocked sends connection.blocked once. It is said to publishers only,
// when they publish.
func (c *conn) tellBlocked() {
	reason := c.server.blocked.Load()
	if reason == nil || !c.caps.connectionBlocked || !c.toldOf.CompareAndSwap(false, true) {
		return
	}
	c.out.method(0, &wire.ConnectionBlocked{Reason: *reason})
	if c.server.blocked.Load() == nil && c.toldOf.CompareAndSwap(true, false) { // taken back meanwhile
		c.out.method(0, &wire.ConnectionUnblocked{})
	}
}
