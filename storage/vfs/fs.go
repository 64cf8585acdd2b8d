// Package vfs is the file system as storage sees it: few calls, each with a
// plain promise about what is on disk after it. OS is the real one; Mem is one
// in memory that can crash. It does not know what the files hold.
package vfs

import (
	"errors"
	"io"
	"os"
)

// FS is a file system. Names are full paths. Nothing is durable before a Sync:
// a file's bytes after File.Sync, a name made, moved or removed after SyncDir
// of the folder that it is in.
type FS interface {
	Create(name string) (File, error) // to write; an old file of that name is emptied
	Open(name string) (File, error)   // to read
	Rename(from, to string) error     // of files and folders; replaces a file
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
	io.Closer
	Sync() error
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

// Rename is FS.Rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

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
