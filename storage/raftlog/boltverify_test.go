package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// everything is what a file holds, as text.
func everything(b *Bolt) (out []string, err error) {
	first, last, err := b.bounds()
	if err != nil {
		return nil, err
	}
	for i := first; i <= last && first > 0; i++ {
		var l raft.Log
		if err := b.GetLog(i, &l); err != nil {
			return nil, err
		}
		out = append(out, describe(&l))
	}
	term, err1 := b.GetUint64(raftKeys[0])
	votedIn, err2 := b.GetUint64(raftKeys[1])
	voted, err3 := b.Get(raftKeys[2])
	return append(out, fmt.Sprint(term, votedIn, string(voted))), errors.Join(err1, err2, err3)
}

// A flipped bit in a Bolt is found when it is opened, or changes nothing.
func TestAFlippedBitInABoltIsFoundOrHarmless(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	b := open(t, path, Options{CacheBytes: -1})
	for i := uint64(1); i <= 60; i++ {
		store(t, b, i, i, 1+i/20, int(i)*7)
	}
	if err := errors.Join(b.DeleteRange(1, 20), b.SetUint64(raftKeys[0], 9), b.SetUint64(raftKeys[1], 8),
		b.Set(raftKeys[2], []byte("0123456789abcdef"))); err != nil {
		t.Fatal(err)
	}
	want, err := everything(b)
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	found := 0
	for n := range 30 {
		at := r.IntN(len(good))
		for n%2 == 0 && good[at] == 0 { // most of the file is empty
			at = r.IntN(len(good))
		}
		bad := slices.Clone(good)
		bad[at] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := OpenBolt(path, quiet(t))
		if errors.Is(err, ErrDamaged) {
			found++
			continue
		}
		if err != nil {
			t.Fatalf("seed %d, byte %d: %v", seed, at, err)
		}
		if got, err := everything(b); err != nil || !slices.Equal(got, want) {
			t.Errorf("seed %d, byte %d: %v, %v", seed, at, err, got)
		}
		b.Close()
	}
	if found < 2 {
		t.Errorf("damage was found %d times only (seed %d)", found, seed)
	}
}

func quiet(t *testing.T) Options {
	o := walOptions(t)
	o.CacheBytes = -1
	return o
}

// A file from before the checksums reads as before, and has them from then on.
func TestAFileFromBeforeTheSealsIsSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	old, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := uint64(5); i <= 200; i++ {
		l := entry(i, 3, 40)
		l.Extensions = []byte("ext")[:i%3]
		want = append(want, describe(l))
		if err := old.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, "7 6someone")
	if err := errors.Join(old.SetUint64(raftKeys[0], 7), old.SetUint64(raftKeys[1], 6), old.Set(raftKeys[2], []byte("someone")), old.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b, err := OpenBolt(path, quiet(t))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := everything(b); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v, %v, want %v", got, err, want)
		}
		b.Close()
	}
	old, err = raftboltdb.NewBoltStore(path) // somebody overwrites a vote without its seal
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Set(raftKeys[1], binary.BigEndian.AppendUint64(nil, 9)), old.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(path, quiet(t)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a value without a seal: %v", err)
	}
}

func TestAnEmptyOrMissingBoltIsFresh(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, filepath.Join(dir, "missing")} {
		b, err := OpenBolt(path, quiet(t))
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	half := filepath.Join(dir, "half")
	if err := os.WriteFile(half, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(half, quiet(t)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of zeros: %v", err)
	}
}
