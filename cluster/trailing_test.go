package cluster

import (
	"strings"
	"testing"
)

// ruler is a log of any number of entries of the same length.
type ruler int64

func (r ruler) Newest(bytes int64, most int) uint64 { return uint64(min(bytes/int64(r), int64(most))) }

func TestHowMuchOfTheLogStays(t *testing.T) {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	for _, c := range []struct {
		what         string
		entry, state int64
		want         uint64
	}{
		{"small entries of nothing", 100, 0, 256},
		{"small entries of little", 1 * kib, 100 * kib, 256},
		{"ordinary entries", 256 * kib, 0, 128},
		{"large entries", 1 * mib, 0, 32},
		{"entries of one huge message each", 16 * mib, 0, 16},
		{"half of what is there", 256 * kib, 100 * mib, 200},
		{"a deep queue", 256 * kib, 10 * gib, 1024},
		{"a deep queue of huge messages", 64 * mib, 10 * gib, 16},
		{"many small entries in a deep queue", 100, 10 * gib, 64 * kib},
	} {
		if got := trailing(ruler(c.entry), c.state); got != c.want {
			t.Errorf("%s: %d entries, want %d", c.what, got, c.want)
		}
	}
}

func TestASnapshotLeavesMoreOfTheLogTheMoreThereIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, all, l := hoarding(t, 1)
		before := l.group.raft.Load().ReloadableConfig()
		c.mustProposeMany(l, strings.Repeat("x", 1000), 1000)
		kept := func(state int64) uint64 {
			all[l].bodies.Store(state)
			c.mustPropose(l, "more")
			must(t, l.group.Snapshot(t.Context()))
			s := l.group.Stats()
			return s.LastIndex - s.FirstIndex + 1
		}
		// Half of that is the room of 480 entries or so.
		if n := kept(1 << 20); n < 400 || n > 600 {
			t.Errorf("of a large state %d entries stay", n)
		}
		if n := kept(0); n != trailingEntries {
			t.Errorf("of nothing %d entries stay", n)
		}
		after := l.group.raft.Load().ReloadableConfig()
		if after.TrailingLogs = before.TrailingLogs; after != before {
			t.Errorf("more than that has changed: %+v, it was %+v", after, before)
		}
	})
}
