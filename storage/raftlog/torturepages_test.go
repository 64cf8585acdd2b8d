package raftlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"warren/storage/segment"
	"warren/storage/snapshot"
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
// them again in their order; now and then it takes a snapshot that links their files,
// and it goes on with the newest one of the process before. Files that another
// process has left must not be in its way, whatever is in them.
func pageForEver(fs vfs.FS, dir string) {
	p := segment.NewPager(fs, 256<<10, 1<<30, segment.Sense{Weigh: func([]byte) uint32 { return 0 }}, slog.New(slog.DiscardHandler))
	f, err := p.Folder(filepath.Join(dir, "segments"))
	if err != nil {
		panic(err)
	}
	own := &shelf{arrived: make(chan struct{}, 1)}
	snapshots, err := snapshot.Open(fs, filepath.Join(dir, pagedSnapshots), 2, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	s, oldest, next, err := restorePaged(snapshots, f, own)
	if err != nil {
		panic(err)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for {
		if r.IntN(4) == 0 {
			own.Lock()
			v := s.View()
			own.Unlock()
			if err := snapPaged(snapshots, v, oldest, next); err != nil {
				panic(err)
			}
			v.Release()
		}
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

// pagedSnapshots is the folder of the snapshots that link segments.
const pagedSnapshots = "paged/snapshots"

// snapPaged takes a snapshot of messages oldest up to before next, which is its
// index.
func snapPaged(to *snapshot.Store, v *segment.View, oldest, next uint64) error {
	k, err := to.Create(raft.SnapshotVersionMax, next, 1, raft.Configuration{}, 1, nil)
	if err == nil {
		err = v.Save()
	}
	if err != nil {
		return err
	}
	for _, f := range v.Files() {
		if err := k.(*snapshot.Sink).Link(f.Name, f.Path, f.Bytes, f.ID); err != nil {
			return err
		}
	}
	if _, err := k.Write(v.AppendTo(binary.LittleEndian.AppendUint64(nil, oldest))); err != nil {
		return err
	}
	return k.Close()
}

// restorePaged restores the newest snapshot, or begins an empty store.
func restorePaged(from *snapshot.Store, f *segment.Folder, own segment.Owner) (s *segment.Store, oldest, next uint64, err error) {
	list, err := from.List()
	if err != nil || len(list) == 0 {
		return f.NewStore(own), 1, 1, err
	}
	r, err := from.LocalOpen(list[0].ID)
	if err != nil {
		return nil, 0, 0, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, 0, err
	}
	s, err = f.Restore(own, b[8:], r.Folder())
	return s, binary.LittleEndian.Uint64(b), list[0].Index, err
}

// wantPaged checks that the newest snapshot brings all of its messages back, and
// nothing else.
func wantPaged(t *testing.T, dir string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(pagedSnapshots)), 0o700); err != nil {
		t.Fatal(err)
	}
	p := segment.NewPager(vfs.OS{}, 64<<20, 1<<30, segment.Sense{Weigh: func([]byte) uint32 { return 0 }}, quiet)
	defer p.Close()
	f, err := p.Folder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	snapshots, err := snapshot.Open(vfs.OS{}, filepath.Join(dir, pagedSnapshots), 2, quiet)
	if err != nil {
		t.Fatal(err)
	}
	own := &shelf{arrived: make(chan struct{}, 1)}
	s, oldest, next, err := restorePaged(snapshots, f, own)
	if err != nil {
		t.Fatal(err)
	}
	own.Lock()
	defer own.Unlock()
	at := oldest
	s.Live(func(_, first, last uint64) bool {
		if first < at || first > at && at > oldest || last >= next {
			t.Fatalf("messages %d to %d are there, of %d to before %d", first, last, oldest, next)
		}
		at = last + 1
		return true
	})
	if at != next {
		t.Fatalf("messages %d up to before %d are missing", at, next)
	}
	for seq := oldest; seq < next; seq++ {
		for !s.Here(1, seq) {
			own.Unlock()
			<-own.arrived
			own.Lock()
		}
		if rec, ok := s.Get(1, seq); !ok || !bytes.Equal(rec.Body, torturedBody(seq)) {
			t.Fatalf("message %d has %d bytes", seq, len(rec.Body))
		}
	}
	s.Close()
	f.Close()
}

func torturedBody(seq uint64) []byte { return tortured(99, seq, 0).Data }
