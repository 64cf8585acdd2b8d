package raftlog

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"warren/storage/vfs"
)

// deadly is the real file system, which kills its process at one of its calls.
type deadly struct {
	vfs.OS
	point failPoint

	mu    sync.Mutex
	calls int // of the kind in question
}

// failPoint is the n-th call of a kind, and what becomes of it.
type failPoint struct {
	op   vfs.Op
	n    int
	when when
}

type when string

const (
	before when = "before"
	half   when = "half" // of a write is there
	after  when = "after"
)

func (p failPoint) String() string { return fmt.Sprintf("%s,%d,%s", p.op, p.n, p.when) }

// parsePoint reads what String has written; "" is no point at all.
func parsePoint(s string) (p failPoint) {
	f := strings.Split(s, ",")
	if len(f) == 3 {
		p.op, p.when = vfs.Op(f[0]), when(f[2])
		p.n, _ = strconv.Atoi(f[1])
	}
	return p
}

// at runs a call, which hears whether it is the last one, unless the process
// ends before it.
func (d *deadly) at(op vfs.Op, do func(last bool) error) error {
	fatal := false
	if op == d.point.op {
		d.mu.Lock()
		d.calls++
		fatal = d.calls == d.point.n
		d.mu.Unlock()
	}
	if fatal && d.point.when == before {
		die()
	}
	err := do(fatal)
	if fatal {
		die()
	}
	return err
}

// die ends the process as kill -9 does.
func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

func (d *deadly) open(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &deadlyFile{f, d}, nil
}

func (d *deadly) Create(name string) (f vfs.File, err error) {
	err = d.at(vfs.OpCreate, func(bool) (err error) { f, err = d.open(d.OS.Create(name)); return err })
	return f, err
}

func (d *deadly) Edit(name string) (vfs.File, error) { return d.open(d.OS.Edit(name)) }

func (d *deadly) Rename(from, to string) error {
	return d.at(vfs.OpRename, func(bool) error { return d.OS.Rename(from, to) })
}

func (d *deadly) Link(old, to string) error {
	return d.at(vfs.OpLink, func(bool) error { return d.OS.Link(old, to) })
}

func (d *deadly) Remove(name string) error {
	return d.at(vfs.OpRemove, func(last bool) error {
		if names, err := d.OS.List(name); err == nil && last && d.point.when == half {
			for _, kid := range names[:(len(names)+1)/2] { // of a folder
				if err := d.OS.Remove(filepath.Join(name, kid)); err != nil {
					return err
				}
			}
			return nil
		}
		return d.OS.Remove(name)
	})
}

func (d *deadly) MkdirAll(dir string) error {
	return d.at(vfs.OpMkdir, func(bool) error { return d.OS.MkdirAll(dir) })
}

func (d *deadly) SyncDir(dir string) error {
	return d.at(vfs.OpSyncDir, func(bool) error { return d.OS.SyncDir(dir) })
}

// deadlyFile is a file of deadly.
type deadlyFile struct {
	vfs.File
	fs *deadly
}

// cut is what is written of b.
func (f *deadlyFile) cut(b []byte, last bool) []byte {
	if last && f.fs.point.when == half {
		return b[:len(b)/2]
	}
	return b
}

func (f *deadlyFile) Write(b []byte) (n int, err error) {
	err = f.fs.at(vfs.OpWrite, func(last bool) (err error) { n, err = f.File.Write(f.cut(b, last)); return err })
	return n, err
}

func (f *deadlyFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.fs.at(vfs.OpWrite, func(last bool) (err error) { n, err = f.File.WriteAt(f.cut(b, last), off); return err })
	return n, err
}

func (f *deadlyFile) Sync() error {
	return f.fs.at(vfs.OpSync, func(bool) error { return f.File.Sync() })
}

func (f *deadlyFile) SyncData() error {
	return f.fs.at(vfs.OpSync, func(bool) error { return f.File.SyncData() })
}

func (f *deadlyFile) WriteOut(from, to int64) error {
	return f.fs.at(vfs.OpWriteOut, func(bool) error { return f.File.WriteOut(from, to) })
}

func (f *deadlyFile) Allocate(size int64) error {
	return f.fs.at(vfs.OpAllocate, func(last bool) error {
		if last && f.fs.point.when == half {
			return f.File.Allocate(size/2 + 1)
		}
		return f.File.Allocate(size)
	})
}
