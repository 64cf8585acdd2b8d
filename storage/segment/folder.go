package segment

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"
	"sync/atomic"

	"warren/storage/vfs"
)

const (
	// fileBytes is the size from which no more is written to a file.
	fileBytes = 128 << 20
	// fileHead is the size of a file's head: magic, u32 version, u64 number in
	// its folder, zeros, and in the last four bytes their CRC-32C.
	fileHead    = 64
	fileMagic   = "WRNSEG1\n"
	fileVersion = 1
)

// file is a segment file: extents one after the other, written once. It stays
// while somebody holds it, and is then removed by the Pager.
type file struct {
	folder *Folder
	name   string
	f      vfs.File
	size   int64        // the Pager's writer owns it
	holds  atomic.Int32 // by extents in use, by views, and one while it is written to
}

func (f *file) hold() { f.holds.Add(1) }

func (f *file) letGo() {
	if f.holds.Add(-1) == 0 {
		f.folder.pager.discard(f)
	}
}

// Folder is where a group's messages are paged out to. What is in it is worth
// nothing after the end of the process: the group's log and its snapshots have
// every message.
type Folder struct {
	pager *Pager
	dir   string

	// The Pager's writer owns what follows.
	run     string // in the names of files: no other Folder of this name has the same
	number  uint64 // of the newest file
	current *file  // that is written to; nil before the first and after an error
	files   []*file
	buf     []byte
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
	return &Folder{pager: p, dir: dir, run: strings.ToLower(rand.Text()[:8])}, nil
}

// write writes c as an extent and notes its place in c, which holds the file
// then. After an error the file is not written to again: nobody knows what is
// at its end.
func (f *Folder) write(q uint64, c *viewedChunk) error {
	err := f.roll()
	if err == nil {
		err = f.append(q, c)
	}
	if err != nil {
		f.retire()
		return fmt.Errorf("page out: %w", err)
	}
	return nil
}

func (f *Folder) append(q uint64, c *viewedChunk) error {
	b, bodyBytes := c.appendIndex(f.buf[:0], q, f.pager.sense.Weigh)
	size := align(int64(len(b)) + bodyBytes)
	at := f.current.size
	off := at
	flush := func(b []byte) error {
		_, err := f.current.f.WriteAt(b, off)
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
			body = body[pieceBytes:]
		}
		b = append(b, body...)
	}
	b = append(b, make([]byte, at+size-off-int64(len(b)))...)
	if err := flush(b); err != nil {
		return err
	}
	if f.buf = b[:0]; cap(b) > 2*pieceBytes {
		f.buf = nil
	}
	f.current.size = at + size
	f.current.hold()
	c.file, c.at, c.size = f.current, uint32(at/extentAlign), uint32(size)
	return nil
}

// roll sees to it that there is a file to write to.
func (f *Folder) roll() error {
	if f.current != nil && f.current.size < f.pager.fileBytes {
		return nil
	}
	f.retire()
	f.number++
	name := fmt.Sprintf("%016x-%s.seg", f.number, f.run)
	out, err := f.pager.fs.Create(filepath.Join(f.dir, name))
	if err != nil {
		return err
	}
	head := append(make([]byte, 0, fileHead), fileMagic...)
	head = binary.LittleEndian.AppendUint32(head, fileVersion)
	head = binary.LittleEndian.AppendUint64(head, f.number)
	head = head[:fileHead]
	binary.LittleEndian.PutUint32(head[fileHead-4:], crc32.Checksum(head[:fileHead-4], castagnoli))
	if _, err := out.WriteAt(head, 0); err != nil {
		return errors.Join(err, out.Close(), f.pager.fs.Remove(filepath.Join(f.dir, name)))
	}
	f.current = &file{folder: f, name: name, f: out, size: fileHead}
	f.current.hold()
	f.files = append(f.files, f.current)
	return nil
}

// retire ends writing to the current file.
func (f *Folder) retire() {
	if f.current != nil {
		f.current.letGo()
		f.current = nil
	}
}

func align(n int64) int64 { return (n + extentAlign - 1) &^ (extentAlign - 1) }
