package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// shelvedBytes are the sizes of a snapshot's files.
var shelvedBytes = []int{1 << 10, 1 << 10, 300 << 10, 2*pullBytesMax + 1}

// shelved is a journal whose snapshots have files, the same on each node.
type shelved struct {
	journal
	dir string

	mu       sync.Mutex
	restored []snapshot.File
	fault    error
}

type shelvedSnapshot struct {
	Snapshot
	dir string
}

func (s *shelved) Snapshot() (Snapshot, error) {
	snap, err := s.journal.Snapshot()
	return shelvedSnapshot{snap, s.dir}, err
}

func (s shelvedSnapshot) WriteTo(w io.Writer) (int64, error) {
	sink := w.(*snapshot.Sink)
	for i, bytes := range shelvedBytes {
		f := segmentOf(i, bytes)
		name := filepath.Join(s.dir, f.Name)
		out, err := vfs.OS{}.Create(name)
		if err != nil {
			return 0, err
		}
		_, err = out.Write(fill(i, bytes))
		if err := errors.Join(err, out.Sync(), out.Close(), sink.Link(f.Name, name, f.Bytes, f.ID), vfs.OS{}.Remove(name)); err != nil {
			return 0, err
		}
	}
	return s.Snapshot.WriteTo(w)
}

func (s *shelved) Restore(r io.Reader) error {
	err := s.journal.Restore(r)
	in := r.(*snapshot.Reader)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = in.Files()
	for i := range s.restored {
		f, err := in.OpenFile(i)
		if err != nil {
			return err
		}
		b := make([]byte, s.restored[i].Bytes)
		_, err = f.ReadAt(b, 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if !bytes.Equal(b, fill(numberOf(s.restored[i]), len(b))) {
			s.fault = fmt.Errorf("%s has other bytes", s.restored[i].Name)
		}
	}
	return err
}

func (s *shelved) has() (files int, fault error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.restored), s.fault
}

func TestAFollowerThatIsKilledWhilePullingGetsOnlyTheDifference(t *testing.T) {
	t.Parallel() // it waits most of its time
	nodes := three(t, nil)
	meshed(t, nodes)
	founders := nodes[0].formed(t).Founders
	machines := map[*node]*shelved{}
	groups := map[*node][]*Group{}
	open := func(n *node) {
		machines[n] = &shelved{dir: t.TempDir()}
		g, err := n.OpenGroup(testGroup, machines[n], GroupOptions{Bootstrap: founders})
		if err != nil {
			t.Fatal(err)
		}
		groups[n] = []*Group{g}
	}
	for _, n := range nodes {
		open(n)
	}
	leader := leaderOf(t, nodes, groups, 0)
	behind := nodes[0]
	if behind == leader {
		behind = nodes[1]
	}
	var rest []*node
	for _, n := range nodes {
		if n != behind {
			rest = append(rest, n)
		}
	}
	behind.crash(t)
	behind.stop(t)
	leader = leaderOf(t, rest, groups, 0)
	const entries = 600 // more than the log keeps behind a snapshot
	commit(t, groups[leader][0], entries)
	for _, n := range rest {
		eventually(t, "the others have all entries", func() bool { return commands(&machines[n].journal) == entries })
		if err := groups[n][0].Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	cfg := behind.cfg
	cfg.Join = []string{rest[0].Advertised(), rest[1].Advertised()}
	again := start(t, cfg, func(c *Cluster) { c.bulkRate.bytesPerSecond = 8 << 10 }) // enough for two files, and then not
	again.formed(t)
	open(again)
	eventually(t, "some files are there", func() bool { return again.PullStats().PulledFiles == 2 })
	again.crash(t)
	again.stop(t)
	had := again.PullStats()
	if files, _ := machines[again].has(); files != 0 {
		t.Fatalf("it has pulled all before it was killed: %+v", had)
	}

	last := start(t, cfg, nil)
	last.formed(t)
	open(last)
	eventually(t, "all entries", func() bool { return commands(&machines[last].journal) == entries })
	eventually(t, "the rest of the files", func() bool { files, _ := machines[last].has(); return files > 0 }) // a moment later
	got := last.PullStats()
	if files, fault := machines[last].has(); files != len(shelvedBytes) || fault != nil {
		t.Errorf("restored %d files, %v", files, fault)
	}
	if got.PulledBytes != 300<<10+2*pullBytesMax+1 || got.SkippedBytes < 2<<10 || had.PulledBytes != 2<<10 {
		t.Errorf("after %+v: %+v", had, got)
	}
	if served := rest[0].PullStats().ServedBytes + rest[1].PullStats().ServedBytes; served < got.PulledBytes {
		t.Errorf("%d bytes were served", served)
	}
}
