package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"path"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

const dir = "/data/snapshots"

var (
	quiet     = slog.New(slog.DiscardHandler)
	errInject = errors.New("injected")
	members   = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b", Suffrage: raft.Nonvoter}}}
)

func newFS(t testing.TB) *vfs.Mem {
	fs := vfs.NewMem()
	if err := errors.Join(fs.MkdirAll("/data"), fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return fs
}

func open(t testing.TB, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(fs, dir, 2, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(index uint64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(index))).Read(b)
	return b
}

// take writes a snapshot in uneven pieces.
func take(s *Store, index uint64, n int) error {
	k, err := s.Create(raft.SnapshotVersionMax, index, 3, members, 1, nil)
	if err != nil {
		return err
	}
	for b := state(index, n); len(b) > 0; {
		piece := min(len(b), 1+n/7)
		if _, err := k.Write(b[:piece]); err != nil {
			return errors.Join(err, k.Cancel())
		}
		b = b[piece:]
	}
	return k.Close()
}

func mustTake(t testing.TB, s *Store, index uint64, n int) {
	t.Helper()
	if err := take(s, index, n); err != nil {
		t.Fatal(err)
	}
}

func indexes(t testing.TB, s *Store) (list []uint64) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		list = append(list, m.Index)
	}
	return list
}

func read(s *Store, id string) ([]byte, error) {
	_, r, err := s.Open(id)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// wantWhole checks that what the store lists can be read, and is what was written.
func wantWhole(t testing.TB, s *Store, n int) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		b, err := read(s, m.ID)
		if err != nil || !bytes.Equal(b, state(m.Index, n)) || m.Size != int64(n) {
			t.Fatalf("snapshot %d: %d bytes of %d, %v", m.Index, len(b), m.Size, err)
		}
		if len(m.Configuration.Servers) != 2 || m.ConfigurationIndex != 1 || m.Term != 3 {
			t.Fatalf("snapshot %d: description %+v", m.Index, m)
		}
	}
}

func TestASnapshotReadsAsItWasWritten(t *testing.T) {
	for _, n := range []int{0, 1, 1000, blockBytes - 1, blockBytes, blockBytes + 1, 3*blockBytes + 17} {
		s := open(t, newFS(t))
		mustTake(t, s, 10, n)
		wantWhole(t, s, n)
	}
}

func TestTheNewestTwoAreKeptNewestFirst(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	for _, index := range []uint64{10, 9, 300, 20} {
		mustTake(t, s, index, 10)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[300 20]" {
		t.Errorf("kept %s", got)
	}
	if names, _ := fs.List(dir); len(names) != 2 {
		t.Errorf("the folder holds %q", names)
	}
}

func TestCloseAndCancelMayBeRepeated(t *testing.T) {
	s := open(t, newFS(t))
	k, err := s.Create(raft.SnapshotVersionMax, 5, 3, members, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := k.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := k.Cancel(); err != nil {
		t.Errorf("cancel after close: %v", err)
	}
	if got := indexes(t, s); len(got) != 1 {
		t.Errorf("cancel after close took the snapshot away: %v", got)
	}
	k, err = s.Create(raft.SnapshotVersionMax, 6, 3, members, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Cancel(); err != nil {
			t.Errorf("cancel: %v", err)
		}
	}
	if err := k.Close(); !errors.Is(err, errCancelled) {
		t.Errorf("close after cancel: %v", err)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[5]" {
		t.Errorf("kept %s", got)
	}
}

func TestAnUnfinishedSnapshotIsRemovedAtOpen(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	if _, err := s.Create(raft.SnapshotVersionMax, 5, 3, members, 1, nil); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	if names, _ := fs.List(dir); len(names) != 0 || len(indexes(t, s)) != 0 {
		t.Errorf("left over: %q", names)
	}
}

// A crash before any call of the file system, with any loss, leaves the old
// snapshot or the new one, whole; and the new one once Close has said so.
func TestACrashAtAnyPointLeavesAWholeSnapshot(t *testing.T) {
	const n = blockBytes + 100
	for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing} {
		fs := newFS(t)
		s := open(t, fs)
		mustTake(t, s, 8, n)
		mustTake(t, s, 9, n)
		var crashed []*vfs.Mem
		var calls []string
		fs.Inject(func(op vfs.Op, name string) error {
			crashed = append(crashed, fs.Crash(loss))
			calls = append(calls, string(op)+" "+path.Base(name))
			return nil
		})
		mustTake(t, s, 10, n)
		fs.Inject(nil)
		if len(crashed) < 12 {
			t.Fatalf("only %d points", len(crashed))
		}
		for i, c := range crashed {
			s := open(t, c)
			got := indexes(t, s)
			if len(got) == 0 || got[0] != 9 && got[0] != 10 {
				t.Fatalf("loss %d, before call %d (%s): snapshots %v", loss, i, calls[i], got)
			}
			wantWhole(t, s, n)
			mustTake(t, s, 11, n) // and the store works
		}
		after := open(t, fs.Crash(loss))
		if got := indexes(t, after); len(got) == 0 || got[0] != 10 {
			t.Fatalf("loss %d: after Close: snapshots %v", loss, got)
		}
		wantWhole(t, after, n)
	}
}

// An error of any call fails the snapshot or is harmless, and is never hidden
// by a listed snapshot that cannot be read.
func TestAnErrorAtAnyPointLeavesAWholeSnapshot(t *testing.T) {
	const n = blockBytes + 100
	for point := 0; ; point++ {
		fs := newFS(t)
		s := open(t, fs)
		mustTake(t, s, 9, n)
		calls, hit := 0, ""
		fs.Inject(func(op vfs.Op, name string) error {
			calls++
			if calls-1 == point {
				hit = fmt.Sprintf("%s %s", op, path.Base(name))
				return errInject
			}
			return nil
		})
		err := take(s, 10, n)
		fs.Inject(nil)
		if hit == "" {
			if point < 12 {
				t.Fatalf("only %d points", point)
			}
			return
		}
		if durable := strings.HasPrefix(hit, "list") || strings.HasPrefix(hit, "open") || strings.HasPrefix(hit, "read") || strings.HasPrefix(hit, "close"); err == nil && !durable {
			t.Errorf("%s failed and nobody heard", hit)
		}
		for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseNothing} {
			s := open(t, fs.Crash(loss))
			got := indexes(t, s)
			if len(got) == 0 || err == nil && got[0] != 10 {
				t.Fatalf("%s failed (%v): snapshots %v", hit, err, got)
			}
			wantWhole(t, s, n)
		}
	}
}

func TestDamageIsFoundBeforeAnyByteOfItIsHandedOut(t *testing.T) {
	const n = 2*blockBytes + 100
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
		whole  int // bytes that may be read before the error
	}{
		{"a bit of the first block", func(b []byte) []byte { b[100] ^= 4; return b }, 0},
		{"a bit of the last block", func(b []byte) []byte { b[len(b)-1] ^= 4; return b }, 2 * blockBytes},
		{"a length", func(b []byte) []byte { b[2] ^= 0x80; return b }, 0},
		{"a cut", func(b []byte) []byte { return b[:len(b)-50] }, 2 * blockBytes},
		{"nothing left", func(b []byte) []byte { return nil }, 0},
		{"two blocks swapped", func(b []byte) []byte {
			const k = blockHeader + blockBytes
			return append(append(bytes.Clone(b[k:2*k]), b[:k]...), b[2*k:]...)
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newFS(t)
			s := open(t, fs)
			mustTake(t, s, 9, n)
			mustTake(t, s, 10, n)
			metas, _ := s.List()
			rewrite(t, fs, path.Join(dir, metas[0].ID, stateFile), c.damage)
			got, err := read(s, metas[0].ID)
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("read: %v", err)
			}
			if len(got) > c.whole || !bytes.Equal(got, state(10, n)[:len(got)]) {
				t.Errorf("%d bytes were handed out, %d are good", len(got), c.whole)
			}
			if got := fmt.Sprint(indexes(t, s)); got != "[9]" {
				t.Errorf("listed after the damage was found: %s", got)
			}
		})
	}
}

// What was set aside is there to be looked at, and must not fill the disk.
func TestASnapshotThatWasSetAsideGoesWhenOthersStandForIt(t *testing.T) {
	const n = 1000
	fs := newFS(t)
	s := open(t, fs)
	damage := func() {
		t.Helper()
		metas, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, fs, path.Join(dir, metas[0].ID, stateFile), func(b []byte) []byte { b[100] ^= 4; return b })
		if _, err := read(s, metas[0].ID); !errors.Is(err, ErrDamaged) {
			t.Fatalf("read: %v", err)
		}
	}
	aside := func() (list []uint64) {
		names, _ := fs.List(dir)
		for _, name := range names {
			if strings.HasSuffix(name, damagedSuffix) {
				list = append(list, indexOf(name))
			}
		}
		return list
	}
	want := func(what, listed, damaged string, newest uint64) {
		t.Helper()
		at, err := s.Newest()
		if got := fmt.Sprint(indexes(t, s)); got != listed || fmt.Sprint(aside()) != damaged || at != newest || err != nil {
			t.Errorf("%s: there are %s, and %v set aside; the newest was at %d, %v", what, got, aside(), at, err)
		}
	}
	mustTake(t, s, 9, n)
	mustTake(t, s, 10, n)
	damage()
	want("after the damage", "[9]", "[10]", 10)
	mustTake(t, s, 10, n) // nothing has happened since
	want("with one that stands for it", "[10 9]", "[10]", 10)
	damage()
	damage()
	want("with all of them damaged", "[]", "[9 10 10]", 10)
	mustTake(t, s, 20, n)
	want("of many", "[20]", "[10]", 20)
	mustTake(t, s, 30, n)
	want("with two that stand for it", "[30 20]", "[]", 30)
	damage()
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	want("after a trim without a newer one", "[20]", "[30]", 30)
	mustTake(t, s, 40, n)
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	want("after a trim with one", "[40]", "[]", 40)
}

func TestADamagedDescriptionIsSkipped(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	mustTake(t, s, 9, 10)
	mustTake(t, s, 10, 10)
	metas, _ := s.List()
	rewrite(t, fs, path.Join(dir, metas[0].ID, metaFile), func(b []byte) []byte { b[20] ^= 1; return b })
	if got := fmt.Sprint(indexes(t, s)); got != "[9]" {
		t.Errorf("listed %s", got)
	}
	mustTake(t, s, 11, 10)
	if names, _ := fs.List(dir); len(names) != 3 {
		t.Errorf("with one that stands for it the folder holds %q", names)
	}
	mustTake(t, s, 12, 10)
	if names, _ := fs.List(dir); len(names) != 2 {
		t.Errorf("with two that stand for it the folder holds %q", names)
	}
}

func rewrite(t *testing.T, fs vfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	g, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Write(change(b))
	if err := errors.Join(err, f.Close(), g.Sync(), g.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestTheRealFileSystemWorksToo(t *testing.T) {
	s, err := Open(vfs.OS{}, t.TempDir()+"/snapshots", 2, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for index := uint64(1); index <= 4; index++ {
		mustTake(t, s, index, 3*blockBytes)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[4 3]" {
		t.Errorf("kept %s", got)
	}
	wantWhole(t, s, 3*blockBytes)
}

func BenchmarkWriteAndRead64MiB(b *testing.B) {
	s, err := Open(vfs.OS{}, b.TempDir()+"/snapshots", 1, quiet)
	if err != nil {
		b.Fatal(err)
	}
	const n = 64 << 20
	data := make([]byte, n)
	b.SetBytes(n)
	for i := range b.N {
		k, err := s.Create(raft.SnapshotVersionMax, uint64(i+1), 1, members, 1, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := k.Close(); err != nil {
			b.Fatal(err)
		}
		_, r, err := s.Open(k.ID())
		if err != nil {
			b.Fatal(err)
		}
		if got, err := io.Copy(io.Discard, r); err != nil || got != n {
			b.Fatal(got, err)
		}
		r.Close()
	}
}
