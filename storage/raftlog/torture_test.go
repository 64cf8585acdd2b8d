package raftlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/snapshot"
	"warren/storage/vfs"
)

const (
	tortureGroups = 4
	tortureDir    = "RAFTLOG_TORTURE_DIR"   // set in the child: where it works
	torturePoint  = "RAFTLOG_TORTURE_POINT" // and where it ends
	tortureVotes  = "RAFTLOG_TORTURE_VOTES" // and that it votes, and does nothing else
	tortureTime   = "RAFTLOG_TORTURE_TIME"  // how long each of these tests takes, as 1h
)

// tortureLength is how long such a test goes on.
func tortureLength(t *testing.T) time.Duration {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := os.Getenv(tortureTime)
	if s == "" {
		return 10 * time.Second
	}
	length, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return length
}

// tortured is an entry whose bytes follow from its group, index and term.
func tortured(gid, index, term uint64) *raft.Log {
	r := rand.New(rand.NewPCG(gid<<32|index, term))
	n := r.IntN(3000)
	if r.IntN(200) == 0 {
		n = r.IntN(2 << 20)
	}
	data := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], r.Uint64())
	}
	return &raft.Log{Index: index, Term: term, Data: data, AppendedAt: time.Unix(1, int64(index))}
}

func sum(l *raft.Log) uint64 {
	h := fnv.New64a()
	h.Write(l.Data)
	return h.Sum64()
}

func openTortured(t testing.TB, fs vfs.FS, dir string) *WAL {
	t.Helper()
	w, err := OpenWAL(fs, filepath.Join(dir, "wal"), Options{
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }, FileBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func openSnapshots(t testing.TB, fs vfs.FS, dir string, gid uint64) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(fs, filepath.Join(dir, fmt.Sprint("snapshots", gid)), 2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// torturedState is what a group's snapshot at index holds.
func torturedState(gid, index uint64) []byte { return tortured(gid, index, 1<<63).Data }

// TestTortureChild is the process that TestTorture kills. It says what it is
// about to do before it does it, and that it is done after it was answered.
func TestTortureChild(t *testing.T) {
	dir := os.Getenv(tortureDir)
	if dir == "" {
		t.Skip("only for TestTorture")
	}
	var work sync.WaitGroup
	if os.Getenv(tortureVotes) != "" {
		for gid := range uint64(tortureGroups) {
			work.Go(func() { voteForEver(dir, gid) })
		}
		work.Wait()
	}
	fs := &deadly{point: parsePoint(os.Getenv(torturePoint))}
	w := openTortured(t, fs, dir)
	for gid := range uint64(tortureGroups) {
		g := group(t, w, gid)
		child := &torturedGroup{gid: gid, log: g, snapshots: openSnapshots(t, fs, dir, gid),
			r: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), gid)), term: uint64(time.Now().UnixNano())}
		work.Go(func() {
			for {
				if err := child.step(); err != nil {
					panic(err)
				}
			}
		})
	}
	work.Go(func() { pageForEver(fs, dir) })
	work.Wait()
}

// say writes a line, at once and whole: a pipe takes one as short as this in
// one piece.
func say(format string, args ...any) { fmt.Printf("torture "+format+"\n", args...) }

// torturedGroup does in the child what Raft does with a group.
type torturedGroup struct {
	gid       uint64
	log       *GroupLog
	snapshots *snapshot.Store
	r         *rand.Rand
	term      uint64
}

func (c *torturedGroup) step() (err error) {
	first, _ := c.log.FirstIndex()
	last, _ := c.log.LastIndex()
	switch n := c.r.IntN(100); {
	case n < 2 && last > first:
		from := last - c.r.Uint64N(min(5, last-first))
		c.term++
		say("try %d %d %d %d", c.gid, first, from-1, 0)
		err = c.log.DeleteRange(from, last)
	case n < 5 && last-first > 30:
		to := first + c.r.Uint64N(last-first-10)
		say("snap %d %d", c.gid, to)
		if err := c.snap(to); err != nil {
			return err
		}
		say("snapped %d", c.gid)
		say("try %d %d %d %d", c.gid, to+1, last, 0)
		err = c.log.DeleteRange(first, to)
	default:
		var logs []*raft.Log
		for range 1 + c.r.IntN(4) {
			last++
			logs = append(logs, tortured(c.gid, last, c.term))
		}
		say("try %d %d %d %d", c.gid, max(first, 1), last, c.term)
		err = c.log.StoreLogs(logs)
	}
	if err == nil {
		say("did %d", c.gid)
	}
	return err
}

func (c *torturedGroup) snap(index uint64) error {
	k, err := c.snapshots.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	if _, err := k.Write(torturedState(c.gid, index)); err != nil {
		return err
	}
	return k.Close()
}

// torturedLog is what is known of a group: bounds and terms that were answered
// for, and what was asked for last; and the same of its snapshots.
type torturedLog struct {
	first, last       uint64
	terms             map[uint64]uint64
	trying            bool
	tFirst, tLast, tt uint64

	snapped, snapping uint64

	votes torturedVote
}

// hear takes a line of the child. One that was cut short by the kill came
// before anything was done.
func (l *torturedLog) hear(f []string) {
	number := func(i int) (n uint64) { n, _ = strconv.ParseUint(f[i], 10, 64); return n }
	switch {
	case f[1] == "vote" && len(f) == 4:
		l.votes.asking = number(3)
	case f[1] == "voted":
		l.votes.answered()
	case f[1] == "did":
		l.settle(l.tFirst, l.tLast)
	case f[1] == "snapped":
		l.snapped = max(l.snapped, l.snapping) // one after a restart may be older
	case f[1] == "snap" && len(f) == 4:
		l.snapping = number(3)
	case f[1] == "try" && len(f) == 6:
		l.trying, l.tFirst, l.tLast, l.tt = true, number(3), number(4), number(5)
	}
}

// settle makes first..last what the log holds.
func (l *torturedLog) settle(first, last uint64) {
	for i := l.last + 1; i <= last; i++ {
		l.terms[i] = l.tt
	}
	for i := range l.terms {
		if i < first || i > last {
			delete(l.terms, i)
		}
	}
	l.first, l.last, l.trying = first, last, false
}

// compare reads the group's log, which becomes what is known.
func (l *torturedLog) compare(t *testing.T, g *GroupLog) {
	t.Helper()
	first, _ := g.FirstIndex()
	last, _ := g.LastIndex()
	ok := first == l.first && last == l.last || len(l.terms) == 0 && last == 0
	if l.trying && !ok {
		partly := l.tLast > l.last && last > l.last && last < l.tLast // an append, there in part
		ok = first == l.tFirst && (last == l.tLast || partly)
	}
	if !ok {
		t.Fatalf("group %d has %d..%d; answered for were %d..%d, asked for %v %d..%d", g.gid, first, last, l.first, l.last, l.trying, l.tFirst, l.tLast)
	}
	if last > 0 {
		l.settle(first, last)
	}
	l.trying = false
	for i := first; i <= last && last > 0; i++ {
		var got raft.Log
		if err := g.GetLog(i, &got); err != nil {
			t.Fatal(err)
		}
		if want := tortured(g.gid, i, l.terms[i]); got.Term != want.Term || sum(&got) != sum(want) {
			t.Fatalf("group %d entry %d: term %d, want %d", g.gid, i, got.Term, want.Term)
		}
	}
}

// compareSnapshots reads the newest snapshot, which becomes what is known. The
// log goes on where it ends.
func (l *torturedLog) compareSnapshots(t *testing.T, g *GroupLog, s *snapshot.Store) {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	newest := uint64(0)
	for i, m := range list {
		_, r, err := s.Open(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(b, torturedState(g.gid, m.Index)) {
			t.Fatalf("snapshot %d of group %d has %d bytes: %v", m.Index, g.gid, len(b), err)
		}
		if i == 0 {
			newest = m.Index
		}
	}
	if newest != l.snapped && newest != l.snapping {
		t.Fatalf("the newest snapshot of group %d is %d; %d was answered for, %d asked for", g.gid, newest, l.snapped, l.snapping)
	}
	if first, _ := g.FirstIndex(); first > newest+1 {
		t.Fatalf("the log of group %d begins at %d, and its snapshot ends at %d", g.gid, first, newest)
	}
	l.snapped, l.snapping = newest, newest
}

// A process is killed over and over, on real files: at random moments, and
// before, in and after calls of every kind that change what is on disk. Calls of
// bbolt's are none of these: see torturevotes_test.go.
func TestTorture(t *testing.T) {
	length := tortureLength(t)
	dir := t.TempDir()
	logs := make([]torturedLog, tortureGroups)
	for i := range logs {
		logs[i].terms = map[uint64]uint64{}
	}
	kills, points := 0, map[vfs.Op]int{}
	for end := time.Now().Add(length); time.Now().Before(end); kills++ {
		if kills%3 == 2 {
			torment(t, dir, failPoint{}, true, logs)
			for gid := range logs {
				logs[gid].votes.compare(t, dir, uint64(gid))
			}
			continue
		}
		point := randomPoint()
		if torment(t, dir, point, false, logs) {
			points[point.op]++
		}
		w := openTortured(t, vfs.OS{}, dir)
		for gid := range logs {
			g := group(t, w, uint64(gid))
			logs[gid].compare(t, g)
			logs[gid].compareSnapshots(t, g, openSnapshots(t, vfs.OS{}, dir, uint64(gid)))
		}
		wantPaged(t, dir)
		if rand.IntN(2) == 0 { // else as if this one was killed, too: it wrote nothing
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			w.keeper.end()
			if err := w.closeFiles(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d kills, at these calls: %v; the groups came to the terms %d, %d, %d and %d", kills, points,
		logs[0].votes.asking, logs[1].votes.asking, logs[2].votes.asking, logs[3].votes.asking)
}

// randomPoint is where a child ends, in every second case. What is called
// seldom is reached soon all the same.
func randomPoint() failPoint {
	common := []vfs.Op{vfs.OpWrite, vfs.OpSync}
	rare := []vfs.Op{vfs.OpRename, vfs.OpRemove, vfs.OpAllocate, vfs.OpCreate, vfs.OpMkdir, vfs.OpSyncDir, vfs.OpLink, vfs.OpWriteOut}
	moments := []when{before, half, after}
	p := failPoint{when: moments[rand.IntN(len(moments))]}
	switch rand.IntN(4) {
	case 0:
		p.op, p.n = common[rand.IntN(len(common))], 1+rand.IntN(100)
	case 1:
		p.op, p.n = rare[rand.IntN(len(rare))], 1+rand.IntN(10)
	}
	return p
}

// torment runs a child until it ends at its point, or at a random moment, and
// takes down what it says. It reports whether the child came to its point.
func torment(t *testing.T, dir string, point failPoint, votes bool, logs []torturedLog) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestTortureChild$", "-test.timeout", "0")
	cmd.Env = append(os.Environ(), tortureDir+"="+dir, torturePoint+"="+point.String())
	if votes {
		cmd.Env = append(cmd.Env, tortureVotes+"=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var late atomic.Bool
	length := 50*time.Millisecond + rand.N(500*time.Millisecond)
	if point.op != "" {
		length *= 4 // it has to come so far
	}
	kill := time.AfterFunc(length, func() {
		late.Store(true)
		_ = cmd.Process.Kill() // it may have ended just now
	})
	defer kill.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || f[0] != "torture" {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil || gid >= tortureGroups {
			t.Fatalf("the child says %q", lines.Text())
		}
		logs[gid].hear(f)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself, with the point %q: %v", point, err)
	}
	return !late.Load()
}

// Crashes of every kind, in memory, for as long as is wanted.
func TestTortureOfCrashes(t *testing.T) {
	length := tortureLength(t)
	begin := uint64(time.Now().UnixNano())
	seed := begin
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); seed++ {
		crashing(t, seed, func(p *program) { p.run(t, 12) })
		crashingFull(t, seed, 30)
	}
	t.Logf("%d programs, the seeds begin at %d", seed-begin, begin)
}
