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
	sure    []string
	maybe   [][]string
	damaged bool // and so it is said, until it is dropped
}

// program drives a WAL with random requests, and keeps book in naive models.
type program struct {
	r       *rand.Rand
	w       *WAL
	mu      sync.Mutex // guards models while an injector looks
	models  map[uint64]*naive
	clients []*client
}

// client is the one that writes a group's log, as Raft is.
type client struct {
	p    *program
	gid  uint64
	r    *rand.Rand
	held []*raft.Log // what the log holds
	term uint64
}

const programGroups = 3

func newProgram(seed uint64, w *WAL) *program {
	p := &program{r: rand.New(rand.NewPCG(seed, 7)), w: w, models: map[uint64]*naive{}}
	for gid := range uint64(programGroups) {
		p.models[gid] = &naive{}
		p.clients = append(p.clients, &client{p: p, gid: gid, r: rand.New(rand.NewPCG(seed, 100+gid)), term: 1})
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
	return p.clients[p.r.IntN(len(p.clients))].step(t)
}

// run has all clients make steps at once.
func (p *program) run(t *testing.T, steps int) {
	var work sync.WaitGroup
	for _, c := range p.clients {
		work.Go(func() {
			for range steps {
				if !c.step(t) {
					t.Error("a request failed")
					return
				}
			}
		})
	}
	work.Wait()
}

// step makes one random request; false if it failed.
func (c *client) step(t *testing.T) bool {
	g, err := c.p.w.Group(c.gid)
	if err != nil {
		t.Error(err)
		return false
	}
	held, next := c.held, c.nextIndex()
	var do func() error
	var after []*raft.Log
	switch n := c.r.IntN(10); {
	case n < 7 || len(held) == 0:
		if len(held) > 0 && c.r.IntN(20) == 0 {
			next += c.r.Uint64N(5) // a snapshot was installed
		}
		if len(held) > 0 && next > held[len(held)-1].Index+1 {
			held = nil
		}
		var logs []*raft.Log
		for range 1 + c.r.IntN(3) {
			l := entry(next, c.term, c.r.IntN(700))
			next++
			logs = append(logs, l)
		}
		after = slices.Concat(held, logs)
		do = func() error { return g.StoreLogs(logs) }
	case n < 9:
		cut := c.r.IntN(len(held)) + 1
		after = held[cut:]
		do = func() error { return g.DeleteRange(held[0].Index, held[cut-1].Index) }
	default:
		cut := c.r.IntN(len(held))
		after = held[:cut]
		c.term++
		do = func() error { return g.DeleteRange(held[cut].Index, held[len(held)-1].Index) }
	}
	m, want := c.p.models[c.gid], list(after)
	c.p.mu.Lock()
	m.maybe = append(m.maybe, want)
	c.p.mu.Unlock()
	if do() != nil {
		return false
	}
	c.p.mu.Lock()
	m.sure, m.maybe = want, nil
	c.p.mu.Unlock()
	c.held = after
	return true
}

func (c *client) nextIndex() uint64 {
	if len(c.held) == 0 {
		return 1 + c.r.Uint64N(1000)
	}
	return c.held[len(c.held)-1].Index + 1
}

// check opens what a crash left and compares. A batch that was not answered
// may be there in part: a log may lie between sure and maybe.
func (p *program) check(t *testing.T, what string, fs *vfs.Mem) {
	t.Helper()
	if t.Failed() {
		return // once is enough
	}
	w, err := OpenWAL(fs, "/wal", quietOptions(t))
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer w.Close()
	for gid, m := range p.models {
		g, err := w.Group(gid)
		if m.damaged && errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil || m.damaged && len(m.maybe) == 0 {
			t.Errorf("%s: group %d: %v", what, gid, err)
			return
		}
		if got := contents(t, g); !m.allows(got) {
			t.Errorf("%s: group %d has\n%v\nwant\n%v\nor up to\n%v", what, gid, got, m.sure, m.maybe)
		}
	}
}

// allows reports whether got is sure, or a step of the way to what was asked for.
func (m *naive) allows(got []string) bool {
	return slices.Equal(got, m.sure) || slices.ContainsFunc(m.maybe, func(asked []string) bool { return m.leads(got, asked) })
}

// leads reports whether got is what was asked for, or an append that is there
// in part, or one that begins the log anew and got as far as dropping what was
// before.
func (m *naive) leads(got, asked []string) bool {
	if slices.Equal(got, asked) {
		return true
	}
	if len(got) <= len(asked) && slices.Equal(got, asked[:len(got)]) {
		appended := len(asked) > len(m.sure) && slices.Equal(m.sure, asked[:len(m.sure)])
		anew := len(m.sure) > 0 && len(asked) > 0 && asked[0] != m.sure[0] && !slices.Contains(m.sure, asked[0])
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

// crashing runs a program on a file system of its own, and before each of its
// calls looks at what crashes leave there.
func crashing(t *testing.T, seed uint64, steps func(p *program)) {
	t.Helper()
	fs := vfs.NewMem()
	p := newProgram(seed, openWAL(t, fs, quietOptions(t)))
	torn := rand.New(rand.NewPCG(seed, 9))
	fs.Inject(func(op vfs.Op, name string) error {
		p.crashes(t, fs, torn, op, name)
		return nil
	})
	for range 3 {
		steps(p)
		if err := p.w.Close(); err != nil {
			t.Fatal(err)
		}
		p.w = openWAL(t, fs, quietOptions(t))
	}
	if err := p.w.Close(); err != nil {
		t.Fatal(err)
	}
}

// crashes looks at what crashes leave right now.
func (p *program) crashes(t *testing.T, fs *vfs.Mem, torn *rand.Rand, op vfs.Op, name string) {
	if op == vfs.OpRead || op == vfs.OpList || op == vfs.OpOpen || op == vfs.OpSize || op == vfs.OpClose {
		return
	}
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
}

// crashingFull is crashing on a disk that is full now and then: what needs room
// fails, and a write half done.
func crashingFull(t *testing.T, seed uint64, steps int) {
	t.Helper()
	d := newFullDisk()
	o := quietOptions(t)
	o.Fatal = func(error) {} // by chance there may be no room for what replaces a deleted end
	p := newProgram(seed, openWAL(t, d, o))
	torn := rand.New(rand.NewPCG(seed, 9))
	d.Inject(func(op vfs.Op, name string) error {
		p.crashes(t, d.Mem, torn, op, name)
		if d.full.Load() && (op == vfs.OpAllocate || op == vfs.OpCreate || op == vfs.OpWrite && seed%2 == 0) {
			return syscall.ENOSPC
		}
		return nil
	})
	for range 4 {
		for range steps {
			d.full.Store(p.r.IntN(3) > 0 && d.full.Load() || p.r.IntN(20) == 0)
			p.step(t)
		}
		d.full.Store(false)
		if err := p.w.Close(); err != nil && p.w.failed == nil {
			t.Fatal(err)
		}
		p.w = openWAL(t, d, o)
		p.adopt(t)
	}
	if err := p.w.Close(); err != nil {
		t.Fatal(err)
	}
}

// adopt takes for sure what is there after a restart.
func (p *program) adopt(t *testing.T) {
	t.Helper()
	for _, c := range p.clients {
		m := p.models[c.gid]
		if m.damaged {
			continue
		}
		g := group(t, p.w, c.gid)
		got := contents(t, g)
		if !m.allows(got) {
			t.Fatalf("group %d has\n%v\nwant\n%v\nor up to\n%v", c.gid, got, m.sure, m.maybe)
		}
		first, _ := g.FirstIndex()
		c.held = nil
		for i := range got {
			var l raft.Log
			if err := g.GetLog(first+uint64(i), &l); err != nil {
				t.Fatal(err)
			}
			c.held = append(c.held, &l)
		}
		p.mu.Lock()
		m.sure, m.maybe = got, nil
		p.mu.Unlock()
	}
}

// A disk that is full for a while takes no part in what a crash may leave.
func TestACrashOnAFullDiskKeepsWhatWasAnswered(t *testing.T) {
	seeds, steps := uint64(3), 40
	if testing.Short() {
		seeds, steps = 2, 12
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashingFull(t, seed, steps) })
	}
}

// A crash at any moment leaves what was answered, and nothing that was not asked for.
func TestACrashAnywhereKeepsWhatWasAnswered(t *testing.T) {
	seeds, steps := uint64(3), 40
	if testing.Short() {
		seeds, steps = 1, 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			crashing(t, seed, func(p *program) {
				for range steps {
					if !p.step(t) {
						t.Fatal("a request failed")
					}
				}
			})
		})
		t.Run(fmt.Sprint(seed, " at once"), func(t *testing.T) {
			crashing(t, seed, func(p *program) { p.run(t, steps/3) })
		})
	}
}

// Each call of the file system fails once. The WAL ends its process, or the
// request fails and the log goes on; what it answered for is there.
func TestAnErrorAnywhereLosesNothing(t *testing.T) {
	for _, failure := range []error{
		errors.New("broken"), fmt.Errorf("write: %w", syscall.ENOSPC),
		&vfs.HalfDone{Err: errors.New("broken")}, &vfs.HalfDone{Err: syscall.ENOSPC},
	} {
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

// Each call of an opening fails once, on what a crash has left: the next opening
// finds all of it, and so does one after the power has gone as well.
func TestAnErrorWhileALogIsOpenedLosesNothing(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		fs := vfs.NewMem()
		p := newProgram(seed, openWAL(t, fs, quietOptions(t)))
		for range 40 {
			if !p.step(t) {
				t.Fatal("a request failed")
			}
		}
		torn := rand.New(rand.NewPCG(seed, 9))
		for _, failure := range []error{
			errors.New("broken"), &vfs.HalfDone{Err: errors.New("broken")}, &vfs.HalfDone{Err: syscall.ENOSPC}, &vfs.Done{Err: errors.New("broken")},
		} {
			for at, failed := 0, true; failed && !t.Failed(); at++ {
				failed = false
				left, calls := fs.CrashTorn(torn), 0
				var mu sync.Mutex // the keeper works, too, from the end of the opening on
				left.Inject(func(vfs.Op, string) error {
					mu.Lock()
					defer mu.Unlock()
					if calls++; calls-1 != at {
						return nil
					}
					failed = true
					return failure
				})
				o := quietOptions(t)
				o.Fatal = func(error) {}
				w, err := OpenWAL(left, "/wal", o)
				if err == nil {
					_ = w.Close()
				}
				left.Inject(nil)
				if left.Held() != 0 {
					t.Fatalf("call %d failed with %v: %d files stay open", at, failure, left.Held())
				}
				for _, loss := range []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing} {
					p.check(t, fmt.Sprintf("call %d failed with %v, loss %d", at, failure, loss), left.Crash(loss))
				}
				p.check(t, fmt.Sprintf("call %d failed with %v, torn", at, failure), left.CrashTorn(torn))
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
	flips, enough := 3000, 100
	if testing.Short() {
		flips, enough = 400, 10
	}
	for range flips {
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
		again, err := OpenWAL(c, "/wal", quietOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if detected < enough {
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
	if err := w.Close(); err == nil { // and what made its next file: a process has ended before the next one
		t.Error("the log closes as if nothing had been")
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
