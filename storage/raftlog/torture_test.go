package raftlog

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

const (
	tortureGroups = 4
	tortureDir    = "RAFTLOG_TORTURE_DIR"  // set in the child: where it works
	tortureTime   = "RAFTLOG_TORTURE_TIME" // how long the test takes, as 1h
)

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

func openTortured(t testing.TB, dir string) *WAL {
	t.Helper()
	w, err := OpenWAL(vfs.OS{}, filepath.Join(dir, "wal"), Options{
		Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }, FileBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestTortureChild is the process that TestTorture kills. It says what it is
// about to do before it does it, and that it is done after it was answered.
func TestTortureChild(t *testing.T) {
	dir := os.Getenv(tortureDir)
	if dir == "" {
		t.Skip("only for TestTorture")
	}
	w := openTortured(t, dir)
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf("torture "+format+"\n", args...)
	}
	var work sync.WaitGroup
	for gid := range uint64(tortureGroups) {
		work.Go(func() {
			g := group(t, w, gid)
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), gid))
			for term := uint64(time.Now().UnixNano()); ; {
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				var err error
				switch n := r.IntN(100); {
				case n < 2 && last > first:
					from := last - r.Uint64N(min(5, last-first))
					term++
					say("try %d %d %d %d", gid, first, from-1, 0)
					err = g.DeleteRange(from, last)
					say("did %d", gid)
				case n < 5 && last-first > 30:
					to := first + r.Uint64N(last-first-10)
					say("try %d %d %d %d", gid, to+1, last, 0)
					err = g.DeleteRange(first, to)
					say("did %d", gid)
				default:
					var logs []*raft.Log
					for range 1 + r.IntN(4) {
						last++
						logs = append(logs, tortured(gid, last, term))
					}
					say("try %d %d %d %d", gid, max(first, 1), last, term)
					err = g.StoreLogs(logs)
					say("did %d", gid)
				}
				if err != nil {
					panic(err)
				}
			}
		})
	}
	work.Wait()
}

// torturedLog is what is known of a group: bounds and terms that were answered
// for, and what was asked for last.
type torturedLog struct {
	first, last       uint64
	terms             map[uint64]uint64
	trying            bool
	tFirst, tLast, tt uint64
}

func (l *torturedLog) hear(f []string) {
	if f[1] == "did" {
		l.settle(l.tFirst, l.tLast)
		return
	}
	l.trying = true
	l.tFirst, _ = strconv.ParseUint(f[3], 10, 64)
	l.tLast, _ = strconv.ParseUint(f[4], 10, 64)
	l.tt, _ = strconv.ParseUint(f[5], 10, 64)
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

// A process is killed at random moments, over and over, on real files.
func TestTorture(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	length := 10 * time.Second
	if s := os.Getenv(tortureTime); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	logs := make([]torturedLog, tortureGroups)
	for i := range logs {
		logs[i].terms = map[uint64]uint64{}
	}
	kills, done := 0, 0
	for end := time.Now().Add(length); time.Now().Before(end); kills++ {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestTortureChild$", "-test.timeout", "0")
		cmd.Env = append(os.Environ(), tortureDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(50*time.Millisecond+rand.N(500*time.Millisecond), func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		})
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 3 || f[0] != "torture" || f[1] == "try" && len(f) < 6 {
				continue // cut short by the kill, before anything was done
			}
			gid, err := strconv.ParseUint(f[2], 10, 64)
			if err != nil || gid >= tortureGroups {
				t.Fatalf("the child says %q", lines.Text())
			}
			logs[gid].hear(f)
			done++
		}
		if err := cmd.Wait(); err == nil || kill.Stop() {
			t.Fatalf("the child ended by itself: %v", err)
		}
		w := openTortured(t, dir)
		for gid := range logs {
			logs[gid].compare(t, group(t, w, uint64(gid)))
		}
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
	t.Logf("%d kills, %d words of the child", kills, done)
}
