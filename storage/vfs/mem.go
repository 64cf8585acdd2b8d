package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
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
	OpRead, OpWrite, OpSync, OpAllocate, OpEdit, OpLink              Op = "read", "write", "sync", "allocate", "edit", "link"
	OpSize, OpClose, OpWriteOut                                      Op = "size", "close", "writeout"
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
	held   int // files that are open
	inject func(op Op, name string) error
}

// node is a file or a folder.
type node struct {
	dir           bool
	data, synced  []byte
	unsynced      []span // the writes since the last sync, in their order
	doomed        []span // writes that a failed sync has left behind, see memFile.Sync; before all in unsynced
	emptied       bool   // since the last sync, before what is in unsynced
	kids, durable map[string]*node
}

// span is what a write put where. It has bytes of its own: of two writes to one
// place a crash may leave the first.
type span struct {
	from  int
	bytes []byte
}

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

func newDir() *node {
	return &node{dir: true, kids: map[string]*node{}, durable: map[string]*node{}}
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{root: newDir()} }

// Inject has f called before every operation, outside of the file system's
// lock: it may answer an error, which the operation then fails with, or take a
// Crash. A folder is removed name by name, and each of these is an operation.
func (m *Mem) Inject(f func(op Op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

// Crash returns what a restart would find if the power went now.
func (m *Mem) Crash(loss Loss) *Mem {
	return m.crash(func() bool { return loss != LoseAll }, func(unsynced []span) []span {
		switch loss {
		case LoseNothing:
			return unsynced
		case LoseHalf:
			return firstHalf(unsynced)
		}
		return nil
	})
}

// CrashTorn returns what a restart might find: of what was not synced, each
// sector of each write is there or not, in no order, as r has it, and so is
// each name that was made, moved or removed. But what was moved within its folder
// has one of its names at least, and a folder has no two: no file system does that.
func (m *Mem) CrashTorn(r *rand.Rand) *Mem {
	return m.crash(func() bool { return r.IntN(2) == 0 }, func(unsynced []span) (kept []span) {
		for _, s := range unsynced {
			for from, end := s.from, s.from+len(s.bytes); from < end; {
				to := min(end, (from/sectorBytes+1)*sectorBytes)
				if r.IntN(2) == 0 {
					kept = append(kept, span{from, s.bytes[from-s.from : to-s.from]})
				}
				from = to
			}
		}
		return kept
	})
}

func (m *Mem) crash(name func() bool, keep func([]span) []span) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crash{name: name, keep: keep, survivors: map[*node]*node{}}
	return &Mem{root: c.node(m.root)}
}

// firstHalf is the first half of the bytes that were written.
func firstHalf(unsynced []span) (kept []span) {
	left := 0
	for _, s := range unsynced {
		left += len(s.bytes)
	}
	left /= 2
	for _, s := range unsynced {
		s.bytes = s.bytes[:min(len(s.bytes), left)]
		left -= len(s.bytes)
		kept = append(kept, s)
	}
	return kept
}

// crash makes what is left of a file system.
type crash struct {
	name      func() bool         // whether one change of a name is there
	keep      func([]span) []span // what is there of a file's writes
	survivors map[*node]*node     // a file may have two names: it was moved
}

func (c *crash) node(n *node) *node {
	if left := c.survivors[n]; left != nil {
		return left
	}
	left := &node{}
	if n.dir {
		left = newDir()
	}
	c.survivors[n] = left
	if !n.dir {
		if !n.emptied || !c.name() {
			left.synced = slices.Clone(n.synced)
		}
		for _, s := range slices.Concat(c.keep(n.doomed), c.keep(n.unsynced)) {
			left.harden(s)
		}
		left.data = slices.Clone(left.synced)
		return left
	}
	names := slices.Concat(slices.Collect(maps.Keys(n.kids)), slices.Collect(maps.Keys(n.durable)))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		kid := n.durable[name]
		if n.kids[name] != kid && c.name() {
			kid = n.kids[name]
		}
		if kid != nil && !(kid.dir && c.survivors[kid] != nil) {
			left.keep(name, c.node(kid))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.durable)) {
		if kid := n.durable[name]; c.survivors[kid] == nil && slices.Contains(slices.Collect(maps.Values(n.kids)), kid) {
			left.keep(name, c.node(kid))
		}
	}
	return left
}

// keep gives a folder a name that has survived a crash.
func (n *node) keep(name string, kid *node) {
	n.kids[name], n.durable[name] = kid, kid
}

// harden makes a write durable.
func (n *node) harden(s span) {
	if len(s.bytes) == 0 {
		return
	}
	end := s.from + len(s.bytes)
	n.synced = slices.Grow(n.synced, max(0, end-len(n.synced)))
	n.synced = n.synced[:max(len(n.synced), end)]
	copy(n.synced[s.from:], s.bytes)
}

// write changes the file's bytes at off. The lock is held.
func (n *node) write(b []byte, off int) {
	if grow := off + len(b) - len(n.data); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	copy(n.data[off:], b)
	n.unsynced = append(n.unsynced, span{off, slices.Clone(b)})
	if len(n.doomed) > 0 {
		n.save(off, off+len(b))
	}
}

// save ends the doom of what is written anew.
func (n *node) save(from, to int) {
	var doomed []span
	for _, s := range n.doomed {
		if end := min(from, s.from+len(s.bytes)); end > s.from {
			doomed = append(doomed, span{s.from, s.bytes[:end-s.from]})
		}
		if begin := max(to, s.from); begin < s.from+len(s.bytes) {
			doomed = append(doomed, span{begin, s.bytes[begin-s.from:]})
		}
	}
	n.doomed = doomed
}

// before runs the injector; it must be called without the lock. After is what
// the call answers when it has done its work.
func (m *Mem) before(op Op, name string) (after, err error) {
	m.mu.Lock()
	f := m.inject
	m.mu.Unlock()
	if f == nil {
		return nil, nil
	}
	err = f(op, name)
	if done, ok := errors.AsType[*Done](err); ok {
		return done.Err, nil
	}
	return nil, err
}

// Held is how many files are open.
func (m *Mem) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// hold opens a file, unless the call that does it answers an error after that.
// The lock is held.
func (m *Mem) hold(n *node, name string, after error) (File, error) {
	if after != nil {
		return nil, after
	}
	m.held++
	return &memFile{fs: m, node: n, name: name}, nil
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
	after, err := m.before(OpCreate, name)
	if err != nil {
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
	n.data, n.unsynced, n.doomed, n.emptied = nil, nil, nil, true
	return m.hold(n, name, after)
}

// Open is FS.Open.
func (m *Mem) Open(name string) (File, error) {
	after, err := m.before(OpOpen, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil || n.dir {
		return nil, missing(OpOpen, name)
	}
	return m.hold(n, name, after)
}

// Edit is FS.Edit.
func (m *Mem) Edit(name string) (File, error) {
	after, err := m.before(OpEdit, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(name)
	if n == nil || n.dir {
		return nil, missing(OpEdit, name)
	}
	return m.hold(n, name, after)
}

// Rename is FS.Rename.
func (m *Mem) Rename(from, to string) error {
	after, err := m.before(OpRename, from)
	if err != nil {
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
	return after
}

// Link is FS.Link.
func (m *Mem) Link(old, to string) error {
	after, err := m.before(OpLink, old)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(old)
	p, base := m.parent(to)
	switch {
	case n == nil || n.dir || p == nil:
		return missing(OpLink, old)
	case p.kids[base] != nil:
		return &fs.PathError{Op: string(OpLink), Path: to, Err: fs.ErrExist}
	}
	p.kids[base] = n
	return after
}

// Remove is FS.Remove.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	var kids []string
	if n := m.find(name); n != nil {
		kids = slices.Sorted(maps.Keys(n.kids))
	}
	m.mu.Unlock()
	for _, kid := range kids {
		if err := m.Remove(path.Join(name, kid)); err != nil {
			return err
		}
	}
	after, err := m.before(OpRemove, name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, base := m.parent(name); p != nil {
		delete(p.kids, base)
	}
	return after
}

// List is FS.List.
func (m *Mem) List(dir string) ([]string, error) {
	if after, err := m.before(OpList, dir); err != nil || after != nil {
		return nil, errors.Join(err, after)
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
	after, err := m.before(OpMkdir, dir)
	if err != nil {
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
	return after
}

// SyncDir is FS.SyncDir.
func (m *Mem) SyncDir(dir string) error {
	after, err := m.before(OpSyncDir, dir)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(dir)
	if n == nil || !n.dir {
		return missing(OpSyncDir, dir)
	}
	n.durable = maps.Clone(n.kids)
	return after
}
