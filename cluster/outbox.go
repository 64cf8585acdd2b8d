package cluster

import (
	"net"
	"sync"
	"time"
)

const (
	// flushBytes is how much goes into one write at most, while more waits.
	flushBytes = 256 << 10
	// scratchBytes is the buffer that small pieces are gathered in.
	scratchBytes = 64 << 10
	// copyBytesMax is the largest piece that is copied; a larger one is written
	// from where it lies.
	copyBytesMax = 4 << 10
	// writeTimeout bounds one write of at most flushBytes and one frame.
	writeTimeout = 10 * time.Second
	// batchFramesKept bounds what a burst leaves allocated.
	batchFramesKept = 4096
	// headBytesMax is the longest header of a frame.
	headBytesMax = 24
)

// outFrame is a frame on its way out: a header and the pieces of its body,
// which nobody may change any more.
type outFrame struct {
	head      [headBytesMax]byte
	headBytes uint8
	body      []byte
	more      [][]byte
}

func (f *outFrame) bytes() int {
	n := int(f.headBytes) + len(f.body)
	for _, p := range f.more {
		n += len(p)
	}
	return n
}

// outbox is the mailbox of a connection's writer. push never blocks; when
// bytesMax are waiting it answers false, and the owner cuts the connection.
type outbox struct {
	bytesMax int
	wake     chan struct{} // cap 1: something waits, or closed

	mu     sync.Mutex
	frames []outFrame
	bytes  int // of frames, and of the batch that is being written
	closed bool
}

func newOutbox(bytesMax int) *outbox {
	return &outbox{bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// push hands a frame to the writer. full means that there is no room; both
// false, that the outbox is closed.
func (o *outbox) push(f outFrame) (ok, full bool) {
	n := f.bytes()
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false, false
	}
	if o.bytes > 0 && o.bytes+n > o.bytesMax {
		o.mu.Unlock()
		return false, true
	}
	o.bytes += n
	o.frames = append(o.frames, f)
	first := len(o.frames) == 1
	o.mu.Unlock()
	if first {
		o.signal()
	}
	return true, false
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close makes push answer false and run return. What waits is not written.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.frames = nil
	o.mu.Unlock()
	o.signal()
}

// waiting is how many bytes have not been written.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// run writes what is pushed to c, everything that waits in as few writes as
// possible, until close or an error. idle is called (if set) when nothing was
// written for every; its frame is written then.
func (o *outbox) run(c net.Conn, every time.Duration, idle func() outFrame) error {
	g := gather{conn: c, scratch: make([]byte, 0, scratchBytes)}
	var tick <-chan time.Time
	if idle != nil {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	var batch []outFrame
	for {
		select {
		case <-o.wake:
		case <-tick:
			f := idle()
			g.add(&f)
			if err := g.flush(); err != nil {
				return err
			}
		}
		for {
			var closed bool
			batch, closed = o.swap(batch, g.written)
			g.written = 0
			if closed {
				return nil
			}
			if len(batch) == 0 {
				break
			}
			if err := g.all(batch); err != nil {
				return err
			}
		}
	}
}

// swap takes what waits and gives the emptied last batch back for reuse.
func (o *outbox) swap(last []outFrame, written int) (batch []outFrame, closed bool) {
	clear(last) // lets go of the bodies
	if cap(last) > batchFramesKept {
		last = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes = max(o.bytes-written, 0)
	batch, o.frames = o.frames, last[:0]
	return batch, o.closed
}

// gather collects pieces for one write.
type gather struct {
	conn    net.Conn
	scratch []byte // cap never grows: bufs point into it
	from    int    // where the piece of scratch that is not in bufs yet begins
	bufs    net.Buffers
	bytes   int
	written int // frames' bytes since the last swap
}

func (g *gather) all(batch []outFrame) error {
	for i := range batch {
		g.add(&batch[i])
		g.written += batch[i].bytes()
		if g.bytes >= flushBytes {
			if err := g.flush(); err != nil {
				return err
			}
		}
	}
	return g.flush()
}

// add gathers a frame, which must stay as it is until flush.
func (g *gather) add(f *outFrame) {
	g.piece(f.head[:f.headBytes])
	g.piece(f.body)
	for _, p := range f.more {
		g.piece(p)
	}
}

func (g *gather) piece(b []byte) {
	if len(b) == 0 {
		return
	}
	g.bytes += len(b)
	if len(b) <= copyBytesMax && len(g.scratch)+len(b) <= cap(g.scratch) {
		g.scratch = append(g.scratch, b...)
		return
	}
	g.cut()
	g.bufs = append(g.bufs, b)
}

func (g *gather) cut() {
	if g.from < len(g.scratch) {
		g.bufs = append(g.bufs, g.scratch[g.from:len(g.scratch):len(g.scratch)])
		g.from = len(g.scratch)
	}
}

func (g *gather) flush() error {
	g.cut()
	if len(g.bufs) == 0 {
		return nil
	}
	g.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	keep := g.bufs
	var err error
	if t, ok := rawTCP(g.conn); ok {
		_, err = g.bufs.WriteTo(t) // one writev
	} else {
		_, err = g.bufs.WriteTo(g.conn)
	}
	clear(keep)
	g.bufs, g.scratch, g.from, g.bytes = keep[:0], g.scratch[:0], 0, 0
	return err
}

// rawTCP finds the socket below a connection without TLS: net.Buffers knows
// writev for nothing else.
func rawTCP(c net.Conn) (*net.TCPConn, bool) {
	if h, ok := c.(*heldConn); ok {
		c = h.Conn
	}
	if k, ok := c.(*keptConn); ok {
		c = k.Conn
	}
	t, ok := c.(*net.TCPConn)
	return t, ok
}

func (o *outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}
