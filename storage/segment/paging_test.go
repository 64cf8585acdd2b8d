package segment

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"warren/storage/vfs"
)

const pagedDir = "/groups/1/segments"

// ear is an Owner that remembers what it heard.
type ear struct {
	sync.Mutex
	arrived map[uint64]int
	damaged error
}

func newEar() *ear { return &ear{arrived: map[uint64]int{}} }

func (e *ear) Arrived(q uint64)  { e.arrived[q]++ }
func (e *ear) Damaged(err error) { e.damaged = errors.Join(e.damaged, err) }

func weigh(body []byte) uint32 { return uint32(len(body)) + 1 }

var sense = Sense{Weigh: weigh, Flags: 5}

// desk is a store whose Pager works only when it is told to.
type desk struct {
	*Store
	ear    *ear
	pager  *Pager
	folder *Folder
}

func newDesk(t fataler, fs vfs.FS, budget int64) *desk {
	p := newPager(fs, budget, sense, slog.New(slog.DiscardHandler))
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatalf("folder: %v", err)
	}
	e := newEar()
	return &desk{Store: f.NewStore(e), ear: e, pager: p, folder: f}
}

type fataler interface{ Fatalf(string, ...any) }

// pageAllOut has everything written that is in memory.
func (d *desk) pageAllOut() {
	d.settle()
	for d.pager.pageOutOf(d.Store) {
	}
}

// settle takes the time off that chunks stay in memory after they were read.
func (d *desk) settle() {
	for h := d.ring.root.next; h != &d.ring.root; h = h.next {
		h.loadedMs = 0
	}
}

// fetch gets a message, from disk if it must.
func (d *desk) fetch(q, seq uint64) (Record, bool) {
	if !d.Here(q, seq) {
		for d.pager.readNext() {
		}
	}
	return d.Get(q, seq)
}

func (d *desk) fill(q uint64, count, size int) {
	for seq := uint64(1); seq <= uint64(count); seq++ {
		d.Put(q, seq, 3, uint8(seq), int64(seq), body(q, seq, size))
	}
}

func TestAPagingStoreDoesWhatAMapWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		d, m, highest := newDesk(t, fs, 1<<20), model{}, map[uint64]uint64{}
		d.pager.fileBytes = 1 << 20
		type past struct {
			view *View
			was  model
		}
		var views []past
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			q := rapid.Uint64Range(1, 3).Draw(t, "queue")
			switch rapid.IntRange(0, 13).Draw(t, "step") {
			case 13:
				if len(views) > 0 {
					p := views[rapid.IntRange(0, len(views)-1).Draw(t, "view")]
					d.checkSaved(t, fs, p.view, p.was)
				}
			case 0, 1, 2:
				highest[q] = d.drawRun(t, m, q, highest[q])
			case 3, 4, 5:
				first := rapid.Uint64Range(0, highest[q]+2).Draw(t, "first")
				last := first + uint64(rapid.SampledFrom([]int{0, 1, 5, 900, 5000}).Draw(t, "length"))
				d.Drop(q, first, last)
				for seq := range m[q] {
					if seq >= first && seq <= last {
						delete(m[q], seq)
					}
				}
			case 6, 7:
				d.settle()
				d.pager.shrink()
			case 8:
				d.pageAllOut()
			case 9:
				views = append(views, past{d.View(), m.clone()})
			case 10:
				seq := rapid.Uint64Range(1, highest[q]+1).Draw(t, "get")
				got, ok := d.fetch(q, seq)
				ms, known := d.Expiry(q, seq)
				if want, there := m[q][seq]; ok != there || !bytes.Equal(got.Body, want.Body) || !known || ms != want.ExpiryMs {
					t.Fatalf("queue %d seq %d: there %v, want %v, or it differs", q, seq, ok, there)
				}
			case 11:
				d.pager.compactOne()
				d.pager.removeWaste()
			case 12:
				d.DropQueue(q)
				delete(m, q)
				highest[q] = 0
			}
		}
		d.checkMarks(t, m)
		d.checkScan(t, m)
		for _, p := range views {
			p.was.checkView(t, p.view)
			p.view.Release()
		}
		d.checkAll(t, m, highest)
		d.checkEmptied(t, fs, highest)
	})
}

// drawRun puts a run of messages above last, and returns the new last one.
func (d *desk) drawRun(t *rapid.T, m model, q, last uint64) uint64 {
	n := rapid.IntRange(1, 700).Draw(t, "run")
	size := rapid.SampledFrom([]int{0, 1, 30, 1000, 3000, bigBody, 3 * pieceBytes}).Draw(t, "size")
	if size >= bigBody {
		n = min(n, 2)
	}
	seq := last + rapid.Uint64Range(1, 3).Draw(t, "gap")
	mixed := rapid.SampledFrom([]uint8{0, 0xff}).Draw(t, "mixed")
	for range n {
		r := Record{Flags: uint8(seq) & mixed, Priority: uint8(seq) & mixed, ExpiryMs: int64(seq % 2), Body: body(q, seq, size)}
		d.Put(q, seq, r.Flags, r.Priority, r.ExpiryMs, r.Body)
		m.put(q, seq, r)
		seq++
	}
	return seq - 1
}

// checkMarks compares what is known at once of every message.
func (d *desk) checkMarks(t fataler, m model) {
	for q, msgs := range m {
		for seq, want := range msgs {
			if flags, prio, ok := d.Mark(q, seq); !ok || flags != want.Flags&sense.Flags || prio != want.Priority {
				t.Fatalf("queue %d seq %d is marked %d %d (%v)", q, seq, flags, prio, ok)
			}
		}
	}
}

// checkScan compares what a Scan sees.
func (d *desk) checkScan(t fataler, m model) {
	for q, want := range m {
		seen, done := map[uint64]bool{}, 0
		d.Scan(q, func(seq uint64, r Record) {
			w, ok := want[seq]
			weight := r.Weight
			if r.Body != nil || len(w.Body) == 0 {
				weight = weigh(r.Body)
			}
			if !ok || seen[seq] || r.Flags != w.Flags || r.Priority != w.Priority || r.ExpiryMs != w.ExpiryMs || weight != weigh(w.Body) {
				t.Fatalf("scan of queue %d: %d is %+v", q, seq, r)
			}
			seen[seq] = true
		}, func() { done++ })
		for d.pager.readNext() {
		}
		if len(seen) != len(want) || done != 1 {
			t.Fatalf("scan of queue %d: %d of %d messages, done %d times", q, len(seen), len(want), done)
		}
	}
}

// checkAll brings everything back, and compares.
func (d *desk) checkAll(t fataler, m model, highest map[uint64]uint64) {
	for q := range highest {
		for seq := range m[q] {
			if _, ok := d.fetch(q, seq); !ok {
				t.Fatalf("queue %d seq %d cannot be read: %v", q, seq, d.ear.damaged)
			}
		}
	}
	m.check(t, d.Store, highest)
	if d.ear.damaged != nil {
		t.Fatalf("damaged: %v", d.ear.damaged)
	}
	d.checkMemory(t)
}

// checkMemory compares what is counted with what is there.
func (d *desk) checkMemory(t fataler) {
	memory := int64(0)
	for h := d.ring.root.next; h != &d.ring.root; h = h.next {
		memory += h.bytes
	}
	if got := d.pager.hot.Load(); got != memory || d.bytes.Load() != memory {
		t.Fatalf("the pager counts %d bytes, the store %d, its chunks %d", got, d.bytes.Load(), memory)
	}
}

// checkEmptied drops everything: nothing stays on disk but what is written to,
// and no memory is counted.
func (d *desk) checkEmptied(t fataler, fs vfs.FS, highest map[uint64]uint64) {
	for q := range highest {
		d.DropQueue(q)
	}
	d.pager.removeWaste()
	names, err := fs.List(pagedDir)
	if err != nil || len(names) > 2 { // the Pager's, and that of snapshots
		t.Fatalf("%v are left, %v", names, err)
	}
	if d.pager.hot.Load() != 0 || d.Total() != 0 {
		t.Fatalf("%d bytes of memory and %d of bodies are left", d.pager.hot.Load(), d.Total())
	}
}

func TestAPagedOutChunkTakesFewBytes(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.fill(1, 100_000, 100)
	d.pageAllOut()
	if got := d.pager.hot.Load(); got != 0 {
		t.Errorf("%d bytes are still in memory", got)
	}
	q := d.queues[1]
	for _, c := range q.chunks {
		if c.hot != nil || c.dead != nil {
			t.Fatalf("chunk at %d keeps something", c.first)
		}
	}
	if got := testing.AllocsPerRun(100, func() { d.Here(1, 1) }); got != 0 {
		t.Errorf("asking twice allocates %v times", got)
	}
}

func TestMemoryStaysWithinTheBudget(t *testing.T) {
	const budget = 4 << 20
	d := newDesk(t, vfs.NewMem(), budget)
	for seq := uint64(1); seq <= 50_000; seq++ {
		d.Put(seq%7, seq, 0, 0, 0, body(1, seq, 1000))
		if d.pager.hot.Load() > budget {
			d.pager.shrink()
		}
		if got := d.pager.hot.Load(); got > budget {
			t.Fatalf("%d bytes in memory after message %d", got, seq)
		}
	}
	for seq := uint64(1); seq <= 50_000; seq++ {
		r, ok := d.fetch(seq%7, seq)
		if !ok || !bytes.Equal(r.Body, body(1, seq, 1000)) {
			t.Fatalf("message %d is not there or differs: %v", seq, d.ear.damaged)
		}
		d.settle()
		d.pager.shrink()
	}
}

func TestWhatAReaderComesToIsReadAhead(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 8<<20)
	d.fill(1, 10_000, 1000)
	d.pageAllOut()
	if d.Here(1, 1) {
		t.Fatal("it is on disk")
	}
	for d.pager.readNext() {
	}
	if d.ear.arrived[1] != 1+aheadChunks {
		t.Errorf("%d chunks have arrived", d.ear.arrived[1])
	}
	for seq := uint64(1); seq <= 3000; seq++ {
		if !d.Here(1, seq) {
			t.Fatalf("%d is not here", seq)
		}
	}
}

func TestAReaderKeepsItsChunksAsLongAsOthersCanGo(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 4<<20)
	d.fill(1, 20_000, 1000)
	d.Get(1, 1)
	d.pager.shrink()
	if !d.Paged(1) {
		t.Fatal("nothing was paged out")
	}
	for _, seq := range []uint64{1, 1500} {
		if _, ok := d.Get(1, seq); !ok {
			t.Errorf("%d, where the reader is, was paged out", seq)
		}
	}
	if _, ok := d.Get(1, 5000); ok {
		t.Error("5000 stayed")
	}
}

// Every byte of every extent is flipped once: no wrong message is ever served.
func TestAFlippedBitIsNeverServed(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 5, 40)
	d.pageAllOut()
	name := filepath.Join(pagedDir, d.folder.paging.current.name)
	f, err := fs.Edit(name)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, d.folder.paging.current.size.Load())
	if _, err := f.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	c := d.queues[1].chunks[0]
	refused, scratch := 0, []byte(nil)
	for at := fileHead; at < len(whole); at++ {
		flip := []byte{whole[at] ^ 0x10}
		if _, err := f.WriteAt(flip, int64(at)); err != nil {
			t.Fatal(err)
		}
		v := c.capture()
		l, err := v.load(1)
		if err == nil {
			for i := range l.recs {
				if r := l.recs[i].record(l.blocks); !bytes.Equal(r.Body, body(1, uint64(i)+1, 40)) || r.ExpiryMs != int64(i)+1 {
					t.Fatalf("byte %d: a wrong message was served", at)
				}
			}
		} else if refused++; !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", at, err)
		}
		for seq := uint64(1); seq <= 5; seq++ {
			r, err := v.one(1, seq, &scratch)
			if err == nil && (!bytes.Equal(r.Body, body(1, seq, 40)) || r.ExpiryMs != int64(seq)) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d: message %d by itself: %v, or it differs", at, seq, err)
			}
		}
		v.letGo()
		if _, err := f.WriteAt(whole[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if used := extentHead + 5*(entryBytes+40); refused < used {
		t.Errorf("%d of %d bytes were checked", refused, used)
	}
}

func TestDamageIsTold(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 5, 40)
	d.pageAllOut()
	f, err := fs.Edit(filepath.Join(pagedDir, d.folder.paging.current.name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("rubbish"), fileHead+extentHead+5*entryBytes); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.fetch(1, 1); ok || !errors.Is(d.ear.damaged, ErrDamaged) {
		t.Errorf("got %v, %v", ok, d.ear.damaged)
	}
	v := d.View()
	defer v.Release()
	if err := v.Each(func(uint64, uint64, Record) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("a view answers %v", err)
	}
}

// Each call of the file system fails once. Nothing is lost: what could not be
// written stays in memory, what could not be read is told as damaged.
func TestAnErrorAnywhereLosesNothing(t *testing.T) {
	for at, failed := 0, true; failed; at++ {
		failed = false
		fs, calls := vfs.NewMem(), 0
		p := newPager(fs, 1<<20, sense, slog.New(slog.DiscardHandler))
		fs.Inject(func(op vfs.Op, _ string) error {
			if calls++; calls-1 != at {
				return nil
			}
			failed = true
			return fmt.Errorf("broken %s", op)
		})
		folder, err := p.Folder(pagedDir)
		if err != nil {
			continue
		}
		e := newEar()
		d := &desk{Store: folder.NewStore(e), ear: e, pager: p, folder: folder}
		d.fill(1, 3000, 1000)
		d.pageAllOut()
		d.pageAllOut()
		for seq := uint64(1); seq <= 3000; seq++ {
			if seq%3 != 0 {
				d.Drop(1, seq, seq)
			}
		}
		d.pager.compactOne()
		d.pager.removeWaste()
		for seq := uint64(3); seq <= 3000; seq += 3 {
			r, ok := d.fetch(1, seq)
			if !ok && e.damaged == nil || ok && !bytes.Equal(r.Body, body(1, seq, 1000)) {
				t.Fatalf("call %d failed: message %d is lost or differs", at, seq)
			}
		}
	}
}

// A crash leaves rubbish of any kind in the folder: none of it survives the
// next start, and none of it is taken for a message.
func TestACrashLeavesNothingThatIsRead(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	fs.Inject(func(op vfs.Op, _ string) error {
		if op != vfs.OpWrite && op != vfs.OpRemove {
			return nil
		}
		for _, left := range []*vfs.Mem{fs.Crash(vfs.LoseAll), fs.Crash(vfs.LoseHalf), fs.Crash(vfs.LoseNothing), fs.CrashTorn(r)} {
			again := newDesk(t, left, 1<<20)
			if names, err := left.List(pagedDir); err != nil || len(names) != 0 {
				t.Fatalf("%v are left, %v", names, err)
			}
			again.fill(1, 10, 10)
			again.pageAllOut()
			if got, ok := again.fetch(1, 10); !ok || !bytes.Equal(got.Body, body(1, 10, 10)) {
				t.Fatal("the store does not work")
			}
		}
		return nil
	})
	d.fill(1, 4000, 1000)
	d.pageAllOut()
	d.Drop(1, 1, 4000)
	d.pager.removeWaste()
}

func TestSparseFilesAreWrittenAnew(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.pager.fileBytes = 4 << 20
	const count = 20_000
	d.fill(1, count, 1000)
	d.pageAllOut()
	for seq := uint64(1); seq <= count; seq++ {
		if seq%10 != 0 {
			d.Drop(1, seq, seq)
		}
	}
	view := d.View()
	before := len(d.folder.files)
	for range before {
		d.pager.compactOne()
	}
	d.pager.removeWaste()
	if names, _ := fs.List(pagedDir); len(names) < before {
		t.Errorf("a file went that a view reads: %v", names)
	}
	if err := view.Each(func(_, seq uint64, r Record) error {
		if !bytes.Equal(r.Body, body(1, seq, 1000)) {
			return fmt.Errorf("message %d differs", seq)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	view.Release()
	d.pager.removeWaste()
	var size int64
	for _, f := range d.folder.files {
		size += f.size.Load()
	}
	if size > count*1000/2 {
		t.Errorf("%d bytes on disk for %d of messages", size, count*1000/10)
	}
	for seq := uint64(10); seq <= count; seq += 100 {
		if r, ok := d.fetch(1, seq); !ok || !bytes.Equal(r.Body, body(1, seq, 1000)) {
			t.Fatalf("message %d is lost: %v", seq, d.ear.damaged)
		}
	}
}

func TestThePagerWorksByItself(t *testing.T) {
	p := NewPager(vfs.NewMem(), 256<<10, 1<<30, sense, slog.New(slog.DiscardHandler))
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := &waitingEar{ear: newEar()}
	e.more = sync.NewCond(&e.ear.Mutex)
	s := f.NewStore(e)
	const count = 20_000
	for seq := uint64(1); seq <= count; seq++ {
		e.Lock()
		s.Put(1, seq, 0, 0, 0, body(1, seq, 200))
		e.Unlock()
		f.Ease()
	}
	e.Lock()
	defer e.Unlock()
	for seq := uint64(1); seq <= count; seq++ {
		for !s.Here(1, seq) {
			e.more.Wait()
		}
		r, ok := s.Get(1, seq)
		if !ok || !bytes.Equal(r.Body, body(1, seq, 200)) {
			t.Fatalf("message %d is not there or differs: %v", seq, e.damaged)
		}
		s.Drop(1, seq, seq)
	}
	if st := p.Stats(); st.ChunksOut == 0 || st.ChunksIn == 0 {
		t.Errorf("nothing was paged: %+v", st)
	}
}

// waitingEar wakes who waits for an arrival.
type waitingEar struct {
	*ear
	more *sync.Cond
}

func (e *waitingEar) Arrived(q uint64) {
	e.ear.Arrived(q)
	e.more.Broadcast()
}

func TestNamesOfTwoRunsDiffer(t *testing.T) {
	fs := vfs.NewMem()
	a := newDesk(t, fs, 1<<20)
	a.fill(1, 10, 10)
	a.pageAllOut()
	b := newDesk(t, fs, 1<<20)
	b.fill(1, 10, 10)
	b.pageAllOut()
	if a.folder.paging.current.name == b.folder.paging.current.name || !strings.HasSuffix(a.folder.paging.current.name, ".seg") {
		t.Errorf("%s and %s", a.folder.paging.current.name, b.folder.paging.current.name)
	}
}

// What was mostly gone when it was written is not sparse because of that: to
// write it anew would gain nothing, and be done again for ever.
func TestCompactionComesToAnEnd(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.pager.fileBytes = 1 << 20
	const q = 1
	for seq := uint64(1); seq <= 60*1024; seq++ {
		d.Put(q, seq, 3, 0, 0, body(q, seq, 200))
		if seq%10 != 0 {
			d.Drop(q, seq, seq)
		}
		if seq%20480 == 0 {
			d.pageAllOut()
		}
	}
	d.pageAllOut()
	before := d.folder.number.Load()
	for range 10 {
		d.pager.compactOne()
		d.pager.removeWaste()
	}
	if made := d.folder.number.Load() - before; made > 0 {
		t.Errorf("%d files were made of what is in use as it is", made)
	}
}

// slowly is a file system whose writes take long.
type slowly struct{ vfs.FS }

type slowFile struct{ vfs.File }

func (s slowly) Create(name string) (vfs.File, error) {
	f, err := s.FS.Create(name)
	return slowFile{f}, err
}

func (f slowFile) WriteAt(b []byte, off int64) (int, error) {
	<-time.After(time.Duration(len(b)) * time.Second / (32 << 20))
	return f.File.WriteAt(b, off)
}

func TestEaseWaitsForWhatIsTooMuchOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // nothing is written while nothing waits for it
		p := NewPager(slowly{vfs.NewMem()}, 32<<20, 1<<30, sense, slog.New(slog.DiscardHandler))
		defer p.Close()
		f, err := p.Folder(pagedDir)
		if err != nil {
			t.Fatal(err)
		}
		e := newEar()
		s := f.NewStore(e)
		e.Lock()
		for seq := uint64(1); p.hot.Load() < 52<<20; seq++ {
			s.Put(1, seq, 0, 0, 0, body(1, seq, 4000))
		}
		e.Unlock()
		f.Ease()
		if hot := p.hot.Load(); hot > 48<<20 || hot < 36<<20 {
			t.Errorf("%d MiB are in memory after the wait", hot>>20)
		}
	})
}

func TestDamageThatCompactionMeetsIsTold(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 2000, 100)
	d.pageAllOut()
	c := d.queues[1].chunks[0]
	flip(t, fs, filepath.Join(pagedDir, c.file.name), int64(c.at)*extentAlign+int64(c.size)-extentAlign)
	if err := d.pager.compact(d.Store, c.file); !errors.Is(err, ErrDamaged) || !errors.Is(d.ear.damaged, ErrDamaged) {
		t.Errorf("compaction: %v, told: %v", err, d.ear.damaged)
	}
}
