package amqptest

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// patience is how long a script waits for anything before the test fails.
const patience = time.Minute

// Client is a scripted AMQP client: it sends what it is told, right or wrong,
// and reads frame by frame. Its methods fail the test. Use it from the test's
// goroutine.
type Client struct {
	T    testing.TB
	Conn net.Conn
	r    *wire.Reader
}

// Content is what a client received: the method, and properties and body if it
// has any.
type Content struct {
	Method     wire.Method
	Properties wire.Properties
	Body       string
}

// NewClient returns a Client on a socket that it closes at the test's end.
func NewClient(t testing.TB, c net.Conn) *Client {
	t.Cleanup(func() { c.Close() })
	return &Client{T: t, Conn: c, r: wire.NewReader(c, 0)}
}

// Write sends bytes as they are.
func (c *Client) Write(b []byte) {
	c.T.Helper()
	_ = c.Conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.Conn.Write(b); err != nil {
		c.T.Fatalf("write: %v", err)
	}
}

// Send sends one method.
func (c *Client) Send(channel uint16, m wire.Method) {
	c.T.Helper()
	c.Write(wire.AppendMethod(nil, channel, m))
}

// Publish sends a message.
func (c *Client) Publish(channel uint16, m wire.BasicPublish, p wire.Properties, body string) {
	c.T.Helper()
	b := wire.AppendMethod(nil, channel, &m)
	b = wire.AppendHeader(b, channel, 60, uint64(len(body)), wire.AppendProperties(nil, p))
	c.Write(wire.AppendBody(b, channel, []byte(body), wire.FrameMin))
}

// Frame reads the next frame that is no heartbeat.
func (c *Client) Frame() wire.Frame {
	c.T.Helper()
	for {
		_ = c.Conn.SetReadDeadline(time.Now().Add(patience))
		f, err := c.r.Next()
		if err != nil {
			c.T.Fatalf("read: %v", err)
		}
		if f.Type != wire.FrameHeartbeat {
			return f
		}
	}
}

// Next reads the next method, with its content if it has one.
func (c *Client) Next() (uint16, Content) {
	c.T.Helper()
	f := c.Frame()
	m, err := wire.ParseMethod(append([]byte(nil), f.Payload...))
	if f.Type != wire.FrameMethod || err != nil {
		c.T.Fatalf("want a method, got frame type %d: %v", f.Type, err)
	}
	got := Content{Method: m}
	switch m.(type) {
	case *wire.BasicDeliver, *wire.BasicGetOk, *wire.BasicReturn:
		h := c.Frame()
		_, left, props, err := wire.ParseHeader(h.Payload)
		if err == nil {
			got.Properties, err = wire.ParseProperties(props)
		}
		if err != nil {
			c.T.Fatalf("content header: %v", err)
		}
		for left > 0 {
			b := c.Frame()
			got.Body += string(b.Payload)
			left -= uint64(len(b.Payload))
		}
	}
	return f.Channel, got
}

// Expect reads the next method and requires it to be a *M.
func Expect[M any](c *Client) *M {
	c.T.Helper()
	m, _ := ExpectContent[M](c)
	return m
}

// ExpectContent is Expect for methods with content.
func ExpectContent[M any](c *Client) (*M, Content) {
	c.T.Helper()
	_, got := c.Next()
	m, ok := any(got.Method).(*M)
	if !ok {
		c.T.Fatalf("want %T, got %T %+v", m, got.Method, got.Method)
	}
	return m, got
}

// ExpectClose requires the next method to close the channel, or the connection
// if channel is 0, and returns it as connection.close.
func (c *Client) ExpectClose(channel uint16, code mq.Code) wire.ConnectionClose {
	c.T.Helper()
	on, got := c.Next()
	var closed wire.ConnectionClose
	switch m := got.Method.(type) {
	case *wire.ConnectionClose:
		closed = *m
	case *wire.ChannelClose:
		closed = wire.ConnectionClose(*m)
	default:
		c.T.Fatalf("want a close, got %T %+v", m, m)
	}
	if on != channel || closed.ReplyCode != code {
		c.T.Fatalf("want close of channel %d with %d, got channel %d: %+v", channel, code, on, closed)
	}
	return closed
}

// ExpectEOF requires the peer to close the socket.
func (c *Client) ExpectEOF() {
	c.T.Helper()
	_ = c.Conn.SetReadDeadline(time.Now().Add(patience))
	for {
		f, err := c.r.Next()
		if err == nil && f.Type == wire.FrameHeartbeat {
			continue
		}
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			c.T.Fatalf("want the end, got %+v, %v", f, err)
		}
		return
	}
}

// ExpectNothing requires that nothing has come when the answer to a method on
// another channel has: channel must be open.
func (c *Client) ExpectNothing(channel uint16) {
	c.T.Helper()
	c.Send(channel, &wire.ChannelFlow{Active: true})
	Expect[wire.ChannelFlowOk](c)
}

// Start goes through the handshake up to connection.tune.
func (c *Client) Start(user, password string) *wire.ConnectionTune {
	c.T.Helper()
	c.Write([]byte(wire.ProtocolHeader))
	Expect[wire.ConnectionStart](c)
	c.Send(0, &wire.ConnectionStartOk{
		ClientProperties: mq.Table{{Key: "capabilities", Value: mq.Table{
			{Key: "authentication_failure_close", Value: true},
			{Key: "consumer_cancel_notify", Value: true},
			{Key: "connection.blocked", Value: true},
		}}},
		Mechanism: "PLAIN", Response: fmt.Sprintf("\x00%s\x00%s", user, password), Locale: "en_US",
	})
	return Expect[wire.ConnectionTune](c)
}

// Open goes through the whole handshake as guest, without heartbeats, and
// opens channels 1 to channels.
func (c *Client) Open(channels uint16) *Client {
	c.T.Helper()
	tune := c.Start("guest", "guest")
	c.Send(0, &wire.ConnectionTuneOk{ChannelMax: tune.ChannelMax, FrameMax: tune.FrameMax})
	c.Send(0, &wire.ConnectionOpen{VirtualHost: "/"})
	Expect[wire.ConnectionOpenOk](c)
	for n := range channels {
		c.Send(n+1, &wire.ChannelOpen{})
		Expect[wire.ChannelOpenOk](c)
	}
	return c
}

// Declare declares a queue.
func (c *Client) Declare(channel uint16, queue string) {
	c.T.Helper()
	c.Send(channel, &wire.QueueDeclare{Queue: queue})
	Expect[wire.QueueDeclareOk](c)
}

// Close closes the connection as a client should, and the socket after it.
func (c *Client) Close() {
	c.T.Helper()
	c.Send(0, &wire.ConnectionClose{ReplyCode: 200})
	Expect[wire.ConnectionCloseOk](c)
	c.ExpectEOF()
	c.Conn.Close()
}

// ReadAll reads raw bytes until the peer closes the socket.
func (c *Client) ReadAll() []byte {
	c.T.Helper()
	_ = c.Conn.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c.Conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.T.Fatalf("the peer keeps the socket open; got %q", b)
	}
	return b
}
