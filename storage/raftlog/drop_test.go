package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"warren/storage/vfs"
)

// spoiled is a log of the groups 1 and 2 with six entries each, that something
// has happened to.
func spoiled(t *testing.T, o Options, spoil func(t *testing.T, fs *vfs.Mem, w *WAL)) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	w := openWAL(t, fs, o)
	for i := uint64(1); i <= 6; i++ {
		append1(t, group(t, w, 2), i, i, 1, 100)
		append1(t, group(t, w, 1), i, i, 1, 100)
	}
	spoil(t, fs, w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestADroppedGroupBeginsAnewBehindTheDamage(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, fs *vfs.Mem, w *WAL){
		"an entry":        func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, recordHead+50) },
		"a record header": func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, 24) },
		"a batch record":  func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, -30) },
		"the first batch": func(t *testing.T, fs *vfs.Mem, w *WAL) { write(t, fs, w.files[0].path, headerBytes+20, "\xa5") },
		"a file header":   func(t *testing.T, fs *vfs.Mem, w *WAL) { write(t, fs, w.files[0].path, 20, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			o := walOptions(t)
			o.FileBytes, o.Known = 16<<10, []uint64{1, 2}
			fs := spoiled(t, o, spoil)
			w := openWAL(t, fs, o)
			if _, err := w.Group(1); !errors.Is(err, ErrDamaged) {
				t.Fatalf("group 1: %v", err)
			}
			_, two := w.Group(2)
			g, err := w.Drop(1)
			if err != nil {
				t.Fatal(err)
			}
			append1(t, g, 4, 9, 2, 100)
			want := contents(t, g)
			for range 2 {
				fs = fs.Crash(vfs.LoseAll)
				w = openWAL(t, fs, o)
				if got := contents(t, group(t, w, 1)); !slices.Equal(got, want) {
					t.Fatalf("group 1 has %v, want %v", got, want)
				}
				if _, err := w.Group(2); fmt.Sprint(err) != fmt.Sprint(two) {
					t.Fatalf("group 2 after the other was dropped: %v, want %v", err, two)
				}
				defer w.Close()
			}
		})
	}
}

// The files with the damage are kept until the last group that it concerns has
// begun anew, and go then.
func TestDamagedFilesGoWhenNobodyNeedsThem(t *testing.T) {
	o := walOptions(t)
	o.Known = []uint64{1, 2, 3}
	fs := spoiled(t, o, func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, 24) })
	w := openWAL(t, fs, o)
	for gid := uint64(1); gid <= 3; gid++ {
		if !w.mourns() {
			t.Fatalf("the damage is forgotten before group %d began anew", gid)
		}
		if _, err := w.Drop(gid); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return w.Stats().Files == 1 })
	w.Close()
	w = openWAL(t, fs, o)
	defer w.Close()
	for gid := uint64(1); gid <= 4; gid++ {
		if got := contents(t, group(t, w, gid)); len(got) != 0 {
			t.Errorf("group %d has %v", gid, got)
		}
	}
}

// Damage that comes after a drop is not made up for by it.
func TestDamageBehindADropCounts(t *testing.T) {
	o := walOptions(t)
	o.FileBytes = 16 << 10
	fs := spoiled(t, o, func(t *testing.T, fs *vfs.Mem, w *WAL) {
		g, err := w.Drop(1)
		if err != nil {
			t.Fatal(err)
		}
		append1(t, g, 1, 3, 2, 100)
		at(t, fs, w, 1, 2, 24)
	})
	w := openWAL(t, fs, o)
	defer w.Close()
	for gid := uint64(1); gid <= 2; gid++ {
		if _, err := w.Group(gid); !errors.Is(err, ErrDamaged) {
			t.Errorf("group %d: %v", gid, err)
		}
	}
}
