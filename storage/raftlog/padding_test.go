package raftlog

import (
	"testing"
	"testing/synctest"

	"warren/storage/vfs"
)

// paging notes where writes of a file system's files end, and whose pages were dropped.
type paging struct {
	*vfs.Mem
	ends    []int64 // of writes behind a header
	dropped int
}

type pagingFile struct {
	vfs.File
	fs *paging
}

func (p *paging) Create(name string) (vfs.File, error) {
	f, err := p.Mem.Create(name)
	return pagingFile{f, p}, err
}

func (f pagingFile) WriteAt(b []byte, off int64) (int, error) {
	if off > 0 {
		f.fs.ends = append(f.fs.ends, off+int64(len(b)))
	}
	return f.File.WriteAt(b, off)
}

func (f pagingFile) DropCache() error {
	f.fs.dropped++
	return f.File.DropCache()
}

func TestAWriteEndsWithAPageOrTheFile(t *testing.T) {
	o := walOptions(t)
	o.FileBytes = 4*pageBytes + 100
	fs := &paging{Mem: vfs.NewMem()}
	w := openWAL(t, fs, o)
	defer w.Close()
	g := group(t, w, 1)
	for i := range uint64(200) {
		append1(t, g, i+1, i+1, 1, int(i))
	}
	for _, end := range fs.ends {
		if end%pageBytes != 0 && end != o.FileBytes {
			t.Errorf("a write ends at %d", end)
		}
	}
	if len(fs.ends) < 200 {
		t.Errorf("%d writes", len(fs.ends))
	}
}

func TestASpareFileIsNotKeptInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &paging{Mem: vfs.NewMem()}
		w := openWAL(t, fs, walOptions(t))
		defer w.Close()
		g := group(t, w, 1)
		append1(t, g, 1, 100, 1, 200)
		if err := g.DeleteRange(1, 100); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// One of them may have been taken to be written to next.
		if spares := spareFiles(t, fs.Mem); spares == 0 || fs.dropped < spares || fs.dropped > spares+1 {
			t.Errorf("%d spare files, and the pages of %d were dropped", spares, fs.dropped)
		}
	})
}
