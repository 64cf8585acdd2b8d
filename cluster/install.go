package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/snapshot"
)

const (
	// chunkBytes is the size of a piece of a snapshot's state.
	chunkBytes = 256 << 10
	// bulkPatience is how long the other side of a bulk connection may be silent
	// until it is given up; the whole may take as long as it takes.
	bulkPatience = 60 * time.Second
	// pullPauseMax is how long a follower that says that it works may ask for no
	// file: what it has it links and syncs meanwhile.
	pullPauseMax = 10 * time.Minute
	// workingEvery is how often a follower that is still at it says so.
	workingEvery = 2 * time.Second
)

var (
	errSnapshotCut = errors.New("snapshot stream ended early")
	errBulk        = errors.New("not what a bulk connection brings")
)

// bulkConn is a connection for one snapshot. The sender begins with a request
// frame (typeInstall). If that lists files, the receiver asks for what it lacks
// of them (typePull, answered one by one in order), and then for the state
// (typeState). The state comes in pieces (u32 length, bytes) up to a zero
// length. Last comes the receiver's answer, before which there may be frames
// with flagWorking at any time, or at any time its error.
type bulkConn = net.Conn

// sender sends one snapshot.
type sender struct {
	conn     bulkConn
	patience time.Duration
	rate     *bucket
	figures  *pullCounters
}

// send sends the snapshot that data reads. One of our own store keeps its files
// in place while it is open, and so through all of this.
func (s *sender) send(ctx context.Context, gid uint64, q *raft.InstallSnapshotRequest, data io.Reader) ([]byte, error) {
	var files []snapshot.File
	src, ok := data.(*snapshot.Reader)
	if ok {
		files = src.Files() // they go another way than the state
	}
	header := encodeInstall(q)
	if len(files) > 0 {
		header = appendFiles(header, files)
	}
	if len(header) > callBytesMax || len(files) > filesMax {
		return nil, fmt.Errorf("%w: a snapshot of %d files", errFrameTooLong, len(files))
	}
	if err := s.write(rpcHead{typ: typeInstall, group: gid}, header); err != nil {
		return nil, err
	}
	if len(files) > 0 {
		if err := s.serveFiles(ctx, src, files); err != nil {
			return nil, err
		}
	}
	return s.sendState(data)
}

func (s *sender) write(h rpcHead, body []byte) error {
	f := rpcFrame(h, body, nil)
	s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	_, err := s.conn.Write(append(f.head[:f.headBytes:f.headBytes], body...))
	return err
}

// serveFiles answers the receiver until it asks for the state.
func (s *sender) serveFiles(ctx context.Context, src *snapshot.Reader, files []snapshot.File) error {
	shelf := shelf{src: src, files: files}
	defer shelf.close()
	out := make([]byte, 0, rpcHeadBytes+sumBytes+pullBytesMax)
	asked := time.Now()
	for {
		s.conn.SetReadDeadline(time.Now().Add(s.patience))
		h, body, err := readRPC(s.conn, controlBytesMax)
		switch {
		case err != nil:
			return err
		case h.flags&flagError != 0:
			return &remoteError{string(body)}
		case h.flags&flagWorking != 0:
			if time.Since(asked) > pullPauseMax {
				return errors.New("the follower has asked for no file for too long")
			}
		case h.typ == typeState:
			return nil
		case h.typ == typePull:
			if out, err = s.servePiece(ctx, &shelf, h, body, out[:0]); err != nil {
				return err
			}
			asked = time.Now()
		default:
			return fmt.Errorf("%w: type %d, flags %d", errBulk, h.typ, h.flags)
		}
	}
}

// servePiece answers one request. A request that makes no sense ends the
// connection.
func (s *sender) servePiece(ctx context.Context, shelf *shelf, h rpcHead, body, out []byte) ([]byte, error) {
	q, err := decodePull(body, shelf.files)
	if err != nil {
		return out, err
	}
	if err := s.rate.take(ctx, q.bytes); err != nil {
		return out, err
	}
	out = out[:rpcHeadBytes+sumBytes+q.bytes]
	data := out[rpcHeadBytes+sumBytes:]
	if err := shelf.read(q, data); err != nil {
		return out, errors.Join(err, s.write(rpcHead{typ: typePull, flags: flagAnswer | flagError, corr: h.corr}, []byte(err.Error())))
	}
	f := rpcFrame(rpcHead{typ: typePull, flags: flagAnswer, group: h.group, corr: h.corr}, out[rpcHeadBytes:], nil)
	copy(out, f.head[:rpcHeadBytes])
	binary.BigEndian.PutUint32(out[rpcHeadBytes:], crc32.Checksum(data, castagnoli))
	s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	if _, err := s.conn.Write(out); err != nil {
		return out, err
	}
	s.figures.served.Add(uint64(q.bytes))
	return out, nil
}

// shelf keeps the file open that was read from last.
type shelf struct {
	src   *snapshot.Reader
	files []snapshot.File
	open  *snapshot.FileReader
	at    int // in files, of open
}

func (s *shelf) read(q pullRequest, b []byte) error {
	if s.open == nil || s.at != q.file {
		s.close()
		f, err := s.src.OpenFile(q.file)
		if err != nil {
			return err
		}
		s.open, s.at = f, q.file
	}
	_, err := s.open.ReadAt(b, q.off)
	return err
}

func (s *shelf) close() {
	if s.open != nil {
		s.open.Close() // it was only read
		s.open = nil
	}
}

// sendState streams the state and waits for the answer.
func (s *sender) sendState(data io.Reader) ([]byte, error) {
	c := s.conn
	answer := make(chan rpcAnswer, 1)
	go func() { answer <- s.readAnswer() }() // ends with c at the latest
	buf := make([]byte, 4+chunkBytes)
	for {
		n, err := io.ReadFull(data, buf[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.Close()
			<-answer
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		c.SetWriteDeadline(time.Now().Add(s.patience))
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

func (s *sender) readAnswer() rpcAnswer {
	for {
		s.conn.SetReadDeadline(time.Now().Add(s.patience))
		h, body, err := readRPC(s.conn, controlBytesMax)
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
