package cluster

import (
	"sync"
	"sync/atomic"
)

// growth is how much has come to a log since its newest snapshot. One that
// fails, at whatever point, takes nothing off.
type growth struct {
	bytes, count atomic.Int64 // of all entries

	covering                   sync.Mutex
	coveredBytes, coveredCount atomic.Int64 // of those that a snapshot stands for
}

// growthMark is a moment in a log's growth.
type growthMark struct{ bytes, count int64 }

func (g *growth) add(bytes, count int64) {
	g.bytes.Add(bytes)
	g.count.Add(count)
}

// now is for the goroutine that adds.
func (g *growth) now() growthMark { return growthMark{g.bytes.Load(), g.count.Load()} }

// cover notes that a snapshot of that moment is on disk. A newer one may be
// there already: one that a leader sent while this one was written.
func (g *growth) cover(m growthMark) {
	g.covering.Lock()
	defer g.covering.Unlock()
	g.coveredBytes.Store(max(m.bytes, g.coveredBytes.Load()))
	g.coveredCount.Store(max(m.count, g.coveredCount.Load()))
}

// bytesSince is of entries since the newest snapshot. What is covered is looked
// at first: it never passes what there is.
func (g *growth) bytesSince() int64 {
	covered := g.coveredBytes.Load()
	return g.bytes.Load() - covered
}

func (g *growth) countSince() int64 {
	covered := g.coveredCount.Load()
	return g.count.Load() - covered
}
