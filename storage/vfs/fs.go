// Package vfs is the file system as storage sees it: few calls, each with a
// plain promise about what is on disk after it. OS is the real one; Mem is one
// in memory that can crash. It does not know what the files hold.
package vfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FS is a file system. Names are full paths. Nothing is durable before a Sync:
// a file's bytes after File.Sync, a name made, moved or removed after SyncDir
// of the folder that it is in.
type FS interface {
	Create(name string) (File, error) // to write; an old file of that name is emptied
	Open(name string) (File, error)   // to read
	Edit(name string) (File, error)   // to read and write a file that exists, as it is
	Rename(from, to string) error     // of files and folders; replaces a file
	Link(old, to string) error        // one more name for a file, which goes with the last of them; to must be free
	Remove(name string) error         // a file, or a folder with all that is in it; a missing one is no error
	List(dir string) ([]string, error)
	MkdirAll(dir string) error
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Sync() error
	// SyncData is Sync for whoever needs the bytes and the size alone: it does
	// not wait for the file's times to be written.
	SyncData() error
	// WriteOut has what was written to a range of the file sent to the disk, and
	// waits until the disk has taken it. It makes nothing durable: the next sync
	// has less to do. An error is that of a sync, which may not say it again.
	WriteOut(from, to int64) error
	// Allocate makes the file size bytes long and has the blocks reserved, so
	// that writes into them neither change the file's size nor meet a full disk.
	// Where the file system cannot reserve, it only does nothing.
	Allocate(size int64) error
	// DropCache has the operating system let go of what it keeps of the file in
	// memory and has on disk. It is advice: nothing is read or written differently.
	DropCache() error
	Size() (int64, error)
}

// OS is the operating system's file system.
type OS struct{}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// SyncData is File.SyncData.
func (f osFile) SyncData() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// WriteOut is File.WriteOut. Where the file system cannot, the sync has it all
// to do.
func (f osFile) WriteOut(from, to int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if to <= from {
		return nil // none is no length that the call has: it would take all of the file
	}
	for {
		err := unix.SyncFileRange(int(f.Fd()), from, to-from, all)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ESPIPE):
			return nil
		default:
			return os.NewSyscallError("sync_file_range", err)
		}
	}
}

// Allocate is File.Allocate.
func (f osFile) Allocate(size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil
		default:
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// DropCache is File.DropCache.
func (f osFile) DropCache() error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// Create is FS.Create; only the owner may read the file.
func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Open is FS.Open.
func (OS) Open(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Edit is FS.Edit.
func (OS) Edit(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename is FS.Rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Link is FS.Link.
func (OS) Link(old, to string) error { return os.Link(old, to) }

// Remove is FS.Remove.
func (OS) Remove(name string) error { return os.RemoveAll(name) }

// List is FS.List: names without their folder, in order.
func (OS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// MkdirAll is FS.MkdirAll; only the owner may enter.
func (OS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

// SyncDir is FS.SyncDir.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
