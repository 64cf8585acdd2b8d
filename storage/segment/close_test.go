package segment

import (
	"strings"
	"sync/atomic"
	"testing"

	"warren/storage/vfs"
)

// counting is a file system that counts what is open.
type counting struct {
	*vfs.Mem
	open atomic.Int64
}

type countedFile struct {
	vfs.File
	open *atomic.Int64
}

func (c *counting) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countedFile{f, &c.open}, nil
}

func (c *counting) Create(name string) (vfs.File, error) { return c.count(c.Mem.Create(name)) }
func (c *counting) Open(name string) (vfs.File, error)   { return c.count(c.Mem.Open(name)) }

func (f countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}

// fillAndWrite puts messages, of which the Pager writes some and a snapshot the
// rest, each to a file of its own.
func (d *desk) fillAndWrite(t fataler, q uint64) *View {
	d.fill(q, 500, 100)
	d.pageAllOut()
	d.fill(q+1, 500, 100)
	v := d.View()
	if err := v.Save(); err != nil {
		t.Fatalf("save: %v", err)
	}
	return v
}

// A replica is closed and opened anew while the node goes on. What was asked for
// of the old one comes to nothing, or is what it was; and no file of it stays.
func TestAClosedFolderKeepsNoFileOpen(t *testing.T) {
	fs := &counting{Mem: vfs.NewMem()}
	d := newDesk(t, fs, 1<<20)
	was := model{}
	for q := range uint64(2) {
		for seq := uint64(1); seq <= 500; seq++ {
			was.put(q+1, seq, Record{Body: body(q+1, seq, 100)})
		}
	}
	v := d.fillAndWrite(t, 1)
	d.pageAllOut()
	if d.Here(1, 1) {
		t.Fatal("nothing is paged out")
	}
	d.Fetch(1, 7, func(Record) { t.Error("a message of a closed store is handed out") })
	d.Close()
	d.folder.Close()
	f, err := d.pager.Folder(pagedDir)
	if err != nil {
		t.Fatal(err)
	}
	e := newEar()
	next := &desk{Store: f.NewStore(e), ear: e, pager: d.pager, folder: f}
	next.fillAndWrite(t, 1).Release()
	for d.pager.readNext() {
	}
	if len(d.ear.arrived) > 0 || d.ear.damaged != nil {
		t.Errorf("the old owner hears of %v, %v", d.ear.arrived, d.ear.damaged)
	}
	was.checkView(t, v)
	v.Release()
	d.pager.removeWaste()
	names, err := fs.List(pagedDir)
	if err != nil || len(names) != 2 || fs.open.Load() != 2 {
		t.Errorf("%d files are open, and there are %v, %v: want the two of the new folder", fs.open.Load(), names, err)
	}
	for _, name := range names {
		if strings.Contains(name, d.folder.run) {
			t.Errorf("%s is the old folder's", name)
		}
	}
	next.Close()
	next.folder.Close()
	d.pager.removeWaste()
	if names, err = fs.List(pagedDir); err != nil || len(names) != 0 || fs.open.Load() != 0 {
		t.Errorf("in the end %d files are open, and there are %v, %v", fs.open.Load(), names, err)
	}
}

// Whoever writes to a folder when it is closed makes no file in what may be
// another's by then.
func TestNothingIsWrittenToAClosedFolder(t *testing.T) {
	fs := &counting{Mem: vfs.NewMem()}
	d := newDesk(t, fs, 1<<20)
	d.fill(1, 10, 100)
	v := d.View()
	w := d.folder.borrowSaving()
	d.folder.Close()
	if err := w.write(1, &v.queues[0].chunks[0]); err == nil {
		t.Error("an extent was written")
	}
	d.folder.giveBack(w)
	v.Release()
	d.pager.removeWaste()
	if names, _ := fs.List(pagedDir); len(names) != 0 || fs.open.Load() != 0 {
		t.Errorf("%d files are open, and there are %v", fs.open.Load(), names)
	}
}
