package raftlog

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/storage/vfs"
)

// spareFiles are the spare files on a disk.
func spareFiles(t *testing.T, fs *vfs.Mem) (n int) {
	t.Helper()
	names, err := fs.List("/wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, spareSuffix) {
			n++
		}
	}
	return n
}

func TestALogKeepsItsSpareFilesUntilItRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		w := openWAL(t, fs, walOptions(t))
		g := group(t, w, 1)
		next := uint64(1)
		burst := func() { // several files, which the deletion makes spare ones
			append1(t, g, next, next+99, 1, 200)
			if err := g.DeleteRange(next, next+99); err != nil {
				t.Fatal(err)
			}
			next += 100
			synctest.Wait()
		}
		for range 5 {
			burst()
			<-time.After(idleEvery * 2 / 3)
			if n := spareFiles(t, fs); n < sparesMax-1 { // one of them may be ready to be written to
				t.Fatalf("%d spare files between two bursts", n)
			}
		}
		<-time.After(3 * idleEvery)
		if n := spareFiles(t, fs); n != idleSpares {
			t.Errorf("%d spare files at rest", n)
		}
		burst()
		want := contents(t, g)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = openWAL(t, fs, walOptions(t))
		if got := contents(t, group(t, w, 1)); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Files go in order: a group that has been idle for long keeps what others have
// written and deleted since.
func TestALogThatRestsCarriesWhatIsInTheWayOfOldFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		w := openWAL(t, fs, walOptions(t))
		idle, busy := group(t, w, 1), group(t, w, 2)
		append1(t, idle, 1, 20, 1, 200)
		append1(t, busy, 1, 300, 1, 200)
		if err := busy.DeleteRange(1, 290); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := w.Stats().Files
		if before < 15 {
			t.Fatalf("there are %d files: the test is too small", before)
		}
		<-time.After(3 * idleEvery)
		// 30 entries are in two files or three; as much again may be unneeded, and two more.
		if s := w.Stats(); s.Files > 7 {
			t.Errorf("%d files are left of %d", s.Files, before)
		}
		want := [][]string{contents(t, idle), contents(t, busy)}
		if len(want[0]) != 20 || len(want[1]) != 10 {
			t.Errorf("the logs have %d and %d entries", len(want[0]), len(want[1]))
		}
		left := openWAL(t, fs.Crash(vfs.LoseAll), walOptions(t))
		for i, g := range []*GroupLog{group(t, left, 1), group(t, left, 2)} {
			if got := contents(t, g); !slices.Equal(got, want[i]) {
				t.Errorf("after a crash: %v, want %v", got, want[i])
			}
		}
		for _, w := range []*WAL{w, left} {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What is needed moves once, however it is spread: a log that rests comes to rest.
func TestALogThatRestsDoesNotGoOnCarrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openWAL(t, vfs.NewMem(), walOptions(t))
		g := group(t, w, 1)
		for i := uint64(1); i <= 12; i++ { // each in a file of its own, and most of that is empty
			append1(t, g, i, i, 1, 2100)
		}
		<-time.After(20 * idleEvery)
		carried := w.Stats().Carried
		if carried > 24 {
			t.Errorf("%d of 12 entries were carried", carried)
		}
		<-time.After(20 * idleEvery)
		if again := w.Stats().Carried; again != carried {
			t.Errorf("%d entries were carried, and then %d", carried, again)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
