package segment

import (
	"testing"

	"warren/storage/vfs"
)

// lagging is a file system that notes how much a sync finds to do, and what is
// sent to the disk at once. Its files are written from their beginning to their end.
type lagging struct {
	*vfs.Mem
	syncs                int
	mostSynced, mostSent int64
}

type laggingFile struct {
	vfs.File
	fs   *lagging
	sent int64
}

func (l *lagging) Create(name string) (vfs.File, error) {
	f, err := l.Mem.Create(name)
	return &laggingFile{File: f, fs: l}, err
}

func (f *laggingFile) WriteOut(from, to int64) error {
	f.fs.mostSent = max(f.fs.mostSent, to-from)
	if from <= f.sent {
		f.sent = max(f.sent, to)
	}
	return f.File.WriteOut(from, to)
}

func (f *laggingFile) SyncData() error {
	size, err := f.Size()
	f.fs.syncs++
	f.fs.mostSynced = max(f.fs.mostSynced, size-f.sent)
	f.sent = size
	if err != nil {
		return err
	}
	return f.File.SyncData()
}

// The log's syncs wait for what the disk has been given before.
func TestASnapshotOfLargeMessagesGivesTheDiskLittleAtOnce(t *testing.T) {
	fs := &lagging{Mem: vfs.NewMem()}
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
	case fs.syncs == 0:
		t.Error("nothing was synced")
	case fs.mostSynced > vfs.StepBytes:
		t.Errorf("a sync found %d bytes to write", fs.mostSynced)
	case fs.mostSent > vfs.StepBytes:
		t.Errorf("%d bytes were sent to the disk at once", fs.mostSent)
	}
}
