package segment

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"warren/storage/vfs"
)

const (
	// fileBytes is the size from which no more is written to a file.
	fileBytes = 128 << 20
	// fileHead is the size of a file's head: magic, u32 version, u64 number in
	// its folder, 16 random bytes that no other file has, zeros, and in the last
	// four bytes their CRC-32C.
	fileHead    = 64
	fileMagic   = "WRNSEG1\n"
	fileVersion = 2
	fileIDAt    = 20
	fileIDBytes = 16
	fileSuffix  = ".seg"
	// savedBytes is the size from which the file that a snapshot has written to
	// is not gone on with by the next one: most of what is in it may be tails,
	// which the next snapshot writes anew.
	savedBytes = 32 << 20
)

// file is a segment file: extents one after the other, written once. Nothing
// below size ever changes, so that a snapshot may link the file while more is
// appended. It stays while somebody holds it, and is then removed by the Pager;
// snapshots that link it keep it under another name.
type file struct {
	folder *Folder
	name   string
	id     string // as its head has it, in hexadecimal
	f      vfs.File
	size   atomic.Int64 // of the extents that have been written
	holds  atomic.Int32 // by extents in use, by views, and one while it is written to

	growing atomic.Bool  // somebody writes to it
	ended   atomic.Bool  // nobody may begin to write an extent to it any more
	synced  atomic.Int64 // bytes that are durable
	// spoiled: a sync of it has failed, and nobody knows what of it is durable.
	// It can be read, but no snapshot may rely on it.
	spoiled atomic.Bool
	// sending is held while the operating system may say that, which it does
	// once: whoever syncs the file must know if somebody else was told.
	sending sync.Mutex
}

var errSpoiled = errors.New("what was written to it did not all come to the disk")

func (f *file) hold() { f.holds.Add(1) }

func (f *file) letGo() {
	if f.holds.Add(-1) == 0 {
		f.folder.pager.discard(f)
	}
}

func (f *file) path() string { return filepath.Join(f.folder.dir, f.name) }

// syncUpTo makes the first bytes of the file durable.
func (f *file) syncUpTo(bytes int64) error {
	if f.synced.Load() >= bytes {
		return nil
	}
	err := f.writeOut()
	f.sending.Lock()
	defer f.sending.Unlock()
	size := f.size.Load()
	if err == nil {
		err = f.f.SyncData()
	}
	if err == nil && f.spoiled.Load() {
		err = errSpoiled
	}
	if err != nil {
		f.spoiled.Store(true)
		return fmt.Errorf("sync segment %s: %w", f.name, err)
	}
	f.synced.Store(size)
	return nil
}

// writeOut sends what is not durable to the disk, also of an extent that is being
// written: the sync takes the file whole. It ends because a file does.
func (f *file) writeOut() error {
	for done := f.synced.Load(); ; {
		end, err := f.f.Size()
		if err != nil || end <= done {
			return err
		}
		if err := vfs.WriteOut(f.f, done, end); err != nil {
			return err
		}
		done = end
	}
}

// sendOut sends a piece of a large body to the disk as soon as it is written.
// Left to the operating system, 128 MiB would go at a moment of its choice, and
// the log would wait behind them: 80 ms. An error is that of a sync.
func (f *file) sendOut(from, to int64) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	err := f.f.WriteOut(from, to)
	if err != nil {
		f.spoiled.Store(true)
	}
	return err
}

// Folder is where a group's messages are paged out to. The names in it are
// worth nothing after the end of the process: what a snapshot refers to has a
// name in the snapshot's folder as well, and is linked back when that is
// restored. The log has the rest.
type Folder struct {
	pager  *Pager
	dir    string
	run    string        // in the names of files: no other Folder of this name has the same
	number atomic.Uint64 // of the newest file
	paging writer        // the Pager's writer owns it

	// Guarded by pager.mu.
	files   []*file
	saving  *writer // of snapshots, while none is being saved
	hurried bool    // nobody waits in Ease any more
	closed  bool
}

// Folder makes a folder ready, and empties it.
func (p *Pager) Folder(dir string) (*Folder, error) {
	if err := p.fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open segments: %w", err)
	}
	names, err := p.fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("open segments: %w", err)
	}
	for _, name := range names {
		if err := p.fs.Remove(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("remove an old segment: %w", err)
		}
	}
	f := &Folder{pager: p, dir: dir, run: strings.ToLower(rand.Text()[:8])}
	f.paging.folder = f
	return f, nil
}

// Hurry ends all waiting in Ease for this folder, for good: its group is about
// to be closed, as Pager.Hurry has it of all groups.
func (f *Folder) Hurry() {
	f.pager.mu.Lock()
	f.hurried = true
	f.pager.changed.Broadcast()
	f.pager.mu.Unlock()
}

// Close ends the folder, whose stores are closed: nothing more is written to it.
// A file of it is closed and removed when the last who reads it lets go, and
// until then that one reads what was written there: also when there is another
// Folder of this name by then, which has emptied it, and none of whose files
// has the name of one of these.
func (f *Folder) Close() {
	p := f.pager
	p.mu.Lock()
	saving := f.saving
	f.saving, f.hurried, f.closed = nil, true, true
	p.ended = append(p.ended, f)
	p.changed.Broadcast()
	p.mu.Unlock()
	if saving != nil {
		saving.retire()
	}
	p.wake()
}

func (f *Folder) isClosed() bool {
	f.pager.mu.Lock()
	defer f.pager.mu.Unlock()
	return f.closed
}

// newName is one that no file of the folder has.
func (f *Folder) newName() (name string, number uint64) {
	number = f.number.Add(1)
	return fmt.Sprintf("%016x-%s%s", number, f.run, fileSuffix), number
}

// add lists a file that is held once.
func (f *Folder) add(x *file) {
	x.hold()
	f.pager.mu.Lock()
	f.files = append(f.files, x)
	f.pager.mu.Unlock()
}

// Bytes is how much is in files of which some is in use.
func (f *Folder) Bytes() (n int64) {
	for _, x := range f.list() {
		n += x.size.Load()
	}
	return n
}

// list returns the files of the folder.
func (f *Folder) list() []*file {
	f.pager.mu.Lock()
	defer f.pager.mu.Unlock()
	return slices.Clone(f.files)
}

// borrowSaving returns the writer for a snapshot: not the Pager's, so that
// neither waits for the other's disk.
func (f *Folder) borrowSaving() *writer {
	if w := f.takeSaving(); w != nil {
		return w
	}
	return &writer{folder: f}
}

// takeSaving returns that writer, nil if there is none or a snapshot has it.
func (f *Folder) takeSaving() *writer {
	f.pager.mu.Lock()
	defer f.pager.mu.Unlock()
	w := f.saving
	f.saving = nil
	return w
}

func (f *Folder) giveBack(w *writer) {
	if w.current != nil && w.current.size.Load() >= savedBytes {
		w.retire()
	}
	f.pager.mu.Lock()
	spare := w
	if f.saving == nil && !f.closed {
		f.saving, spare = w, nil
	}
	f.pager.mu.Unlock()
	if spare != nil {
		spare.retire()
	}
}

// writer appends extents to files of a folder. It belongs to one goroutine at
// a time.
type writer struct {
	folder  *Folder
	current *file // nil before the first and after an error
	buf     []byte
}

// write writes c as an extent and notes its place in c, which holds the file
// then. After an error the file is not written to again: nobody knows what is
// at its end.
func (w *writer) write(q uint64, c *viewedChunk) error {
	err := w.roll()
	if err == nil {
		err = w.append(q, c)
	}
	if err != nil {
		w.retire()
		return fmt.Errorf("page out: %w", err)
	}
	return nil
}

func (w *writer) append(q uint64, c *viewedChunk) error {
	b, bodyBytes := c.appendIndex(w.buf[:0], q, w.folder.pager.sense.Weigh)
	size := align(int64(len(b)) + bodyBytes)
	at := w.current.size.Load()
	off := at
	flush := func(b []byte) error {
		_, err := w.current.f.WriteAt(b, off)
		off += int64(len(b))
		return err
	}
	for slot := c.prefix; slot < c.slots; slot++ {
		if c.isDead(slot) {
			continue
		}
		body := c.recs[slot].record(c.blocks).Body
		if len(b) > 0 && len(b)+len(body) > pieceBytes {
			if err := flush(b); err != nil {
				return err
			}
			b = b[:0]
		}
		for len(body) > pieceBytes { // without a copy
			if err := flush(body[:pieceBytes]); err != nil {
				return err
			}
			if err := w.current.sendOut(off-pieceBytes, off); err != nil {
				return err
			}
			body = body[pieceBytes:]
		}
		b = append(b, body...)
	}
	b = append(b, make([]byte, at+size-off-int64(len(b)))...)
	if err := flush(b); err != nil {
		return err
	}
	if w.buf = b[:0]; cap(b) > 2*pieceBytes {
		w.buf = nil
	}
	w.current.size.Store(at + size)
	w.current.hold()
	c.file, c.at, c.size, c.stored = w.current, uint32(at/extentAlign), uint32(size), c.live
	return nil
}

// roll sees to it that there is a file to write to.
func (w *writer) roll() error {
	p := w.folder.pager
	if w.current != nil && w.current.size.Load() < p.fileBytes && !w.current.spoiled.Load() && !w.current.ended.Load() {
		return nil
	}
	w.retire()
	if w.folder.isClosed() {
		return errors.New("the folder is closed")
	}
	name, number := w.folder.newName()
	x := &file{folder: w.folder, name: name}
	out, err := p.fs.Create(x.path())
	if err != nil {
		return err
	}
	var id [fileIDBytes]byte
	rand.Read(id[:]) // never fails
	if _, err := out.WriteAt(appendHead(nil, number, id), 0); err != nil {
		return errors.Join(err, out.Close(), p.fs.Remove(x.path()))
	}
	x.id, x.f = hex.EncodeToString(id[:]), out
	x.size.Store(fileHead)
	x.growing.Store(true)
	w.folder.add(x)
	w.current = x
	return nil
}

// retire ends writing to the current file.
func (w *writer) retire() {
	if w.current != nil {
		w.current.growing.Store(false)
		w.current.letGo()
		w.current = nil
	}
}

// endEmpty ends writing to the current file if only that holds it: nobody can
// come to hold what no extent is in use of, but who writes to it.
func (w *writer) endEmpty() {
	if w.current != nil && w.current.holds.Load() == 1 {
		w.retire()
	}
}

func appendHead(dst []byte, number uint64, id [fileIDBytes]byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, fileHead)...)
	head := dst[at:]
	copy(head, fileMagic)
	binary.LittleEndian.PutUint32(head[len(fileMagic):], fileVersion)
	binary.LittleEndian.PutUint64(head[len(fileMagic)+4:], number)
	copy(head[fileIDAt:], id[:])
	binary.LittleEndian.PutUint32(head[fileHead-4:], crc32.Checksum(head[:fileHead-4], castagnoli))
	return dst
}

// checkHead says whether a file begins with a head that has this id.
func checkHead(head []byte, id string) error {
	switch {
	case string(head[:len(fileMagic)]) != fileMagic || binary.LittleEndian.Uint32(head[len(fileMagic):]) != fileVersion ||
		binary.LittleEndian.Uint32(head[fileHead-4:]) != crc32.Checksum(head[:fileHead-4], castagnoli):
		return fmt.Errorf("%w: no head of a segment", ErrDamaged)
	case hex.EncodeToString(head[fileIDAt:fileIDAt+fileIDBytes]) != id:
		return fmt.Errorf("%w: the head of another segment", ErrDamaged)
	}
	return nil
}

func align(n int64) int64 { return (n + extentAlign - 1) &^ (extentAlign - 1) }
