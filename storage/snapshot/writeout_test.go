package snapshot

import (
	"testing"

	"warren/storage/vfs"
)

// The state has what has come of large messages. The log's syncs wait for what
// the disk has been given before.
func TestALargeStateIsGivenToTheDiskBitByBit(t *testing.T) {
	const n = 10<<20 + 100
	fs := &vfs.Lagging{Mem: newFS(t)}
	s := open(t, fs)
	mustTake(t, s, 9, n)
	wantWhole(t, s, n)
	if fs.MostSynced > vfs.StepBytes {
		t.Errorf("a sync found %d bytes to write", fs.MostSynced)
	}
	if fs.MostSent > vfs.StepBytes {
		t.Errorf("%d bytes were sent to the disk at once", fs.MostSent)
	}
}
