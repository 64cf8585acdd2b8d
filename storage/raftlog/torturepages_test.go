package raftlog

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"warren/storage/segment"
	"warren/storage/vfs"
)

// shelf is who owns the tortured messages.
type shelf struct {
	sync.Mutex
	arrived chan struct{} // cap 1
}

// Arrived is segment.Owner's.
func (s *shelf) Arrived(uint64) {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// Damaged is segment.Owner's.
func (s *shelf) Damaged(err error) { panic(err) }

// pageForEver puts messages into a store that pages most of them out, and takes
// them again in their order. Files that another process has left must not be in
// its way, whatever is in them.
func pageForEver(fs vfs.FS, dir string) {
	p := segment.NewPager(fs, 256<<10, 1<<30, segment.Sense{Weigh: func([]byte) uint32 { return 0 }}, slog.New(slog.DiscardHandler))
	f, err := p.Folder(filepath.Join(dir, "segments"))
	if err != nil {
		panic(err)
	}
	own := &shelf{arrived: make(chan struct{}, 1)}
	s := f.NewStore(own)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	next, oldest := uint64(1), uint64(1)
	for {
		own.Lock()
		for range r.IntN(400) {
			s.Put(1, next, 0, 0, 0, torturedBody(next))
			next++
		}
		own.Unlock()
		f.Ease()
		for range min(r.Uint64N(400), next-oldest) {
			own.Lock()
			for !s.Here(1, oldest) {
				own.Unlock()
				<-own.arrived
				own.Lock()
			}
			rec, ok := s.Get(1, oldest)
			if !ok || !bytes.Equal(rec.Body, torturedBody(oldest)) {
				panic(fmt.Sprintf("message %d has %d bytes", oldest, len(rec.Body)))
			}
			s.Drop(1, oldest, oldest)
			oldest++
			own.Unlock()
		}
	}
}

func torturedBody(seq uint64) []byte { return tortured(99, seq, 0).Data }
