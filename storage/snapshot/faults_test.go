package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"warren/storage/vfs"
)

// failures are what a call answers once.
var failures = []error{errInject, &vfs.HalfDone{Err: errInject}, &vfs.Done{Err: errInject}}

// faultRun is something that a store does, one call of which fails.
type faultRun struct {
	what    string
	prepare func(t *testing.T, s *Store)
	do      func(s *Store) error // as often as one likes
	// want checks what is there after do has answered err, here or after a crash.
	want func(t *testing.T, s *Store, err error)
}

const faultBytes = 700 // of each state

// linkedTwice takes two snapshots with files.
func linkedTwice(t *testing.T, s *Store) {
	for number := range uint64(20) {
		origin(t, s.fs, number)
	}
	if err := errors.Join(takeLinked(s, 8, faultBytes), takeLinked(s, 9, faultBytes)); err != nil {
		t.Fatal(err)
	}
}

// wantNewest checks that the newest snapshot is one of a few, and that all are whole.
func wantNewest(t *testing.T, s *Store, may ...uint64) {
	t.Helper()
	if got := indexes(t, s); len(got) == 0 || !slices.Contains(may, got[0]) {
		t.Fatalf("there are %v, the newest may be %v", got, may)
	}
	wantLinked(t, s, faultBytes)
}

var faultRuns = []faultRun{{
	what:    "a snapshot is taken",
	prepare: linkedTwice,
	do:      func(s *Store) error { return takeLinked(s, 10, faultBytes) },
	want: func(t *testing.T, s *Store, err error) {
		if wantNewest(t, s, 9, 10); err == nil {
			wantNewest(t, s, 10)
		}
	},
}, {
	what:    "a snapshot is given up",
	prepare: linkedTwice,
	do: func(s *Store) error {
		k, err := s.Create(1, 10, 3, members, 1, nil)
		if err != nil {
			return err
		}
		_, err = k.Write(state(10, faultBytes))
		return errors.Join(err, k.Cancel())
	},
	want: func(t *testing.T, s *Store, _ error) { wantNewest(t, s, 9) },
}, {
	what:    "old ones are trimmed",
	prepare: linkedTwice,
	do:      (*Store).Trim,
	want:    func(t *testing.T, s *Store, _ error) { wantNewest(t, s, 9) },
}, {
	what:    "one is read while the next but one is taken",
	prepare: linkedTwice,
	do: func(s *Store) error {
		list, err := s.List()
		if err != nil {
			return err
		}
		r, err := s.LocalOpen(list[len(list)-1].ID)
		if err != nil {
			return err
		}
		err = takeLinked(s, list[0].Index+1, faultBytes)
		if b, unread := io.ReadAll(r); unread == nil && !bytes.Equal(b, state(r.Meta().Index, faultBytes)) {
			err = errors.Join(err, errors.New("what is read has other bytes"))
		} else {
			err = errors.Join(err, unread)
		}
		return errors.Join(err, r.Close())
	},
	want: func(t *testing.T, s *Store, _ error) { wantNewest(t, s, 9, 10, 11, 12, 13) },
}, {
	what: "a snapshot is received",
	prepare: func(t *testing.T, s *Store) {
		if _, err := receive(s, 9, faultBytes, sent(1, 300), sent(2, 1500)); err != nil {
			t.Fatal(err)
		}
	},
	do: func(s *Store) error {
		_, err := receive(s, 10, faultBytes, sent(2, 4000), sent(3, 2500), sent(1, 300))
		return err
	},
	want: func(t *testing.T, s *Store, err error) {
		got := indexes(t, s)
		if len(got) == 0 || got[0] != 9 && got[0] != 10 || err == nil && got[0] != 10 {
			t.Fatalf("there are %v", got)
		}
		wantReceived(t, s, faultBytes)
	},
}, {
	what: "a damaged one is met",
	prepare: func(t *testing.T, s *Store) {
		linkedTwice(t, s)
		list, _ := s.List()
		rewrite(t, s.fs, path.Join(dir, list[0].ID, stateFile), func(b []byte) []byte { b[100] ^= 4; return b })
	},
	do: func(s *Store) error {
		list, err := s.List()
		if err != nil || len(list) == 0 || list[0].Index == 8 {
			return err
		}
		if b, err := read(s, list[0].ID); err == nil {
			return fmt.Errorf("%d bytes of a damaged snapshot are read", len(b))
		} else if !errors.Is(err, ErrDamaged) {
			return err
		}
		return nil
	},
	want: func(t *testing.T, s *Store, _ error) {
		if newest, err := s.Newest(); newest != 9 || err != nil {
			t.Fatalf("the newest was at %d, %v", newest, err)
		}
		if got := indexes(t, s); len(got) == 2 {
			if _, err := read(s, mustList(t, s)[0]); !errors.Is(err, ErrDamaged) {
				t.Fatalf("what is damaged reads as %v", err)
			}
		}
		wantNewest(t, s, 8)
	},
}, {
	what: "a folder is opened",
	prepare: func(t *testing.T, s *Store) {
		linkedTwice(t, s)
		k, err := s.Create(1, 10, 3, members, 1, nil)
		if err == nil {
			err = k.(*Sink).Link("10.seg", "/data/origin-10", linkedBytesEach, "10.seg")
		}
		a, refused := s.Arrive([]File{sent(1, 500), sent(2, 800)}, anyRoom)
		if err := errors.Join(err, refused); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.WriteAt(0, content(sent(1, 500)), 0), a.Finish(0), a.WriteAt(1, content(sent(2, 100)), 0),
			a.KeepState(strings.NewReader("state"), 5), k.(*Sink).file.Close(), a.closePart()); err != nil {
			t.Fatal(err)
		}
	},
	do: func(s *Store) error {
		_, err := Open(s.fs, dir, 2, quiet)
		return err
	},
	want: func(t *testing.T, s *Store, _ error) { wantNewest(t, s, 9) },
}, {
	what: "a folder is cleared",
	prepare: func(t *testing.T, s *Store) {
		linkedTwice(t, s)
		if a, err := s.Arrive([]File{sent(1, 500)}, anyRoom); err != nil {
			t.Fatal(err)
		} else if _, err := pull(a); err != nil {
			t.Fatal(err)
		}
	},
	do: func(s *Store) error { return Clear(s.fs, dir) },
	want: func(t *testing.T, s *Store, err error) {
		if got, left := indexesAnyway(s), gathered(s); err == nil && len(got)+len(left) > 0 {
			t.Fatalf("%v and %v are left", got, left)
		}
	},
}}

func indexesAnyway(s *Store) (list []uint64) {
	metas, _ := s.List() // the folder may be gone
	for _, m := range metas {
		list = append(list, m.Index)
	}
	return list
}

// Each call of all that a store does fails once: nothing of it is done, half of
// it, or all of it. The store goes on, and then the power goes, before and after
// it has. What is there is whole and has been promised, all of that is there, and
// nothing is left behind.
func TestNoErrorOfAnyCallCostsASnapshot(t *testing.T) {
	stride, crashes := 1, []vfs.Loss{vfs.LoseAll, vfs.LoseHalf, vfs.LoseNothing, torn, torn, torn}
	if testing.Short() {
		stride, crashes = 11, []vfs.Loss{vfs.LoseAll, torn}
	}
	for _, run := range faultRuns {
		t.Run(run.what, func(t *testing.T) {
			for kind, failure := range failures {
				for at := 4 * kind * (stride - 1) / 10; run.fails(t, at, failure, crashes); at += stride {
				}
			}
		})
	}
}

// torn stands for CrashTorn, with the number of the call as its seed.
const torn vfs.Loss = -1

// fails has one call fail; false if there are not so many.
func (run *faultRun) fails(t *testing.T, at int, failure error, crashes []vfs.Loss) (hit bool) {
	t.Helper()
	fs := newFS(t)
	s := open(t, fs)
	run.prepare(t, s)
	held, calls, what := fs.Held(), 0, ""
	fs.Inject(func(op vfs.Op, name string) error {
		if calls++; calls-1 != at {
			return nil
		}
		hit, what = true, fmt.Sprintf("call %d, %s %s, answers: %v", at, op, name, failure)
		return failure
	})
	err := run.do(s)
	fs.Inject(nil)
	crash := "none"
	defer func() {
		if t.Failed() {
			t.Logf("%s; it came to: %v; crash: %s", what, err, crash)
		}
	}()
	if got := fs.Held(); got != held {
		t.Fatalf("%d files are open, %d were before", got, held)
	}
	if !hit && err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(at), 1))
	for again := range 2 {
		for i, loss := range crashes {
			left := fs.CrashTorn(r)
			if loss != torn {
				left = fs.Crash(loss)
			}
			crash = fmt.Sprintf("crash %d, again %d", i, again)
			run.after(t, left, err)
		}
		crash = "none"
		if run.want(t, s, err); again > 0 {
			break
		}
		if err = run.do(s); err != nil {
			t.Fatalf("it does not go on: %v", err)
		}
	}
	return hit
}

// after starts a store on what a crash has left.
func (run *faultRun) after(t *testing.T, left *vfs.Mem, err error) {
	t.Helper()
	s := open(t, left)
	run.want(t, s, err)
	if err := run.do(s); err != nil {
		t.Fatalf("it does not go on: %v", err)
	}
	run.want(t, s, nil)
	s = open(t, left.Crash(vfs.LoseNothing))
	names, _ := s.fs.List(dir)
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			t.Fatalf("%s stays", name)
		}
	}
	for _, name := range gathered(s) {
		if name == incomingState || strings.HasSuffix(name, partSuffix) {
			t.Fatalf("%s stays", name)
		}
	}
	if left.Held() != 0 {
		t.Fatalf("%d files are open", left.Held())
	}
}

func mustList(t *testing.T, s *Store) []string {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range metas {
		ids = append(ids, m.ID)
	}
	return ids
}
