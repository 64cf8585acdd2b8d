package segment

import (
	"testing"

	"warren/storage/vfs"
)

// The log's syncs wait for what the disk has been given before.
func TestASnapshotOfLargeMessagesGivesTheDiskLittleAtOnce(t *testing.T) {
	fs := &vfs.Lagging{Mem: vfs.NewMem()}
	d, was := newDesk(t, fs, 1<<20), model{}
	put := func(seq uint64, n int) {
		d.Put(1, seq, 0, 0, 0, body(1, seq, n))
		was.put(1, seq, Record{Body: body(1, seq, n)})
	}
	put(1, 5<<20)
	put(2, 3<<20)
	d.pageAllOut()
	put(3, 4<<20) // the snapshot writes it itself
	v := d.View()
	d.checkSaved(t, fs, v, was)
	v.Release()
	switch {
	case fs.Syncs == 0:
		t.Error("nothing was synced")
	case fs.MostSynced > vfs.StepBytes:
		t.Errorf("a sync found %d bytes to write", fs.MostSynced)
	case fs.MostSent > vfs.StepBytes:
		t.Errorf("%d bytes were sent to the disk at once", fs.MostSent)
	}
}
