package management

import (
	"net"
	"sync"
)

// boundedListener accepts no more than a number of connections at a time; the
// rest wait in the kernel's backlog.
type boundedListener struct {
	net.Listener
	places chan struct{} // full means: as many as may be are open
	closed chan struct{}
	once   sync.Once
}

func newBoundedListener(ln net.Listener, connections int) *boundedListener {
	return &boundedListener{Listener: ln, places: make(chan struct{}, connections), closed: make(chan struct{})}
}

// Accept waits for a place and then for a connection.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close ends the listening; open connections stay.
func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type boundedConn struct {
	net.Conn
	leave func()
}

// Close gives the connection's place back.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
