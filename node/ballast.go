package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// ballastFile keeps room on the disk for the moment when there is no other:
	// to cut a log or to take a snapshot, which make room, needs some.
	ballastFile = "ballast"
	// ballastDefault is its size, or on a small disk ballastShare of that.
	ballastDefault = 1 << 30
	ballastShare   = 0.02
	// ballastMin is not worth a file: less than the log takes at once.
	ballastMin = 1 << 20
	// ballastFree is the share of the disk below which the file goes.
	ballastFree = 0.02
	// ballastRetry is how soon the file is tried to be made again.
	ballastRetry = time.Minute
)

// ballast is a file that is there only to be let go of.
type ballast struct {
	path string
	held uint64 // its size; 0 while it is not there
}

// newBallast takes over a file that an earlier run has left.
func newBallast(dir string) ballast {
	b := ballast{path: filepath.Join(dir, ballastFile)}
	if info, err := os.Stat(b.path); err == nil {
		b.held = uint64(info.Size())
	}
	return b
}

// ballastBytes is how large the file is to be on a disk of some size; 0 for none.
func ballastBytes(size uint64) uint64 {
	n := min(ballastDefault, uint64(ballastShare*float64(size)))
	if n < ballastMin {
		return 0
	}
	return n
}

// short reports whether the file is to go.
func (b *ballast) short(free, size uint64) bool {
	return b.held > 0 && float64(free) < ballastFree*float64(size)
}

// due reports whether the file is to be made: it must leave more than limit
// free, by a margin, so that it raises no alarm and does not go at once.
func (b *ballast) due(free, size, limit uint64) bool {
	want := ballastBytes(size)
	return b.held == 0 && want > 0 && float64(free) >= max(float64(limit), ballastFree*float64(size))/alarmOver+float64(want)
}

func (b *ballast) drop() error {
	if err := os.Remove(b.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("let go of the ballast: %w", err)
	}
	b.held = 0
	return nil
}

func (b *ballast) make(bytes uint64) error {
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the ballast: %w", err)
	}
	if err := errors.Join(reserve(f, int64(bytes)), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("make the ballast: %w", err), os.Remove(b.path))
	}
	b.held = bytes
	return nil
}
