package segment

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"sync"
	"testing"

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
	s, err := d.folder.Restore(e, b, folder)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	back := &desk{Store: s, ear: e, pager: d.pager, folder: d.folder}
	back.checkMarks(t, was)
	back.checkScan(t, was)
	for q, msgs := range was { // nothing has been read yet
		for seq, want := range msgs {
			if ms, known := back.Expiry(q, seq); known && ms != want.ExpiryMs {
				t.Fatalf("queue %d seq %d, on disk: expires at %d, want %d", q, seq, ms, want.ExpiryMs)
			}
		}
	}
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

func flip(t fataler, fs vfs.FS, name string, at int64) {
	f, err := fs.Edit(name)
	if err != nil {
		t.Fatalf("flip: %v", err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatalf("flip: %v", err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatalf("flip: %v", err)
	}
}

// The files that are written to next hold nothing once a store is drained, and
// may not be written to again for long.
func TestAnEmptyFileGoesAlthoughItIsWrittenTo(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	files := func() int {
		d.pager.endEmpty()
		d.pager.removeWaste()
		names, err := fs.List(pagedDir)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	d.fill(1, 2000, 1000)
	d.pageAllOut() // all but the newest
	d.fill(2, 10, 1000)
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	if n := files(); n != 2 {
		t.Fatalf("%d files, want the pager's and the snapshot's", n)
	}
	d.Drop(1, 1, 1999)
	d.Drop(2, 1, 10)
	if n := files(); n != 2 {
		t.Errorf("%d files are left for a view", n)
	}
	v.Release()
	if n := files(); n != 1 {
		t.Errorf("%d files are left for a message", n)
	}
	if r, ok := d.fetch(1, 2000); !ok || !bytes.Equal(r.Body, body(1, 2000, 1000)) {
		t.Errorf("it is not there: %v", ok)
	}
	d.Drop(1, 2000, 2000)
	if n := files(); n != 0 {
		t.Errorf("%d files are left for nothing", n)
	}
	d.fill(3, 2000, 1000) // to other files
	d.pageAllOut()
	if r, ok := d.fetch(3, 1); !ok || !bytes.Equal(r.Body, body(3, 1, 1000)) {
		t.Errorf("what was written since is not there: %v", ok)
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
	s, err := d.folder.Restore(e, b, folder)
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

// What is left of a chunk whose large messages went while it was on disk is
// taken for more than it is, and written anew it may be less than half of that.
func TestASnapshotOfAnOverestimatedChunkIsRestored(t *testing.T) {
	fs := vfs.NewMem()
	d, was := newDesk(t, fs, 1<<20), model{}
	sizes := []int{3000, 3000, 3000, 0}
	for i, size := range sizes {
		d.Put(1, uint64(i+1), 0, 0, 0, body(1, uint64(i+1), size))
	}
	was.put(1, 4, Record{Body: body(1, 4, 0)})
	d.pageAllOut()
	d.Drop(1, 1, 3)
	c := d.queues[1].chunks[0]
	if err := d.pager.compact(d.Store, c.file); err != nil {
		t.Fatal(err)
	}
	if c.liveBytes <= int64(c.size) {
		t.Fatalf("%d bytes are expected in an extent of %d", c.liveBytes, c.size)
	}
	v := d.View()
	defer v.Release()
	d.checkSaved(t, fs, v, was)
}

// busy is a store that somebody fills and drains. What follows the ear is
// guarded by it.
type busy struct {
	*ear
	more        *sync.Cond
	store       *Store
	first, last uint64 // are live
	limit       uint64 // of last
	stop        bool
}

// run puts and drops until stop.
func (b *busy) run() {
	for {
		b.Lock()
		for b.last == b.limit && !b.stop {
			b.more.Wait()
		}
		if b.stop {
			b.Unlock()
			return
		}
		b.last++
		b.store.Put(1, b.last, 0, 0, 0, body(1, b.last, 100))
		if b.store.Here(1, b.first) && b.last%3 == 0 {
			b.store.Get(1, b.first)
			b.store.Drop(1, b.first, b.first)
			b.first++
		}
		b.more.Broadcast()
		b.Unlock()
		b.store.folder.Ease()
	}
}

// view captures the store when most of what it may have is there, and has it
// go on meanwhile.
func (b *busy) view() (v *View, first, last uint64) {
	b.Lock()
	defer b.Unlock()
	for b.last+500 < b.limit {
		b.more.Wait()
	}
	b.limit += 1000
	b.more.Broadcast()
	return b.store.View(), b.first, b.last
}

// The race detector is one judge, what is restored of each snapshot the other.
func TestSnapshotsAreSavedWhileEverythingGoesOn(t *testing.T) {
	fs := vfs.NewMem()
	p := NewPager(fs, 128<<10, 1<<30, sense, quiet)
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	s := &busy{ear: newEar(), first: 1, limit: 1000}
	s.store, s.more = f.NewStore(s.ear), sync.NewCond(s.ear)
	var work sync.WaitGroup
	work.Go(s.run) // ends with stop
	for range 20 {
		v, from, to := s.view()
		if err := v.Save(); err != nil {
			t.Fatal(err)
		}
		b, folder := v.AppendTo(nil), link(t, fs, v)
		v.Release()
		back, err := f.Restore(s.ear, b, folder)
		if err != nil {
			t.Fatal(err)
		}
		s.wantRun(t, back, from, to)
	}
	s.Lock()
	s.stop = true
	s.more.Broadcast()
	s.Unlock()
	work.Wait()
	if st := p.Stats(); s.damaged != nil || st.ChunksOut == 0 {
		t.Errorf("damaged: %v; %d chunks were paged out meanwhile", s.damaged, st.ChunksOut)
	}
}

// wantRun checks that a restored store has the messages first to last, and
// closes it.
func (b *busy) wantRun(t *testing.T, restored *Store, first, last uint64) {
	t.Helper()
	b.Lock()
	view, next := restored.View(), first
	b.Unlock()
	err := view.Each(func(q, seq uint64, r Record) error {
		if seq != next || !bytes.Equal(r.Body, body(q, seq, 100)) {
			return fmt.Errorf("message %d, want %d, or it differs", seq, next)
		}
		next++
		return nil
	})
	if err != nil || next != last+1 {
		t.Fatalf("%v; restored up to %d of %d", err, next-1, last)
	}
	view.Release()
	b.Lock()
	restored.Close()
	b.Unlock()
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
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpWriteOut} { // an error of one may not be said again by the other
		t.Run(string(op), func(t *testing.T) { testNotReliedUpon(t, op) })
	}
}

func testNotReliedUpon(t *testing.T, fails vfs.Op) {
	fs := vfs.NewMem()
	d, was := newDesk(t, fs, 1<<20), model{}
	d.fill(1, 3000, 100)
	for seq := uint64(1); seq <= 3000; seq++ {
		was.put(1, seq, Record{Flags: 3, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(1, seq, 100)})
	}
	d.pageAllOut()
	bad := d.folder.paging.current.name
	fs.Inject(func(op vfs.Op, name string) error {
		if op == fails && path.Base(name) == bad {
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

func TestALargeBodyIsSentToTheDiskAsItIsWritten(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.Put(1, 1, 0, 0, 0, body(1, 1, 5*pieceBytes))
	d.fill(2, 3000, 100)
	unsent, most, sent := 0, 0, 0
	fs.Inject(func(op vfs.Op, name string) error {
		switch op {
		case vfs.OpWrite:
			unsent++
			most = max(most, unsent)
		case vfs.OpWriteOut:
			unsent, sent = 0, sent+1
		case vfs.OpCreate:
			unsent = -1 // its head is written next
		}
		return nil
	})
	d.pageAllOut()
	if sent < 4 || most > 4 { // what goes with the end of the body, and the other queue's chunks
		t.Errorf("sent %d times; %d writes went unsent", sent, most)
	}
	if r, ok := d.fetch(1, 1); !ok || !bytes.Equal(r.Body, body(1, 1, 5*pieceBytes)) {
		t.Error("the body is not there, or differs")
	}
}

// Whoever syncs the file later might not be told.
func TestASegmentThatALargeBodyCouldNotBeSentToIsNotReliedUpon(t *testing.T) {
	fs := vfs.NewMem()
	d, was := newDesk(t, fs, 1<<20), model{}
	d.fill(1, 3000, 100)
	for seq := uint64(1); seq <= 3000; seq++ {
		was.put(1, seq, Record{Flags: 3, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(1, seq, 100)})
	}
	d.pageAllOut()
	bad := d.folder.paging.current.name
	d.Put(2, 1, 3, 1, 1, body(2, 1, 3*pieceBytes))
	was.put(2, 1, Record{Flags: 3, Priority: 1, ExpiryMs: 1, Body: body(2, 1, 3*pieceBytes)})
	failed := false
	fs.Inject(func(op vfs.Op, name string) error {
		if op != vfs.OpWriteOut || failed {
			return nil
		}
		failed = true
		return errors.New("no")
	})
	d.pageAllOut()
	if fs.Inject(nil); !failed {
		t.Fatal("nothing was sent")
	}
	v := d.View()
	defer v.Release()
	d.checkSaved(t, fs, v, was)
	for _, f := range v.Files() {
		if f.Name == bad {
			t.Error("the file is linked all the same")
		}
	}
}

// The operating system says once that something was not written, and may have
// said it to the Pager.
func TestASegmentThatIsSpoiledWhileASnapshotSyncsItIsNotReliedUpon(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 3000, 100)
	d.pageAllOut()
	current := d.folder.paging.current
	v := d.View()
	defer v.Release()
	fs.Inject(func(op vfs.Op, name string) error {
		if op == vfs.OpWriteOut && path.Base(name) == current.name {
			current.spoiled.Store(true)
		}
		return nil
	})
	if err := v.Save(); !errors.Is(err, errSpoiled) {
		t.Errorf("saved: %v", err)
	}
}

func TestAManifestWithoutItsSegmentsIsRefused(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.fill(1, 10, 100)
	v := d.View()
	defer v.Release()
	if err := v.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.folder.Restore(newEar(), v.AppendTo(nil), ""); !errors.Is(err, ErrDamaged) {
		t.Errorf("restored from nowhere: %v", err)
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
		s, err := d.folder.Restore(e, m, folder)
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
	flips := []byte{0x10, 0xff, 1, 0x80}
	if testing.Short() {
		flips = flips[:2]
	}
	for i := range b {
		for _, x := range flips {
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

// busyEar is an ear whose owner does something the n-th time that its lock is
// taken.
type busyEar struct {
	*ear
	n  int
	do func()
}

func (e *busyEar) Lock() {
	e.ear.Lock()
	if e.n--; e.n == 0 {
		e.do()
	}
}

func TestATailThatGrowsWhileItIsMovedKeepsAllOfIt(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.fill(1, 10, 1000)
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatalf("save: %v", err)
	}
	v.Release()
	saved := d.queues[1].tail().file
	d.owner = &busyEar{ear: d.ear, n: 2, do: func() { d.Put(1, 11, 3, 0, 0, body(1, 11, 1000)) }}
	if err := d.pager.compact(d.Store, saved); err != nil {
		t.Fatalf("compact: %v", err)
	}
	d.pageAllOut()
	if r, ok := d.fetch(1, 11); !ok || !bytes.Equal(r.Body, body(1, 11, 1000)) || d.ear.damaged != nil {
		t.Errorf("the message that came meanwhile: %v, damaged: %v", ok, d.ear.damaged)
	}
}

func TestAFileThatCameBackFromAPeerIsNotGoneOnWith(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 10, 1000)
	d.pageAllOut() // one file is the Pager's
	d.fill(2, 10, 1000)
	v := d.View()
	if err := v.Save(); err != nil { // and one the snapshot's
		t.Fatalf("save: %v", err)
	}
	s, err := d.folder.Restore(d.ear, v.AppendTo(nil), link(t, fs, v))
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	v.Release()
	d.Close()
	back := &desk{Store: s, ear: d.ear, pager: d.pager, folder: d.folder}
	back.fill(3, 10, 1000)
	back.pageAllOut()
	back.fill(4, 10, 1000)
	v = back.View()
	if err := v.Save(); err != nil {
		t.Fatalf("save: %v", err)
	}
	defer v.Release()
	names := map[string]string{}
	for _, f := range v.Files() {
		if other := names[f.ID]; other != "" {
			t.Errorf("%s and %s have the same identity", other, f.Name)
		}
		names[f.ID] = f.Name
	}
}
