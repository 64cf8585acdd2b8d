package cluster

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"
)

// balky is a journal whose snapshots fail for as long as it says.
type balky struct {
	*journal
	capture, write atomic.Bool // fails
}

var errBalky = errors.New("no space left on device")

func (b *balky) Snapshot() (Snapshot, error) {
	if b.capture.Load() {
		return nil, errBalky
	}
	s, err := b.journal.Snapshot()
	return balkySnapshot{s, b}, err
}

type balkySnapshot struct {
	Snapshot
	of *balky
}

func (s balkySnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := s.Snapshot.WriteTo(w)
	if s.of.write.Load() {
		err = errBalky
	}
	return n, err
}

// A snapshot that fails is neither forgotten until as much has come again, nor
// does the log go on without it; and it is not tried all the time.
func TestASnapshotThatFailsIsTriedAgainSoon(t *testing.T) {
	for what, fails := range map[string]func(*balky) *atomic.Bool{
		"capturing": func(b *balky) *atomic.Bool { return &b.capture },
		"writing":   func(b *balky) *atomic.Bool { return &b.write },
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMemCluster(t, 1, 1, false)
				var m *balky
				c.dress = func(n *memNode) Machine {
					m = &balky{journal: n.machine}
					return m
				}
				c.start()
				t.Cleanup(c.stop)
				l := c.leader()
				fails(m).Store(true)
				c.mustProposeMany(l, "e", 3*trailingEntries)
				before := l.group.Stats()
				l.group.apply.growth.add(SnapshotBytes, 0) // which nobody wants to wait for
				c.mustPropose(l, "one more")

				pause(time.Second)
				s := l.group.Stats()
				if s.SnapshotErrors != 1 || s.Snapshots != 0 {
					t.Fatalf("%d tries failed, and %d did not", s.SnapshotErrors, s.Snapshots)
				}
				for range 60 {
					c.mustPropose(l, "busy")
					pause(2 * time.Second)
				}
				s = l.group.Stats()
				if s.SnapshotErrors < 3 || s.SnapshotErrors > 6 {
					t.Errorf("%d tries within two minutes", s.SnapshotErrors)
				}
				if s.FirstIndex != before.FirstIndex || s.BytesSinceSnapshot < SnapshotBytes {
					t.Errorf("the log begins at %d instead of %d, and %d bytes are said to be in no snapshot", s.FirstIndex, before.FirstIndex, s.BytesSinceSnapshot)
				}

				fails(m).Store(false)
				pause(snapshotRetryMax + time.Second)
				s = l.group.Stats()
				if s.Snapshots != 1 || s.FirstIndex == before.FirstIndex || s.BytesSinceSnapshot != 0 {
					t.Errorf("%d snapshots, the log begins at %d, and %d bytes are in none", s.Snapshots, s.FirstIndex, s.BytesSinceSnapshot)
				}
				pause(5 * time.Minute)
				if again := l.group.Stats().Snapshots; again != 1 {
					t.Errorf("%d snapshots were taken in the end", again)
				}
			})
		})
	}
}

func TestAnOlderSnapshotTakesNothingFromWhatANewerOneHas(t *testing.T) {
	var g growth
	g.add(100, 2)
	older := g.now()
	g.add(50, 1)
	g.cover(g.now())
	g.cover(older)
	g.add(7, 1)
	if b, n := g.bytesSince(), g.countSince(); b != 7 || n != 1 {
		t.Errorf("%d bytes of %d entries", b, n)
	}
}
