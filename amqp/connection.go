package amqp

import (
	"context"

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
		c.slow.Go(func() {
			defer c.recovered("update-secret")
			c.updateSecret(m)
		})
	default:
		c.fail(unexpected("running"), class, method)
	}
}

// updateSecret checks a new password, for mechanisms whose passwords are
// tokens that run out (RabbitMQ's extension).
func (c *conn) updateSecret(m *wire.ConnectionUpdateSecret) {
	ctx, cancel := context.WithTimeout(c.ctx, c.server.config.SlowTimeout)
	defer cancel()
	creds := c.login
	creds.Password = m.NewSecret
	_, err := c.server.broker.Login(ctx, creds)
	if c.ctx.Err() != nil {
		return
	}
	if err != nil {
		c.log.Warn("new secret refused", "user", c.user, "err", err)
		class, method := m.ID()
		c.fail(mq.Errorf(mq.NotAllowed, "New secret was refused by one of the backends"), class, method)
		return
	}
	c.log.Info("secret updated", "user", c.user, "reason", m.Reason)
	c.out.method(0, &wire.ConnectionUpdateSecretOk{})
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
