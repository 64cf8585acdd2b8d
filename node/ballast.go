package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"warren/cluster"
	"warren/storage/raftlog"
)

// ballastFile keeps room on the disk for the moment when there is no other, for
// what leads out of there. Nobody publishes by then; and every file of the log
// has room of its own for what cuts it.
//
//   - Consumers go on, and what they settle is written to the log: ballastLog, a
//     file of it, has room for millions of acknowledgements. This is what empties
//     queues, and makes their segments go.
//   - A snapshot lets go of log. It writes what of its messages is in memory only:
//     no more than has been logged since the last one, and than memory may hold.
//     Of several groups one after the other takes one. What a snapshot that fails
//     for want of room has written of messages is not written again.
//   - ballastRest is for what is written anew to change it: pages of the metadata's
//     log, and of terms and votes, and the state in a snapshot.
const (
	ballastFile = "ballast"
	ballastLog  = raftlog.WALFileBytes
	ballastRest = 32 << 20
	// ballastShare is the part of a small disk that it takes at most.
	ballastShare = 0.02
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
	most uint64 // that it is of use to be
	held uint64 // its size; 0 while it is not there
}

// newBallast takes over a file that an earlier run has left. The node keeps so
// many bytes of messages in memory.
func newBallast(dir string, bodyMemory int64) ballast {
	b := ballast{
		path: filepath.Join(dir, ballastFile),
		most: ballastLog + ballastRest + uint64(min(bodyMemory+bodyMemory/2, cluster.SnapshotBytes)), // paging out lets it go half over
	}
	if info, err := os.Stat(b.path); err == nil {
		b.held = uint64(info.Size())
	}
	return b
}

// bytes is how large the file is to be on a disk of some size; 0 for none.
func (b *ballast) bytes(size uint64) uint64 {
	n := min(b.most, uint64(ballastShare*float64(size)))
	if n < ballastMin {
		return 0
	}
	return n
}

// short reports whether the file is to go.
func (b *ballast) short(free, size uint64) bool {
	return b.held > 0 && float64(free) < ballastFree*float64(size)
}

// due reports whether the file is to be made, or to grow: it must leave more
// than limit free, by a margin, so that it raises no alarm and does not go at once.
func (b *ballast) due(free, size, limit uint64) bool {
	want := b.bytes(size)
	return b.held < want && float64(free) >= max(float64(limit), ballastFree*float64(size))/alarmOver+float64(want-b.held)
}

func (b *ballast) drop() error {
	if err := os.Remove(b.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("let go of the ballast: %w", err)
	}
	b.held = 0
	return nil
}

// shrink lets go of what an earlier run kept beyond what is of use now.
func (b *ballast) shrink(size uint64) error {
	want := b.bytes(size)
	if b.held <= want {
		return nil
	}
	if want == 0 {
		return b.drop()
	}
	if err := os.Truncate(b.path, int64(want)); err != nil {
		return fmt.Errorf("let go of a part of the ballast: %w", err)
	}
	b.held = want
	return nil
}

func (b *ballast) make(bytes uint64) error {
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make the ballast: %w", err)
	}
	if err := errors.Join(reserve(f, int64(bytes)), f.Close()); err != nil {
		b.held = 0
		return errors.Join(fmt.Errorf("make the ballast: %w", err), os.Remove(b.path))
	}
	b.held = bytes
	return nil
}
