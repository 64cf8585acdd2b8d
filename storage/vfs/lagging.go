package vfs

// Lagging is a Mem that notes how much work it gives a disk at once. Its files
// are written from their beginning to their end, by one goroutine. Set nothing
// but the Mem.
type Lagging struct {
	*Mem
	Syncs      int   // of files
	MostSynced int64 // bytes that a sync found to write
	MostSent   int64 // bytes that one WriteOut was about
}

type laggingFile struct {
	File
	fs   *Lagging
	sent int64
}

// Create is FS.Create.
func (l *Lagging) Create(name string) (File, error) {
	f, err := l.Mem.Create(name)
	return &laggingFile{File: f, fs: l}, err
}

func (f *laggingFile) WriteOut(from, to int64) error {
	f.fs.MostSent = max(f.fs.MostSent, to-from)
	if from <= f.sent {
		f.sent = max(f.sent, to)
	}
	return f.File.WriteOut(from, to)
}

func (f *laggingFile) Sync() error {
	size, err := f.Size()
	f.fs.Syncs++
	f.fs.MostSynced = max(f.fs.MostSynced, size-f.sent)
	f.sent = size
	if err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *laggingFile) SyncData() error { return f.Sync() }
