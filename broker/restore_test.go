package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// bareShard is a shard without a leader, on files of its own.
type bareShard struct {
	*Shard
	fs        vfs.FS
	pager     *segment.Pager
	snapshots *snapshot.Store
	dir       string
	batches   uint64
}

func newBareShard(t testing.TB, fs vfs.FS, dir string) *bareShard {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := &bareShard{fs: fs, dir: dir, pager: segment.NewPager(fs, tinyMemory, math.MaxInt64, BodySense(), log)}
	t.Cleanup(r.pager.Close)
	if err := fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	folder, err := r.pager.Folder(path.Join(dir, "segments"))
	if err == nil {
		r.snapshots, err = snapshot.Open(fs, path.Join(dir, "snapshots"), 2, log)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Shard = NewShard(1, nil, nil, func() int64 { return 0 }, folder, log)
	t.Cleanup(r.close)
	return r
}

// stored is a message as it is kept.
func stored(body string) []byte {
	return append(mq.NewContent("", "q", []byte{0, 0}, len(body)), body...)
}

// enqueue applies one entry that puts messages first to last into a queue.
func (r *bareShard) enqueue(q mq.QueueID, first, last int) {
	var ops []byte
	for i := first; i <= last; i++ {
		priority := uint8(0)
		if q == 2 {
			priority = uint8(i % 3)
		}
		ops = queue.AppendEnqueue(ops, []mq.QueueID{q}, 0, priority, -1, stored(fmt.Sprintf("%d of queue %d, %0200d", i, q, i)))
	}
	r.batches++
	r.apply(queue.AppendBatch(queue.AppendEntry(nil, 1, 0), queue.Origin{Node: 1, Session: 1, Seq: r.batches}, ops))
}

func (r *bareShard) drop(q mq.QueueID, first, last mq.Seq) {
	r.apply(queue.AppendDrop(queue.AppendEntry(nil, 1, 0), q, first, last))
}

func (r *bareShard) apply(entry []byte) {
	r.Apply([]Entry{{Index: r.applied + 1, Term: 1, Data: entry}})
}

// save takes a snapshot, and returns its id.
func (r *bareShard) save(t testing.TB) string {
	t.Helper()
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	k, err := r.snapshots.Create(1, r.applied, 1, new(snapshot.Reader).Meta().Configuration, 0, nil)
	if err == nil {
		_, err = snap.WriteTo(k)
	}
	if err == nil {
		err = k.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return k.ID()
}

// load restores a snapshot of its own.
func (r *bareShard) load(t testing.TB, id string) error {
	t.Helper()
	in, err := r.snapshots.LocalOpen(id)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	return r.Restore(in)
}

// content is every message of the replica, from disk if it must.
func (r *bareShard) content(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, id := range r.state.Queues() {
		for seq, ok := r.state.Queue(id).Next(1); ok; seq, ok = r.state.Queue(id).Next(seq + 1) {
			var rec segment.Record
			var there bool
			eventually(t, "a message to be here", func() bool {
				r.mu.Lock() // it may be paged out again as soon as this is given back
				defer r.mu.Unlock()
				if r.damaged == nil && !r.bodies.Here(uint64(id), uint64(seq)) {
					return false
				}
				rec, there = r.bodies.Get(uint64(id), uint64(seq))
				return true
			})
			if there {
				fmt.Fprintf(&b, "%d/%d %d %q\n", id, seq, rec.Priority, rec.Body)
			}
		}
	}
	return b.String()
}

// filled is a replica with three queues, of which some is on disk.
func filled(t testing.TB) *bareShard {
	r := newBareShard(t, vfs.NewMem(), "/data/1")
	for q := mq.QueueID(1); q <= 3; q++ {
		r.enqueue(q, 1, 2500)
	}
	r.drop(1, 1, 1500)
	r.drop(2, 100, 110)
	r.drop(3, 1, 2500)
	return r
}

func TestAClosedReplicaLeavesNoSegments(t *testing.T) {
	r := filled(t)
	segments := path.Join(r.dir, "segments")
	eventually(t, "bodies to be paged out", func() bool { names, _ := r.fs.List(segments); return len(names) > 0 })
	r.save(t) // which has a file of its own
	r.close()
	eventually(t, "the segments to go", func() bool { names, err := r.fs.List(segments); return err == nil && len(names) == 0 })
}

func TestALinkedSnapshotBringsEverythingBack(t *testing.T) {
	r := filled(t)
	want, state := r.content(t), r.state.AppendTo(nil)
	id := r.save(t)
	r.drop(1, 1, 2500)
	r.drop(2, 1, 2500)
	again := newBareShard(t, r.fs, r.dir) // which empties the folder of segments
	if err := again.load(t, id); err != nil {
		t.Fatal(err)
	}
	if got := again.content(t); got != want {
		t.Error("the messages differ")
	}
	if !bytes.Equal(again.state.AppendTo(nil), state) {
		t.Error("the state differs")
	}
	if !again.prioritized[2] || again.prioritized[1] {
		t.Errorf("queues with priorities: %v", again.prioritized)
	}
	again.batches = r.batches
	again.enqueue(1, 2501, 2600)
	if got := again.content(t); !strings.Contains(got, "2600 of queue 1") {
		t.Error("it does not go on")
	}
}

func TestALinkedSnapshotReadsAndCopiesNoBody(t *testing.T) {
	fs := vfs.NewMem()
	r := newBareShard(t, fs, "/data/1")
	for i := range 20 {
		r.enqueue(1, i*1000+1, i*1000+1000)
	}
	r.save(t)
	r.pager.Close() // which may be in the middle of writing what the snapshot has written as well
	written, read := 0, 0
	count := func(op vfs.Op, name string) error {
		switch {
		case strings.HasSuffix(name, ".seg") && op == vfs.OpWrite:
			written++
		case strings.HasSuffix(name, ".seg") && op == vfs.OpRead:
			read++
		}
		return nil
	}
	fs.Inject(count)
	id := r.save(t)
	again := newBareShard(t, fs, r.dir)
	if err := again.load(t, id); err != nil {
		t.Fatal(err)
	}
	fs.Inject(nil)
	list, err := r.snapshots.Files(id)
	if err != nil || written > 0 || read > len(list) { // their heads
		t.Errorf("%d writes, %d reads of %d segments, %v", written, read, len(list), err)
	}
	if got := again.pager.Stats(); got.HotBytes != 0 {
		t.Errorf("%d bytes of bodies are in memory", got.HotBytes)
	}
}

// arrive brings a snapshot to another store, as a follower pulls it and its Raft
// makes one of its own of it.
func arrive(in *snapshot.Reader, to *snapshot.Store) (id string, err error) {
	a, err := to.Arrive(in.Files(), func(int64) error { return nil })
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.Close(err == nil)) }()
	for _, l := range a.Lacks() {
		b := make([]byte, l.Bytes-l.From)
		f, err := in.OpenFile(l.Index)
		if err != nil {
			return "", err
		}
		_, err = f.ReadAt(b, l.From)
		if err := errors.Join(err, f.Close(), a.WriteAt(l.Index, b, l.From), a.Finish(l.Index)); err != nil {
			return "", err
		}
	}
	meta := in.Meta()
	if err := a.KeepState(in, meta.Size); err != nil {
		return "", err
	}
	state, err := a.Offer(meta.Index, meta.Term)
	if err != nil {
		return "", err
	}
	k, err := to.Create(1, meta.Index, meta.Term, meta.Configuration, 0, nil)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(k, state); err != nil {
		return "", errors.Join(err, k.Cancel())
	}
	return k.ID(), k.Close()
}

func TestASnapshotThatIsSentBringsItsSegments(t *testing.T) {
	r := filled(t)
	want := r.content(t)
	in, err := r.snapshots.LocalOpen(r.save(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	other := newBareShard(t, vfs.NewMem(), "/data/2")
	other.enqueue(7, 1, 10)
	id, err := arrive(in, other.snapshots)
	if err == nil {
		err = other.load(t, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	if other.content(t) != want {
		t.Error("the messages differ")
	}
	id = other.save(t) // one of its own
	last := newBareShard(t, other.fs, other.dir)
	if err := last.load(t, id); err != nil {
		t.Fatal(err)
	}
	if last.content(t) != want {
		t.Error("after a snapshot of its own the messages differ")
	}
}

func TestASnapshotWithBodiesInsideCanStillBeRead(t *testing.T) {
	r := filled(t)
	want := r.content(t)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil || b.Bytes()[0] != captureVersion {
		t.Fatalf("version %d, %v", b.Bytes()[0], err)
	}
	other := newBareShard(t, vfs.NewMem(), "/data/2")
	if err := other.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if other.content(t) != want {
		t.Error("the messages differ")
	}
}

func TestABodyFlippedInALinkedSegmentMarksTheReplicaDamaged(t *testing.T) {
	r := filled(t)
	want := map[string]bool{}
	for _, line := range strings.Split(r.content(t), "\n") {
		want[line] = true
	}
	id := r.save(t)
	files, err := r.snapshots.Files(id)
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	f, err := r.fs.Edit(path.Join(r.dir, "snapshots", id, files[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], files[0].Bytes/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], files[0].Bytes/2); err != nil {
		t.Fatal(err)
	}
	again := newBareShard(t, r.fs, r.dir)
	if err := again.load(t, id); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(again.content(t), "\n") {
		if !want[line] {
			t.Fatalf("served %q", line)
		}
	}
	if err := again.Damaged(); !errors.Is(err, segment.ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := again.Snapshot(); !errors.Is(err, segment.ErrDamaged) {
		t.Errorf("a damaged replica takes a snapshot: %v", err)
	}
}

func TestABodyThatASnapshotLacksIsNoticed(t *testing.T) {
	for _, spoil := range []func(*bareShard){
		func(r *bareShard) { r.bodies.Drop(1, 2000, 2000) },
		func(r *bareShard) { r.bodies.Put(1, 9000, 0, 0, -1, stored("x")) },
		func(r *bareShard) { r.bodies.Put(9, 1, 0, 0, -1, stored("x")) },
	} {
		r := filled(t)
		r.mu.Lock()
		spoil(r)
		r.mu.Unlock()
		id := r.save(t)
		other := newBareShard(t, r.fs, r.dir)
		if err := other.load(t, id); err == nil {
			t.Error("state and bodies differ, and nobody noticed")
		}
	}
}

func TestASnapshotThatCannotBeRestoredLeavesTheShardAsItWas(t *testing.T) {
	fs := vfs.NewMem()
	r := newBareShard(t, fs, "/data/1")
	r.enqueue(1, 1, 2500)
	id := r.save(t)
	r.drop(1, 1, 1000)
	r.enqueue(2, 1, 500)
	want, state := r.content(t), r.state.AppendTo(nil)
	for _, op := range []vfs.Op{vfs.OpLink, vfs.OpOpen, vfs.OpRead} {
		in, err := r.snapshots.LocalOpen(id)
		if err != nil {
			t.Fatal(err)
		}
		fs.Inject(func(now vfs.Op, _ string) error {
			if now == op {
				return syscall.ENOSPC
			}
			return nil
		})
		err = r.Restore(in)
		fs.Inject(nil)
		in.Close()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%s fails: %v", op, err)
		}
		if r.content(t) != want || !bytes.Equal(r.state.AppendTo(nil), state) || r.Damaged() != nil {
			t.Fatalf("after %s has failed it is not what it was: %v", op, r.Damaged())
		}
	}
	if err := r.load(t, id); err != nil {
		t.Fatal(err)
	}
	if got := r.content(t); got == want || !strings.Contains(got, "2500 of queue 1") {
		t.Error("it was not restored in the end")
	}
}

// cutSnapshot is the beginning of a state, whose files are at hand.
type cutSnapshot struct {
	io.Reader
	folder string
}

func (c cutSnapshot) Folder() string { return c.folder }

func TestACutSnapshotIsRefusedAtAnyPlace(t *testing.T) {
	r := newBareShard(t, vfs.NewMem(), "/data/1")
	r.enqueue(1, 1, 30)
	in, err := r.snapshots.LocalOpen(r.save(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	whole, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	other := newBareShard(t, r.fs, "/data/2")
	for n := range whole {
		if n > 300 && n%97 != 0 && n != len(whole)-1 {
			continue
		}
		if err := other.Restore(cutSnapshot{bytes.NewReader(whole[:n]), in.Folder()}); err == nil {
			t.Fatalf("restored from %d of %d bytes", n, len(whole))
		}
	}
	if err := other.Restore(cutSnapshot{bytes.NewReader(whole), in.Folder()}); err != nil {
		t.Error(err)
	}
}

// BenchmarkCapture measures how long a snapshot holds up the log: 10 million
// messages in one queue, and in ten thousand.
func BenchmarkCapture(b *testing.B) {
	for _, queues := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("queues=%d", queues), func(b *testing.B) {
			const count, run = 10_000_000, 1000
			log := slog.New(slog.DiscardHandler)
			pager := segment.NewPager(vfs.OS{}, 64<<20, math.MaxInt64, BodySense(), log)
			defer pager.Close()
			folder, err := pager.Folder(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			r := &bareShard{Shard: NewShard(1, nil, nil, func() int64 { return 0 }, folder, log)}
			defer r.close()
			for i := range count / run {
				var ops []byte
				for range run {
					ops = queue.AppendEnqueue(ops, []mq.QueueID{mq.QueueID(i%queues + 1)}, 0, 0, -1, stored(""))
				}
				r.apply(queue.AppendBatch(queue.AppendEntry(nil, 1, 0), queue.Origin{Node: 1, Session: 1, Seq: r.applied + 1}, ops))
			}
			var worst time.Duration
			b.ResetTimer()
			for range b.N {
				start := time.Now()
				snap, err := r.Snapshot()
				worst = max(worst, time.Since(start))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				snap.Release()
				b.StartTimer()
			}
			b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
		})
	}
}
