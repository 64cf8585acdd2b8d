package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"testing"

	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// A log of puts and drops, and a machine that is a store and takes snapshots.
type logged struct {
	put            bool
	q, first, last uint64
}

func (l *logged) apply(s *Store) {
	if l.put {
		s.Put(l.q, l.first, uint8(l.first), 0, int64(l.first), body(l.q, l.first, int(l.first*7%90)+20))
	} else {
		s.Drop(l.q, l.first, l.last)
	}
}

func (l *logged) applyTo(m model) {
	if l.put {
		m.put(l.q, l.first, Record{Flags: uint8(l.first), ExpiryMs: int64(l.first), Body: body(l.q, l.first, int(l.first*7%90)+20)})
		return
	}
	for seq := l.first; seq <= l.last; seq++ {
		delete(m[l.q], seq)
	}
}

// someLog is a log with full chunks, tails, holes and queues that drain.
func someLog() (log []logged) {
	r := rand.New(rand.NewPCG(3, 4))
	next := [4]uint64{1, 1, 1, 1}
	for range 3500 {
		q := r.Uint64N(3)
		if q == 2 { // one that is drained again and again
			log = append(log, logged{true, q, next[q], next[q]}, logged{false, q, 1, next[q]})
		} else {
			log = append(log, logged{true, q, next[q], next[q]})
		}
		if next[q]++; r.IntN(3) == 0 {
			at := 1 + r.Uint64N(next[0])
			log = append(log, logged{false, 0, at, at + r.Uint64N(3)})
		}
	}
	return log
}

const snapshotsDir = "/groups/1/snapshots"

var quiet = slog.New(slog.DiscardHandler)

// machine is a store over a folder, and its snapshots.
type machine struct {
	*desk
	snapshots *snapshot.Store
	applied   int
}

func newMachine(fs vfs.FS) (*machine, error) {
	m := &machine{}
	if err := errors.Join(fs.MkdirAll(path.Dir(snapshotsDir)), fs.SyncDir(path.Dir(path.Dir(snapshotsDir))), fs.SyncDir("/")); err != nil {
		return nil, err
	}
	var err error
	if m.snapshots, err = snapshot.Open(fs, snapshotsDir, 2, quiet); err != nil {
		return nil, err
	}
	p := newPager(fs, 32<<10, sense, quiet)
	p.fileBytes = 48 << 10
	f, err := p.Folder(pagedDir)
	if err != nil {
		return nil, err
	}
	e := newEar()
	m.desk = &desk{Store: f.NewStore(e), ear: e, pager: p, folder: f}
	return m, nil
}

// restore brings the newest snapshot back.
func (m *machine) restore() error {
	list, err := m.snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	r, err := m.snapshots.LocalOpen(list[0].ID)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s, err := m.folder.Restore(m.ear, b, r.Folder())
	if err != nil {
		return err
	}
	m.Store.Close()
	m.Store, m.applied = s, int(list[0].Index)
	return nil
}

// snapshot takes one; meanwhile hears between the capture and the writing.
func (m *machine) snapshot(meanwhile func()) error {
	v := m.View()
	defer v.Release()
	k, err := m.snapshots.Create(1, uint64(m.applied), 1, new(snapshot.Reader).Meta().Configuration, 0, nil)
	if err != nil {
		return err
	}
	meanwhile()
	if err := v.Save(); err != nil {
		return errors.Join(err, k.Cancel())
	}
	for _, f := range v.Files() {
		if err := k.(*snapshot.Sink).Link(f.Name, f.Path, f.Bytes, f.ID); err != nil {
			return errors.Join(err, k.Cancel())
		}
	}
	if _, err := k.Write(v.AppendTo(nil)); err != nil {
		return errors.Join(err, k.Cancel())
	}
	return k.Close()
}

func (m *machine) applyUpTo(log []logged, upTo int) {
	for ; m.applied < upTo; m.applied++ {
		log[m.applied].apply(m.Store)
	}
}

// play applies a log, and on its way pages out, compacts and takes snapshots.
// It goes on after errors, which may come from any call.
func (m *machine) play(log []logged) {
	for step := 1; m.applied < len(log); step++ {
		m.applyUpTo(log, min(len(log), m.applied+len(log)/9))
		switch step % 3 {
		case 0:
			_ = m.snapshot(func() {
				m.applyUpTo(log, min(len(log), m.applied+50))
				m.settle()
				m.pager.shrink()
			})
		case 1:
			m.settle()
			m.pager.shrink()
		case 2:
			m.fetch(0, uint64(step)*100)
			m.pager.endEmpty()
			m.pager.compactOne()
		}
		m.pager.removeWaste()
	}
}

// want compares all that is there.
func (m *machine) want(t fataler, what string, log []logged) {
	all := model{}
	for i := range log {
		log[i].applyTo(all)
	}
	for q, msgs := range all {
		for seq, want := range msgs {
			got, ok := m.fetch(q, seq)
			if !ok || !bytes.Equal(got.Body, want.Body) || got.ExpiryMs != want.ExpiryMs || got.Flags != want.Flags {
				t.Fatalf("%s: message %d of queue %d is there: %v, or it differs; damaged: %v", what, seq, q, ok, m.ear.damaged)
			}
		}
		if got := m.Bytes(q); len(msgs) == 0 && got != 0 {
			t.Fatalf("%s: queue %d has %d bytes of nothing", what, q, got)
		}
	}
	live := 0
	m.Live(func(_, first, last uint64) bool { live += int(last - first + 1); return true })
	for _, msgs := range all {
		live -= len(msgs)
	}
	if live != 0 {
		t.Fatalf("%s: %d messages too many", what, live)
	}
}

// wantAfterCrash starts a machine on what a crash has left, and compares it
// with the log: nothing but the newest snapshot and the log after it counts.
func wantAfterCrash(t *testing.T, what string, left *vfs.Mem, log []logged) *machine {
	t.Helper()
	m, err := newMachine(left)
	if err == nil {
		err = m.restore()
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	m.applyUpTo(log, len(log))
	m.want(t, what, log)
	return m
}

func TestACrashAtAnyCallLosesNothingThatWasLogged(t *testing.T) {
	log, r := someLog(), rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewMem()
	m, err := newMachine(fs)
	if err != nil {
		t.Fatal(err)
	}
	points, snapshots := 0, 0
	fs.Inject(func(op vfs.Op, name string) error {
		if op == vfs.OpRead || op == vfs.OpList || op == vfs.OpOpen {
			return nil // changes nothing
		}
		points++
		for i, left := range []*vfs.Mem{fs.Crash(vfs.LoseAll), fs.Crash(vfs.LoseHalf), fs.Crash(vfs.LoseNothing), fs.CrashTorn(r)} {
			if testing.Short() && points%16 != 4*i {
				continue
			}
			what := fmt.Sprintf("crash %d before call %d, %s %s", i, points, op, name)
			again := wantAfterCrash(t, what, left, log[:m.applied])
			if points%8 != 0 {
				continue
			}
			// and it works: one more snapshot, and one more crash
			if err := again.snapshot(func() {}); err != nil {
				t.Fatalf("%s: snapshot: %v", what, err)
			}
			wantAfterCrash(t, what+", and again", left.Crash(vfs.LoseAll), log[:m.applied])
		}
		if list, _ := fs.List(snapshotsDir); op == vfs.OpRename {
			snapshots = max(snapshots, len(list))
		}
		return nil
	})
	m.play(log)
	fs.Inject(nil)
	m.want(t, "without a crash", log)
	if points < 60 || snapshots < 2 {
		t.Errorf("only %d points, %d snapshots", points, snapshots)
	}
}

func TestAnErrorOfAnyCallLosesNothingThatWasLogged(t *testing.T) {
	log := someLog()
	for at, hit := 0, true; hit; at++ {
		hit = false
		fs, calls, what := vfs.NewMem(), 0, ""
		m, err := newMachine(fs)
		if err != nil {
			t.Fatal(err)
		}
		fs.Inject(func(op vfs.Op, name string) error {
			if calls++; calls-1 != at {
				return nil
			}
			hit, what = true, fmt.Sprintf("call %d, %s %s, failed", at, op, name)
			return errors.New("broken " + string(op))
		})
		m.play(log)
		fs.Inject(nil)
		if m.ear.damaged == nil { // or it is no use here, but still after a restart
			m.want(t, what, log)
			if err := m.snapshot(func() {}); err != nil { // the next one goes well
				t.Fatalf("%s: snapshot: %v", what, err)
			}
		}
		wantAfterCrash(t, what, fs.Crash(vfs.LoseAll), log)
		wantAfterCrash(t, what, fs.Crash(vfs.LoseNothing), log)
		if testing.Short() {
			at += 12
		}
	}
}

// A restore changes nothing that a later one needs: not when the power goes in
// the middle of it, nor when a call fails.
func TestARestoreThatIsCutShortCanBeRepeated(t *testing.T) {
	log, fs := someLog(), vfs.NewMem()
	m, err := newMachine(fs)
	if err != nil {
		t.Fatal(err)
	}
	m.play(log)
	for at, hit := 0, true; hit; at++ {
		again, calls := fs.Crash(vfs.LoseAll), 0
		hit = false
		harmless := false // of what was read already, or is looked for once more
		var left *vfs.Mem
		what := ""
		again.Inject(func(op vfs.Op, name string) error {
			if calls++; calls-1 != at {
				return nil
			}
			hit, what, left = true, fmt.Sprintf("call %d, %s %s", at, op, name), again.Crash(vfs.LoseNothing)
			harmless = op == vfs.OpClose || op == vfs.OpList || path.Base(name) == "meta.json"
			return errors.New("broken " + string(op))
		})
		if m, err := newMachine(again); err == nil {
			if err := m.restore(); err == nil && hit && !harmless {
				t.Errorf("%s failed and nobody heard", what)
			}
			m.Store.Close()
			m.pager.removeWaste()
		}
		again.Inject(nil)
		wantAfterCrash(t, what, again, log)
		if left != nil {
			wantAfterCrash(t, what, left, log)
		}
		if testing.Short() {
			at += 6
		}
	}
}
