package amqp

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// errKicked is what a reader gets whose connection is to end.
var errKicked = errors.New("connection is closing")

// socket is a connection's input with its deadlines: before each read the
// peer gets so much time to say anything at all. Only the reader calls Read.
type socket struct {
	nc       net.Conn
	bytes    *atomic.Uint64 // received, by all of the Server's
	received atomic.Uint64  // by this one; any goroutine reads it
	// until is a fixed end for everything (the handshake, the last words);
	// zero means patience counts, from each read on.
	until    time.Time
	patience time.Duration // 0: for ever
	kicked   *atomic.Bool  // set before kick is called
	deaf     bool          // kicked counts no longer
	ack      func()        // see acknowledge; nil if there is no such thing
	small    bool          // so was the last read
}

// smallRead is less than the kernel acknowledges without waiting for more: two
// segments.
const smallRead = 1024

// acknowledge has the kernel acknowledge a small read now. It would wait for
// up to 40 ms for something to send with it, and a client that leaves Nagle's
// algorithm on (Node's amqplib does) sends nothing more until it is
// acknowledged.
func (s *socket) acknowledge() {
	if s.small && s.ack != nil {
		s.ack()
	}
}

// Read implements io.Reader.
func (s *socket) Read(b []byte) (int, error) {
	deadline := s.until
	if deadline.IsZero() && s.patience > 0 {
		deadline = time.Now().Add(s.patience)
	}
	if err := s.nc.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if !s.deaf && s.kicked.Load() { // or its deadline was overwritten just now
		return 0, errKicked
	}
	n, err := s.nc.Read(b)
	s.small = n < smallRead
	s.bytes.Add(uint64(n))
	s.received.Add(uint64(n))
	if n == 0 && err != nil && !s.deaf && s.kicked.Load() {
		err = errKicked
	}
	return n, err
}

// kick wakes a reader that waits for the peer. Any goroutine may call it.
func (s *socket) kick() {
	_ = s.nc.SetReadDeadline(time.Unix(1, 0)) // fails on a closed socket only, which wakes too
}
