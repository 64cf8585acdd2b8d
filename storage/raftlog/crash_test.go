package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

// naive is what a log must hold, and what it may hold if a request that nobody
// was answered for took effect.
type naive struct {
	sure, maybe []string
}

// program drives a WAL with random requests, and keeps book in naive models.
type program struct {
	r      *rand.Rand
	w      *WAL
	mu     sync.Mutex // guards models while an injector looks
	models map[uint64]*naive
	logs   map[uint64][]*raft.Log // what each group holds
	term   uint64
}

const programGroups = 3

func newProgram(seed uint64, w *WAL) *program {
	p := &program{r: rand.New(rand.NewPCG(seed, 7)), w: w, models: map[uint64]*naive{}, logs: map[uint64][]*raft.Log{}, term: 1}
	for gid := range uint64(programGroups) {
		p.models[gid] = &naive{}
	}
	return p
}

func list(logs []*raft.Log) (out []string) {
	for _, l := range logs {
		out = append(out, describe(l))
	}
	return out
}

// step makes one random request; false if it failed.
func (p *program) step(t *testing.T) bool {
	gid := p.r.Uint64N(programGroups)
	g, err := p.w.Group(gid)
	if err != nil {
		t.Fatal(err)
	}
	held := p.logs[gid]
	next := p.nextIndex(held)
	var do func() error
	var after []*raft.Log
	switch n := p.r.IntN(10); {
	case n < 7 || len(held) == 0:
		if len(held) > 0 && p.r.IntN(20) == 0 {
			next += p.r.Uint64N(5) // a snapshot was installed
		}
		if len(held) > 0 && next > held[len(held)-1].Index+1 {
			held = nil
		}
		var logs []*raft.Log
		for range 1 + p.r.IntN(3) {
			l := entry(next, p.term, p.r.IntN(700))
			next++
			logs = append(logs, l)
		}
		after = slices.Concat(held, logs)
		do = func() error { return g.StoreLogs(logs) }
	case n < 9:
		cut := p.r.IntN(len(held)) + 1
		after = held[cut:]
		do = func() error { return g.DeleteRange(held[0].Index, held[cut-1].Index) }
	default:
		cut := p.r.IntN(len(held))
		after = held[:cut]
		p.term++
		do = func() error { return g.DeleteRange(held[cut].Index, held[len(held)-1].Index) }
	}
	m := p.models[gid]
	p.mu.Lock()
	m.maybe = list(after)
	p.mu.Unlock()
	if do() != nil {
		return false
	}
	p.mu.Lock()
	m.sure = m.maybe
	p.mu.Unlock()
	p.logs[gid] = after
	return true
}

func (p *program) nextIndex(held []*raft.Log) uint64 {
	if len(held) == 0 {
		return 1 + p.r.Uint64N(1000)
	}
	return held[len(held)-1].Index + 1
}

// check opens what a crash left and compares. A batch that was not answered
// may be there in part: a log may lie between sure and maybe.
func (p *program) check(t *testing.T, what string, fs *vfs.Mem) {
	t.Helper()
	w, err := OpenWAL(fs, "/wal", quietOptions(t))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer w.Close()
	for gid, m := range p.models {
		g, err := w.Group(gid)
		if err != nil {
			t.Fatalf("%s: group %d: %v", what, gid, err)
		}
		if got := contents(t, g); !m.allows(got) {
			t.Fatalf("%s: group %d has\n%s\nwant\n%s\nor up to\n%s", what, gid,
				strings.Join(got, " "), strings.Join(m.sure, " "), strings.Join(m.maybe, " "))
		}
	}
}

// allows reports whether got is sure, maybe, or a step of the way between: an
// append that is there in part, or one that begins the log anew and got as far
// as dropping what was before.
func (m *naive) allows(got []string) bool {
	if slices.Equal(got, m.sure) || slices.Equal(got, m.maybe) {
		return true
	}
	if len(got) <= len(m.maybe) && slices.Equal(got, m.maybe[:len(got)]) {
		appended := len(m.maybe) > len(m.sure) && slices.Equal(m.sure, m.maybe[:len(m.sure)])
		anew := len(m.sure) > 0 && len(m.maybe) > 0 && m.maybe[0] != m.sure[0] && !slices.Contains(m.sure, m.maybe[0])
		return anew || appended && len(got) >= len(m.sure)
	}
	return false
}

func quietOptions(t testing.TB) Options {
	o := walOptions(t)
	o.CacheBytes = -1
	o.Log = slog.New(slog.DiscardHandler)
	return o
}

// A crash at any moment leaves what was answered, and nothing that was not asked for.
func TestACrashAnywhereKeepsWhatWasAnswered(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			fs := vfs.NewMem()
			w := openWAL(t, fs, quietOptions(t))
			p := newProgram(seed, w)
			torn := rand.New(rand.NewPCG(seed, 9))
			var one sync.Mutex
			fs.Inject(func(op vfs.Op, name string) error {
				if op == vfs.OpRead || op == vfs.OpList {
					return nil
				}
				one.Lock()
				defer one.Unlock()
				p.mu.Lock()
				defer p.mu.Unlock()
				for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing} {
					p.check(t, fmt.Sprintf("before %s %s, loss %d", op, name, loss), fs.Crash(loss))
				}
				for range 2 {
					once := fs.CrashTorn(torn)
					p.check(t, fmt.Sprintf("before %s %s, torn", op, name), once)
					p.check(t, "again", once.CrashTorn(torn))
				}
				return nil
			})
			for i := range 120 {
				if !p.step(t) {
					t.Fatal("a request failed")
				}
				if i%40 == 39 {
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					w = openWAL(t, fs, quietOptions(t))
					p.w = w
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Each call of the file system fails once. The WAL ends its process, or the
// request fails and the log goes on; what it answered for is there.
func TestAnErrorAnywhereLosesNothing(t *testing.T) {
	for _, failure := range []error{errors.New("broken"), fmt.Errorf("write: %w", syscall.ENOSPC)} {
		failed := true
		for at := 0; failed; at++ {
			failed = false
			fs := vfs.NewMem()
			if err := errors.Join(fs.MkdirAll("/wal"), fs.SyncDir("/")); err != nil {
				t.Fatal(err)
			}
			o := quietOptions(t)
			fatal := 0
			var mu sync.Mutex
			o.Fatal = func(error) { mu.Lock(); defer mu.Unlock(); fatal++ }
			calls := 0
			fs.Inject(func(vfs.Op, string) error {
				mu.Lock()
				defer mu.Unlock()
				calls++
				if calls-1 == at {
					failed = true
					return failure
				}
				return nil
			})
			w, err := OpenWAL(fs, "/wal", o)
			if err != nil {
				continue
			}
			p := newProgram(3, w)
			for range 60 {
				if !p.step(t) && fatal > 0 {
					break
				}
			}
			fs.Inject(nil)
			for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseNothing} {
				p.check(t, fmt.Sprintf("call %d failed with %v, loss %d", at, failure, loss), fs.Crash(loss))
			}
			if err := w.Close(); err != nil && fatal == 0 {
				t.Fatalf("call %d: %v", at, err)
			}
		}
	}
}

// One bit of one file is wrong. No wrong entry is served: either all is there,
// or the group, or all groups, are said to be damaged.
func TestAFlippedBitIsNeverServed(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, quietOptions(t))
	p := newProgram(11, w)
	for range 80 {
		if !p.step(t) {
			t.Fatal("a request failed")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	detected := 0
	for range 3000 {
		c := fs.Crash(vfs.LoseNothing)
		names, err := c.List("/wal")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("/wal", names[r.IntN(len(names))])
		off, bit := flip(t, c, name, r)
		w, err := OpenWAL(c, "/wal", quietOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		for gid, m := range p.models {
			g, err := w.Group(gid)
			if err != nil {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
					t.Fatalf("%s at %d: %v", name, off, err)
				}
				detected++
				continue
			}
			if got := contents(t, g); !slices.Equal(got, m.sure) {
				t.Fatalf("%s at %d, bit %d: group %d has\n%v\nwant\n%v", name, off, bit, gid, got, m.sure)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, again := OpenWAL(c, "/wal", quietOptions(t))
		if again != nil {
			t.Fatal(again)
		}
	}
	if detected < 100 {
		t.Errorf("damage was found %d times only", detected)
	}
}

func flip(t *testing.T, fs vfs.FS, name string, r *rand.Rand) (off int64, bit int) {
	t.Helper()
	f, err := fs.Edit(name)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	off, bit = r.Int64N(size), r.IntN(8)
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	return off, bit
}

// A killed process leaves writes in the kernel that are on no disk yet. What
// the next one shows of them outlives a power cut.
func TestRecoverySyncsWhatItShows(t *testing.T) {
	fs := vfs.NewMem()
	o := quietOptions(t)
	o.Fatal = func(error) {}
	w := openWAL(t, fs, o)
	append1(t, group(t, w, 1), 1, 3, 1, 100)
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			return errors.New("killed")
		}
		return nil
	})
	if err := group(t, w, 1).StoreLog(entry(4, 1, 100)); err == nil {
		t.Fatal("an entry is acknowledged without a sync")
	}
	var l raft.Log
	if err := group(t, w, 1).GetLog(4, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry is shown without a sync: %v", err)
	}
	fs.Inject(nil)
	if err := group(t, w, 1).StoreLog(entry(4, 1, 100)); err == nil {
		t.Error("the log goes on after a failed sync")
	}
	w = openWAL(t, fs, quietOptions(t))
	want := contents(t, group(t, w, 1))
	if len(want) != 4 {
		t.Errorf("the next process shows %v", want)
	}
	crashed := openWAL(t, fs.Crash(vfs.LoseAll), quietOptions(t))
	if got := contents(t, group(t, crashed, 1)); !slices.Equal(got, want) {
		t.Errorf("a power cut leaves %v of %v", got, want)
	}
	crashed.Close()
	w.Close()
}

// An entry that is deleted by the write just before is not carried after it.
func TestACarriedEntryStaysDeleted(t *testing.T) {
	fs := vfs.NewMem()
	w := openWAL(t, fs, quietOptions(t))
	g := group(t, w, 1)
	append1(t, g, 1, 4, 1, 100)
	moved := carriage{log: *entry(2, 1, 100)}
	moved.at, _ = g.find(2)
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			once.Do(func() { close(in); <-out })
		}
		return nil
	})
	var work sync.WaitGroup
	work.Go(func() { append1(t, g, 5, 5, 1, 10) })
	<-in
	queued := func(n int) func() bool {
		return func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.queue) == n }
	}
	work.Go(func() {
		if err := g.DeleteRange(1, 3); err != nil {
			t.Error(err)
		}
	})
	eventually(t, queued(1))
	work.Go(func() {
		if err := w.submit(&request{group: g, do: doCarry, carry: []carriage{moved}}, false); err != nil {
			t.Error(err)
		}
	})
	eventually(t, queued(2))
	close(out)
	work.Wait()
	want := contents(t, g)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWAL(t, fs, quietOptions(t))
	defer w.Close()
	if got := contents(t, group(t, w, 1)); !slices.Equal(got, want) || len(got) != 2 {
		t.Errorf("got %v, want %v", got, want)
	}
}
