package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestTheBallastGoesWhenTheDiskIsNearlyFullAndComesBack(t *testing.T) {
	const mib = 1 << 20
	dir := t.TempDir()
	var free uint64
	a := &alarm{
		dir: dir, slog: slog.New(slog.DiscardHandler), ballast: newBallast(dir, 1<<30),
		free: func(string) (uint64, uint64, bool) { return free, 1000 * mib, true },
	}
	path := filepath.Join(dir, ballastFile)
	for _, c := range []struct {
		freeMiB uint64
		want    bool
	}{
		{60, false}, // 20 of ballast would leave 40: an alarm
		{71, false}, // and 51 would not end one
		{73, true},
		{49, true},
		{21, true},
		{19, false},
		{39, false}, // what it has made free is no reason to take it again
		{72, false},
		{73, true},
	} {
		free = c.freeMiB * mib
		a.release()
		a.refill()
		info, err := os.Stat(path)
		if (err == nil) != c.want || err == nil && info.Size() != 20*mib {
			t.Fatalf("with %d MiB free: %v, want the ballast %v", c.freeMiB, info, c.want)
		}
	}
	again := newBallast(dir, 1<<30)
	if again.held != 20*mib {
		t.Errorf("the next run finds %d bytes of ballast", again.held)
	}
}

func TestTheBallastHasRoomForOneSnapshotAndAFileOfTheLog(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ size, memory, want uint64 }{
		{1 << 40, 6 << 30, 352 * mib}, // no more than is logged between two snapshots
		{1 << 40, 128 * mib, 288 * mib},
		{1 << 40, mib, 97*mib + mib/2},
		{10_000 * mib, 6 << 30, 200 * mib}, // a small share of a small disk
		{40 * mib, 6 << 30, 0},
	} {
		b := newBallast(t.TempDir(), int64(c.memory))
		if got := b.bytes(c.size); got != c.want {
			t.Errorf("on a disk of %d MiB, with %d MiB of bodies in memory: %d MiB, want %d", c.size/mib, c.memory/mib, got/mib, c.want/mib)
		}
	}
}

// An earlier build, or another setting, has left one of another size.
func TestTheBallastOfAnEarlierRunGetsTheSizeThatIsOfUse(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ left, free, want int64 }{
		{50, 0, 20}, // smaller it can be whatever is free
		{20, 0, 20},
		{15, 56, 15},
		{15, 58, 20}, // 5 more leave 53, which is over the limit by the margin
		{0, 72, 0},
		{0, 73, 20},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, ballastFile)
		if c.left > 0 {
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, c.left*mib)); err != nil {
				t.Fatal(err)
			}
		}
		a := &alarm{
			dir: dir, slog: slog.New(slog.DiscardHandler), ballast: newBallast(dir, 1<<30),
			free: func(string) (uint64, uint64, bool) { return uint64(c.free * mib), 1000 * mib, true },
		}
		a.refill()
		size := int64(0)
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
		if size != c.want*mib || a.ballast.held != uint64(size) {
			t.Errorf("of %d MiB, with %d free, %d became, and it takes itself for %d", c.left, c.free, size/mib, a.ballast.held/mib)
		}
	}
}
