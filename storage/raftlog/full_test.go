package raftlog

import (
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"warren/storage/vfs"
)

// fullDisk is a file system that can be filled.
type fullDisk struct {
	*vfs.Mem
	full atomic.Bool
	ops  map[vfs.Op]bool // that need room
}

func newFullDisk(ops ...vfs.Op) *fullDisk {
	d := &fullDisk{Mem: vfs.NewMem(), ops: map[vfs.Op]bool{}}
	for _, op := range ops {
		d.ops[op] = true
	}
	d.Inject(func(op vfs.Op, name string) error {
		if d.full.Load() && d.ops[op] {
			return &fs.PathError{Op: string(op), Path: name, Err: syscall.ENOSPC}
		}
		return nil
	})
	return d
}

// fill appends entries until the disk has refused a few, and returns the next index.
func fill(t *testing.T, g *GroupLog, next, term uint64) uint64 {
	t.Helper()
	for failed := 0; failed < 3; {
		switch err := g.StoreLog(entry(next, term, 200)); {
		case err == nil:
			next++
		case errors.Is(err, syscall.ENOSPC):
			failed++
		default:
			t.Fatal(err)
		}
	}
	return next
}

// An append to a full disk fails, and the log goes on when there is room again:
// where blocks can be reserved, and where the write itself is refused.
func TestAFullDiskFailsAppendsAndHeals(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpAllocate, vfs.OpWrite} {
		d := newFullDisk(op)
		w := openWAL(t, d, walOptions(t))
		g, other := group(t, w, 1), group(t, w, 2)
		append1(t, other, 1, 3, 1, 100)
		d.full.Store(true)
		next := fill(t, g, 1, 1)
		d.full.Store(false)
		append1(t, g, next, next+20, 2, 500)
		append1(t, other, 4, 6, 2, 100)
		for _, g := range []*GroupLog{g, other} {
			want := contents(t, g)
			left := openWAL(t, d.Crash(vfs.LoseAll), walOptions(t))
			if got := contents(t, group(t, left, g.gid)); !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", op, got, want)
			}
			left.Close()
		}
		if last, _ := g.LastIndex(); last != next+20 {
			t.Errorf("%s: the log ends at %d", op, last)
		}
		w.Close()
	}
}

// What lets files go has room on a full disk, and so has Close.
func TestAFullDiskLetsTheBeginningOfALogGo(t *testing.T) {
	d := newFullDisk(vfs.OpAllocate)
	w := openWAL(t, d, walOptions(t))
	g := group(t, w, 1)
	append1(t, g, 1, 3, 1, 100)
	d.full.Store(true)
	fill(t, group(t, w, 2), 1, 1)
	if err := g.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	if last, _ := g.LastIndex(); last != 0 {
		t.Errorf("the log ends at %d", last)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d.full.Store(false)
	w = openWAL(t, d, walOptions(t))
	defer w.Close()
	if got := contents(t, group(t, w, 1)); len(got) != 0 {
		t.Errorf("deleted entries are back: %v", got)
	}
}

// While a damaged log is not dropped no file goes: that has room, too.
func TestAFullDiskLetsADamagedLogBeDropped(t *testing.T) {
	d := newFullDisk(vfs.OpAllocate)
	o := walOptions(t)
	o.Known, o.FileBytes = []uint64{1, 2}, 64<<10 // the room of a smaller file is for two deletions or so
	w := openWAL(t, d, o)
	append1(t, group(t, w, 1), 1, 20, 1, 200)
	append1(t, group(t, w, 2), 1, 3, 1, 200)
	at(t, d.Mem, w, 1, 2, recordHead+50)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWAL(t, d, o)
	defer w.Close()
	d.full.Store(true)
	next := fill(t, group(t, w, 2), 4, 1)
	for group(t, w, 2).StoreLog(entry(next, 1, 0)) == nil {
		next++
	}
	for range 2 { // the first may fit where no entry does
		if _, err := w.Drop(1); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := group(t, w, 2).FirstIndex()
	if err := group(t, w, 2).DeleteRange(first, 3); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return w.Stats().Recycled > 0 || w.Stats().Files < 3 })
}

// Raft takes the end of a log for replaced that it has had deleted: so what is
// to replace it has room, whatever others store and delete in between.
func TestAFullDiskHasRoomForWhatReplacesADeletedEnd(t *testing.T) {
	d := newFullDisk(vfs.OpAllocate)
	o := walOptions(t)
	o.FileBytes = 64 << 10
	w := openWAL(t, d, o)
	defer w.Close()
	cut := []*GroupLog{group(t, w, 1), group(t, w, 2)}
	for _, g := range cut {
		append1(t, g, 1, 9, 1, 100)
	}
	d.full.Store(true)
	for _, g := range cut {
		if err := g.DeleteRange(5, 9); err != nil {
			t.Fatal(err)
		}
	}
	other := group(t, w, 3)
	next := fill(t, other, 1, 1)
	refused := false
	for i := uint64(1); i < next && !refused; i++ {
		refused = other.DeleteRange(i, i) != nil
	}
	if !refused {
		t.Errorf("%d deletions have found room that is for others", next)
	}
	for _, g := range cut {
		if err := g.StoreLog(entry(5, 2, 15<<10)); err != nil {
			t.Fatal(err)
		}
		if err := g.DeleteRange(3, 5); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("an end is deleted without room for another: %v", err)
		}
		if last, _ := g.LastIndex(); last != 5 {
			t.Errorf("the log ends at %d", last)
		}
	}
}

// If that room is not enough the process must end: Raft would go on behind an
// end that is not there.
func TestAFullDiskAfterADeletedEndIsFatal(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpAllocate, vfs.OpWrite} {
		d := newFullDisk(op)
		o := walOptions(t)
		fatal := 0
		o.Fatal = func(error) { fatal++ }
		w := openWAL(t, d, o)
		g := group(t, w, 1)
		append1(t, g, 1, 2, 1, 500)
		if err := g.DeleteRange(2, 2); err != nil {
			t.Fatal(err)
		}
		d.full.Store(true)
		for range 2 { // the first file that was made ready, and the next
			if err := g.StoreLog(entry(2, 2, 5000)); err != nil {
				break
			}
			if err := g.DeleteRange(2, 2); err != nil {
				break
			}
		}
		if fatal == 0 {
			t.Errorf("%s: the process goes on", op)
		}
		w.Close()
	}
}

// A full disk has the groups in the oldest file asked for a snapshot.
func TestAFullDiskAsksForSnapshots(t *testing.T) {
	d := newFullDisk(vfs.OpAllocate)
	w := openWAL(t, d, walOptions(t))
	defer w.Close()
	g := group(t, w, 1)
	append1(t, g, 1, 50, 1, 200)
	d.full.Store(true)
	fill(t, g, 51, 1)
	<-g.Pinned()
}

// A term that a full disk refuses is stored when there is room again. Raft
// would panic.
func TestATermWaitsForRoom(t *testing.T) {
	b := open(t, t.TempDir()+"/log", Options{})
	tries := 0
	err := b.insist("store CurrentTerm", func() error {
		if tries++; tries < 2 {
			return &fs.PathError{Op: "write", Err: syscall.ENOSPC}
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

// Only a write that was refused may be tried again, not an fsync.
func TestAFullDiskIsFatalInAnFsync(t *testing.T) {
	fatal := 0
	b := open(t, t.TempDir()+"/log", Options{Fatal: func(error) { fatal++ }})
	for _, c := range []struct {
		err  error
		want int
	}{{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, 0}, {syscall.ENOSPC, 1}, {&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, 1}} {
		fatal = 0
		if err := b.write("store entries", func() error { return c.err }); !errors.Is(err, syscall.ENOSPC) || fatal != c.want {
			t.Errorf("%#v: Fatal was called %d times, want %d", c.err, fatal, c.want)
		}
	}
}

// A deletion whose write was refused has changed nothing, and can be repeated.
func TestARefusedDeletionCanBeRepeated(t *testing.T) {
	for _, c := range []struct{ first, last uint64 }{{1, 4}, {7, 9}, {1, 9}} {
		d := newFullDisk(vfs.OpWrite)
		w := openWAL(t, d, walOptions(t))
		g := group(t, w, 1)
		append1(t, g, 1, 9, 1, 100)
		d.full.Store(true)
		if err := g.DeleteRange(c.first, c.last); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		d.full.Store(false)
		if err := g.DeleteRange(c.first, c.last); err != nil {
			t.Fatal(err)
		}
		want := 9 - int(c.last-c.first+1)
		if got := contents(t, g); len(got) != want {
			t.Errorf("%d..%d: %v is left", c.first, c.last, got)
		}
		w.Close()
	}
}

// The write that begins a file may be refused, or never come: until it is
// durable the file before stays, whatever it holds, or a log that was drained
// would look like one that has never been.
func TestTheLastFileStaysUntilTheNextIsWrittenTo(t *testing.T) {
	d := newFullDisk(vfs.OpWrite)
	w := openWAL(t, d, walOptions(t))
	g := group(t, w, 1)
	append1(t, g, 1, 3, 1, 100)
	if err := g.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	next := <-w.keeper.made
	w.keeper.end() // from here on this test is the keeper
	if next.err != nil {
		t.Fatal(next.err)
	}
	w.use(next.file)
	if more, err := w.keeper.cleanOldest(); more || err != nil {
		t.Errorf("a file went: %v, %v", more, err)
	}
	left := openWAL(t, d.Crash(vfs.LoseNothing), walOptions(t))
	if left.Fresh() {
		t.Error("after a crash nothing tells that there was a log")
	}
	left.Close()
	d.full.Store(true)
	w.batch = nil
	if err := w.write(w.appendBatch(nil)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the write on a full disk: %v", err)
	}
	if more, err := w.keeper.cleanOldest(); more || err != nil || w.Stats().Files != 1 {
		t.Errorf("the last file: %v, %v, and %d are left", more, err, w.Stats().Files)
	}
	if err := w.closeFiles(); err != nil {
		t.Error(err)
	}
}
