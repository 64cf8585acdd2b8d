package segment

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"warren/storage/vfs"
)

// fillMany puts a backlog of some 50 KiB that expires into each of many queues,
// and has it written.
func (d *desk) fillMany(queues uint64) {
	for q := uint64(1); q <= queues; q++ {
		d.fill(q, 50, 1000)
	}
	d.pageAllOut()
}

func TestWhatManyQueuesAskForComesWithinTheBudget(t *testing.T) {
	const budget, queues = 512 << 10, 100
	d := newDesk(t, vfs.NewMem(), budget)
	d.fillMany(queues)
	for q := uint64(1); q <= queues; q++ {
		d.Here(q, 1)
	}
	for turns := 0; len(d.pager.wants) > 0; turns++ {
		if turns > 2*queues {
			t.Fatal("what was asked for does not come")
		}
		if d.pager.makeRoom() {
			d.pager.readNext()
		} else {
			d.settle() // a second later
		}
		if got := d.pager.hot.Load(); got > budget {
			t.Fatalf("%d bytes in memory", got)
		}
	}
	if len(d.ear.arrived) != queues {
		t.Errorf("chunks of %d queues came", len(d.ear.arrived))
	}
}

func TestWhatIsReadAheadGetsNoRoomMade(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 2<<20)
	d.fill(1, 10_000, 1000)
	d.pageAllOut()
	d.Here(1, 1)
	for d.pager.makeRoom() && d.pager.readNext() {
	}
	if d.ear.arrived[1] != 1 || d.pager.hot.Load() > 2<<20 {
		t.Fatalf("%d chunks came, %d bytes", d.ear.arrived[1], d.pager.hot.Load())
	}
	if d.settle(); d.Here(1, 1025) || !d.pager.makeRoom() || !d.pager.readNext() || !d.Here(1, 1025) {
		t.Error("what was not read ahead does not come when it is asked for")
	}
}

func TestOneChunkComesThoughMemoryIsFullOfWhatIsNotWritten(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 256<<10)
	d.fill(1, 2000, 1000)
	d.pageAllOut()
	d.fill(2, 2000, 1000)
	for seq := uint64(1); seq <= 2000; seq += 500 {
		if d.Here(1, seq) {
			continue
		}
		if d.settle(); !d.pager.makeRoom() || !d.pager.readNext() || !d.Here(1, seq) {
			t.Fatalf("%d does not come", seq)
		}
	}
}

// Who waits does not wait for what nobody has asked for to be a second old.
func TestWhatWasReadAheadMakesRoomAtOnce(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1100<<10)
	d.fill(1, 3000, 1000)
	d.pageAllOut()
	d.Here(1, 1)
	ahead := d.pager.wants[0].queue.chunks[1]
	d.pager.forgetWants()
	ahead.loading = notAsked
	d.want(d.queue(1), ahead, readAhead)
	if !d.pager.readNext() || ahead.hot == nil {
		t.Fatal("it was not read ahead")
	}
	d.want(d.queue(1), d.queue(1).chunks[2], askedFor)
	if !d.pager.makeRoom() {
		t.Error("it keeps its room")
	}
}

func TestWhenTheFirstExpiresIsKnownOfWhatIsOnDisk(t *testing.T) {
	d := newDesk(t, vfs.NewMem(), 1<<20)
	d.fillMany(3)
	d.Drop(2, 1, 4)
	for q, want := range map[uint64]struct {
		ms    int64
		known bool
	}{1: {1, true}, 2: {0, false}, 3: {1, true}} {
		first := uint64(1)
		if q == 2 {
			first = 5
		}
		if ms, known := d.Expiry(q, first); known != want.known || ms != want.ms {
			t.Errorf("queue %d: %d, %v", q, ms, known)
		}
	}
	if len(d.pager.wants) != 1 {
		t.Errorf("%d chunks were asked for", len(d.pager.wants))
	}
	if ms, known := d.Expiry(1, 2); known {
		t.Errorf("the second expires at %d, but nobody has looked", ms)
	}
}

// Every one of many queues is read from, and memory has room for a few chunks.
func TestManyReadersShareLittleMemory(t *testing.T) {
	const queues, count, budget = 60, 200, 512 << 10
	p := NewPager(vfs.NewMem(), budget, 1<<30, sense, slog.New(slog.DiscardHandler))
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := &waitingEar{ear: newEar()}
	e.more = sync.NewCond(&e.ear.Mutex)
	s := f.NewStore(e)
	for seq := uint64(1); seq <= count; seq++ {
		for q := uint64(1); q <= queues; q++ {
			e.Lock()
			s.Put(q, seq, 0, 0, 0, body(q, seq, 1000))
			e.Unlock()
			f.Ease()
		}
	}
	var all sync.WaitGroup
	for q := uint64(1); q <= queues; q++ {
		all.Go(func() {
			e.Lock()
			defer e.Unlock()
			for seq := uint64(1); seq <= count; seq++ {
				for !s.Here(q, seq) {
					e.more.Wait()
				}
				if r, ok := s.Get(q, seq); !ok || !bytes.Equal(r.Body, body(q, seq, 1000)) {
					t.Errorf("queue %d: message %d is not there or differs: %v", q, seq, e.damaged)
					return
				}
				s.Drop(q, seq, seq)
			}
		})
	}
	all.Wait()
	if st := p.Stats(); st.ChunksIn == 0 {
		t.Errorf("nothing was paged in: %+v", st)
	}
}

func TestOneMessageIsFetchedWithoutItsChunk(t *testing.T) {
	fs := vfs.NewMem()
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 3000, 300)
	d.pageAllOut()
	for _, seq := range []uint64{2, 1, 1024, 1025, 3000, 1500} {
		var got Record
		bodyBytes, away := d.Away(1, seq)
		d.Fetch(1, seq, func(r Record) { got = r })
		d.Drop(1, 2, 2)
		for d.pager.readNext() {
		}
		if !away || bodyBytes != 300 || !bytes.Equal(got.Body, body(1, seq, 300)) || got.ExpiryMs != int64(seq) || got.Priority != uint8(seq) || got.Flags != 3 {
			t.Errorf("message %d: away %v, %d bytes, %+v", seq, away, bodyBytes, got)
		}
	}
	if d.pager.hot.Load() != 0 {
		t.Errorf("%d bytes stay in memory", d.pager.hot.Load())
	}
	for _, seq := range []uint64{2, 3001} { // one has gone, one was never there
		if _, away := d.Away(1, seq); away {
			t.Errorf("message %d is away", seq)
		}
		d.Fetch(1, seq, func(Record) { t.Errorf("message %d came", seq) })
	}
	for d.pager.readNext() {
	}
	d.Fetch(1, 1, func(Record) { t.Error("a damaged message came") })
	f, err := fs.Edit(filepath.Join(pagedDir, d.queues[1].chunks[0].file.name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("rubbish"), fileHead+extentHead+1024*entryBytes); err != nil {
		t.Fatal(err)
	}
	for d.pager.readNext() {
	}
	if !errors.Is(d.ear.damaged, ErrDamaged) {
		t.Errorf("damaged: %v", d.ear.damaged)
	}
}
