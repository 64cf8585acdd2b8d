package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// chunkBytes is the size of a piece of a snapshot.
	chunkBytes = 256 << 10
	// chunkTimeout is how long one piece may take; the whole may take as long
	// as it takes.
	chunkTimeout = 60 * time.Second
	// workingEvery is how often a follower that is still restoring says so.
	workingEvery = 2 * time.Second
)

var errSnapshotCut = errors.New("snapshot stream ended early")

// bulkConn is a connection for one snapshot: a request frame (typeInstall),
// then pieces (u32 length, bytes), a zero length, and one answer frame, before
// which there may be frames with flagWorking.
type bulkConn = net.Conn

func sendSnapshot(c net.Conn, gid uint64, header []byte, data io.Reader) ([]byte, error) {
	f := rpcFrame(rpcHead{typ: typeInstall, group: gid}, header, nil)
	c.SetWriteDeadline(time.Now().Add(chunkTimeout))
	if _, err := c.Write(append(f.head[:f.headBytes:f.headBytes], header...)); err != nil {
		return nil, err
	}
	answer := make(chan rpcAnswer, 1)
	go func() { answer <- readInstallAnswer(c) }() // ends with c at the latest
	buf := make([]byte, 4+chunkBytes)
	for {
		n, err := io.ReadFull(data, buf[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.Close()
			<-answer
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		c.SetWriteDeadline(time.Now().Add(chunkTimeout))
		if _, werr := c.Write(buf[:4+n]); werr != nil {
			return nil, refusedOr(c, answer, werr)
		}
		if n == 0 {
			break
		}
		if err != nil { // the last piece; its end follows
			data = eof{}
		}
	}
	a := <-answer
	return a.body, a.err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// refusedOr finds out why the other side stopped reading: it may have answered.
func refusedOr(c net.Conn, answer <-chan rpcAnswer, err error) error {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case a := <-answer:
		var remote *remoteError
		if errors.As(a.err, &remote) {
			err = a.err
		}
	case <-t.C:
		c.Close()
		<-answer
	}
	return err
}

func readInstallAnswer(c net.Conn) rpcAnswer {
	for {
		c.SetReadDeadline(time.Now().Add(chunkTimeout))
		h, body, err := readRPC(c, controlBytesMax)
		switch {
		case err != nil:
			return rpcAnswer{err: err}
		case h.flags&flagWorking != 0:
		case h.flags&flagError != 0:
			return rpcAnswer{err: &remoteError{string(body)}}
		default:
			return rpcAnswer{body: body}
		}
	}
}

// serveBulk receives one snapshot on c for the group that it names.
func serveBulk(c net.Conn, find func(gid uint64) *transport) error {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(chunkTimeout))
	head, body, err := readRPC(c, callBytesMax)
	if err != nil {
		return fmt.Errorf("read snapshot header: %w", err)
	}
	answer := func(body []byte, err error) error {
		h := rpcHead{typ: typeInstall, flags: flagAnswer, group: head.group}
		if err != nil {
			h.flags |= flagError
			body = []byte(err.Error())
		}
		return writeFrame(c, h, body)
	}
	t := find(head.group)
	if t == nil {
		return answer(nil, errNoGroup)
	}
	cmd, err := decodeInstall(body)
	if head.typ != typeInstall || err != nil {
		return answer(nil, errCodec)
	}
	pieces := &pieceReader{conn: c}
	done := make(chan raft.RPCResponse, 1)
	t.deliver(inbound{rpc: raft.RPC{Command: cmd, Reader: pieces}, done: func(r raft.RPCResponse) { done <- r }})
	tick := time.NewTicker(workingEvery)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			return answer(encodeAnswer(r))
		case <-tick.C:
			if err := writeFrame(c, rpcHead{typ: typeInstall, flags: flagAnswer | flagWorking, group: head.group}, nil); err != nil {
				c.Close() // ends the pieces, and with them Raft's restore
				<-done
				return err
			}
		}
	}
}

func writeFrame(c net.Conn, h rpcHead, body []byte) error {
	f := rpcFrame(h, body, nil)
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.Write(append(f.head[:f.headBytes:f.headBytes], body...))
	return err
}

// pieceReader is the stream of a snapshot's pieces. A stream that stops before
// its end is an error, never io.EOF.
type pieceReader struct {
	conn net.Conn
	left int
	err  error
}

// Read implements io.Reader.
func (p *pieceReader) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	p.conn.SetReadDeadline(time.Now().Add(chunkTimeout))
	if p.left == 0 {
		var head [4]byte
		if _, err := io.ReadFull(p.conn, head[:]); err != nil {
			p.err = fmt.Errorf("%w: %w", errSnapshotCut, err)
			return 0, p.err
		}
		p.left = int(binary.BigEndian.Uint32(head[:]))
		if p.left == 0 {
			p.err = io.EOF
			return 0, p.err
		}
		if p.left > chunkBytes {
			p.err = fmt.Errorf("%w: a piece of %d bytes", errFrameTooLong, p.left)
			return 0, p.err
		}
	}
	n, err := p.conn.Read(b[:min(len(b), p.left)])
	p.left -= n
	if err != nil {
		p.err = fmt.Errorf("%w: %w", errSnapshotCut, err)
	}
	return n, p.err
}
