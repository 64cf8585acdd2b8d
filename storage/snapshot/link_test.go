package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

const linkedBytesEach = 3000

// origin makes a synced file of an owner, and bytes behind those that count.
func origin(t testing.TB, fs vfs.FS, number uint64) string {
	t.Helper()
	name := fmt.Sprintf("/data/origin-%d", number)
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(state(number, linkedBytesEach), "and more"...)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), fs.SyncDir("/data")); err != nil {
		t.Fatal(err)
	}
	return name
}

// takeLinked makes a snapshot of n bytes of state, and of the files of index-1
// and index.
func takeLinked(s *Store, index uint64, n int) error {
	k, err := s.Create(raft.SnapshotVersionMax, index, 3, members, 1, nil)
	if err != nil {
		return err
	}
	for _, number := range []uint64{index - 1, index} {
		name := fmt.Sprintf("%d.seg", number)
		err := k.(*Sink).Link(name, fmt.Sprintf("/data/origin-%d", number), linkedBytesEach, name)
		if err != nil {
			return errors.Join(err, k.Cancel())
		}
	}
	if _, err := k.Write(state(index, n)); err != nil {
		return errors.Join(err, k.Cancel())
	}
	return k.Close()
}

// wantLinked checks that what the store lists can be read to its last byte.
func wantLinked(t testing.TB, s *Store, n int) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		want := state(m.Index, n)
		r, err := s.LocalOpen(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("snapshot %d: state of %d bytes, %v", m.Index, len(got), err)
		}
		for i, f := range r.Files() {
			number := m.Index - 1 + uint64(i)
			if got := whole(t, s.fs, path.Join(r.Folder(), f.Name)); !bytes.HasPrefix(got, state(number, linkedBytesEach)) ||
				f != (File{fmt.Sprintf("%d.seg", number), linkedBytesEach, fmt.Sprintf("%d.seg", number)}) {
				t.Fatalf("snapshot %d: file %+v has %d bytes", m.Index, f, len(got))
			}
		}
		if err := r.Close(); err != nil || len(r.Files()) != 2 {
			t.Fatalf("snapshot %d: %d files, %v", m.Index, len(r.Files()), err)
		}
		if got, err := read(s, m.ID); err != nil || !bytes.Equal(got, want) || m.Size != int64(len(want)) {
			t.Fatalf("snapshot %d: read %d bytes of %d, %v", m.Index, len(got), m.Size, err)
		}
	}
}

func whole(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLinkedFilesBelongToTheSnapshot(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	for number := range uint64(11) {
		origin(t, fs, number)
	}
	for _, index := range []uint64{8, 9, 10} {
		if err := takeLinked(s, index, 2*blockBytes+9); err != nil {
			t.Fatal(err)
		}
	}
	for number := range uint64(11) { // their owner lets go of them
		if err := fs.Remove(fmt.Sprintf("/data/origin-%d", number)); err != nil {
			t.Fatal(err)
		}
	}
	wantLinked(t, s, 2*blockBytes+9)
	metas, _ := s.List()
	files, err := s.Files(metas[0].ID)
	if err != nil || len(files) != 2 || files[1].Name != "10.seg" {
		t.Errorf("files %+v, %v", files, err)
	}
	if names, _ := fs.List(dir); len(names) != 2 {
		t.Errorf("the folder holds %q", names)
	}
}

func TestACrashAtAnyPointLeavesAWholeSnapshotWithItsFiles(t *testing.T) {
	const n = 1000
	for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing} {
		fs := newFS(t)
		s := open(t, fs)
		for number := range uint64(12) {
			origin(t, fs, number)
		}
		if err := errors.Join(takeLinked(s, 8, n), takeLinked(s, 9, n)); err != nil {
			t.Fatal(err)
		}
		var crashed []*vfs.Mem
		fs.Inject(func(vfs.Op, string) error {
			crashed = append(crashed, fs.Crash(loss))
			return nil
		})
		if err := takeLinked(s, 10, n); err != nil {
			t.Fatal(err)
		}
		fs.Inject(nil)
		for i, c := range append(crashed, fs.Crash(loss)) {
			s := open(t, c)
			got := indexes(t, s)
			if len(got) == 0 || got[0] != 9 && got[0] != 10 || i == len(crashed) && got[0] != 10 {
				t.Fatalf("loss %d, before call %d: snapshots %v", loss, i, got)
			}
			wantLinked(t, s, n)
			if err := takeLinked(s, 11, n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAnErrorAtAnyPointLeavesAWholeSnapshotWithItsFiles(t *testing.T) {
	const n = 1000
	for point := 0; ; point++ {
		fs := newFS(t)
		s := open(t, fs)
		for number := range uint64(12) {
			origin(t, fs, number)
		}
		if err := takeLinked(s, 9, n); err != nil {
			t.Fatal(err)
		}
		calls, hit := 0, vfs.Op("")
		fs.Inject(func(op vfs.Op, name string) error {
			if calls++; calls-1 == point {
				hit = op
				return errInject
			}
			return nil
		})
		err := takeLinked(s, 10, n)
		fs.Inject(nil)
		if hit == "" {
			return
		}
		if err == nil && hit != vfs.OpList && hit != vfs.OpOpen && hit != vfs.OpRead && hit != vfs.OpClose {
			t.Errorf("%s failed and nobody heard", hit)
		}
		for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseNothing} {
			s := open(t, fs.Crash(loss))
			if got := indexes(t, s); len(got) == 0 || err == nil && got[0] != 10 {
				t.Fatalf("%s failed (%v): snapshots %v", hit, err, got)
			}
			wantLinked(t, s, n)
		}
	}
}

func TestALinkThatLeadsElsewhereIsRefused(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	from := origin(t, fs, 1)
	k, err := s.Create(raft.SnapshotVersionMax, 5, 3, members, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, ".hidden", stateFile, metaFile, strings.Repeat("x", fileNameMax+1)} {
		if err := k.(*Sink).Link(name, from, 10, "id"); err == nil {
			t.Errorf("%q was linked", name)
		}
	}
	if k.(*Sink).Link("a", from, 0, "id") == nil || k.(*Sink).Link("a", from, 1, "") == nil {
		t.Error("a file without length or identity was linked")
	}
	if err := k.Close(); err != nil {
		t.Errorf("a refused link does harm: %v", err)
	}
}

func TestAnUnfinishedLinkSpoilsTheSnapshot(t *testing.T) {
	s := open(t, newFS(t))
	k, err := s.Create(raft.SnapshotVersionMax, 5, 3, members, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.(*Sink).Link("a", "/data/none", 10, "id"); err == nil {
		t.Error("a file that is not there was linked")
	}
	if err := k.Close(); err == nil || len(indexes(t, s)) != 0 {
		t.Errorf("closed with %v, listed %v", err, indexes(t, s))
	}
}

func TestASnapshotThatIsReadStaysUntilItIsClosed(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	for number := range uint64(13) {
		origin(t, fs, number)
	}
	mustTakeLinked := func(index uint64) {
		t.Helper()
		if err := takeLinked(s, index, 10); err != nil {
			t.Fatal(err)
		}
	}
	mustTakeLinked(9)
	metas, _ := s.List()
	_, first, err := s.Open(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.LocalOpen(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{10, 11, 12} {
		mustTakeLinked(index)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[12 11 9]" {
		t.Errorf("kept %s", got)
	}
	if err := errors.Join(second.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(first); err != nil || len(b) != 10 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[12 11]" {
		t.Errorf("kept %s after it was closed", got)
	}
}

func TestWhatOnlyOldSnapshotsLinkIsCountedAndTrimmed(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	for number := range uint64(4) {
		origin(t, fs, number)
	}
	for _, index := range []uint64{1, 2} { // of files 0 and 1, 1 and 2
		if err := takeLinked(s, index, 10); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Linked(); err != nil || n != 3*linkedBytesEach {
		t.Errorf("%d bytes are linked, %v; want three files", n, err)
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(indexes(t, s)); got != "[2]" {
		t.Errorf("kept %s", got)
	}
	if n, err := s.Linked(); err != nil || n != 2*linkedBytesEach {
		t.Errorf("%d bytes are linked after that, %v; want two files", n, err)
	}
	wantLinked(t, s, 10)
}
