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

// Reader reads a snapshot's state. It never hands out a byte of it whose block's
// checksum is wrong, and says io.EOF only after all of it. The linked files are
// in Folder, and go to others by OpenFile; they have their own checksums inside,
// at which nobody looks here.
type Reader struct {
	store  *Store
	about  description
	file   vfs.File
	closed bool

	buf    []byte // one block's payload
	rest   []byte // of buf, not handed out yet
	blocks uint64
	read   int64
	err    error
}

// Meta describes the snapshot; its size is that of the state.
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

// Read is io.Reader's.
func (r *Reader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
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

// Close closes the file, and lets the snapshot's folder go.
func (r *Reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.file.Close()
	r.store.unpin(r.about.ID)
	return err
}
