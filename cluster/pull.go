package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync/atomic"
	"time"

	"warren/internal/fields"
	"warren/storage/snapshot"
)

const (
	// pullBytesMax is how much of a file one request asks for.
	pullBytesMax = 1 << 20
	// pullsInFlight is how many requests wait for their answers.
	pullsInFlight = 4
	// pullTriesMax is how often in a row a wrong checksum is asked again.
	pullTriesMax = 3
	// filesMax bounds the files of a snapshot.
	filesMax = 32 << 10
	// sumBytes of CRC-32C precede what a pull's answer brings.
	sumBytes = 4
	// defaultPullBytesPerSecond is Config.PullBytesPerSecond's.
	defaultPullBytesPerSecond = 64 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errPullSum = errors.New("wrong checksum of what a peer sent")
)

// PullStats are figures of the files that snapshots consist of: what this node
// got from others, had already, and gave to others.
type PullStats struct {
	PulledFiles, SkippedFiles              uint64
	PulledBytes, SkippedBytes, ServedBytes uint64
	BadChecksums                           uint64 // pieces that were refused and asked for again
	Refused                                uint64 // snapshots that made no sense or had no room
}

type pullCounters struct {
	pulledFiles, skippedFiles, pulled, skipped, served, badSums, refused atomic.Uint64
}

func (c *pullCounters) stats() PullStats {
	return PullStats{
		PulledFiles: c.pulledFiles.Load(), SkippedFiles: c.skippedFiles.Load(),
		PulledBytes: c.pulled.Load(), SkippedBytes: c.skipped.Load(), ServedBytes: c.served.Load(),
		BadChecksums: c.badSums.Load(), Refused: c.refused.Load(),
	}
}

// appendFiles appends the list of a snapshot's files to its request.
func appendFiles(dst []byte, files []snapshot.File) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(files)))
	for _, f := range files {
		dst = fields.AppendString(dst, f.Name)
		dst = binary.AppendVarint(dst, f.Bytes)
		dst = fields.AppendString(dst, f.ID)
	}
	return dst
}

// fileBytesMin is the least that a file takes in a list.
const fileBytesMin = 3

// files reads a list of files; whether they make sense is for snapshot to say.
func (d *decoder) files() []snapshot.File {
	n := d.Uint()
	if n == 0 || n > min(filesMax, uint64(len(d.Rest())/fileBytesMin)) {
		d.Fail()
		return nil
	}
	files := make([]snapshot.File, n)
	for i := range files {
		files[i] = snapshot.File{Name: d.Text(), Bytes: d.Int(), ID: d.Text()}
	}
	return files
}

// pullRequest asks for a part of a file.
type pullRequest struct {
	file  int // in the snapshot's list
	off   int64
	bytes int
}

func (q pullRequest) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(q.file))
	dst = binary.AppendUvarint(dst, uint64(q.off))
	return binary.AppendUvarint(dst, uint64(q.bytes))
}

func decodePull(b []byte, files []snapshot.File) (pullRequest, error) {
	d := decoder{fields.Read(b)}
	file, off, n := d.Uint(), d.Uint(), d.Uint()
	if err := d.done(); err != nil {
		return pullRequest{}, err
	}
	if file >= uint64(len(files)) || n == 0 || n > pullBytesMax || off > uint64(files[file].Bytes) || n > uint64(files[file].Bytes)-off {
		return pullRequest{}, fmt.Errorf("%w: %d bytes at %d of file %d", errBulk, n, off, file)
	}
	return pullRequest{int(file), int64(off), int(n)}, nil
}

// puller gets what an arrival lacks, a file at a time, in order.
type puller struct {
	conn     net.Conn
	gid      uint64
	arrival  *snapshot.Arrival
	patience time.Duration
	rate     *bucket
	figures  *pullCounters

	lacks []snapshot.Lack
	got   pullPlace // everything before it is in the arrival
	next  pullPlace // everything before it is asked for
	asked []pullAsk // and not answered, in order
	corr  uint64
	tries int
	buf   []byte
}

// pullPlace is a place in what an arrival lacks.
type pullPlace struct {
	lack int
	off  int64
}

type pullAsk struct {
	pullRequest
	corr uint64
	void bool // behind a piece that came damaged: it is asked for again
}

func (p *puller) run(ctx context.Context) error {
	if p.lacks = p.arrival.Lacks(); len(p.lacks) == 0 {
		return nil
	}
	p.got = pullPlace{0, p.lacks[0].From}
	p.next = p.got
	p.buf = make([]byte, sumBytes+pullBytesMax)
	for p.got.lack < len(p.lacks) {
		if err := p.ask(ctx); err != nil {
			return err
		}
		if err := p.take(); err != nil {
			return err
		}
	}
	return nil
}

// ask keeps requests in flight, as many as the rate allows. It waits for that
// only if nothing is on its way that could be worked on meanwhile.
func (p *puller) ask(ctx context.Context) error {
	for len(p.asked) < pullsInFlight && p.next.lack < len(p.lacks) {
		l := &p.lacks[p.next.lack]
		q := pullRequest{l.Index, p.next.off, int(min(pullBytesMax, l.Bytes-p.next.off))}
		if len(p.asked) == 0 {
			if err := p.rate.take(ctx, q.bytes); err != nil {
				return err
			}
		} else if !p.rate.tryTake(q.bytes) {
			return nil
		}
		p.corr++
		if err := writeFrame(p.conn, rpcHead{typ: typePull, group: p.gid, corr: p.corr}, q.append(nil)); err != nil {
			return err
		}
		p.asked = append(p.asked, pullAsk{pullRequest: q, corr: p.corr})
		p.next = p.after(p.next, q.bytes)
	}
	return nil
}

func (p *puller) after(at pullPlace, n int) pullPlace {
	at.off += int64(n)
	if at.off < p.lacks[at.lack].Bytes {
		return at
	}
	at.lack++
	at.off = 0
	if at.lack < len(p.lacks) {
		at.off = p.lacks[at.lack].From
	}
	return at
}

// take takes the next answer.
func (p *puller) take() error {
	p.conn.SetReadDeadline(time.Now().Add(p.patience))
	h, body, err := readRPCInto(p.conn, p.buf)
	if err != nil {
		return err
	}
	a := p.asked[0]
	p.asked = p.asked[1:]
	switch {
	case h.typ != typePull || h.corr != a.corr:
		return fmt.Errorf("%w: type %d, answer to %d instead of %d", errBulk, h.typ, h.corr, a.corr)
	case h.flags&flagError != 0:
		return &remoteError{string(body)}
	case len(body) != sumBytes+a.bytes:
		return fmt.Errorf("%w: %d bytes for the %d that were asked for", errBulk, len(body)-sumBytes, a.bytes)
	case a.void:
		return nil
	}
	data := body[sumBytes:]
	if crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(body) {
		return p.again(a)
	}
	p.tries = 0
	return p.keep(a, data)
}

// again asks anew for what follows p.got.
func (p *puller) again(a pullAsk) error {
	p.figures.badSums.Add(1)
	if p.tries++; p.tries >= pullTriesMax {
		return fmt.Errorf("%w: %d bytes at %d of file %d, %d times", errPullSum, a.bytes, a.off, a.file, p.tries)
	}
	for i := range p.asked {
		p.asked[i].void = true
	}
	p.next = p.got
	return nil
}

func (p *puller) keep(a pullAsk, data []byte) error {
	if err := p.arrival.WriteAt(a.file, data, a.off); err != nil {
		return err
	}
	p.figures.pulled.Add(uint64(len(data)))
	at := p.got.lack
	if p.got = p.after(p.got, len(data)); p.got.lack == at {
		return nil
	}
	if err := p.arrival.Finish(a.file); err != nil {
		return err
	}
	p.figures.pulledFiles.Add(1)
	return nil
}

// readRPCInto reads a frame whose body fits into buf.
func readRPCInto(r io.Reader, buf []byte) (rpcHead, []byte, error) {
	var b [rpcHeadBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return rpcHead{}, nil, err
	}
	h := parseRPCHead(&b)
	if int64(h.body) > int64(len(buf)) {
		return h, nil, fmt.Errorf("%w: %d bytes, limit %d", errFrameTooLong, h.body, len(buf))
	}
	_, err := io.ReadFull(r, buf[:h.body])
	return h, buf[:h.body], err
}
