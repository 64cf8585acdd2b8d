package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

const diskSector = 512

// tear puts some of the sectors between from and to in which two files differ
// into the first, which is made as long as the other.
func tear(old, next []byte, from, to int, some func() bool) []byte {
	torn := append(bytes.Clone(old), make([]byte, max(0, len(next)-len(old)))...)
	for at := from; at < min(to, len(next)); at += diskSector {
		if end := min(at+diskSector, len(next)); some() {
			copy(torn[at:end], next[at:end])
		}
	}
	return torn
}

// A power cut while a vote is stored leaves that one or the one before, whatever
// sectors of it are on disk: bbolt writes pages that nothing refers to, syncs
// them, writes the page that does, and syncs that.
func TestAPowerCutLeavesThisVoteOrTheOneBefore(t *testing.T) {
	votes, cuts := 12, 4
	if testing.Short() {
		votes, cuts = 2, 1
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	some := func() bool { return r.IntN(2) == 0 }
	all := func() bool { return true }
	dir := t.TempDir()
	path, left := filepath.Join(dir, "votes"), filepath.Join(dir, "left")
	b := open(t, path, Options{CacheBytes: -1})
	key, before := raftKeys[2], []byte("nobody")
	if err := b.Set(key, before); err != nil {
		t.Fatal(err)
	}
	old := readAll(t, path)
	pageBytes := int(binary.LittleEndian.Uint32(old[boltPageHead+8:]))
	for n := range votes {
		vote := bytes.Repeat([]byte{byte(n)}, 1+r.IntN(9000))
		if err := b.Set(key, vote); err != nil {
			t.Fatal(err)
		}
		next := readAll(t, path)
		for range cuts {
			pages := tear(old, next, 2*pageBytes, len(next), some)
			wantVote(t, left, pages, before)
			whole := tear(old, next, 2*pageBytes, len(next), all)
			wantVote(t, left, tear(whole, next, 0, 2*pageBytes, some), before, vote)
		}
		wantVote(t, left, next, vote)
		old, before = next, vote
	}
}

// wantVote opens a file of those bytes.
func wantVote(t *testing.T, path string, file []byte, may ...[]byte) {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBolt(path, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Get(raftKeys[2])
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	for _, vote := range may {
		if bytes.Equal(got, vote) {
			return
		}
	}
	t.Fatalf("the vote is %.20q of %d bytes", got, len(got))
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A vote in a file that has no name after a power cut is forgotten: that a new
// file has its name is durable before anything is stored in it.
func TestTheNameOfANewBoltIsSynced(t *testing.T) {
	dir := t.TempDir()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Skip(err)
	}
	defer syscall.Close(fd)
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_OPEN); err != nil {
		t.Skip(err)
	}
	open(t, filepath.Join(dir, "votes"), Options{})
	var b [4096]byte
	n, err := syscall.Read(fd, b[:])
	if err != nil {
		t.Fatal(err)
	}
	made, seen := false, ""
	for e := b[:n]; len(e) > 0; e = e[syscall.SizeofInotifyEvent+binary.NativeEndian.Uint32(e[12:]):] {
		mask := binary.NativeEndian.Uint32(e[4:])
		seen += fmt.Sprintf(" %x", mask)
		made = made || mask&syscall.IN_CREATE != 0
		if made && mask&syscall.IN_OPEN != 0 && mask&syscall.IN_ISDIR != 0 {
			return
		}
	}
	t.Errorf("nobody opens the folder after the file was made: %s", seen)
}
