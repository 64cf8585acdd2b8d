package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"warren/storage/vfs"
)

// meddled is a desk with a model of it, at which things happen while others
// are at work: the Pager's writer and reader, and who saves a snapshot, let go
// of the owner's lock at certain moments, and it is there that the rest of the
// house comes in. All of it on one goroutine, so that what fails can be told
// again.
type meddled struct {
	*desk
	t       *rapid.T
	fs      *vfs.Mem
	rand    *rand.Rand
	was     model
	last    map[uint64]uint64
	views   []pastView
	writing bool // the Pager's writer is at work
	reading bool // its reader is
	inside  int  // what goes on within what
	quiet   bool
	failing bool // calls of the file system fail now and then
	harming bool // what is on disk is damaged now and then
	harmed  bool // it was
}

type pastView struct {
	view *View
	was  model
}

// meddler is the owner: who takes its lock may find that others were there.
type meddler struct {
	*ear
	do func()
}

func (e *meddler) Lock() {
	e.ear.Lock()
	e.do()
}

func newMeddled(t *rapid.T) *meddled {
	x := &meddled{
		t: t, fs: vfs.NewMem(), was: model{}, last: map[uint64]uint64{},
		rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)),
	}
	x.desk = newDesk(t, x.fs, 256<<10)
	x.pager.fileBytes = 256 << 10
	x.owner = x.newOwner()
	x.fs.Inject(func(op vfs.Op, _ string) error {
		if x.mayMeddle(4) {
			x.within(x.anything)
		}
		if op != vfs.OpRead && op != vfs.OpList && op != vfs.OpRemove && x.failing && x.mayMeddle(20) {
			return errNo
		}
		return nil
	})
	return x
}

func (x *meddled) newOwner() Owner {
	return &meddler{x.ear, func() {
		if x.mayMeddle(3) {
			x.within(x.change)
		}
	}}
}

var errNo = errors.New("no")

// mayMeddle answers true once in so many times.
func (x *meddled) mayMeddle(times int) bool {
	return !x.quiet && x.inside > 0 && x.inside < 4 && x.rand.IntN(times) == 0
}

func (x *meddled) within(f func()) {
	x.inside++
	f()
	x.inside--
}

// change is what happens with the owner's lock held.
func (x *meddled) change() {
	for range 1 + x.rand.IntN(5) {
		x.changeOne()
	}
}

func (x *meddled) changeOne() {
	q := 1 + x.rand.Uint64N(3)
	switch x.rand.IntN(14) {
	case 0, 1, 2, 3:
		x.putRun(q)
	case 4, 5, 6, 7:
		x.dropRun(q)
	case 8:
		x.Get(q, x.someSeq(q))
		x.settle()
	case 9:
		x.Here(q, x.someSeq(q))
	case 10:
		if len(x.views) < 6 {
			x.capture()
		}
	case 11:
		if x.rand.IntN(4) == 0 {
			x.DropQueue(q)
			delete(x.was, q)
		}
	case 12: // a few that go at once
		x.putRun(q)
		x.drop(q, 0, x.last[q])
	case 13:
		seq := x.someSeq(q)
		want, live := x.was[q][seq]
		x.Fetch(q, seq, func(r Record) {
			if !live || !bytes.Equal(r.Body, want.Body) || r.ExpiryMs != want.ExpiryMs || r.Flags != want.Flags {
				x.t.Fatalf("message %d of queue %d was live: %v, or it differs", seq, q, live)
			}
		})
	}
}

// anything is something that happens without the owner's lock.
func (x *meddled) anything() {
	switch x.rand.IntN(9) {
	case 0, 1, 2:
		x.change()
	case 3:
		x.asWriter(func() { x.settle(); x.pager.shrink() })
	case 4:
		x.asWriter(func() {
			x.settle()
			if x.rand.IntN(4) == 0 {
				x.pageAllOut()
			}
			x.pager.pageOutOf(x.Store)
		})
	case 5:
		x.asWriter(func() { x.pager.endEmpty(); x.pager.compactOne(); x.compactAny() })
	case 6:
		x.asReader(func() {
			if x.pager.makeRoom() {
				x.pager.readNext()
			}
		})
	case 7:
		x.save()
		x.asWriter(x.compactAny)
	case 8:
		x.harm()
	}
}

// compactAny moves a file, sparse or not.
func (x *meddled) compactAny() {
	if files := x.folder.list(); len(files) > 0 {
		x.noDamage(x.pager.compact(x.Store, files[x.rand.IntN(len(files))]))
	}
	x.pager.removeWaste()
}

// harm changes a byte that is on disk.
func (x *meddled) harm() {
	files := x.folder.list()
	if !x.harming || len(files) == 0 || x.rand.IntN(8) != 0 {
		return
	}
	quiet := x.quiet
	x.quiet, x.harmed = true, true
	f := files[x.rand.IntN(len(files))]
	in, err := x.fs.Open(f.path())
	if err != nil {
		x.t.Fatalf("harm: %v", err)
	}
	if size, _ := in.Size(); size > fileHead { // that it is to have may not be there yet
		flip(x.t, x.fs, f.path(), fileHead+x.rand.Int64N(size-fileHead))
	}
	x.quiet = quiet
}

func (x *meddled) noDamage(err error) {
	if err != nil && !(x.harmed && errors.Is(err, ErrDamaged)) && !(x.failing && errors.Is(err, errNo)) {
		x.t.Fatalf("%v", err)
	}
}

func (x *meddled) asWriter(f func()) {
	if !x.writing {
		x.writing = true
		f()
		x.writing = false
	}
}

func (x *meddled) asReader(f func()) {
	if !x.reading {
		x.reading = true
		f()
		x.reading = false
	}
}

func (x *meddled) capture() { x.views = append(x.views, pastView{x.View(), x.was.clone()}) }

// save saves one of the views, and has it restored. The store may then be the
// one that was restored.
func (x *meddled) save() {
	if !x.quiet && x.rand.IntN(2) == 0 {
		x.capture()
	}
	if len(x.views) == 0 {
		return
	}
	i := x.rand.IntN(len(x.views))
	p := x.views[i]
	x.views = append(x.views[:i:i], x.views[i+1:]...)
	defer p.view.Release()
	if err := p.view.Save(); err != nil {
		x.noDamage(err)
		return
	}
	if x.mayMeddle(2) {
		x.within(x.anything)
	}
	quiet := x.quiet
	x.quiet = true
	linked := link(x.t, x.fs, p.view)
	x.quiet = quiet
	s, err := x.folder.Restore(x.newOwner(), p.view.AppendTo(nil), linked)
	if err != nil {
		x.noDamage(err)
		return
	}
	if x.rand.IntN(2) == 0 {
		x.Close()
		x.Store, x.was = s, p.was.clone()
		return
	}
	x.quiet = true
	back := &meddled{desk: &desk{Store: s, ear: x.ear, pager: x.pager, folder: x.folder}, t: x.t, fs: x.fs, was: p.was, harmed: x.harmed}
	back.checkLive()
	if !x.reading {
		back.checkBodies()
	}
	s.Close()
	x.quiet = quiet
}

// sizes are of bodies; the big ones are rare.
var meddledSizes = [...]int{0, 1, 30, 30, 200, 200, 1000, 3000, bigBody - 1, bigBody, 3 * pieceBytes}

// gaps are of sequence numbers, now and then.
var meddledGaps = [...]uint64{2, 3, 63, 64, 65, 500, chunkSlots - 1, chunkSlots, chunkSlots + 1, 1 << 40}

func (x *meddled) putRun(q uint64) {
	n, sizes := 1+x.rand.IntN(60), meddledSizes[:len(meddledSizes)-3]
	switch x.rand.IntN(12) {
	case 0:
		n, sizes = 2, meddledSizes[:]
	case 1:
		n, sizes = 1+x.rand.IntN(80), meddledSizes[len(meddledSizes)-3:len(meddledSizes)-1]
	case 2:
		n, sizes = 1200, meddledSizes[:2]
	}
	mixed := uint8(-x.rand.IntN(2))
	for range n {
		seq := x.last[q] + 1
		if x.rand.IntN(30) == 0 {
			seq += meddledGaps[x.rand.IntN(len(meddledGaps))] - 1
		}
		if seq > 1<<61 {
			return
		}
		r := Record{
			Flags: uint8(seq) & mixed, Priority: uint8(seq) & mixed, ExpiryMs: int64(seq%3) / 2,
			Body: body(q, seq, sizes[x.rand.IntN(len(sizes))]),
		}
		x.Put(q, seq, r.Flags, r.Priority, r.ExpiryMs, r.Body)
		x.was.put(q, seq, r)
		x.last[q] = seq
	}
}

// someSeq is a message that lives, or one near to it.
func (x *meddled) someSeq(q uint64) uint64 {
	at := x.queues[q]
	if at == nil || len(at.chunks) == 0 {
		return x.last[q]
	}
	c := at.chunks[x.rand.IntN(len(at.chunks))]
	return c.first + x.rand.Uint64N(uint64(c.slots)+1)
}

func (x *meddled) dropRun(q uint64) {
	first := x.someSeq(q)
	switch x.rand.IntN(8) {
	case 0:
		first = 0
	case 1:
		first = x.last[q]
	}
	last := first + [...]uint64{0, 0, 1, 5, 60, 900, 5000, 1 << 60}[x.rand.IntN(8)]
	x.drop(q, first, last)
}

func (x *meddled) drop(q, first, last uint64) {
	x.Drop(q, first, last)
	for seq := range x.was[q] {
		if seq >= first && seq <= last {
			delete(x.was[q], seq)
		}
	}
}

// checkLive compares what is known without a look at the disk.
func (x *meddled) checkLive() {
	x.checkMarks(x.t, x.was)
	count := 0
	for _, msgs := range x.was {
		count += len(msgs)
	}
	x.Live(func(q, first, last uint64) bool {
		for seq := first; seq <= last; seq++ {
			if _, ok := x.was[q][seq]; !ok {
				x.t.Fatalf("message %d of queue %d is still live", seq, q)
			}
			count--
		}
		return true
	})
	if count != 0 {
		x.t.Fatalf("%d messages are not live", count)
	}
}

// checkBodies compares all messages, which it has read.
func (x *meddled) checkBodies() {
	if !x.harmed {
		x.checkScan(x.t, x.was)
	}
	for q, msgs := range x.was {
		bytesOfQueue := int64(0)
		for seq, want := range msgs {
			got, ok := x.fetch(q, seq)
			if !ok && x.ear.damaged != nil && x.harmed {
				continue
			}
			if ms, known := x.Expiry(q, seq); !ok || !bytes.Equal(got.Body, want.Body) || !known || ms != want.ExpiryMs {
				x.t.Fatalf("queue %d seq %d: there %v, or it differs: %v", q, seq, ok, x.ear.damaged)
			}
			bytesOfQueue += int64(len(want.Body))
		}
		if got := x.Bytes(q); got != bytesOfQueue && !x.harmed {
			x.t.Fatalf("queue %d: %d bytes, want %d", q, got, bytesOfQueue)
		}
	}
}

func TestWhatComesBetweenChangesNothing(t *testing.T) {
	most := 40
	if testing.Short() {
		most = 10
	}
	rapid.Check(t, func(t *rapid.T) {
		x := newMeddled(t)
		x.failing, x.harming = rapid.Bool().Draw(t, "failing"), rapid.Bool().Draw(t, "harming")
		for range rapid.IntRange(1, most).Draw(t, "steps") {
			x.within(x.anything)
		}
		x.quiet = true
		for len(x.views) > 0 {
			x.save()
		}
		x.checkLive()
		x.checkBodies()
		for x.pager.readNext() {
		}
		x.checkMemory(t)
		x.checkEmptied(t, x.fs, x.last)
	})
}
