package segment

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"warren/storage/vfs"
)

const (
	// pageOutBytes is how much is written before the stores are looked at anew.
	pageOutBytes = 4 << 20
	// keepLoaded is how long a chunk that was asked for stays in memory until it
	// is read; what wants it may need a moment.
	keepLoaded = time.Second
	// retryAfter is how soon a page-out that freed too little is tried again.
	retryAfter = time.Second
	// compactEvery is how often one sparse file is looked for, and written anew.
	compactEvery = 5 * time.Second
)

// Pager keeps the bodies of a node's groups within a budget of memory. It has
// one goroutine that writes, one that reads, and no lock while it does either.
// Safe for concurrent use.
type Pager struct {
	fs        vfs.FS
	budget    int64
	most      int64 // that memory may come to while nothing can be written
	fileBytes int64 // from which no more is written to a file
	sense     Sense
	log       *slog.Logger

	hot     atomic.Int64  // bytes of memory of all stores
	loaded  atomic.Int64  // those of them that came back from disk
	kick    chan struct{} // cap 1: for the writer
	ending  chan struct{} // closed when stopped is set
	stats   pagerCounters
	failing bool   // the last write was an error; the writer's
	index   []byte // the reader's, for one index

	mu      sync.Mutex
	changed *sync.Cond // wants, passes or stopped
	stores  []*Store
	wants   []want // at most one for each chunk, and one for each Scan and Fetch
	aheads  []want // at most two for each chunk: read while nothing else is to be read
	waste   []*file
	ended   []*Folder // of which the writer has a file open still
	passes  uint64    // of the writer
	stuck   bool      // the last one could not free enough
	refused bool      // because of an error
	stopped bool
	hurried bool // nobody waits in Ease any more
	work    sync.WaitGroup
}

type pagerCounters struct{ out, in, bytesOut, bytesIn atomic.Uint64 }

// PagerStats are figures of a Pager.
type PagerStats struct {
	HotBytes, BudgetBytes int64  // memory that chunks take, and may take
	ChunksOut, ChunksIn   uint64 // written, and read
	BytesOut, BytesIn     uint64
}

// Sense is what a Pager keeps at hand of messages that are paged out, in words
// of those who put them.
type Sense struct {
	// Weigh is what a body counts for, for Scan. It runs on the Pager's goroutine.
	Weigh func(body []byte) uint32
	// Flags are the bits of a message's flags that Mark tells.
	Flags uint8
}

// NewPager returns a Pager that begins to page out when the bodies of its
// stores take more than budget bytes, and that lets them take no more than most
// while it cannot: see Ease.
func NewPager(fs vfs.FS, budget, most int64, sense Sense, log *slog.Logger) *Pager {
	p := newPager(fs, budget, sense, log)
	p.most = max(most, budget+budget/2)
	p.work.Go(p.writeOn) // these two end with Close
	p.work.Go(p.readOn)
	return p
}

// newPager is a Pager whose work somebody else does.
func newPager(fs vfs.FS, budget int64, sense Sense, log *slog.Logger) *Pager {
	p := &Pager{
		fs: fs, budget: budget, most: math.MaxInt64, fileBytes: fileBytes, sense: sense, log: log,
		kick: make(chan struct{}, 1), ending: make(chan struct{}),
	}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// Close stops the Pager. Stores go on in memory; what they have paged out is
// not to be had any more.
func (p *Pager) Close() {
	p.mu.Lock()
	if !p.stopped {
		p.stopped = true
		close(p.ending)
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	p.wake()
	p.work.Wait()
}

// Hurry ends all waiting in Ease, for good: the groups are about to be closed,
// which waits for who applies their entries, and a full disk may stay full.
func (p *Pager) Hurry() {
	p.mu.Lock()
	p.hurried = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

// Stats returns the figures.
func (p *Pager) Stats() PagerStats {
	return PagerStats{
		HotBytes: p.hot.Load(), BudgetBytes: p.budget,
		ChunksOut: p.stats.out.Load(), ChunksIn: p.stats.in.Load(),
		BytesOut: p.stats.bytesOut.Load(), BytesIn: p.stats.bytesIn.Load(),
	}
}

func (p *Pager) add(s *Store) {
	p.mu.Lock()
	p.stores = append(p.stores, s)
	p.mu.Unlock()
}

func (p *Pager) remove(s *Store) {
	p.mu.Lock()
	p.stores = slices.DeleteFunc(p.stores, func(x *Store) bool { return x == s })
	p.mu.Unlock()
}

// account counts memory. It runs on the way of every new block of bodies, under
// a store's owner's lock, and must not wait.
func (p *Pager) account(bytes int64) {
	if p.hot.Add(bytes) > p.budget && bytes > 0 {
		p.wake()
	}
}

func (p *Pager) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// discard has a file removed that nobody holds.
func (p *Pager) discard(f *file) {
	p.mu.Lock()
	p.waste = append(p.waste, f)
	p.mu.Unlock()
	p.wake()
}

// Ease waits while memory is well over the budget and paging out helps. Whoever
// fills a store calls it, without the owner's lock: it is what bounds memory
// when more comes in than the disk takes.
//
// While nothing can be written, because the disk is full, it lets go on what
// there is memory for: consumers need that, and it is not for here to keep
// publishers out. At the most that memory may come to it waits for the disk all
// the same. A node that starts with a deep queue and a full disk comes there,
// and would be killed for its memory over and over.
func (f *Folder) Ease() {
	p := f.pager
	for p.hot.Load() > p.budget+p.budget/2 {
		p.mu.Lock()
		if !p.refused {
			p.wake() // else it is tried again in a while
		}
		for pass := p.passes; p.passes == pass && !p.stopped && !p.hurried && !f.hurried && !p.letsGo(); {
			p.changed.Wait()
		}
		enough := p.letsGo() || p.stuck && !p.refused || p.stopped || p.hurried || f.hurried
		p.mu.Unlock()
		if enough {
			return
		}
	}
}

// letsGo reports whether there is memory to go on with while nothing can be
// written. Runs with mu held.
func (p *Pager) letsGo() bool { return p.refused && p.hot.Load() <= p.most }

// writeOn is the writer: it pages out when it is woken, removes files, and
// writes sparse ones anew.
func (p *Pager) writeOn() {
	retry := time.NewTimer(0)
	defer retry.Stop()
	compact := time.NewTicker(compactEvery)
	defer compact.Stop()
	var paused time.Time // until then nothing is written, after an error
	for {
		select {
		case <-p.kick:
		case <-retry.C:
		case <-compact.C:
			p.endEmpty()
			p.compactOne()
		}
		p.removeWaste()
		if time.Now().Before(paused) && !p.isStopped() {
			continue
		}
		stuck := !p.shrink()
		p.mu.Lock()
		p.passes++
		p.stuck, p.refused = stuck, stuck && p.failing
		stopped := p.stopped
		p.changed.Broadcast()
		p.mu.Unlock()
		if stopped {
			p.removeWaste()
			return
		}
		if stuck && p.failing {
			paused = time.Now().Add(retryAfter) // which is over when retry comes
		}
		if stuck {
			retry.Reset(retryAfter)
		}
	}
}

// shrink pages out until an eighth of the budget is free, if it was exceeded.
// It answers false if that cannot be done now.
func (p *Pager) shrink() bool {
	if p.hot.Load() <= p.budget {
		return true
	}
	for p.hot.Load() > p.budget-p.budget/8 {
		if p.isStopped() || !p.pageOut() {
			return false
		}
		p.mu.Lock() // who waits in Ease need not wait for all of it
		p.passes++
		p.stuck, p.refused = false, false
		p.changed.Broadcast()
		p.mu.Unlock()
	}
	return true
}

func (p *Pager) isStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// pageOut frees some memory of the store that has most of what can be freed.
func (p *Pager) pageOut() bool {
	for _, s := range p.largest() {
		if p.pageOutOf(s) {
			return true
		}
	}
	return false
}

// largest lists the stores, those with most in memory first.
func (p *Pager) largest() []*Store {
	p.mu.Lock()
	stores := slices.Clone(p.stores)
	p.mu.Unlock()
	size := make(map[*Store]int64, len(stores)) // they change while they are sorted
	for _, s := range stores {
		size[s] = s.bytes.Load()
	}
	slices.SortFunc(stores, func(a, b *Store) int { return cmp.Compare(size[b], size[a]) })
	return stores
}

func (p *Pager) pageOutOf(s *Store) bool {
	s.owner.Lock()
	before := s.bytes.Load()
	batch := s.victims(pageOutBytes)
	freed := before - s.bytes.Load()
	s.owner.Unlock()
	err := p.writeAll(s, batch)
	s.owner.Lock()
	for i := range batch {
		s.written(&batch[i])
	}
	s.owner.Unlock()
	p.noteWrite(err, len(batch))
	return err == nil && (freed > 0 || len(batch) > 0)
}

// noteWrite logs when writing begins to fail, and when it goes on.
func (p *Pager) noteWrite(err error, count int) {
	switch {
	case err != nil && !p.failing:
		p.log.Error("messages cannot be paged out and stay in memory", "err", err, "retry", retryAfter)
		p.failing = true
	case err == nil && count > 0 && p.failing:
		p.log.Info("messages are paged out again")
		p.failing = false
	}
}

// writeAll writes the extents of a batch, up to the first error.
func (p *Pager) writeAll(s *Store, batch []victim) error {
	for i := range batch {
		v := &batch[i]
		if err := s.folder.paging.write(v.queue.id, &v.view); err != nil {
			return err
		}
		p.stats.out.Add(1)
		p.stats.bytesOut.Add(uint64(v.view.size))
	}
	return nil
}

// removeWaste closes and removes the files that nobody holds. Runs on the writer.
func (p *Pager) removeWaste() {
	p.mu.Lock()
	ended := p.ended
	p.ended = nil
	p.mu.Unlock()
	for _, f := range ended {
		f.paging.retire()
	}
	p.mu.Lock()
	waste := p.waste
	p.waste = nil
	p.mu.Unlock()
	for _, f := range waste {
		p.mu.Lock()
		f.folder.files = slices.DeleteFunc(f.folder.files, func(x *file) bool { return x == f })
		p.mu.Unlock()
		if err := f.f.Close(); err != nil {
			p.log.Warn("close a segment", "file", f.name, "err", err)
		}
		if err := p.fs.Remove(f.path()); err != nil {
			p.log.Warn("a segment stays until the next start", "file", f.name, "err", err)
		}
	}
}
