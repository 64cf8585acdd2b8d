package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

// Reader reads a snapshot's state, and after it the bytes of its linked files
// one after the other, or with Local the state alone. It never hands out a byte
// of the state whose block's checksum is wrong, and says io.EOF only after all
// of it. Linked files have their own checksums inside: nobody looks at them here.
type Reader struct {
	store  *Store
	about  description
	file   vfs.File
	linked linkedBytes
	local  bool
	closed bool

	buf    []byte // one block's payload
	rest   []byte // of buf, not handed out yet
	blocks uint64
	read   int64
	err    error
}

// Meta describes the snapshot; its size is that of the state alone.
func (r *Reader) Meta() raft.SnapshotMeta { return r.about.SnapshotMeta }

// Files are the linked files, in the order in which they were linked.
func (r *Reader) Files() []File { return r.about.Files }

// Folder is where the linked files are, empty if there are none. It stays at
// least until Close.
func (r *Reader) Folder() string {
	if len(r.about.Files) == 0 {
		return ""
	}
	return filepath.Join(r.store.dir, r.about.ID)
}

// Local makes Read end with the state: the linked files are at hand in Folder.
// To be called before the first Read.
func (r *Reader) Local() { r.local = true }

// Read is io.Reader's.
func (r *Reader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err == io.EOF && !r.local {
			n, err := r.readLinked(b)
			if err != nil {
				r.err = r.judge(err)
			}
			return n, err
		}
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.judge(r.next())
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// judge takes a snapshot out of the list if err says that it is damaged.
func (r *Reader) judge(err error) error {
	if errors.Is(err, ErrDamaged) {
		r.store.setAside(r.about.ID, err)
	}
	return err
}

// next reads a block of the state.
func (r *Reader) next() error {
	if r.read == r.about.Size {
		return io.EOF
	}
	var head [blockHeader]byte
	if err := r.fill(head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > blockBytes || r.read+int64(n) > r.about.Size {
		return fmt.Errorf("%w: block %d says it has %d bytes", ErrDamaged, r.blocks, n)
	}
	if r.buf == nil {
		r.buf = make([]byte, min(blockBytes, r.about.Size))
	}
	payload := r.buf[:n]
	if err := r.fill(payload); err != nil {
		return err
	}
	if blockSum(r.blocks, payload) != binary.LittleEndian.Uint32(head[4:]) {
		return fmt.Errorf("%w: checksum of block %d", ErrDamaged, r.blocks)
	}
	r.blocks++
	r.read += int64(n)
	r.rest = payload
	return nil
}

func (r *Reader) fill(b []byte) error {
	_, err := io.ReadFull(r.file, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends in block %d, after %d of %d bytes", ErrDamaged, r.blocks, r.read, r.about.Size)
	}
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", r.about.ID, err)
	}
	return nil
}

// linkedBytes is how far a Reader is in the linked files.
type linkedBytes struct {
	next int      // of the description's files
	file vfs.File // the one before it, nil if there is none
	left int64    // bytes of it
}

// readLinked reads on in the linked files.
func (r *Reader) readLinked(b []byte) (int, error) {
	l := &r.linked
	for l.left == 0 {
		if err := r.closeLinked(); err != nil {
			return 0, err
		}
		if l.next == len(r.about.Files) {
			return 0, io.EOF
		}
		about := r.about.Files[l.next]
		f, err := r.store.fs.Open(filepath.Join(r.Folder(), about.Name))
		if err != nil {
			return 0, fmt.Errorf("read snapshot %s: %w", r.about.ID, err)
		}
		l.file, l.left = f, about.Bytes
		l.next++
	}
	n, err := l.file.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	switch {
	case n > 0 || len(b) == 0:
		return n, nil
	case err == nil:
		return 0, io.ErrNoProgress
	case errors.Is(err, io.EOF):
		return 0, fmt.Errorf("%w: %s ends %d bytes early", ErrDamaged, r.about.Files[l.next-1].Name, l.left)
	}
	return 0, fmt.Errorf("read snapshot %s: %w", r.about.ID, err)
}

func (r *Reader) closeLinked() error {
	f := r.linked.file
	if r.linked.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

// Close closes the files, and lets the snapshot's folder go.
func (r *Reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := errors.Join(r.file.Close(), r.closeLinked())
	r.store.unpin(r.about.ID)
	return err
}
