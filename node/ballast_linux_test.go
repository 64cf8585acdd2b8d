package node

import (
	"syscall"
	"testing"
)

// A file without blocks of its own would leave nothing behind.
func TestTheBallastTakesRoom(t *testing.T) {
	b := newBallast(t.TempDir(), 1<<30)
	if err := b.make(4 << 20); err != nil {
		t.Skip(err)
	}
	var s syscall.Stat_t
	if err := syscall.Stat(b.path, &s); err != nil {
		t.Fatal(err)
	}
	if s.Blocks*512 < 4<<20 {
		t.Errorf("it takes %d bytes", s.Blocks*512)
	}
}
