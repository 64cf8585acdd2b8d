package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// link makes a folder of the files of a saved view.
func link(t fataler, fs vfs.FS, v *View) (folder string) {
	names, _ := fs.List("/linked")
	folder = fmt.Sprintf("/linked/%d", len(names))
	if err := fs.MkdirAll(folder); err != nil {
		t.Fatalf("link: %v", err)
	}
	for _, f := range v.Files() {
		if err := fs.Link(f.Path, filepath.Join(folder, f.Name)); err != nil {
			t.Fatalf("link: %v", err)
		}
	}
	return folder
}

// checkSaved saves a view, of a store that may have gone on, and compares what
// is restored of it.
func (d *desk) checkSaved(t fataler, fs vfs.FS, v *View, was model) {
	if err := v.Save(); err != nil {
		t.Fatalf("save: %v", err)
	}
	b, folder := v.AppendTo(nil), link(t, fs, v)
	e := newEar()
	s, err := d.folder.Restore(e, b, folder, nil)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	back := &desk{Store: s, ear: e, pager: d.pager, folder: d.folder}
	back.checkMarks(t, was)
	back.checkScan(t, was)
	count := 0
	for q, msgs := range was {
		for seq, want := range msgs {
			got, ok := back.fetch(q, seq)
			ms, known := back.Expiry(q, seq)
			if !ok || !bytes.Equal(got.Body, want.Body) || !known || ms != want.ExpiryMs {
				t.Fatalf("queue %d seq %d: there %v, or it differs: %v", q, seq, ok, e.damaged)
			}
		}
		count += len(msgs)
	}
	s.Live(func(_, first, last uint64) bool { count -= int(last - first + 1); return true })
	if count != 0 {
		t.Fatalf("%d messages too few are live", count)
	}
	s.Close()
	d.pager.removeWaste()
}

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
	r.Local()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s, err := m.folder.Restore(m.ear, b, r.Folder(), nil)
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
			if testing.Short() && points%4 != i {
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
			at += 4
		}
	}
}

// Every byte of every segment that a snapshot links is flipped once: a message
// is right or not there at all, and that it is not is told.
func TestAFlippedBitInALinkedSegmentIsNeverServed(t *testing.T) {
	fs := vfs.NewMem()
	m, err := newMachine(fs)
	if err != nil {
		t.Fatal(err)
	}
	m.fill(1, 5, 40)
	if err := m.snapshot(func() {}); err != nil {
		t.Fatal(err)
	}
	list, _ := m.snapshots.List()
	files, err := m.snapshots.Files(list[0].ID)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	name := path.Join(snapshotsDir, list[0].ID, files[0].Name)
	refused := 0
	for at := range files[0].Bytes {
		flip(t, fs, name, at)
		again, err := newMachine(fs)
		if err == nil {
			err = again.restore()
		}
		if err != nil {
			if refused++; !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d: %v", at, err)
			}
			flip(t, fs, name, at)
			continue
		}
		for seq := uint64(1); seq <= 5; seq++ {
			got, ok := again.fetch(1, seq)
			if ok && (!bytes.Equal(got.Body, body(1, seq, 40)) || got.ExpiryMs != int64(seq)) {
				t.Fatalf("byte %d: a wrong message was served", at)
			}
			if !ok && !errors.Is(again.ear.damaged, ErrDamaged) {
				t.Fatalf("byte %d: message %d is not there, and nobody heard", at, seq)
			}
		}
		if again.ear.damaged != nil {
			refused++
		}
		flip(t, fs, name, at)
	}
	if used := fileHead + extentHead + 5*(entryBytes+40); refused < used {
		t.Errorf("%d of %d bytes were checked", refused, used)
	}
}

func flip(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.Edit(name)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestASnapshotOutlivesCompaction(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.pager.fileBytes = 4 << 20
	const count = 20_000
	d.fill(1, count, 1000)
	d.pageAllOut()
	was := model{}
	for seq := uint64(1); seq <= count; seq++ {
		if seq%10 != 0 {
			d.Drop(1, seq, seq)
		} else {
			was.put(1, seq, Record{Flags: 3, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(1, seq, 1000)})
		}
	}
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	b, folder := v.AppendTo(nil), link(t, fs, v)
	v.Release()
	before := len(d.folder.list())
	for range 2 * before {
		d.pager.compactOne()
		d.pager.removeWaste()
	}
	if after := len(d.folder.list()); after >= before {
		t.Fatalf("%d files were %d before compaction", after, before)
	}
	e := newEar()
	s, err := d.folder.Restore(e, b, folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	back := &desk{Store: s, ear: e, pager: d.pager, folder: d.folder}
	back.checkScan(t, was)
	for seq := range was[1] {
		if r, ok := back.fetch(1, seq); !ok || !bytes.Equal(r.Body, was[1][seq].Body) {
			t.Fatalf("message %d is lost: %v", seq, e.damaged)
		}
	}
}

// The race detector is one judge, what is restored of each snapshot the other.
func TestSnapshotsAreSavedWhileEverythingGoesOn(t *testing.T) {
	fs := vfs.NewMem()
	p := NewPager(fs, 128<<10, sense, quiet)
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := newEar()
	s := f.NewStore(e)
	var first, last uint64 = 1, 0 // live; guarded by e
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			e.Lock()
			last++
			s.Put(1, last, 0, 0, 0, body(1, last, 100))
			if s.Here(1, first) && last%3 == 0 {
				s.Get(1, first)
				s.Drop(1, first, first)
				first++
			}
			e.Unlock()
			f.Ease()
		}
	}()
	for range 20 {
		e.Lock()
		v, from, to := s.View(), first, last
		e.Unlock()
		if err := v.Save(); err != nil {
			t.Fatal(err)
		}
		b, folder := v.AppendTo(nil), link(t, fs, v)
		v.Release()
		back, err := f.Restore(e, b, folder, nil)
		if err != nil {
			t.Fatal(err)
		}
		e.Lock()
		view, want := back.View(), from
		e.Unlock()
		if err := view.Each(func(q, seq uint64, r Record) error {
			if seq != want || !bytes.Equal(r.Body, body(q, seq, 100)) {
				return fmt.Errorf("message %d, want %d, or it differs", seq, want)
			}
			want++
			return nil
		}); err != nil || want != to+1 {
			t.Fatalf("%v; restored up to %d of %d", err, want-1, to)
		}
		view.Release()
		e.Lock()
		back.Close()
		e.Unlock()
	}
	close(stop)
	<-ended
	if e.damaged != nil {
		t.Error(e.damaged)
	}
}

func TestWhatASnapshotHasWrittenIsNotWrittenAgain(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.fill(1, 10_000, 100)
	saved := func() int64 {
		v := d.View()
		defer v.Release()
		if err := v.Save(); err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for _, f := range v.Files() {
			size += f.Bytes
		}
		return size
	}
	first := saved()
	if again := saved(); again != first {
		t.Errorf("%d bytes, and %d after a snapshot of nothing new", first, again)
	}
	d.pageAllOut()
	if got := d.pager.Stats().ChunksOut; got != 0 {
		t.Errorf("%d chunks were written by the pager as well", got)
	}
	if d.pager.hot.Load() != 0 {
		t.Error("something stayed in memory")
	}
	if r, ok := d.fetch(1, 10_000); !ok || !bytes.Equal(r.Body, body(1, 10_000, 100)) {
		t.Error("the tail is not there, or differs")
	}
	d.Put(1, 10_001, 0, 0, 0, body(1, 10_001, 100))
	if grown := saved() - first; grown > 1000 {
		t.Errorf("one message more takes %d bytes", grown)
	}
}

func TestASegmentWhoseSyncFailedIsNotReliedUpon(t *testing.T) {
	fs := vfs.NewMem()
	d, was := newDesk(t, fs, 1<<20), model{}
	d.fill(1, 3000, 100)
	for seq := uint64(1); seq <= 3000; seq++ {
		was.put(1, seq, Record{Flags: 3, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(1, seq, 100)})
	}
	d.pageAllOut()
	bad := d.folder.paging.current.name
	fs.Inject(func(op vfs.Op, name string) error {
		if op == vfs.OpSync && path.Base(name) == bad {
			return errors.New("no")
		}
		return nil
	})
	v := d.View()
	if err := v.Save(); err == nil {
		t.Fatal("saved")
	}
	v.Release()
	fs.Inject(nil) // a second try of the same file would be told that all is well
	v = d.View()
	d.checkSaved(t, fs, v, was)
	for _, f := range v.Files() {
		if f.Name == bad {
			t.Error("the file is linked all the same")
		}
	}
	v.Release()
}

func TestAReceivedManifestBringsItsSegments(t *testing.T) {
	fs := vfs.NewMem()
	d, was := newDesk(t, fs, 1<<20), model{}
	d.fill(1, 3000, 100)
	for seq := uint64(1); seq <= 3000; seq++ {
		was.put(1, seq, Record{Flags: 3, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(1, seq, 100)})
	}
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	for _, f := range v.Files() {
		in, err := fs.Open(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&stream, io.LimitReader(in, f.Bytes)); err != nil {
			t.Fatal(err)
		}
	}
	b, whole := v.AppendTo(nil), bytes.Clone(stream.Bytes())
	p := newPager(fs, 1<<20, sense, quiet)
	f, err := p.Folder("/groups/2/segments")
	if err != nil {
		t.Fatal(err)
	}
	e := newEar()
	s, err := f.Restore(e, b, "", &stream)
	if err != nil {
		t.Fatal(err)
	}
	there := &desk{Store: s, ear: e, pager: p, folder: f}
	there.checkScan(t, was)
	view := there.View()
	there.checkSaved(t, fs, view, was) // they can be linked in their turn
	view.Release()
	for _, n := range []int{0, 10, fileHead, len(whole) - 1} {
		if _, err := f.Restore(newEar(), b, "", bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("restored from %d of %d bytes", n, len(whole))
		}
	}
}

// A manifest may come from a peer: whatever it says, it is refused or its
// messages are.
func TestAChangedManifestIsRefusedOrItsMessagesAre(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	for seq := uint64(1); seq <= 40; seq++ {
		d.Put(seq%3, seq, uint8(seq), uint8(seq), int64(seq), body(seq%3, seq, 30))
	}
	d.Drop(1, 10, 13)
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	b, folder := v.AppendTo(nil), link(t, fs, v)
	try := func(m []byte) {
		e := newEar()
		s, err := d.folder.Restore(e, m, folder, strings.NewReader(""))
		if err != nil {
			return
		}
		back := &desk{Store: s, ear: e, pager: d.pager, folder: d.folder}
		s.Live(func(q, first, last uint64) bool {
			for seq := first; seq <= last; seq++ {
				if r, ok := back.fetch(q, seq); ok && !bytes.Equal(r.Body, body(q, seq, 30)) {
					t.Errorf("a wrong message was served")
				}
			}
			return true
		})
		s.Close()
	}
	for i := range b {
		for _, x := range []byte{1, 0x10, 0x80, 0xff} {
			m := bytes.Clone(b)
			m[i] ^= x
			try(m)
		}
		try(b[:i])
	}
	d.pager.removeWaste()
	if names, _ := fs.List(pagedDir); len(names) > 2 {
		t.Errorf("%d files are left over", len(names))
	}
}
