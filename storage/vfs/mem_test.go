package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, f File, s string) {
	t.Helper()
	if _, err := f.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, fs FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestACrashTakesWhatWasNotSynced(t *testing.T) {
	for _, c := range []struct {
		name              string
		syncFile, syncDir bool
		loss              Loss
		want              string
	}{
		{"nothing synced", false, false, LoseAll, "(open /d/f: file does not exist)"},
		{"only the file", true, false, LoseAll, "(open /d/f: file does not exist)"},
		{"only the folder", false, true, LoseAll, ""},
		{"both", true, true, LoseAll, "0123456789"},
		{"torn", false, true, LoseHalf, "01234"},
		{"lucky", false, false, LoseNothing, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMem()
			if err := errors.Join(m.MkdirAll("/d"), m.SyncDir("/")); err != nil {
				t.Fatal(err)
			}
			f, err := m.Create("/d/f")
			if err != nil {
				t.Fatal(err)
			}
			write(t, f, "0123456789")
			if c.syncFile {
				err = errors.Join(err, f.Sync())
			}
			if c.syncDir {
				err = errors.Join(err, m.SyncDir("/d"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, m.Crash(c.loss), "/d/f"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := content(t, m, "/d/f"); got != "0123456789" {
				t.Errorf("the living one has %q", got)
			}
		})
	}
}

func TestARenameIsDurableWithItsFolder(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/old")
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "x")
	if err := errors.Join(f.Sync(), m.SyncDir("/"), m.Rename("/old", "/new")); err != nil {
		t.Fatal(err)
	}
	crashed := m.Crash(LoseAll)
	if content(t, crashed, "/old") != "x" || content(t, crashed, "/new") == "x" {
		t.Error("a rename survived without SyncDir")
	}
	if err := m.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	crashed = m.Crash(LoseAll)
	if content(t, crashed, "/old") == "x" || content(t, crashed, "/new") != "x" {
		t.Error("a synced rename was lost")
	}
}

func TestALinkIsDurableWithItsFolder(t *testing.T) {
	m := NewMem()
	if err := errors.Join(m.MkdirAll("/a"), m.MkdirAll("/b"), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	f, err := m.Create("/a/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "x")
	if err := errors.Join(f.Sync(), m.Link("/a/f", "/b/l")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m.Crash(LoseAll), "/b/l"); got == "x" {
		t.Error("a link survived without SyncDir")
	}
	if err := errors.Join(m.SyncDir("/b"), m.Remove("/a/f")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m.Crash(LoseAll), "/b/l"); got != "x" {
		t.Errorf("the link has %q after a crash", got)
	}
}

func TestAFileWithTwoNamesIsOneFileAfterACrash(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "x")
	if err := errors.Join(f.Sync(), m.Link("/f", "/l"), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	c := m.Crash(LoseAll)
	again, err := c.Edit("/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, again, "y")
	if got := content(t, c, "/l"); got != "xy" {
		t.Errorf("the other name has %q", got)
	}
}

func TestAnInjectedErrorStopsTheCall(t *testing.T) {
	m := NewMem()
	want := errors.New("no")
	m.Inject(func(op Op, name string) error {
		if op == OpSync {
			return want
		}
		return nil
	})
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "x")
	if err := f.Sync(); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
	if err := m.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, m.Crash(LoseAll), "/f"); got != "" {
		t.Errorf("a failed sync kept %q", got)
	}
}

func TestAHalfDoneCallFailsInTheMiddle(t *testing.T) {
	m := NewMem()
	failure := errors.New("no")
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	m.Inject(func(Op, string) error { return &HalfDone{failure} })
	if n, err := f.Write([]byte("0123")); n != 2 || !errors.Is(err, failure) {
		t.Errorf("%d bytes are written, %v", n, err)
	}
	if n, err := f.WriteAt([]byte("ab"), 1); n != 1 || !errors.Is(err, failure) {
		t.Errorf("%d bytes are written, %v", n, err)
	}
	if err := f.Allocate(6); !errors.Is(err, failure) {
		t.Errorf("allocate: %v", err)
	}
	m.Inject(nil)
	if got := content(t, m, "/f"); got != "0a\x00\x00" {
		t.Errorf("got %q", got)
	}
}

// The kernel takes pages for clean that it could not write.
func TestWhatAFailedSyncHasLeftBehindNoLaterOneWrites(t *testing.T) {
	for _, c := range []struct {
		failure error
		want    string
	}{{errors.New("no"), "??xy?f"}, {&HalfDone{errors.New("no")}, "abxy?f"}} {
		m := NewMem()
		f, err := m.Create("/f")
		if err == nil {
			_, err = f.Write([]byte("??????"))
		}
		if err := errors.Join(err, f.Sync(), m.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		put := func(s string, at int64) {
			t.Helper()
			if _, err := f.WriteAt([]byte(s), at); err != nil {
				t.Fatal(err)
			}
		}
		put("ab", 0)
		put("cde", 2)
		m.Inject(func(op Op, _ string) error { return c.failure })
		if f.Sync() == nil {
			t.Error("the sync has not failed")
		}
		m.Inject(nil)
		put("xy", 2)
		put("f", 5)
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, m.Crash(LoseAll), "/f"); got != c.want {
			t.Errorf("after a power cut: %q, want %q", got, c.want)
		}
		for _, left := range []*Mem{m, m.Crash(LoseNothing)} {
			if got := content(t, left, "/f"); got != "abxyef" {
				t.Errorf("the power stays on: %q", got)
			}
		}
	}
}

// A crash may come in the middle of a folder's removal.
func TestAFolderIsRemovedNameByName(t *testing.T) {
	m := NewMem()
	if err := m.MkdirAll("/d/e"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/d/a", "/d/e/b"} {
		if _, err := m.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	removed := ""
	m.Inject(func(op Op, name string) error { removed += " " + name; return nil })
	if err := m.Remove("/d"); err != nil || removed != " /d/a /d/e/b /d/e /d" {
		t.Errorf("removed%s, %v", removed, err)
	}
	if names, err := m.List("/"); err != nil || len(names) > 0 {
		t.Errorf("%v are left, %v", names, err)
	}
}

// Both file systems answer the same to the same calls.
func TestMemDoesWhatTheRealOneDoes(t *testing.T) {
	script := func(fs FS, root string) (log []string) {
		say := func(s string, err error) {
			if err != nil {
				s += " failed"
			}
			log = append(log, s)
		}
		say("mkdir", fs.MkdirAll(root+"/a/b"))
		f, err := fs.Create(root + "/a/f")
		say("create", err)
		_, err = f.Write([]byte("hello"))
		say("write", err)
		say("close", errors.Join(f.Sync(), f.Close(), fs.SyncDir(root+"/a")))
		_, err = fs.Create(root + "/none/f")
		say("create in nothing", err)
		_, err = fs.Open(root + "/a/none")
		say("open nothing", err)
		names, err := fs.List(root + "/a")
		for _, n := range names {
			say("has "+n, err)
		}
		say("link", fs.Link(root+"/a/f", root+"/a/b/l"))
		say("link over", fs.Link(root+"/a/f", root+"/a/b/l"))
		say("link nothing", fs.Link(root+"/a/none", root+"/a/m"))
		say("link a folder", fs.Link(root+"/a/b", root+"/a/m"))
		say("link into nothing", fs.Link(root+"/a/f", root+"/none/l"))
		say("move", fs.Rename(root+"/a/f", root+"/a/b/g"))
		say("move nothing", fs.Rename(root+"/a/f", root+"/a/h"))
		r, err := fs.Open(root + "/a/b/g")
		say("open", err)
		b := make([]byte, 10)
		n, err := r.ReadAt(b, 3)
		say("read at "+string(b[:n]), err)
		size, err := r.Size()
		say(string(rune('0'+size)), err)
		e, err := fs.Edit(root + "/a/b/g")
		say("edit", err)
		_, err = e.WriteAt([]byte("LP!"), 3)
		say("write at", err)
		say("write out", errors.Join(e.WriteOut(0, 0), e.WriteOut(2, 5), e.WriteOut(5, 1<<20)))
		say("allocate", errors.Join(e.Allocate(4), e.Allocate(8), e.SyncData()))
		n, err = e.ReadAt(b[:8], 0)
		say(string(b[:n]), err)
		_, err = fs.Edit(root + "/a/none")
		say("edit nothing", err)
		l, err := fs.Open(root + "/a/b/l")
		say("open the link", err)
		n, err = l.ReadAt(b[:8], 0)
		say(string(b[:n]), err)
		say("remove the first name", fs.Remove(root+"/a/b/g"))
		_, err = fs.Open(root + "/a/b/l")
		say("open the other", err)
		say("remove", fs.Remove(root+"/a"))
		say("remove nothing", fs.Remove(root+"/a"))
		_, err = fs.List(root + "/a")
		say("list nothing", err)
		return log
	}
	want := script(OS{}, t.TempDir())
	got := script(NewMem(), "/root")
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("step %d: got %q, want %q", i, got, want)
		}
	}
}

func TestATornCrashKeepsWhatWasSyncedAndAnySectorsOfTheRest(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Allocate(4*sectorBytes), f.Sync(), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("x", 4*sectorBytes)), 0); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		got := content(t, m.CrashTorn(r), "/f")
		pattern := ""
		for at := 0; at < len(got); at += sectorBytes {
			s := got[at : at+sectorBytes]
			if s != strings.Repeat(s[:1], sectorBytes) {
				t.Fatal("a sector is torn")
			}
			pattern += s[:1]
		}
		seen[pattern] = true
	}
	if len(seen) != 16 {
		t.Errorf("%d of 16 outcomes were seen", len(seen))
	}
}

// What a crash may leave is told apart write by write and name by name. What was
// moved has one of its names at least.
func TestATornCrashMayLeaveAnyWriteAndAnyName(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "old")
	if err := errors.Join(f.Sync(), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two"} {
		if _, err := f.WriteAt([]byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Rename("/f", "/g"); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		c := m.CrashTorn(r)
		names, err := c.List("/")
		if err != nil {
			t.Fatal(err)
		}
		left[strings.Join(names, " ")] = true
		for _, name := range names {
			left[content(t, c, "/"+name)] = true
		}
	}
	for _, want := range []string{"f", "g", "f g", "old", "one", "two"} {
		if !left[want] {
			t.Errorf("no crash leaves %q, only %v", want, left)
		}
	}
	if left[""] {
		t.Error("a crash leaves it no name")
	}
}

// A call may have done its work, and say no all the same.
func TestACallThatIsDoneCanFail(t *testing.T) {
	broken := errors.New("broken")
	m := NewMem()
	if err := m.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	f, err := m.Create("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	var hit Op
	m.Inject(func(op Op, _ string) error { hit = op; return &Done{broken} })
	_, created := m.Create("/d/created")
	_, written := f.WriteAt([]byte("bytes"), 0)
	for op, err := range map[Op]error{
		OpWrite: written, OpSync: f.Sync(), OpAllocate: f.Allocate(8), OpCreate: created, OpLink: m.Link("/d/f", "/d/l"),
		OpRename: m.Rename("/d/l", "/d/moved"), OpMkdir: m.MkdirAll("/d/made"), OpRemove: m.Remove("/d/created"),
		OpSyncDir: errors.Join(m.SyncDir("/d"), m.SyncDir("/")), OpClose: f.Close(),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := m.List("/d"); hit != OpList || !errors.Is(err, broken) {
		t.Errorf("list: %v", err)
	}
	m.Inject(nil)
	left := m.Crash(LoseAll)
	if names, err := left.List("/d"); err != nil || !slices.Equal(names, []string{"f", "made", "moved"}) {
		t.Errorf("there is %v, %v", names, err)
	}
	if got := content(t, left, "/d/moved"); got != "bytes" {
		t.Errorf("the file has %q", got)
	}
	if m.Held() != 0 {
		t.Errorf("%d files are open", m.Held())
	}
}

// Whoever closes a file and goes on with it has a fault, and so has who forgets to.
func TestAClosedFileIsOfNoUse(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil || m.Held() != 1 {
		t.Fatalf("%d files are open, %v", m.Held(), err)
	}
	if err := f.Close(); err != nil || m.Held() != 0 {
		t.Errorf("%d files are open, %v", m.Held(), err)
	}
	_, written := f.Write([]byte("x"))
	_, read := f.ReadAt(make([]byte, 1), 0)
	for _, err := range []error{written, read, f.Sync(), f.Allocate(1), f.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}
