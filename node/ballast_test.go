package node

import (
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
		dir: dir, slog: slog.New(slog.DiscardHandler), ballast: newBallast(dir),
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
	again := newBallast(dir)
	if again.held != 20*mib {
		t.Errorf("the next run finds %d bytes of ballast", again.held)
	}
}

func TestTheBallastIsASmallShareOfASmallDisk(t *testing.T) {
	for _, c := range []struct{ size, want uint64 }{{1 << 40, 1 << 30}, {10_000 << 20, 200 << 20}, {40 << 20, 0}} {
		if got := ballastBytes(c.size); got != c.want {
			t.Errorf("on a disk of %d MiB: %d, want %d", c.size>>20, got, c.want)
		}
	}
}
