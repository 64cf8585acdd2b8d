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

// sent is a file of a peer's snapshot: the first bytes of what state says.
func sent(number uint64, bytes int64) File {
	return File{Name: fmt.Sprintf("%016x-abcdefgh.seg", number), Bytes: bytes, ID: fmt.Sprintf("id-%d", number)}
}

// content is what a sent file holds.
func content(f File) []byte {
	var number uint64
	fmt.Sscanf(f.ID, "id-%d", &number)
	return state(number, 1<<13)[:f.Bytes]
}

// pull gets what an arrival lacks, in pieces.
func pull(a *Arrival) (bytes int64, err error) {
	for _, l := range a.Lacks() {
		want := content(l.File)
		for off := l.From; off < l.Bytes; {
			n := min(1000, l.Bytes-off)
			if err := a.WriteAt(l.Index, want[off:off+n], off); err != nil {
				return bytes, err
			}
			off += n
			bytes += n
		}
		if err := a.Finish(l.Index); err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

// install does with what a reader gives what Raft does with a peer's snapshot.
func install(s *Store, index uint64, r io.Reader) error {
	k, err := s.Create(raft.SnapshotVersionMax, index, 3, members, 1, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(k, r); err != nil {
		return errors.Join(err, k.Cancel())
	}
	return k.Close()
}

// receive lets a whole snapshot arrive, and be restored.
func receive(s *Store, index uint64, n int, files ...File) (pulled int64, err error) {
	a, err := s.Arrive(files, anyRoom)
	if err != nil {
		return 0, err
	}
	landed := false
	defer func() { err = errors.Join(err, a.Close(landed)) }()
	if pulled, err = pull(a); err != nil {
		return pulled, err
	}
	if err := a.KeepState(bytes.NewReader(state(index, n)), int64(n)); err != nil {
		return pulled, err
	}
	r, err := a.Offer(index, 3)
	if err != nil {
		return pulled, err
	}
	err = install(s, index, r)
	if landed = err == nil; landed {
		s.Restored()
	}
	return pulled, err
}

// wantReceived checks that each snapshot has all of its state and files.
func wantReceived(t testing.TB, s *Store, n int) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		r, err := s.LocalOpen(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, state(m.Index, n)) {
			t.Fatalf("snapshot %d: state of %d bytes, %v", m.Index, len(b), err)
		}
		for _, f := range r.Files() {
			if got := whole(t, s.fs, path.Join(r.Folder(), f.Name)); !bytes.HasPrefix(got, content(f)) {
				t.Fatalf("snapshot %d: %s has other bytes", m.Index, f.Name)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// anyRoom is on a disk for whatever arrives.
func anyRoom(int64) error { return nil }

func gathered(s *Store) []string {
	names, _ := s.fs.List(s.incoming())
	return names
}

func TestOnlyWhatIsNotHereIsLacking(t *testing.T) {
	s := open(t, newFS(t))
	for _, c := range []struct {
		what   string
		index  uint64
		files  []File
		pulled int64
	}{
		{"nothing is here", 10, []File{sent(1, 5000), sent(2, 3000)}, 8000},
		{"one file is, under another name", 20, []File{{"x.seg", 5000, "id-1"}, sent(3, 700)}, 700},
		{"one has grown", 30, []File{sent(1, 5000), sent(3, 1500)}, 800},
		{"one was longer, and one is new", 40, []File{sent(3, 900), sent(4, 100)}, 100},
		{"all are here", 50, []File{sent(3, 1500), sent(4, 100)}, 0},
	} {
		got, err := receive(s, c.index, 100, c.files...)
		if err != nil || got != c.pulled {
			t.Fatalf("%s: pulled %d bytes, want %d; %v", c.what, got, c.pulled, err)
		}
		if left := gathered(s); len(left) != 0 {
			t.Fatalf("%s: left behind %q", c.what, left)
		}
		if got := indexes(t, s); got[0] != c.index {
			t.Fatalf("%s: snapshots %v", c.what, got)
		}
		wantReceived(t, s, 100)
	}
}

func TestALaterTryGoesOnWithWhatIsThere(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	begin := func(files []File, bytes ...int) { // the last file is not finished
		a, err := s.Arrive(files, anyRoom)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range bytes {
			if err := a.WriteAt(i, content(files[i])[:n], 0); err != nil {
				t.Fatal(err)
			}
			if i < len(bytes)-1 {
				if err := a.Finish(i); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := a.Close(false); err != nil {
			t.Fatal(err)
		}
	}
	lacks := func(files ...File) (lacks string) {
		a, err := s.Arrive(files, anyRoom)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range a.Lacks() {
			lacks += fmt.Sprintf("%s from %d;", l.ID, l.From)
		}
		if err := a.Close(false); err != nil {
			t.Fatal(err)
		}
		return lacks
	}
	files := []File{sent(1, 500), sent(2, 800)}
	begin(files, 500, 300)
	if got := lacks(files...); got != "id-2 from 300;" {
		t.Errorf("after a cut: %s", got)
	}
	if got := lacks(sent(1, 600), sent(2, 800), sent(3, 10)); got != "id-1 from 500;id-2 from 300;id-3 from 0;" {
		t.Errorf("with a later snapshot: %s", got)
	}
	if got := lacks(sent(1, 400), sent(2, 200)); got != "" {
		t.Errorf("with an earlier one: %s", got)
	}
	begin(files, 500, 300)
	s = open(t, fs.Crash(vfs.LoseAll))
	if got := lacks(files...); got != "id-2 from 0;" {
		t.Errorf("after a crash: %s", got)
	}
	if got := lacks(sent(2, 800)); got != "id-2 from 0;" || len(gathered(s)) != 0 {
		t.Errorf("what nobody asks for stays: %q", gathered(s))
	}
	begin(files, 500, 300)
	mustTake(t, s, 70, 10)
	if left := gathered(s); len(left) != 0 {
		t.Errorf("a later snapshot leaves %q", left)
	}
}

// A file that has grown is begun with a copy of the shorter one: that has to
// fit, too.
func TestNothingIsWrittenOfASnapshotThatHasNoRoom(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	if _, err := receive(s, 10, 100, sent(1, 5000), sent(2, 100)); err != nil {
		t.Fatal(err)
	}
	errRoom := errors.New("no room")
	files := []File{sent(1, 6000), sent(2, 100), sent(3, 10)}
	written := 0
	fs.Inject(func(op vfs.Op, name string) error {
		if op == vfs.OpWrite || op == vfs.OpCreate {
			written++
		}
		return nil
	})
	need := int64(0)
	if _, err := s.Arrive(files, func(bytes int64) error { need = bytes; return errRoom }); !errors.Is(err, errRoom) {
		t.Errorf("it arrives: %v", err)
	}
	if written > 0 || need != 6010 {
		t.Errorf("%d writes, and %d bytes were asked for", written, need)
	}
	fs.Inject(nil)
	if pulled, err := receive(s, 20, 100, files...); err != nil || pulled != 1010 {
		t.Errorf("with room, %d bytes are pulled: %v", pulled, err)
	}
	wantReceived(t, s, 100)
}

func TestACrashWhileASnapshotArrivesLeavesNoneThatLacksAByte(t *testing.T) {
	const n = 1000
	files := []File{sent(2, 4000), sent(3, 2500), sent(4, 10)}
	for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing} {
		fs := newFS(t)
		s := open(t, fs)
		if _, err := receive(s, 9, n, sent(1, 300), sent(2, 1500)); err != nil {
			t.Fatal(err)
		}
		var crashed []*vfs.Mem
		fs.Inject(func(vfs.Op, string) error {
			crashed = append(crashed, fs.Crash(loss))
			return nil
		})
		if _, err := receive(s, 10, n, files...); err != nil {
			t.Fatal(err)
		}
		fs.Inject(nil)
		for i, c := range append(crashed, fs.Crash(loss)) {
			s := open(t, c)
			got := indexes(t, s)
			if len(got) == 0 || got[0] != 9 && got[0] != 10 || i == len(crashed) && got[0] != 10 {
				t.Fatalf("loss %d, before call %d: snapshots %v", loss, i, got)
			}
			wantReceived(t, s, n)
			if _, err := receive(s, 11, n, files...); err != nil {
				t.Fatalf("loss %d, before call %d: the next try: %v", loss, i, err)
			}
			wantReceived(t, s, n)
		}
	}
}

func TestAnErrorWhileASnapshotArrivesIsTriedAgain(t *testing.T) {
	const n = 1000
	files := []File{sent(2, 4000), sent(3, 2500)}
	for point := 0; ; point++ {
		fs := newFS(t)
		s := open(t, fs)
		if _, err := receive(s, 9, n, sent(1, 300), sent(2, 1500)); err != nil {
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
		_, err := receive(s, 10, n, files...)
		fs.Inject(nil)
		if hit == "" {
			return
		}
		if got := indexes(t, s); err == nil && got[0] != 10 {
			t.Fatalf("%s failed, nobody heard, and there is %v", hit, got)
		}
		wantReceived(t, s, n)
		if _, err := receive(s, 11, n, files...); err != nil {
			t.Fatalf("after %s failed: %v", hit, err)
		}
		wantReceived(t, s, n)
		s = open(t, fs.Crash(vfs.LoseAll))
		if got := indexes(t, s); len(got) == 0 || got[0] != 11 {
			t.Fatalf("after %s failed, and a crash: %v", hit, got)
		}
		wantReceived(t, s, n)
	}
}

func TestAPeersFilesAreChecked(t *testing.T) {
	for _, c := range []struct {
		what  string
		files []File
	}{
		{"a path", []File{{"../../../etc/passwd.seg", 10, "a"}}},
		{"another folder", []File{{"a/b.seg", 10, "a"}}},
		{"the folder itself", []File{{".", 10, "a"}}},
		{"a hidden file", []File{{".seg", 10, "a"}}},
		{"the state's file", []File{{stateFile, 10, "a"}}},
		{"the description's file", []File{{metaFile, 10, "a"}}},
		{"not a segment", []File{{"a.bin", 10, "a"}}},
		{"control characters", []File{{"a\x00b.seg", 10, "a"}}},
		{"no name", []File{{"", 10, "a"}}},
		{"a long name", []File{{strings.Repeat("a", 300) + ".seg", 10, "a"}}},
		{"no identity", []File{{"a.seg", 10, ""}}},
		{"a long identity", []File{{"a.seg", 10, strings.Repeat("a", 300)}}},
		{"no bytes", []File{{"a.seg", 0, "a"}}},
		{"fewer than none", []File{{"a.seg", -1, "a"}}},
		{"more than there are", []File{{"a.seg", 1<<63 - 1, "a"}}},
		{"a name twice", []File{{"a.seg", 10, "a"}, {"a.seg", 10, "b"}}},
		{"an identity twice", []File{{"a.seg", 10, "a"}, {"b.seg", 10, "a"}}},
	} {
		fs := newFS(t)
		s := open(t, fs)
		if _, err := s.Arrive(c.files, anyRoom); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", c.what, err)
		}
		if names, _ := fs.List("/data"); len(names) != 1 {
			t.Errorf("%s: there is %q", c.what, names)
		}
	}
	s := open(t, newFS(t)) // an identity is no path
	if _, err := receive(s, 10, 10, File{"a.seg", 10, "../../x"}); err != nil {
		t.Error(err)
	}
}

func TestAStateHasAsManyBytesAsWereAnnounced(t *testing.T) {
	s := open(t, newFS(t))
	for _, bytesSent := range []int{0, 9, 11, 5000} {
		a, err := s.Arrive(nil, anyRoom)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.KeepState(bytes.NewReader(make([]byte, bytesSent)), 10); !errors.Is(err, ErrRefused) {
			t.Errorf("%d bytes instead of 10: %v", bytesSent, err)
		}
		if err := a.Close(false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnArrivalThatEndsTakesItsSnapshotWithIt(t *testing.T) {
	s := open(t, newFS(t))
	a, err := s.Arrive([]File{sent(1, 100)}, anyRoom)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Arrive(nil, anyRoom); !errors.Is(err, errArriving) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := pull(a); err != nil {
		t.Fatal(err)
	}
	if err := a.KeepState(bytes.NewReader(state(10, 100)), 100); err != nil {
		t.Fatal(err)
	}
	r, err := a.Offer(10, 3)
	if err != nil {
		t.Fatal(err)
	}
	mustTake(t, s, 10, 100) // this node's own, of the same index: without files
	if metas, _ := s.List(); len(metas) != 1 {
		t.Fatal(metas)
	} else if files, _ := s.Files(metas[0].ID); len(files) != 0 {
		t.Errorf("this node's own snapshot has %v", files)
	}
	if err := a.Close(false); err != nil {
		t.Fatal(err)
	}
	if err := install(s, 10, r); !errors.Is(err, errWithdrawn) {
		t.Errorf("Raft reads on: %v", err)
	}
	if got := len(indexes(t, s)); got != 1 {
		t.Errorf("%d snapshots", got)
	}
}

func TestAShortFileOfASnapshotThatIsSentIsDamage(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	if _, err := receive(s, 10, 10, sent(1, 100)); err != nil {
		t.Fatal(err)
	}
	metas, _ := s.List()
	rewrite(t, fs, path.Join(dir, metas[0].ID, sent(1, 100).Name), func(b []byte) []byte { return b[:50] })
	r, err := s.LocalOpen(metas[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := r.OpenFile(0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 50), 0); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 51), 0); !errors.Is(err, ErrDamaged) || len(indexes(t, s)) != 0 {
		t.Errorf("got %v, and %v is listed", err, indexes(t, s))
	}
}

func TestAFileThatIsNotWhatItsIdentityPromisesIsNotReliedOn(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	s.CheckFiles(func(f io.ReaderAt, n int64, id string) error {
		b := make([]byte, n)
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, content(File{Bytes: n, ID: id})) {
			return errInject
		}
		return nil
	})
	a, err := s.Arrive([]File{sent(1, 100)}, anyRoom)
	if err != nil {
		t.Fatal(err)
	}
	err = a.WriteAt(0, make([]byte, 100), 0)
	if err := errors.Join(err, a.Finish(0)); !errors.Is(err, errInject) {
		t.Errorf("another file: %v", err)
	}
	if err := a.Close(false); err != nil || len(gathered(s)) != 0 {
		t.Errorf("it stays: %v, %q", err, gathered(s))
	}
	if _, err := receive(s, 10, 10, sent(1, 100), sent(2, 50)); err != nil {
		t.Fatal(err)
	}
	metas, _ := s.List()
	rewrite(t, fs, path.Join(dir, metas[0].ID, sent(1, 100).Name), func(b []byte) []byte { b[7] ^= 1; return b })
	if pulled, err := receive(s, 20, 10, sent(1, 100), sent(2, 50)); err != nil || pulled != 100 {
		t.Errorf("one of this node's own: pulled %d bytes, %v", pulled, err)
	}
	if got := indexes(t, s); got[0] != 20 {
		t.Errorf("there is %v", got)
	}
}

func TestAPartWhoseSyncFailedIsBegunAnew(t *testing.T) {
	fs := newFS(t)
	s := open(t, fs)
	big := File{Name: "a.seg", Bytes: 2 * partSyncBytes, ID: "big"}
	a, err := s.Arrive([]File{big}, anyRoom)
	if err != nil {
		t.Fatal(err)
	}
	fs.Inject(func(op vfs.Op, name string) error {
		if op == vfs.OpSync {
			return errInject
		}
		return nil
	})
	if err := a.WriteAt(0, make([]byte, partSyncBytes), 0); !errors.Is(err, errInject) {
		t.Errorf("got %v", err)
	}
	fs.Inject(nil)
	if err := a.Close(false); err != nil {
		t.Fatal(err)
	}
	a, err = s.Arrive([]File{big}, anyRoom)
	if err != nil || a.Lacks()[0].From != 0 {
		t.Errorf("it goes on from %d, %v", a.Lacks()[0].From, err)
	}
}
