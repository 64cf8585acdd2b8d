package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"warren/storage/snapshot"
)

// pullRoomMin is what has to stay free on the disk: a snapshot that would take
// it is refused, since a log that cannot grow ends the process.
const pullRoomMin = 64 << 20

var errNoRoom = errors.New("no room on this node's disk for the snapshot")

// serveBulk receives one snapshot on c for the group that it names.
func serveBulk(c bulkConn, find func(gid uint64) *transport) error {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(bulkPatience))
	head, body, err := readRPC(c, callBytesMax)
	if err != nil {
		return fmt.Errorf("read snapshot header: %w", err)
	}
	h := rpcHead{typ: typeInstall, flags: flagAnswer, group: head.group}
	answer, err := land(c, head, body, find)
	if err != nil {
		h.flags |= flagError
		answer = []byte(err.Error())
	}
	return writeFrame(c, h, answer)
}

func land(c bulkConn, head rpcHead, body []byte, find func(gid uint64) *transport) ([]byte, error) {
	t := find(head.group)
	if t == nil {
		return nil, errNoGroup
	}
	cmd, files, err := decodeInstall(body)
	if head.typ != typeInstall || err != nil || cmd.Size < 0 || !readable(cmd) {
		return nil, errCodec
	}
	if _, refused := t.standing.refuse(cmd, t.header()); refused {
		return nil, errLogDamaged
	}
	stop := keepWorking(c, head.group)
	defer stop()
	return t.land(c, cmd, files)
}

// readable reports whether Raft can read the members in a request. It would
// panic over them.
func readable(cmd *raft.InstallSnapshotRequest) (ok bool) {
	defer func() { ok = recover() == nil }()
	if cmd.SnapshotVersion > 0 {
		raft.DecodeConfiguration(cmd.Configuration)
	}
	return true
}

// keepWorking says, until it is stopped, that this node is at it.
func keepWorking(c bulkConn, gid uint64) (stop func()) {
	end := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for rest(endContext{end}, workingEvery) {
			if err := writeFrame(c, rpcHead{typ: typeInstall, flags: flagAnswer | flagWorking, group: gid}, nil); err != nil {
				c.Close() // ends the reading, too
				return
			}
		}
	})
	return func() {
		close(end)
		work.Wait()
	}
}

// land gathers a snapshot and hands it to Raft once all of it is here: Raft's
// main loop, which answers heartbeats, does not wait for the network. What came
// of a snapshot that did not land whole stays for the next one.
func (t *transport) land(c bulkConn, cmd *raft.InstallSnapshotRequest, files []snapshot.File) ([]byte, error) {
	me := &turn{term: cmd.Term, cut: func() { c.Close() }}
	if err := t.turns.enter(me); err != nil {
		return nil, err
	}
	defer t.turns.leave(me)
	defer context.AfterFunc(endContext{t.ended}, me.cut)()
	log := t.log.With("index", cmd.LastLogIndex, "term", cmd.LastLogTerm)
	a, err := t.snapshots.Arrive(files, func(bytes int64) error { return t.checkRoom(bytes + cmd.Size) })
	if err != nil {
		t.figures.refused.Add(1)
		log.Error("snapshot of a peer refused", "err", err)
		return nil, err
	}
	if err := t.gather(c, cmd, a); err != nil {
		log.Warn("snapshot of a peer did not arrive; what came of it stays", "err", err)
		return nil, errors.Join(err, a.Close(false))
	}
	state, err := a.Offer(cmd.LastLogIndex, cmd.LastLogTerm)
	if err != nil {
		return nil, errors.Join(err, a.Close(false))
	}
	done := make(chan raft.RPCResponse, 1)
	t.deliver(inbound{rpc: raft.RPC{Command: cmd, Reader: state}, done: func(r raft.RPCResponse) { done <- r }})
	r := <-done
	landed, ok := r.Response.(*raft.InstallSnapshotResponse)
	if err := a.Close(r.Error == nil && ok && landed.Success); err != nil {
		log.Warn("what arrived of a snapshot stays until the next one", "err", err)
	}
	return encodeAnswer(r)
}

// gather gets what is not here of a snapshot: files, then the state.
func (t *transport) gather(c bulkConn, cmd *raft.InstallSnapshotRequest, a *snapshot.Arrival) error {
	lacks := a.Lacks()
	need := cmd.Size
	for _, l := range lacks {
		need += l.Bytes - l.From
	}
	here, bytes := a.Here()
	t.figures.skippedFiles.Add(uint64(here))
	t.figures.skipped.Add(uint64(bytes))
	if here+len(lacks) > 0 {
		t.log.Info("pulling a snapshot", "index", cmd.LastLogIndex, "files", len(lacks), "bytes", need, "files_here", here, "bytes_here", bytes)
		p := puller{conn: c, gid: t.gid, arrival: a, patience: t.patience, rate: t.rate, figures: t.figures, lacks: lacks}
		if err := p.run(endContext{t.ended}); err != nil {
			return err
		}
		if err := writeFrame(c, rpcHead{typ: typeState, group: t.gid}, nil); err != nil {
			return err
		}
	}
	return a.KeepState(&pieceReader{conn: c, patience: t.patience}, cmd.Size)
}

// checkRoom refuses what would fill the disk. Who sends hears of it with every
// try; so does this node's log.
func (t *transport) checkRoom(need int64) error {
	free, err := t.room()
	if err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	if free < pullRoomMin || uint64(need) > free-pullRoomMin {
		return fmt.Errorf("%w: it takes %d more bytes, %d are free, and %d have to stay so", errNoRoom, need, free, pullRoomMin)
	}
	return nil
}

// roomIn is what may still be written on the disk of a folder.
func roomIn(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
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
	conn     net.Conn
	patience time.Duration
	left     int
	err      error
}

// Read implements io.Reader.
func (p *pieceReader) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	p.conn.SetReadDeadline(time.Now().Add(p.patience))
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
