package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

// Reader reads a snapshot's state. It never hands out a byte whose block's
// checksum is wrong, and says io.EOF only after all of it.
type Reader struct {
	store *Store
	meta  raft.SnapshotMeta
	file  vfs.File

	buf    []byte // one block's payload
	rest   []byte // of buf, not handed out yet
	blocks uint64
	read   int64
	err    error
}

// Meta describes the snapshot.
func (r *Reader) Meta() raft.SnapshotMeta { return r.meta }

// Read is io.Reader's.
func (r *Reader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.err = r.next(); errors.Is(r.err, ErrDamaged) {
			r.store.setAside(r.meta.ID, r.err)
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *Reader) next() error {
	if r.read == r.meta.Size {
		return io.EOF
	}
	var head [blockHeader]byte
	if err := r.fill(head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > blockBytes || r.read+int64(n) > r.meta.Size {
		return fmt.Errorf("%w: block %d says it has %d bytes", ErrDamaged, r.blocks, n)
	}
	if r.buf == nil {
		r.buf = make([]byte, min(blockBytes, r.meta.Size))
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
		return fmt.Errorf("%w: it ends in block %d, after %d of %d bytes", ErrDamaged, r.blocks, r.read, r.meta.Size)
	}
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", r.meta.ID, err)
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }
