package segment

import (
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"warren/storage/vfs"
)

// A full disk lets go on what there is memory for, and no more: what comes then
// waits until something can be written.
func TestAFullDiskBoundsMemory(t *testing.T) {
	fs := vfs.NewMem()
	var full, tried atomic.Bool
	full.Store(true)
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpWrite && full.Load() {
			tried.Store(true)
			return syscall.ENOSPC
		}
		return nil
	})
	const budget, most = 4 << 20, 12 << 20
	p := NewPager(fs, budget, most, sense, slog.New(slog.DiscardHandler))
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := newEar()
	s := f.NewStore(e)
	var filled atomic.Int64 // bytes that Ease has let through
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint64(1); seq <= 8<<10; seq++ { // 32 MiB
			f.Ease()
			e.Lock()
			s.Put(1, seq, 0, 0, 0, body(1, seq, 4000))
			e.Unlock()
			filled.Add(4000)
		}
	}()
	const slack = 2 << 20 // of a block and a message
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); {
			if time.Now().After(end) {
				t.Fatalf("%s: %d MiB are in memory, %d were let through", what, p.hot.Load()>>20, filled.Load()>>20)
			}
			<-time.After(time.Millisecond)
		}
	}
	await("up to the most", func() bool { return p.hot.Load() > most })
	passes := func() uint64 { p.mu.Lock(); defer p.mu.Unlock(); return p.passes }
	pass := passes()
	await("a second try, with nothing let through", func() bool { return passes() > pass })
	if hot := p.hot.Load(); hot > most+slack || !tried.Load() {
		t.Errorf("%d MiB are in memory, the most is %d", hot>>20, most>>20)
	}
	full.Store(false)
	<-done
	await("after the disk has room", func() bool { return p.hot.Load() <= budget+budget/2+slack })
}

func TestAFullDiskKeepsNoGroupFromClosing(t *testing.T) {
	t.Run("with all others", func(t *testing.T) { closingOnAFullDisk(t, func(f *Folder) { f.pager.Hurry() }) })
	t.Run("by itself", func(t *testing.T) { closingOnAFullDisk(t, (*Folder).Hurry) })
}

func closingOnAFullDisk(t *testing.T, hurry func(*Folder)) {
	fs := vfs.NewMem()
	fs.Inject(func(op vfs.Op, _ string) error {
		if op == vfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	const budget = 1 << 20
	p := NewPager(fs, budget, budget, sense, slog.New(slog.DiscardHandler))
	defer p.Close()
	f, err := p.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := newEar()
	s := f.NewStore(e)
	e.Lock()
	for seq := uint64(1); seq <= 1000; seq++ {
		s.Put(1, seq, 0, 0, 0, body(1, seq, 4000))
	}
	e.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Ease()
	}()
	hurry(f)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("who applies entries waits for the disk")
	}
}
