package snapshot

import (
	"testing"

	"warren/storage/vfs"
)

// lagging is a file system that notes how much a sync finds to do, and what is
// sent to the disk at once. Its files are written from their beginning to their end.
type lagging struct {
	*vfs.Mem
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

func (f *laggingFile) Sync() error {
	size, err := f.Size()
	f.fs.mostSynced = max(f.fs.mostSynced, size-f.sent)
	f.sent = size
	if err != nil {
		return err
	}
	return f.File.Sync()
}

// The state has what has come of large messages. The log's syncs wait for what
// the disk has been given before.
func TestALargeStateIsGivenToTheDiskBitByBit(t *testing.T) {
	const n = 10<<20 + 100
	fs := &lagging{Mem: newFS(t)}
	s := open(t, fs)
	mustTake(t, s, 9, n)
	wantWhole(t, s, n)
	if fs.mostSynced > vfs.StepBytes {
		t.Errorf("a sync found %d bytes to write", fs.mostSynced)
	}
	if fs.mostSent > vfs.StepBytes {
		t.Errorf("%d bytes were sent to the disk at once", fs.mostSent)
	}
}
