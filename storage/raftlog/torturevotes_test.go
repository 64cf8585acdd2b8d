package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// What raft-boltdb writes goes around our file system: bbolt wants an *os.File,
// of which no call can be made to end the process. So in some of the turns of
// TestTorture all that the child does is to vote, as fast as it can, and it is
// killed at random moments.

const (
	// votedBehind is how many entries stay in a tortured Bolt, and votedEvery how
	// often the others go, in steps.
	votedBehind = 50
	votedEvery  = 7
)

// candidate is whom a group votes for in a term; the length of the name changes
// where all else in the file is.
func candidate(gid, term uint64) string { return fmt.Sprintf("%0*d-%d", term%300+1, term, gid) }

func boltPath(dir string, gid uint64) string { return filepath.Join(dir, fmt.Sprint("bolt", gid)) }

// voteForEver stores an entry, its term and a vote in that, and the same again
// with the next one. Now and then the oldest entries go.
func voteForEver(dir string, gid uint64) {
	b, err := OpenBolt(boltPath(dir, gid), Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }, CacheBytes: -1})
	if err != nil {
		panic(err)
	}
	last, err := b.LastIndex()
	for term := last + 1; err == nil; term++ {
		say("vote %d %d", gid, term)
		err = errors.Join(b.StoreLog(tortured(gid, term, term)), b.SetUint64(raftKeys[0], term),
			b.SetUint64(raftKeys[1], term), b.Set(raftKeys[2], []byte(candidate(gid, term))))
		if err == nil && term%votedEvery == 0 && term > votedBehind {
			err = b.DeleteRange(0, term-votedBehind)
		}
		if err == nil {
			say("voted %d", gid)
		}
	}
	panic(err)
}

// torturedVote is what is known of a group's Bolt. A step writes its term to the
// entries, the term, the term of the vote and the vote, in this order.
type torturedVote struct {
	sure   [4]uint64 // each of them, as it was answered for or found
	first  uint64    // entries before it have gone
	asking uint64    // the term that was asked for last
}

// answered says that the last step is done.
func (v *torturedVote) answered() {
	for i := range v.sure {
		v.sure[i] = v.asking
	}
	if v.asking%votedEvery == 0 && v.asking > votedBehind {
		v.first = v.asking - votedBehind + 1
	}
}

// compare reads a group's Bolt, which becomes what is known.
func (v *torturedVote) compare(t *testing.T, dir string, gid uint64) {
	t.Helper()
	b, err := OpenBolt(boltPath(dir, gid), quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	first, last, err := b.bounds()
	if err != nil {
		t.Fatal(err)
	}
	found := [4]uint64{last, boltNumber(t, b, raftKeys[0]), boltNumber(t, b, raftKeys[1]), v.sure[3]}
	name, _ := b.Get(raftKeys[2])
	if v.asking > v.sure[3] && string(name) == candidate(gid, v.asking) {
		found[3] = v.asking
	}
	ok := found[3] == 0 && len(name) == 0 || string(name) == candidate(gid, found[3])
	for i, got := range found {
		ok = ok && (got == v.sure[i] || got == v.asking && (i == 0 || found[i-1] == v.asking))
	}
	if reach := max(last, votedBehind) - votedBehind + 1; !ok || first < v.first || last > 0 && first > reach {
		t.Fatalf("group %d has %d..%d, the term %d, and in %d a vote for %.20q; answered for were %v from %d on, asked for %d",
			gid, first, last, found[1], found[2], name, v.sure, v.first, v.asking)
	}
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		if err := b.GetLog(i, &l); err != nil || l.Term != i || sum(&l) != sum(tortured(gid, i, i)) {
			t.Fatalf("group %d, entry %d: term %d, %v", gid, i, l.Term, err)
		}
	}
	v.sure, v.first, v.asking = found, first, last
}

// boltNumber reads a number, 0 if there is none.
func boltNumber(t *testing.T, b *Bolt, k []byte) uint64 {
	t.Helper()
	n, err := b.GetUint64(k)
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	return n
}
