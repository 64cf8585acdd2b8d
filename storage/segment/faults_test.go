package segment

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"warren/storage/vfs"
)

// faultRun is something that a machine does, one call of which fails.
type faultRun struct {
	what    string
	prepare func(t *testing.T, log []logged) *vfs.Mem
	do      func(fs vfs.FS, log []logged) *machine // nil if it did not come so far
}

// close ends a machine, and has its files removed.
func (m *machine) close() {
	m.ear.Lock()
	m.Store.Close()
	m.ear.Unlock()
	m.folder.Close()
	m.pager.removeWaste()
	m.pager.forgetWants()
	m.pager.removeWaste()
}

var faultRuns = []faultRun{{
	what:    "messages come and go, and snapshots are taken",
	prepare: func(*testing.T, []logged) *vfs.Mem { return vfs.NewMem() },
	do: func(fs vfs.FS, log []logged) *machine {
		m, err := newMachine(fs)
		if err == nil {
			m.play(log)
		}
		return m
	},
}, {
	what: "a snapshot is restored",
	prepare: func(t *testing.T, log []logged) *vfs.Mem {
		fs := vfs.NewMem()
		m, err := newMachine(fs)
		if err != nil {
			t.Fatal(err)
		}
		m.play(log)
		m.close()
		return fs
	},
	do: func(fs vfs.FS, log []logged) *machine {
		m, err := newMachine(fs)
		if err != nil {
			return nil
		}
		if err := m.restore(); err != nil {
			m.close()
			return nil
		}
		m.applyUpTo(log, len(log))
		return m
	},
}}

// Each call fails once, also those of an end: nothing of it is done, half of it,
// or all of it. All that was logged is there then, here and after a crash, or is
// said to be damaged here; no file stays open, and none stays for good.
func TestNoErrorOfAnyCallCostsAMessage(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 41
	}
	log := someLog()[:2400]
	broken := errors.New("broken")
	for _, run := range faultRuns {
		t.Run(run.what, func(t *testing.T) {
			begin := run.prepare(t, log)
			for kind, failure := range []error{broken, &vfs.HalfDone{Err: broken}, &vfs.Done{Err: broken}} {
				for at := kind * stride / 3; run.fails(t, begin.Crash(vfs.LoseNothing), log, at, failure); at += stride {
				}
			}
		})
	}
}

// fails has one call fail; false if there are not so many.
func (run *faultRun) fails(t *testing.T, fs *vfs.Mem, log []logged, at int, failure error) (hit bool) {
	t.Helper()
	calls, what := 0, ""
	inject := func(op vfs.Op, name string) error {
		if calls++; calls-1 != at {
			return nil
		}
		hit, what = true, fmt.Sprintf("call %d, %s %s, answers: %v", at, op, name, failure)
		return failure
	}
	fs.Inject(inject)
	m := run.do(fs, log)
	fs.Inject(nil)
	if m != nil && m.ear.damaged == nil {
		m.want(t, what, log)
	}
	fs.Inject(inject)
	r := rand.New(rand.NewPCG(uint64(at), 1))
	running := []*vfs.Mem{fs.Crash(vfs.LoseAll), fs.CrashTorn(r)}
	if m != nil {
		m.close()
	}
	fs.Inject(nil)
	if fs.Held() != 0 {
		t.Fatalf("%s: %d files stay open", what, fs.Held())
	}
	for i, left := range append(running, fs.Crash(vfs.LoseHalf), fs.Crash(vfs.LoseNothing), fs.CrashTorn(r)) {
		what := fmt.Sprintf("%s; crash %d", what, i)
		m := wantAfterCrash(t, what, left, log)
		if err := m.snapshot(func() {}); err != nil {
			t.Fatalf("%s: a snapshot: %v", what, err)
		}
		m.close()
		names, err := left.List(pagedDir)
		aside, err2 := left.List(snapshotsDir)
		if err := errors.Join(err, err2); err != nil || len(names) > 0 || len(aside) > 2 || left.Held() != 0 {
			t.Fatalf("%s: %v and %v are left, and %d files are open, %v", what, names, aside, left.Held(), err)
		}
		for _, name := range aside {
			if strings.HasSuffix(name, ".tmp") {
				t.Fatalf("%s: %s stays", what, name)
			}
		}
	}
	return hit
}
