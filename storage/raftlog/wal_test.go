package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

func walOptions(t testing.TB) Options {
	return Options{
		Log: slog.New(slog.DiscardHandler), FileBytes: 4 << 10,
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	}
}

func openWAL(t testing.TB, fs vfs.FS, o Options) *WAL {
	t.Helper()
	w, err := OpenWAL(fs, "/wal", o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func group(t testing.TB, w *WAL, gid uint64) *GroupLog {
	t.Helper()
	g, err := w.Group(gid)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// text is what a log holds, as index:term:bytes:first byte.
func contents(t testing.TB, g *GroupLog) (out []string) {
	t.Helper()
	first, _ := g.FirstIndex()
	last, _ := g.LastIndex()
	if first == 0 {
		return nil
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := g.GetLog(i, &l); err != nil {
			t.Fatalf("group %d has %d..%d: %v", g.gid, first, last, err)
		}
		out = append(out, describe(&l))
	}
	return out
}

func describe(l *raft.Log) string {
	if len(l.Data) > 0 && !bytes.Equal(l.Data, bytes.Repeat(l.Data[:1], len(l.Data))) {
		return fmt.Sprintf("%d is garbled", l.Index)
	}
	return fmt.Sprintf("%d:%d:%d:%d:%s", l.Index, l.Term, l.Type, len(l.Data), l.Extensions)
}

func append1(t testing.TB, g *GroupLog, first, last, term uint64, n int) {
	t.Helper()
	for i := first; i <= last; i++ {
		if err := g.StoreLog(entry(i, term, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsStoredIsThereAfterAReopen(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, walOptions(t))
	a, b := group(t, w, 1), group(t, w, 1<<40)
	append1(t, a, 1, 30, 1, 100)
	append1(t, b, 7, 9, 2, 5000) // larger than a file
	if err := b.StoreLogs([]*raft.Log{{Index: 10, Term: 3, Type: raft.LogConfiguration, Data: []byte("x"), Extensions: []byte("ext")}}); err != nil {
		t.Fatal(err)
	}
	wantA, wantB := contents(t, a), contents(t, b)
	for range 3 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = openWAL(t, fs, walOptions(t))
		a, b = group(t, w, 1), group(t, w, 1<<40)
		if got := contents(t, a); !slices.Equal(got, wantA) || len(got) != 30 {
			t.Fatalf("group 1 has %v, want %v", got, wantA)
		}
		if got := contents(t, b); !slices.Equal(got, wantB) || len(got) != 4 {
			t.Fatalf("group 2 has %v, want %v", got, wantB)
		}
		var l raft.Log
		if err := a.GetLog(31, &l); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatal(err)
		}
	}
	w.Close()
}

// A file with a damaged entry cannot go; its group hears of that, and once it
// has begun anew the file goes.
func TestADamagedEntryInAnOldFileIsTold(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, walOptions(t))
	defer w.Close()
	busy, slow := group(t, w, 1), group(t, w, 2)
	append1(t, slow, 1, 2, 1, 10)
	at(t, fs, w, 2, 1, recordHead+5)
	append1(t, busy, 1, 500, 1, 200)
	if err := busy.DeleteRange(1, 495); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return errors.Is(slow.Flaw(), ErrDamaged) })
	<-slow.Pinned()
	if _, err := w.Drop(2); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return w.Stats().Files < 12 })
	if err := errors.Join(slow.Flaw(), busy.Flaw()); err != nil {
		t.Error(err)
	}
}

// A lone group's whole life in small files: they are let go of, and used again.
func TestOldFilesGo(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, walOptions(t))
	busy, slow := group(t, w, 1), group(t, w, 2)
	append1(t, slow, 1, 2, 1, 10)
	for i := uint64(1); i <= 2000; i++ {
		append1(t, busy, i, i, 1, 200)
		if i%50 == 0 {
			first, _ := busy.FirstIndex()
			if err := busy.DeleteRange(first, i-5); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, func() bool { return w.Stats().Files < 12 })
	s := w.Stats()
	if s.Recycled == 0 || s.Carried == 0 {
		t.Errorf("%+v: nothing was carried, or used again", s)
	}
	want := contents(t, busy)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWAL(t, fs, walOptions(t))
	defer w.Close()
	if got := contents(t, group(t, w, 1)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := contents(t, group(t, w, 2)); len(got) != 2 {
		t.Errorf("the slow group has %v", got)
	}
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not become so")
		}
	}
}

func TestGroupsShareSyncs(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, walOptions(t))
	defer w.Close()
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			once.Do(func() { close(in); <-out })
		}
		return nil
	})
	var work sync.WaitGroup
	work.Go(func() { append1(t, group(t, w, 1), 1, 1, 1, 10) })
	<-in
	before := w.Stats().Rounds
	for gid := uint64(2); gid < 12; gid++ {
		work.Go(func() { append1(t, group(t, w, gid), 1, 1, 1, 10) })
	}
	eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.queue) == 10 })
	close(out)
	work.Wait()
	if got := w.Stats().Rounds - before; got != 2 {
		t.Errorf("11 groups took %d writes, want 2", got)
	}
}

func TestConcurrentGroups(t *testing.T) {
	fs := vfs.NewMem()
	o := walOptions(t)
	o.CacheBytes = 3000
	w := openWAL(t, fs, o)
	var work sync.WaitGroup
	for gid := uint64(1); gid <= 6; gid++ {
		work.Go(func() {
			r := rand.New(rand.NewPCG(gid, 1))
			g, err := w.Group(gid)
			if err != nil {
				t.Error(err)
				return
			}
			for i := uint64(1); i <= 300; i++ {
				if err := g.StoreLog(entry(i, 1, r.IntN(500))); err != nil {
					t.Error(err)
					return
				}
				var l raft.Log
				first, _ := g.FirstIndex()
				if err := g.GetLog(first+r.Uint64N(i-first+1), &l); err != nil {
					t.Error(err)
				}
				if i%(20*gid) == 0 {
					if err := g.DeleteRange(first, i-3); err != nil {
						t.Error(err)
					}
				}
			}
		})
		work.Go(func() { // what replication and compaction do meanwhile
			g, err := w.Group(gid)
			if err != nil {
				return
			}
			for range 500 {
				var l raft.Log
				first, _ := g.FirstIndex()
				if err := g.GetLog(first, &l); err != nil && !errors.Is(err, raft.ErrLogNotFound) {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if w.cached > o.CacheBytes {
		t.Errorf("%d bytes in memory, the limit is %d", w.cached, o.CacheBytes)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWAL(t, fs, o)
	defer w.Close()
	for gid := uint64(1); gid <= 6; gid++ {
		if last, _ := group(t, w, gid).LastIndex(); last != 300 {
			t.Errorf("group %d ends at %d", gid, last)
		}
		contents(t, group(t, w, gid))
	}
}

// What recovery makes of files that something has happened to.
func TestRecovery(t *testing.T) {
	for _, c := range []struct {
		name   string
		close  bool // cleanly, which notes that all is synced
		spoil  func(t *testing.T, fs *vfs.Mem, w *WAL)
		want   int    // entries of group 1
		damage string // groups that are refused
	}{
		{"nothing", true, func(*testing.T, *vfs.Mem, *WAL) {}, 6, ""},
		{"an unfinished file", true, func(t *testing.T, fs *vfs.Mem, _ *WAL) { write(t, fs, "/wal/0000000000000009.wal.new", 0, "x") }, 6, ""},
		{"another's file", true, func(t *testing.T, fs *vfs.Mem, _ *WAL) { write(t, fs, "/wal/note", 0, "x") }, 6, ""},
		{"a torn last entry", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 6, recordHead+50) }, 5, ""},
		{"a torn last header", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 6, 20) }, 5, ""},
		{"a damaged last entry after Close", true, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 6, recordHead+50) }, 0, "1"},
		{"a damaged entry", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, recordHead+50) }, 0, "1"},
		{"a damaged entry of another group", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 2, 3, recordHead+50) }, 6, "2"},
		{"a damaged record header", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, 24) }, 0, "12"},
		{"a damaged batch record", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, -30) }, 0, "12"},
		{"a damaged file header", false, func(t *testing.T, fs *vfs.Mem, w *WAL) { write(t, fs, w.files[0].path, 20, "x") }, 0, "12"},
		{"a file is missing", true, func(t *testing.T, fs *vfs.Mem, w *WAL) {
			next := openWAL(t, fs, walOptions(t))
			append1(t, group(t, next, 2), 7, 7, 1, 100)
			gone := next.file.path
			next.Close()
			openWAL(t, fs, walOptions(t)).Close()
			if err := fs.Remove(gone); err != nil {
				t.Fatal(err)
			}
		}, 0, "12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			o := walOptions(t)
			o.FileBytes = 16 << 10
			w := openWAL(t, fs, o)
			for i := uint64(1); i <= 6; i++ {
				append1(t, group(t, w, 2), i, i, 1, 100)
				append1(t, group(t, w, 1), i, i, 1, 100)
			}
			if c.close {
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			c.spoil(t, fs, w)
			for range 2 { // what was found once is found again
				fs = fs.Crash(vfs.LoseNothing)
				w, err := OpenWAL(fs, "/wal", o)
				if err != nil {
					t.Fatal(err)
				}
				for gid := uint64(1); gid <= 2; gid++ {
					g, err := w.Group(gid)
					if refused := strings.Contains(c.damage, fmt.Sprint(gid)); refused != errors.Is(err, ErrDamaged) {
						t.Fatalf("group %d: %v", gid, err)
					}
					if err == nil && gid == 1 && len(contents(t, g)) != c.want {
						t.Errorf("group 1 has %v, want %d", contents(t, g), c.want)
					}
				}
				w.Close()
			}
		})
	}
}

// at spoils a byte of the record of an entry.
func at(t *testing.T, fs *vfs.Mem, w *WAL, gid, index uint64, off int64) {
	t.Helper()
	r, ok := w.groups[gid].find(index)
	if !ok {
		t.Fatal("no such entry")
	}
	write(t, fs, r.file.path, int64(r.off)+off, "\xa5")
}

func write(t *testing.T, fs *vfs.Mem, path string, off int64, s string) {
	t.Helper()
	f, err := fs.Edit(path)
	if err != nil {
		f, err = fs.Create(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
}

// An entry whose bytes went bad while the process runs is not served.
func TestADamagedEntryIsNotServed(t *testing.T) {
	fs := vfs.NewMem()
	o := walOptions(t)
	o.CacheBytes = -1
	w := openWAL(t, fs, o)
	defer w.Close()
	g := group(t, w, 1)
	append1(t, g, 1, 3, 1, 100)
	at(t, fs, w, 1, 2, recordHead+10)
	var l raft.Log
	if err := g.GetLog(2, &l); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), w.file.path) {
		t.Errorf("got %v", err)
	}
	if err := g.GetLog(3, &l); err != nil {
		t.Error(err)
	}
}
