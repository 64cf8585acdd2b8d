package amqp

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// The ids that are told apart without decoding a method.
const (
	classConnection = 10
	classBasic      = 60
	methodCloseOk   = 51 // of class connection
)

// errGone says that the peer went away, or was sent away, during the handshake.
var errGone = errors.New("gone during the handshake")

// handshake takes the connection from the protocol header to connection.open
// (§2.2.4, §4.2.2). It alone reads and writes the socket meanwhile. False
// means that there is no connection, and all is said.
func (c *conn) handshake() bool {
	defer c.recovered("handshake")
	c.in.until = time.Now().Add(c.server.config.HandshakeTimeout)
	_ = c.nc.SetWriteDeadline(c.in.until) // reading tells
	c.in.kicked = &c.forced
	err := c.negotiate()
	var e *mq.Error
	switch {
	case err == nil:
		c.in.kicked, c.in.until = &c.closing, time.Time{}
		_ = c.nc.SetWriteDeadline(time.Time{}) // writing tells
		// Two intervals of silence end the connection (§4.2.7).
		c.in.patience = 2 * c.heartbeat
		return true
	case errors.As(err, &e):
		c.refuse(e)
	case errors.Is(err, errKicked):
	default:
		c.log.Info("handshake ended", "err", err)
	}
	return false
}

func (c *conn) negotiate() error {
	if err := c.header(); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	if err := c.tune(); err != nil {
		return err
	}
	return c.open()
}

// header reads the protocol header. 1-1-0-9 is that of AMQP 0-9, which is
// taken for 0-9-1 as RabbitMQ does.
func (c *conn) header() error {
	var got [8]byte
	if _, err := io.ReadFull(&c.in, got[:]); err != nil {
		return err
	}
	if h := string(got[:]); h == wire.ProtocolHeader || h == "AMQP\x01\x01\x00\x09" {
		return nil
	}
	if _, err := io.WriteString(c.nc, wire.ProtocolHeader); err != nil {
		return err
	}
	c.linger()
	return errors.New("not the header of AMQP 0-9-1")
}

// linger lets the peer read our last bytes: closing a socket with unread input
// would throw them away.
func (c *conn) linger() {
	if t, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // reading tells
	}
	c.in.until = time.Now().Add(c.server.config.CloseTimeout)
	_, _ = io.CopyN(io.Discard, &c.in, 1<<20) // its end is what is waited for
}

// send writes one method at once; only before the writer runs.
func (c *conn) send(m wire.Method) error {
	_, err := c.nc.Write(wire.AppendMethod(nil, 0, m))
	return err
}

// refuse ends the handshake with an error, if the client understands it. Like
// RabbitMQ it blames connection.open only; before that, no method.
func (c *conn) refuse(e *mq.Error) {
	c.log.Warn("connection refused", "err", e.Error(), "user", c.user)
	var class, method uint16
	if c.opening {
		class, method = (&wire.ConnectionOpen{}).ID()
	}
	if e.Code == mq.AccessRefused {
		c.server.count.authFailures.Add(1)
		if !c.caps.authenticationFailureClose {
			// It would take the close for a broken broker. The wait is against
			// guessing passwords.
			c.in.until = time.Now().Add(c.server.config.RefusalDelay)
			_, _ = io.CopyN(io.Discard, &c.in, 1<<20)
			return
		}
	} else {
		c.server.count.connectionErrors.Add(1)
	}
	err := c.send(&wire.ConnectionClose{ReplyCode: e.Code, ReplyText: e.Error(), ClassID: class, MethodID: method})
	if err != nil {
		return
	}
	c.lastWords()
}

// expect returns the next method on channel 0 and gives the client's close its
// answer.
func (c *conn) expect(state string) (wire.Method, error) {
	for {
		f, err := c.frames.Next()
		if err != nil {
			return nil, err
		}
		if f.Type == wire.FrameHeartbeat {
			continue
		}
		if f.Type != wire.FrameMethod || f.Channel != 0 {
			return nil, mq.Errorf(mq.UnexpectedFrame, "type %d on channel %d in connection state %s", f.Type, f.Channel, state)
		}
		m, err := wire.ParseMethod(f.Payload)
		if err != nil {
			return nil, err
		}
		if _, ok := m.(*wire.ConnectionClose); ok {
			_ = c.send(&wire.ConnectionCloseOk{}) // it is going either way
			c.linger()
			return nil, errGone
		}
		return m, nil
	}
}

func unexpected(state string) *mq.Error {
	return mq.Errorf(mq.ChannelError, "unexpected method in connection state %s", state)
}

// start offers the mechanisms and authenticates the client.
func (c *conn) start() error {
	err := c.send(&wire.ConnectionStart{
		VersionMajor: 0, VersionMinor: 9,
		ServerProperties: c.server.properties(), Mechanisms: mechanisms, Locales: "en_US",
	})
	if err != nil {
		return err
	}
	m, err := c.expect("starting")
	if err != nil {
		return err
	}
	ok, is := m.(*wire.ConnectionStartOk)
	if !is {
		return unexpected("starting")
	}
	c.properties = ok.ClientProperties
	caps, _ := ok.ClientProperties.Get("capabilities")
	if t, is := caps.(mq.Table); is {
		c.caps = capabilities{
			authenticationFailureClose: flag(t, "authentication_failure_close"),
			consumerCancelNotify:       flag(t, "consumer_cancel_notify"),
			connectionBlocked:          flag(t, "connection.blocked"),
		}
	}
	creds, err := credentials(ok.Mechanism, ok.Response)
	if err != nil {
		return err
	}
	creds.Loopback = loopback(c.nc.RemoteAddr())
	ctx, cancel := context.WithDeadline(c.ctx, c.in.until)
	defer cancel()
	c.user = creds.User
	user, err := c.server.broker.Login(ctx, creds)
	if err != nil {
		return c.loginRefused(err, ok.Mechanism)
	}
	c.user = user
	c.login = creds
	c.login.Password = ""
	return nil
}

// loginRefused words a refusal without saying more than RabbitMQ does.
func (c *conn) loginRefused(err error, mechanism string) error {
	e := c.show(err, "connection.start-ok")
	if e.Code != mq.AccessRefused {
		return e
	}
	c.log.Warn("login refused", "user", c.user, "err", e.Error())
	return mq.Errorf(mq.AccessRefused, "Login was refused using authentication mechanism %s. For details see the broker logfile.", mechanism)
}

// tune settles frame-max, channel-max and the heartbeat (§1.4.2.5).
func (c *conn) tune() error {
	conf := &c.server.config
	err := c.send(&wire.ConnectionTune{
		ChannelMax: conf.ChannelMax, FrameMax: conf.FrameMax, Heartbeat: uint16(min(conf.Heartbeat/time.Second, 65535)),
	})
	if err != nil {
		return err
	}
	m, err := c.expect("tuning")
	if err != nil {
		return err
	}
	ok, is := m.(*wire.ConnectionTuneOk)
	if !is {
		return unexpected("tuning")
	}
	frameMax, err := agree("frame_max", uint64(ok.FrameMax), frameMin, uint64(conf.FrameMax))
	if err != nil {
		return err
	}
	channelMax, err := agree("channel_max", uint64(ok.ChannelMax), 1, uint64(conf.ChannelMax))
	if err != nil {
		return err
	}
	c.frameMax, c.channelMax = uint32(frameMax), uint16(channelMax)
	c.heartbeat = time.Duration(ok.Heartbeat) * time.Second // the client has the last word
	c.frames.SetFrameMax(c.frameMax)
	return nil
}

// agree checks what the client chose; 0 takes the server's limit.
func agree(what string, chosen, least, most uint64) (uint64, error) {
	switch {
	case chosen == 0:
		return most, nil
	case chosen < least:
		return 0, mq.Errorf(mq.NotAllowed, "negotiated %s = %d is lower than the minimum allowed value (%d)", what, chosen, least)
	case chosen > most:
		return 0, mq.Errorf(mq.NotAllowed, "negotiated %s = %d is higher than the maximum allowed value (%d)", what, chosen, most)
	}
	return chosen, nil
}

// open begins the session in the vhost that the client names.
func (c *conn) open() error {
	m, err := c.expect("opening")
	if err != nil {
		return err
	}
	open, is := m.(*wire.ConnectionOpen)
	if !is {
		return unexpected("opening")
	}
	c.opening = true
	ctx, cancel := context.WithDeadline(c.ctx, c.in.until)
	defer cancel()
	c.session, err = c.server.broker.Open(ctx, c.user, open.VirtualHost, c.force)
	if err != nil {
		return c.show(err, "connection.open")
	}
	c.vhost = open.VirtualHost
	if err := c.send(&wire.ConnectionOpenOk{}); err != nil {
		if cerr := c.session.Close(); cerr != nil {
			c.log.Warn("close session", "err", cerr)
		}
		return err
	}
	c.log.Info("connection opened", "user", c.user, "vhost", c.vhost)
	return nil
}

// properties are what clients see of the server; pika and others decide by the
// capabilities what they may use.
func (s *Server) properties() mq.Table {
	var caps mq.Table
	for _, name := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
	} {
		caps = append(caps, mq.Field{Key: name, Value: true})
	}
	return mq.Table{
		{Key: "capabilities", Value: caps},
		{Key: "cluster_name", Value: s.config.ClusterName()},
		{Key: "copyright", Value: "The Warren authors"},
		{Key: "information", Value: s.config.Information},
		{Key: "platform", Value: s.config.Platform + " " + runtime.Version()},
		{Key: "product", Value: s.config.Product},
		{Key: "version", Value: s.config.Version},
	}
}

func flag(t mq.Table, key string) bool {
	v, _ := t.Get(key)
	b, _ := v.(bool)
	return b
}

// loopback reports whether the peer is on this machine. What is not a network
// (a pipe) is.
func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}
