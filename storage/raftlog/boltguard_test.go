package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// bbolt panics over such a page, and faults over one that is not there.
func TestABoltThatGoesBadWhileItIsOpenIsDamagedAndEndsNothing(t *testing.T) {
	for _, k := range []struct {
		name  string
		spoil func(path string, bytes int64) error
	}{
		{"its pages are rubbish", func(path string, bytes int64) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			rubbish := make([]byte, bytes-2*int64(os.Getpagesize()))
			for i := range rubbish {
				rubbish[i] = 0xff
			}
			_, err = f.WriteAt(rubbish, 2*int64(os.Getpagesize()))
			return errors.Join(err, f.Close())
		}},
		{"its end is gone", func(path string, _ int64) error { return os.Truncate(path, 2*int64(os.Getpagesize())) }},
	} {
		t.Run(k.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			b := open(t, path, quiet(t))
			store(t, b, 1, 30, 1, 100)
			if err := b.SetUint64(raftKeys[0], 1); err != nil {
				t.Fatal(err)
			}
			if err := k.spoil(path, b.FileBytes()); err != nil {
				t.Fatal(err)
			}
			var l raft.Log
			if err := b.GetLog(7, &l); !errors.Is(err, ErrDamaged) {
				t.Fatalf("read: %v", err)
			}
			_, first := b.FirstIndex()
			_, last := b.LastIndex()
			_, term := b.GetUint64(raftKeys[0])
			for _, err := range []error{first, last, term, b.Set(raftKeys[2], []byte("me")), b.StoreLog(entry(31, 1, 10)), b.DeleteRange(1, 2)} {
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("got %v", err)
				}
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			b, err := OpenBolt(path, quiet(t)) // the same process can have another one
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestATermIsNotWrittenIntoAFileThatIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stable")
	b := open(t, path, quiet(t))
	if err := b.SetUint64(raftKeys[0], 1); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 2 * os.Getpagesize(); at < len(content); at++ { // page types, in every page
		if at%os.Getpagesize() == 8 {
			content[at] ^= 0x40
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.SetUint64(raftKeys[0], 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}
