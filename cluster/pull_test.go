package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// testSnapshots is an empty store in memory.
func testSnapshots(t testing.TB) *snapshot.Store {
	t.Helper()
	return memSnapshots(t, vfs.NewMem())
}

func memSnapshots(t testing.TB, fs vfs.FS) *snapshot.Store {
	t.Helper()
	if err := errors.Join(fs.MkdirAll("/group"), fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Open(fs, "/group/snapshots", 2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var testMembers = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}}

// origin is a leader's store, whose snapshots have files.
type origin struct {
	t     testing.TB
	fs    *vfs.Mem
	store *snapshot.Store
}

func newOrigin(t testing.TB) *origin {
	fs := vfs.NewMem()
	return &origin{t, fs, memSnapshots(t, fs)}
}

func segmentOf(number, bytes int) snapshot.File {
	return snapshot.File{Name: fmt.Sprintf("%016x-aaaaaaaa.seg", number), Bytes: int64(bytes), ID: fmt.Sprint("segment ", number)}
}

// fill is what a segment, or the state of a snapshot, holds.
func fill(number, bytes int) []byte {
	b := make([]byte, bytes)
	rand.NewChaCha8([32]byte{byte(number), byte(number >> 8)}).Read(b)
	return b
}

func numberOf(f snapshot.File) (number int) {
	fmt.Sscanf(f.ID, "segment %d", &number)
	return number
}

const testStateBytes = 70000

// take makes a snapshot at index with the files.
func (o *origin) take(index uint64, files ...snapshot.File) {
	o.t.Helper()
	k, err := o.store.Create(raft.SnapshotVersionMax, index, 3, testMembers, 1, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, f := range files {
		name := "/group/" + f.Name
		w, err := o.fs.Create(name)
		if err != nil {
			o.t.Fatal(err)
		}
		if _, err := w.Write(fill(numberOf(f), int(f.Bytes))); err != nil {
			o.t.Fatal(err)
		}
		if err := errors.Join(w.Sync(), k.(*snapshot.Sink).Link(f.Name, name, f.Bytes, f.ID), o.fs.Remove(name)); err != nil {
			o.t.Fatal(err)
		}
	}
	if _, err := k.Write(fill(int(index), testStateBytes)); err != nil {
		o.t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		o.t.Fatal(err)
	}
}

// request is what Raft sends of the newest snapshot.
func (o *origin) request() (*raft.InstallSnapshotRequest, io.ReadCloser) {
	o.t.Helper()
	metas, err := o.store.List()
	if err != nil {
		o.t.Fatal(err)
	}
	meta, r, err := o.store.Open(metas[0].ID)
	if err != nil {
		o.t.Fatal(err)
	}
	return &raft.InstallSnapshotRequest{
		SnapshotVersion: meta.Version, Term: 3, LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: 1, Size: meta.Size,
	}, r
}

// send sends the newest snapshot over c.
func (o *origin) send(c net.Conn, figures *pullCounters) error {
	q, r := o.request()
	defer r.Close()
	s := sender{conn: c, patience: 20 * time.Second, rate: fastBucket(), figures: figures}
	b, err := s.send(o.t.Context(), testGroup, q, r)
	if err != nil {
		return err
	}
	var answer raft.InstallSnapshotResponse
	if err := decodeInstallAnswer(b, &answer); err != nil || !answer.Success {
		return fmt.Errorf("answered %+v, %w", answer, err)
	}
	return nil
}

func fastBucket() *bucket { return &bucket{bytesPerSecond: 1 << 40} }

// lagging is a follower that does with a snapshot what Raft does.
type lagging struct {
	t       testing.TB
	fs      *vfs.Mem
	store   *snapshot.Store
	tr      *transport
	figures pullCounters
	free    uint64
	asked   chan uint64 // indexes of what Raft was given
	work    sync.WaitGroup
}

func newLagging(t testing.TB) *lagging { return laggingOn(t, vfs.NewMem()) }

func laggingOn(t testing.TB, fs *vfs.Mem) *lagging {
	f := &lagging{t: t, fs: fs, store: memSnapshots(t, fs), free: 1 << 40, asked: make(chan uint64, 16)}
	f.tr = &transport{
		standing: new(standing),
		gid:      testGroup, self: "b", log: slog.New(slog.DiscardHandler), gone: func(*transport) {},
		snapshots: f.store, patience: 20 * time.Second, rate: fastBucket(), figures: &f.figures,
		room: func() (uint64, error) { return f.free, nil },
	}
	f.tr.start()
	f.work.Go(f.raft)
	t.Cleanup(f.stop)
	return f
}

func (f *lagging) stop() {
	f.tr.Close()
	f.work.Wait()
}

// hangingTerm is that of entries that take for ever.
const hangingTerm = 99

// raft is a main loop that installs snapshots.
func (f *lagging) raft() {
	for {
		select {
		case rpc := <-f.tr.rpcs:
			if a, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
				if a.Term == hangingTerm {
					<-f.tr.ended
				}
				rpc.Respond(&raft.AppendEntriesResponse{Term: a.Term, Success: true}, nil)
				continue
			}
			q := rpc.Command.(*raft.InstallSnapshotRequest)
			f.asked <- q.LastLogIndex
			err := f.install(q, rpc.Reader)
			rpc.Respond(&raft.InstallSnapshotResponse{Term: q.Term, Success: err == nil}, err)
		case <-f.tr.ended:
			return
		}
	}
}

func (f *lagging) install(q *raft.InstallSnapshotRequest, r io.Reader) error {
	k, err := f.store.Create(raft.SnapshotVersionMax, q.LastLogIndex, q.LastLogTerm, raft.DecodeConfiguration(q.Configuration), 1, nil)
	if err != nil {
		return err
	}
	n, err := io.Copy(k, struct{ io.Reader }{r})
	if err != nil || n != q.Size {
		return errors.Join(fmt.Errorf("%d of %d bytes", n, q.Size), err, k.Cancel())
	}
	return k.Close()
}

// serve takes a connection as the mux hands it over.
func (f *lagging) serve(c net.Conn) (done <-chan error) {
	end := make(chan error, 1)
	go func() {
		end <- serveBulk(c, func(gid uint64) *transport {
			if gid != testGroup {
				return nil
			}
			return f.tr
		})
	}()
	return end
}

// pipe is net.Pipe whose first end takes what is written to it, as a socket
// does, without waiting for who reads.
func pipe() (near, far net.Conn) {
	a, b := net.Pipe()
	c := &pumped{Conn: a, came: make(chan []byte, 1024)}
	go func() {
		defer close(c.came)
		for {
			buf := make([]byte, 4096)
			n, err := a.Read(buf)
			if err != nil {
				return
			}
			c.came <- buf[:n]
		}
	}()
	return c, b
}

type pumped struct {
	net.Conn
	came chan []byte
	rest []byte
}

func (p *pumped) SetReadDeadline(time.Time) error { return nil }

func (p *pumped) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		var ok bool
		if p.rest, ok = <-p.came; !ok {
			return 0, io.EOF
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// from receives the newest snapshot of o over a pipe, whose sending end wrap may change.
func (f *lagging) from(o *origin, wrap func(net.Conn) net.Conn) error {
	near, far := pipe()
	defer near.Close()
	done := f.serve(far)
	var served pullCounters
	err := o.send(wrap(near), &served)
	near.Close()
	<-done
	return err
}

func plain(c net.Conn) net.Conn { return c }

// whole checks that the newest snapshot is that of index with the files.
func (f *lagging) whole(index uint64, files ...snapshot.File) {
	f.t.Helper()
	metas, err := f.store.List()
	if err != nil || len(metas) == 0 || metas[0].Index != index {
		f.t.Fatalf("snapshots %v, %v", metas, err)
	}
	r, err := f.store.LocalOpen(metas[0].ID)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, fill(int(index), testStateBytes)) {
		f.t.Fatalf("state of %d bytes, %v", len(b), err)
	}
	if !slices.Equal(r.Files(), files) {
		f.t.Fatalf("files %v, want %v", r.Files(), files)
	}
	for i, file := range files {
		in, err := r.OpenFile(i)
		if err != nil {
			f.t.Fatal(err)
		}
		b := make([]byte, file.Bytes)
		if _, err := in.ReadAt(b, 0); err != nil || !bytes.Equal(b, fill(numberOf(file), int(file.Bytes))) {
			f.t.Fatalf("%s has other bytes: %v", file.Name, err)
		}
		in.Close()
	}
	if names, _ := f.fs.List("/group/incoming"); len(names) != 0 {
		f.t.Fatalf("left behind: %q", names)
	}
}

func TestAFollowerPullsWhatItLacks(t *testing.T) {
	o, f := newOrigin(t), newLagging(t)
	a, b := segmentOf(1, 2*pullBytesMax+5), segmentOf(2, 100)
	o.take(10, a, b)
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(10, a, b)
	if got := f.figures.stats(); got.PulledBytes != uint64(a.Bytes+b.Bytes) || got.PulledFiles != 2 || got.SkippedBytes != 0 {
		t.Errorf("%+v", got)
	}
	c, grown := segmentOf(3, 1000), segmentOf(2, 300)
	o.take(20, a, grown, c)
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(20, a, grown, c)
	if got := f.figures.stats(); got.PulledBytes != uint64(a.Bytes+grown.Bytes+c.Bytes) || got.SkippedFiles != 1 || got.SkippedBytes != uint64(a.Bytes+b.Bytes) {
		t.Errorf("a later snapshot: %+v", got)
	}
	o.take(30)
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(30)
}

// cutConn notes where writes end, and ends after so many bytes.
type cutConn struct {
	net.Conn
	after   int // bytes; <0: never
	written int
	ends    []int
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.after >= 0 && c.written+len(b) > c.after {
		c.Conn.Write(b[:c.after-c.written])
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	c.written += len(b)
	c.ends = append(c.ends, c.written)
	return c.Conn.Write(b)
}

func TestAPullGoesOnAfterACutAnywhere(t *testing.T) {
	o := newOrigin(t)
	a, b := segmentOf(1, pullBytesMax+100), segmentOf(2, 2000)
	o.take(10, a, b)
	var ends []int
	record := func(c net.Conn) net.Conn { return &cutConn{Conn: c, after: -1} }
	{
		var c *cutConn
		f := newLagging(t)
		if err := f.from(o, func(n net.Conn) net.Conn { c = record(n).(*cutConn); return c }); err != nil {
			t.Fatal(err)
		}
		ends = c.ends // the request; three pieces of files; the state and its end
		if len(ends) != 6 {
			t.Fatalf("%d writes", len(ends))
		}
	}
	cuts := map[int]bool{0: true}
	for i, end := range ends {
		begin := 0
		if i > 0 {
			begin = ends[i-1]
		}
		for _, at := range []int{begin + 1, begin + 3, begin + rpcHeadBytes, begin + rpcHeadBytes + 2, begin + rpcHeadBytes + sumBytes, (begin + end) / 2, end - 1, end} {
			if at < ends[len(ends)-1] {
				cuts[at] = true
			}
		}
	}
	for at := range cuts {
		f := newLagging(t)
		if err := f.from(o, func(c net.Conn) net.Conn { return &cutConn{Conn: c, after: at} }); err == nil {
			t.Fatalf("cut after %d bytes, and nobody heard", at)
		}
		if metas, _ := f.store.List(); len(metas) != 0 || len(f.asked) != 0 {
			t.Fatalf("cut after %d bytes: Raft was asked", at)
		}
		if err := f.from(o, plain); err != nil {
			t.Fatalf("cut after %d bytes: the next try: %v", at, err)
		}
		f.whole(10, a, b)
		if got := f.figures.stats(); got.PulledBytes != uint64(a.Bytes+b.Bytes) {
			t.Errorf("cut after %d bytes: %+v", at, got)
		}
		f.stop()
	}
}

// flipConn damages the last byte of writes that are long.
type flipConn struct {
	net.Conn
	flips int
}

func (c *flipConn) Write(b []byte) (int, error) {
	if len(b) > 4000 && b[4] == typePull && c.flips > 0 {
		c.flips--
		b = slices.Clone(b)
		b[len(b)-1] ^= 1
	}
	return c.Conn.Write(b)
}

func TestAWrongChecksumIsRefusedAndAskedForAgain(t *testing.T) {
	o := newOrigin(t)
	a := segmentOf(1, 6*pullBytesMax)
	o.take(10, a)
	f := newLagging(t)
	if err := f.from(o, func(c net.Conn) net.Conn { return &flipConn{c, pullTriesMax - 1} }); err != nil {
		t.Fatal(err)
	}
	f.whole(10, a)
	if got := f.figures.stats(); got.BadChecksums == 0 || got.PulledBytes != uint64(a.Bytes) {
		t.Errorf("%+v", got)
	}
	f = newLagging(t)
	if err := f.from(o, func(c net.Conn) net.Conn { return &flipConn{c, 1000} }); err == nil || len(f.asked) != 0 {
		t.Errorf("damaged each time: %v", err)
	}
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(10, a)
}

// script is a sender that does what a test says. It answers what the follower
// says in the end.
func (f *lagging) script(files []snapshot.File, change func(*raft.InstallSnapshotRequest), play func(c net.Conn) error) error {
	near, far := pipe()
	defer near.Close()
	done := f.serve(far)
	q := &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 3, LastLogIndex: 10, LastLogTerm: 3,
		Configuration: raft.EncodeConfiguration(testMembers), ConfigurationIndex: 1, Size: testStateBytes}
	if change != nil {
		change(q)
	}
	body := encodeInstall(q)
	if len(files) > 0 {
		body = appendFiles(body, files)
	}
	err := writeFrame(near, rpcHead{typ: typeInstall, group: testGroup}, body)
	if err == nil && play != nil {
		err = play(near)
	}
	if err == nil {
		s := sender{conn: near, patience: 20 * time.Second}
		err = s.readAnswer().err
	}
	near.Close()
	<-done
	return err
}

func TestAHostileListIsRefused(t *testing.T) {
	many := make([]snapshot.File, filesMax+1)
	for i := range many {
		many[i] = segmentOf(i, 1)
	}
	good := segmentOf(1, 100)
	for _, c := range []struct {
		what   string
		files  []snapshot.File
		change func(*raft.InstallSnapshotRequest)
	}{
		{"a path", []snapshot.File{{Name: "../snapshots/x.seg", Bytes: 10, ID: "x"}}, nil},
		{"no bytes", []snapshot.File{{Name: "x.seg", ID: "x"}}, nil},
		{"negative bytes", []snapshot.File{{Name: "x.seg", Bytes: -5, ID: "x"}}, nil},
		{"bytes that overflow", []snapshot.File{{Name: "x.seg", Bytes: 1<<63 - 1, ID: "x"}, {Name: "y.seg", Bytes: 1<<63 - 1, ID: "y"}}, nil},
		{"the same twice", []snapshot.File{good, good}, nil},
		{"too many", many, nil},
		{"a negative state", []snapshot.File{good}, func(q *raft.InstallSnapshotRequest) { q.Size = -1 }},
		{"members that Raft would panic over", []snapshot.File{good}, func(q *raft.InstallSnapshotRequest) { q.Configuration = []byte("\xff\xff") }},
		{"more than there is room for", []snapshot.File{{Name: "x.seg", Bytes: 1 << 40, ID: "x"}}, nil},
		{"a state that there is no room for", nil, func(q *raft.InstallSnapshotRequest) { q.Size = 1 << 62 }},
		{"a state and files that overflow", []snapshot.File{{Name: "x.seg", Bytes: 1 << 40, ID: "x"}}, func(q *raft.InstallSnapshotRequest) { q.Size = 1<<63 - 1 }},
	} {
		f := newLagging(t)
		var remote *remoteError
		if err := f.script(c.files, c.change, nil); !errors.As(err, &remote) {
			t.Errorf("%s: %v", c.what, err)
		}
		if len(f.asked) != 0 {
			t.Errorf("%s: Raft was asked", c.what)
		}
		if names, _ := f.fs.List("/group"); slices.ContainsFunc(names, func(n string) bool { return n != "snapshots" && n != "incoming" }) {
			t.Errorf("%s: there is %q", c.what, names)
		}
		f.stop()
	}
}

func TestASnapshotWithoutRoomIsRefusedUntilThereIsSome(t *testing.T) {
	o, f := newOrigin(t), newLagging(t)
	a := segmentOf(1, 5000)
	o.take(10, a)
	f.free = pullRoomMin + 5000 + testStateBytes - 1
	if err := f.from(o, plain); err == nil || !strings.Contains(err.Error(), errNoRoom.Error()) {
		t.Errorf("got %v", err)
	}
	if got := f.figures.stats(); got.Refused != 1 || got.PulledBytes != 0 {
		t.Errorf("%+v", got)
	}
	f.free++
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(10, a)
}

// piece answers a pull.
func piece(c net.Conn, corr uint64, data []byte) error {
	body := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))
	return writeFrame(c, rpcHead{typ: typePull, flags: flagAnswer, group: testGroup, corr: corr}, append(body, data...))
}

func TestWrongAnswersEndAPull(t *testing.T) {
	file := segmentOf(1, 5000)
	for _, c := range []struct {
		what string
		play func(c net.Conn, h rpcHead) error
	}{
		{"another number", func(c net.Conn, h rpcHead) error { return piece(c, h.corr+1, fill(1, 5000)) }},
		{"too short", func(c net.Conn, h rpcHead) error { return piece(c, h.corr, fill(1, 4999)) }},
		{"too long", func(c net.Conn, h rpcHead) error { return piece(c, h.corr, fill(1, 5001)) }},
		{"no checksum", func(c net.Conn, h rpcHead) error {
			return writeFrame(c, rpcHead{typ: typePull, flags: flagAnswer, corr: h.corr}, []byte{1})
		}},
		{"another type", func(c net.Conn, h rpcHead) error {
			return writeFrame(c, rpcHead{typ: typeVote, flags: flagAnswer, corr: h.corr}, make([]byte, 5004))
		}},
		{"an error", func(c net.Conn, h rpcHead) error {
			return writeFrame(c, rpcHead{typ: typePull, flags: flagAnswer | flagError, corr: h.corr}, []byte("no such file"))
		}},
		{"a body without end", func(c net.Conn, h rpcHead) error {
			f := rpcFrame(rpcHead{typ: typePull, flags: flagAnswer, corr: h.corr}, nil, nil)
			binary.BigEndian.PutUint32(f.head[:], 1<<31)
			_, err := c.Write(f.head[:rpcHeadBytes])
			return err
		}},
		{"nothing, for too long", func(net.Conn, rpcHead) error { return nil }},
	} {
		f := newLagging(t)
		if strings.HasPrefix(c.what, "nothing") {
			f.tr.patience = 100 * time.Millisecond
		}
		var remote *remoteError
		err := f.script([]snapshot.File{file}, nil, func(conn net.Conn) error {
			h, _, err := readRPC(conn, controlBytesMax)
			if err != nil {
				return err
			}
			return c.play(conn, h)
		})
		if !errors.As(err, &remote) || len(f.asked) != 0 {
			t.Errorf("%s: %v", c.what, err)
		}
		f.stop()
	}
}

func TestRequestsThatMakeNoSenseEndASending(t *testing.T) {
	files := []snapshot.File{segmentOf(1, 5000), segmentOf(2, 10)}
	for _, q := range []pullRequest{
		{2, 0, 1}, {0, 0, 0}, {0, 0, 5001}, {0, 5000, 1}, {0, 4999, 2}, {1, 1 << 40, 1}, {0, 0, pullBytesMax + 1},
	} {
		if _, err := decodePull(q.append(nil), files); err == nil {
			t.Errorf("%+v was taken", q)
		}
	}
	if q, err := decodePull(pullRequest{1, 3, 7}.append(nil), files); err != nil || q != (pullRequest{1, 3, 7}) {
		t.Errorf("got %+v, %v", q, err)
	}
	o := newOrigin(t)
	o.take(10, files...)
	for _, frame := range []rpcHead{{typ: typePull}, {typ: typeVote}, {typ: typeInstall, flags: flagAnswer}} {
		near, far := pipe()
		done := make(chan error, 1)
		go func() {
			done <- o.send(near, new(pullCounters))
			near.Close()
		}()
		if _, _, err := readRPC(far, callBytesMax); err != nil {
			t.Fatal(err)
		}
		if err := writeFrame(far, frame, pullRequest{7, 0, 1}.append(nil)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil {
			t.Errorf("%+v: no error", frame)
		}
		far.Close()
	}
}

// pulling starts a pull that the sender leaves unanswered.
func (f *lagging) pulling(file snapshot.File, term uint64) (ended chan error) {
	ended, asked := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- f.script([]snapshot.File{file}, func(q *raft.InstallSnapshotRequest) { q.Term = term }, func(c net.Conn) error {
			_, _, err := readRPC(c, controlBytesMax)
			close(asked)
			return err
		})
	}()
	<-asked
	return ended
}

func TestHeartbeatsAreAnsweredWhileFilesArePulled(t *testing.T) {
	f := newLagging(t)
	ended := f.pulling(segmentOf(1, 5000), 3)
	body, _ := encodeAppend(&raft.AppendEntriesRequest{Term: 3})
	answered := make(chan error, 1)
	f.tr.receive(request{head: rpcHead{typ: typeAppend, group: testGroup}, body: body, answer: func(_ []byte, err error) { answered <- err }})
	if err := <-answered; err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
		t.Error("the pull has ended")
	default:
	}
	f.tr.Close()
	<-ended
}

func TestALaterSnapshotOrLeaderTakesTheTurn(t *testing.T) {
	file := segmentOf(1, 5000)
	pulling := func(f *lagging, term uint64) (ended chan error) { return f.pulling(file, term) }
	o := newOrigin(t)
	o.take(10, file)
	t.Run("a later one", func(t *testing.T) {
		f := newLagging(t)
		first := pulling(f, 3)
		if err := f.from(o, plain); err != nil { // of the same term: the leader tries again
			t.Fatal(err)
		}
		if err := <-first; err == nil {
			t.Error("the first one was answered")
		}
		f.whole(10, file)
	})
	t.Run("an older leader's", func(t *testing.T) {
		f := newLagging(t)
		first := pulling(f, 4)
		if err := f.from(o, plain); err == nil || !strings.Contains(err.Error(), errOlderInstall.Error()) {
			t.Errorf("got %v", err)
		}
		f.tr.Close()
		<-first
	})
	t.Run("entries of a later leader", func(t *testing.T) {
		f := newLagging(t)
		first := pulling(f, 3)
		for _, term := range []uint64{3, 4} {
			select {
			case <-first:
				t.Fatal("the leader's own entries end its snapshot")
			default:
			}
			f.tr.turns.outdate(term)
		}
		<-first
	})
	t.Run("the end of the group while Raft hangs", func(t *testing.T) {
		f := newLagging(t)
		body, _ := encodeAppend(&raft.AppendEntriesRequest{Term: hangingTerm})
		f.tr.receive(request{head: rpcHead{typ: typeAppend, group: testGroup}, body: body, answer: func([]byte, error) {}})
		eventually(t, "Raft to hang", func() bool { return len(f.tr.inbox) == 0 })
		sent := make(chan error, 1)
		go func() { sent <- f.from(o, plain) }()
		eventually(t, "the snapshot to wait for Raft", func() bool { return len(f.tr.inbox) == 1 })
		f.tr.Close()
		if err := <-sent; err == nil || len(f.asked) != 0 {
			t.Errorf("it was installed: %v", err)
		}
	})
	t.Run("the end of the group", func(t *testing.T) {
		f := newLagging(t)
		first := pulling(f, 3)
		f.tr.Close()
		<-first
		if err := f.from(o, plain); err == nil {
			t.Error("a closed group takes a snapshot")
		}
	})
}

func TestABucketLetsThroughWhatItsRateSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{bytesPerSecond: 1 << 20}
		begin := time.Now()
		for range 32 {
			if err := b.take(t.Context(), 256<<10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 7900*time.Millisecond || took > 8100*time.Millisecond {
			t.Errorf("8 MiB at 1 MiB a second took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := b.take(ctx, 10<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAFollowerThatDiesPullsOnlyWhatItHasNotFinished(t *testing.T) {
	o := newOrigin(t)
	files := []snapshot.File{segmentOf(1, 3000), segmentOf(2, 4000), segmentOf(3, pullBytesMax)}
	o.take(10, files...)
	f := newLagging(t)
	var request int
	err := f.from(o, func(c net.Conn) net.Conn {
		q, r := o.request()
		r.Close()
		request = rpcHeadBytes + len(appendFiles(encodeInstall(q), files))
		return &cutConn{Conn: c, after: request + 2*(rpcHeadBytes+sumBytes) + 7000 + 500}
	})
	if err == nil {
		t.Fatal("not cut")
	}
	f.stop()
	f = laggingOn(t, f.fs.Crash(vfs.LoseAll))
	if err := f.from(o, plain); err != nil {
		t.Fatal(err)
	}
	f.whole(10, files...)
	if got := f.figures.stats(); got.PulledBytes != pullBytesMax || got.SkippedBytes != 7000 {
		t.Errorf("after the crash: %+v", got)
	}
}
