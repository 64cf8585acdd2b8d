package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"warren/storage/vfs"
)

// faultRun is something that a WAL does, one call of which fails.
type faultRun struct {
	what    string
	prepare func(t *testing.T) *vfs.Mem
	// do is on the way of a process that ends when fatal says so.
	do func(t *testing.T, p *program, fatal func() bool)
}

// workedOn is a log that has been written to for a while.
func workedOn(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	p := newProgram(5, openWAL(t, fs, quietOptions(t)))
	for range 25 {
		if !p.step(t) {
			t.Fatal("a request failed")
		}
	}
	if err := p.w.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// drop drops the log of a group, and stores an entry in the new one.
func (p *program) drop(t *testing.T, gid uint64) {
	c, m := p.clients[gid], p.models[gid]
	p.mu.Lock()
	m.maybe = append(m.maybe, nil)
	p.mu.Unlock()
	if _, err := p.w.Drop(gid); err != nil {
		return
	}
	p.mu.Lock()
	m.sure, m.maybe, m.damaged = nil, nil, false
	p.mu.Unlock()
	c.held = nil
	c.step(t)
}

var faultRuns = []faultRun{{
	what:    "entries are stored and deleted",
	prepare: workedOn,
	do: func(t *testing.T, p *program, fatal func() bool) {
		for n := 0; n < 25 && !fatal(); n++ {
			p.step(t)
		}
	},
}, {
	what:    "a group is dropped",
	prepare: workedOn,
	do:      func(t *testing.T, p *program, _ func() bool) { p.drop(t, 1) },
}, {
	what: "a damaged group is dropped",
	prepare: func(t *testing.T) *vfs.Mem {
		return spoiled(t, quietOptions(t), func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, recordHead+50) })
	},
	do: func(t *testing.T, p *program, _ func() bool) { p.drop(t, 1) },
}, {
	what: "one of the groups that are all damaged is dropped",
	prepare: func(t *testing.T) *vfs.Mem {
		return spoiled(t, quietOptions(t), func(t *testing.T, fs *vfs.Mem, w *WAL) { at(t, fs, w, 1, 3, 24) })
	},
	do: func(t *testing.T, p *program, _ func() bool) { p.drop(t, 1) },
}}

// Each call fails once, also those of the keeper and of Close: nothing of it is
// done, half of it, or all of it. The process ends for that, or the log goes on
// and lets its files go. What was answered for is there after a crash, and
// nothing else; no file stays open, and none that nobody needs stays for good.
func TestNoErrorOfAnyCallCostsAnEntry(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 17
	}
	broken := errors.New("broken")
	for _, run := range faultRuns {
		t.Run(run.what, func(t *testing.T) {
			begin := run.prepare(t)
			for kind, failure := range []error{
				broken, &vfs.HalfDone{Err: broken}, &vfs.Done{Err: broken},
				&vfs.Done{Err: fmt.Errorf("write: %w", syscall.ENOSPC)}, &vfs.HalfDone{Err: fmt.Errorf("write: %w", syscall.ENOSPC)},
			} {
				for at := 3 * kind * (stride - 1) / 16; run.fails(t, begin.Crash(vfs.LoseNothing), at, failure); at += stride {
				}
			}
		})
	}
}

// fails has one call fail; false if there are not so many.
func (run *faultRun) fails(t *testing.T, fs *vfs.Mem, at int, failure error) bool {
	t.Helper()
	o := quietOptions(t)
	o.Known = []uint64{0, 1, 2}
	var calls, deaths atomic.Int64
	o.Fatal = func(error) { deaths.Add(1) }
	fatal := func() bool { return deaths.Load() > 0 }
	p := newProgram(uint64(at), openWAL(t, fs, o))
	p.meet(t)
	var what atomic.Value
	fs.Inject(func(op vfs.Op, name string) error {
		if calls.Add(1) != int64(at)+1 {
			return nil
		}
		what.Store(fmt.Sprintf("call %d, %s %s, answers: %v", at, op, name, failure))
		return failure
	})
	defer func() {
		if t.Failed() {
			t.Log(what.Load(), "; the process ends:", fatal())
		}
	}()
	run.do(t, p, fatal)
	if !fatal() {
		p.wantFilesGo(t, fatal)
	}
	_ = p.w.Close()
	fs.Inject(nil)
	if fs.Held() != 0 {
		t.Fatalf("%d files stay open", fs.Held())
	}
	r := rand.New(rand.NewPCG(uint64(at), 9))
	for _, left := range []*vfs.Mem{fs.Crash(vfs.LoseAll), fs.Crash(vfs.LoseHalf), fs.Crash(vfs.LoseNothing), fs.CrashTorn(r), fs.CrashTorn(r)} {
		p.wantAfter(t, left)
	}
	return what.Load() != nil
}

// meet takes what is there for sure; of a damaged group nothing is.
func (p *program) meet(t *testing.T) {
	t.Helper()
	for gid, m := range p.models {
		g, err := p.w.Group(gid)
		if m.damaged = err != nil; err == nil {
			m.sure = contents(t, g)
		}
	}
	p.adopt(t)
}

// wantFilesGo deletes all there is, and waits until files go.
func (p *program) wantFilesGo(t *testing.T, fatal func() bool) {
	t.Helper()
	eventually(t, func() bool {
		for _, c := range p.clients {
			if c.empty(t); fatal() {
				return true
			}
		}
		return p.w.Stats().Files <= 2
	})
}

// empty stores an entry, and deletes it and all before it.
func (c *client) empty(t *testing.T) {
	g, err := c.p.w.Group(c.gid)
	if err != nil {
		c.p.drop(t, c.gid) // a full disk has refused it
		return
	}
	m := c.p.models[c.gid]
	l := entry(c.nextIndex(), c.term, 10)
	after := append(slices.Clip(c.held), l)
	ask := func(want []string, do func() error) bool {
		c.p.mu.Lock()
		defer c.p.mu.Unlock()
		m.maybe = append(m.maybe, want)
		if do() != nil {
			return false
		}
		m.sure, m.maybe = want, nil
		return true
	}
	if !ask(list(after), func() error { return g.StoreLog(l) }) {
		return
	}
	c.held = after
	if ask(nil, func() error { return g.DeleteRange(after[0].Index, l.Index) }) {
		c.held = nil
	}
}

// wantAfter opens what a crash has left, twice, and looks for waste.
func (p *program) wantAfter(t *testing.T, fs *vfs.Mem) {
	t.Helper()
	for range 2 {
		if p.check(t, "after a crash", fs); t.Failed() {
			t.FailNow()
		}
		w := openWAL(t, fs, quietOptions(t))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := fs.List("/wal")
		if err != nil || fs.Held() != 0 {
			t.Fatalf("%d files stay open, %v", fs.Held(), err)
		}
		spares := 0
		for _, name := range names {
			if strings.HasSuffix(name, spareSuffix) {
				spares++
			}
		}
		if files := w.Stats().Files; spares > sparesMax || len(names) != files+spares {
			t.Fatalf("there is %v, of %d files in use", names, files)
		}
	}
}
