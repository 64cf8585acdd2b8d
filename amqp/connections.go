package amqp

import (
	"cmp"
	"net"
	"slices"
	"time"

	"warren/mq"
)

// Connection is an open connection as operators see it: a copy.
type Connection struct {
	ID   uint64 // of this Server, in the order of arrival
	Name string // "127.0.0.1:46202 -> 127.0.0.1:5672": the client's address, and ours

	PeerHost, Host string // the client's address, and ours
	PeerPort, Port int

	User, VHost      string
	Mechanism        string   // how the user was authenticated
	ClientProperties mq.Table // as the client sent them; not to be written to
	TLS              bool
	FrameMax         uint32 // bytes
	ChannelMax       uint16
	Heartbeat        time.Duration
	OpenedAt         time.Time

	State                    string // running, blocked or closing
	Channels                 int    // open now
	BytesReceived, BytesSent uint64 // on the socket; behind TLS if there is TLS
}

// Connections are the connections that got past the handshake, oldest first.
func (s *Server) Connections() []Connection {
	var all []Connection
	s.eachConn(func(c *conn) { all = append(all, c.now()) })
	slices.SortFunc(all, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// CloseConnection closes the connection of that name with 320 and the reason
// as its text. It does not wait for the client. False means that there is none.
func (s *Server) CloseConnection(name, reason string) bool {
	found := false
	s.eachConn(func(c *conn) {
		if c.about.Name == name {
			found = true
			c.log.Info("closing connection for an operator", "reason", reason, "user", c.user)
			c.force(&mq.Error{Code: mq.ConnectionForced, Text: reason})
		}
	})
	return found
}

// describe gathers what does not change any more. After the handshake.
func (c *conn) describe() Connection {
	a := Connection{
		ID: c.id, Name: c.nc.RemoteAddr().String() + " -> " + c.nc.LocalAddr().String(),
		User: c.user, VHost: c.vhost, Mechanism: c.login.Mechanism, ClientProperties: c.properties,
		TLS: c.server.config.TLS != nil, FrameMax: c.frameMax, ChannelMax: c.channelMax, Heartbeat: c.heartbeat,
		OpenedAt: time.Now(),
	}
	a.PeerHost, a.PeerPort = hostPort(c.nc.RemoteAddr())
	a.Host, a.Port = hostPort(c.nc.LocalAddr())
	return a
}

// hostPort takes an address apart. What is not a network (a pipe) has no port.
func hostPort(a net.Addr) (host string, port int) {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String(), t.Port
	}
	return a.String(), 0
}

// now is the connection as it is. Any goroutine may call it once running is set.
func (c *conn) now() Connection {
	a := c.about
	a.State = "running"
	switch {
	case c.closing.Load():
		a.State = "closing"
	case c.toldOf.Load():
		a.State = "blocked"
	}
	a.Channels = int(c.channels.Load())
	a.BytesReceived, a.BytesSent = c.in.received.Load(), c.sent.Load()
	return a
}
