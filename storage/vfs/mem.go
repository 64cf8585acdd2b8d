package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

// Op names a call of a Mem for its injector.
type Op string

// The calls that an injector sees.
const (
	OpCreate, OpOpen, OpRename, OpRemove, OpList, OpMkdir, OpSyncDir Op = "create", "open", "rename", "remove", "list", "mkdir", "syncdir"
	OpRead, OpWrite, OpSync                                          Op = "read", "write", "sync"
)

// Loss says what a crash takes of what was not synced.
type Loss int

// A real crash does anything between LoseAll and LoseNothing, file by file.
const (
	LoseAll     Loss = iota // all of it
	LoseHalf                // the second half of each file's unsynced bytes; names stay
	LoseNothing             // the power came back before the cache was lost, or kill -9
)

// Mem is a file system in memory that knows what is durable. Safe for concurrent use.
type Mem struct {
	mu     sync.Mutex
	root   *node
	inject func(op Op, name string) error
}

// node is a file or a folder.
type node struct {
	dir           bool
	data, synced  []byte
	kids, durable map[string]*node
}

func newDir() *node {
	return &node{dir: true, kids: map[string]*node{}, durable: map[string]*node{}}
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{root: newDir()} }

// Inject has f called before every operation, outside of the file system's
// lock: it may answer an error, which the operation then fails with, or take a Crash.
func (m *Mem) Inject(f func(op Op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

// Crash returns what a restart would find if the power went now.
func (m *Mem) Crash(loss Loss) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Mem{root: m.root.crash(loss)}
}

func (n *node) crash(loss Loss) *node {
	if !n.dir {
		kept := n.synced
		switch {
		case loss == LoseNothing:
			kept = n.data
		case loss == LoseHalf && len(n.data) > len(n.synced):
			kept = n.data[:len(n.synced)+(len(n.data)-len(n.synced))/2]
		}
		return &node{data: slices.Clone(kept), synced: slices.Clone(kept)}
	}
	c := newDir()
	names := n.kids
	if loss == LoseAll {
		names = n.durable
	}
	for name, kid := range names {
		survivor := kid.crash(loss)
		c.kids[name], c.durable[name] = survivor, survivor
	}
	return c
}

// before runs the injector; it must be called without the lock.
func (m *Mem) before(op Op, name string) error {
	m.mu.Lock()
	f := m.inject
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op, name)
}

func missing(op Op, name string) error {
	return &fs.PathError{Op: string(op), Path: name, Err: fs.ErrNotExist}
}

// find walks to name. The lock is held.
func (m *Mem) find(name string) *node {
	at := m.root
	for _, part := range strings.Split(strings.Trim(path.Clean(name), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		if at = at.kids[part]; at == nil {
			return nil
		}
	}
	return at
}

func (m *Mem) parent(name string) (*node, string) {
	dir, base := path.Split(path.Clean(name))
	p := m.find(dir)
	if p == nil || !p.dir {
		return nil, base
	}
	return p, base
}

// Create is FS.Create.
func (m *Mem) Create(name string) (File, error) {
	if err := m.before(OpCreate, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, base := m.parent(name)
	if p == nil {
		return nil, missing(OpCreate, name)
	}
	n := p.kids[base]
	if n == nil {
		n = &node{}
		p.kids[base] = n
	}
	n.data = nil
	return &memFile{fs: m, node: n, name: name}, nil
}

// Open is FS.Open.
func (m *Mem) Open(name string) (File, error) {
	if err := m.before(OpOpen, name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil || n.dir {
		return nil, missing(OpOpen, name)
	}
	return &memFile{fs: m, node: n, name: name}, nil
}

// Rename is FS.Rename.
func (m *Mem) Rename(from, to string) error {
	if err := m.before(OpRename, from); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p, base := m.parent(from)
	q, newBase := m.parent(to)
	if p == nil || q == nil || p.kids[base] == nil {
		return missing(OpRename, from)
	}
	if old := q.kids[newBase]; old != nil && old.dir && len(old.kids) > 0 {
		return fmt.Errorf("rename %s to %s: folder is not empty", from, to)
	}
	n := p.kids[base]
	delete(p.kids, base)
	q.kids[newBase] = n
	return nil
}

// Remove is FS.Remove.
func (m *Mem) Remove(name string) error {
	if err := m.before(OpRemove, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, base := m.parent(name); p != nil {
		delete(p.kids, base)
	}
	return nil
}

// List is FS.List.
func (m *Mem) List(dir string) ([]string, error) {
	if err := m.before(OpList, dir); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(dir)
	if n == nil || !n.dir {
		return nil, missing(OpList, dir)
	}
	return slices.Sorted(maps.Keys(n.kids)), nil
}

// MkdirAll is FS.MkdirAll.
func (m *Mem) MkdirAll(dir string) error {
	if err := m.before(OpMkdir, dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.root
	for _, part := range strings.Split(strings.Trim(path.Clean(dir), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		next := at.kids[part]
		if next == nil {
			next = newDir()
			at.kids[part] = next
		}
		at = next
	}
	return nil
}

// SyncDir is FS.SyncDir.
func (m *Mem) SyncDir(dir string) error {
	if err := m.before(OpSyncDir, dir); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(dir)
	if n == nil || !n.dir {
		return missing(OpSyncDir, dir)
	}
	n.durable = maps.Clone(n.kids)
	return nil
}

// memFile is an open file of a Mem.
type memFile struct {
	fs   *Mem
	node *node
	name string
	at   int64
}

func (f *memFile) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 {
		return n, nil
	}
	return n, err
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.before(OpRead, f.name); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(b []byte) (int, error) {
	if err := f.fs.before(OpWrite, f.name); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.data = append(f.node.data, b...)
	return len(b), nil
}

func (f *memFile) Sync() error {
	if err := f.fs.before(OpSync, f.name); err != nil {
		return err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.synced = slices.Clone(f.node.data)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *memFile) Close() error { return nil }
