package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

const (
	// blockBytes of state are checked together.
	blockBytes = 256 << 10
	// blockHeader is u32 payload bytes, u32 CRC-32C of the block's number and payload.
	blockHeader = 8
)

var errCancelled = errors.New("snapshot was cancelled")

// Sink writes one snapshot. Raft closes it from one goroutine, twice.
type Sink struct {
	store *Store
	tmp   string
	meta  raft.SnapshotMeta
	files []File
	file  vfs.File

	block  []byte // header's room, then payload
	blocks uint64
	bytes  int64 // of the file
	out    int64 // of them that were sent to the disk: large messages may be in it
	failed error // of a Write: the snapshot cannot be finished

	received bool // a peer sent it

	ended bool
	err   error // what the first Close or Cancel answered
}

// ID is raft.SnapshotSink's.
func (k *Sink) ID() string { return k.meta.ID }

// Write gathers state into blocks.
func (k *Sink) Write(b []byte) (int, error) {
	if k.ended {
		return 0, errors.Join(errors.New("write to an ended snapshot"), k.err)
	}
	written := 0
	for len(b) > 0 && k.failed == nil {
		n := min(len(b), cap(k.block)-len(k.block))
		k.block = append(k.block, b[:n]...)
		b = b[n:]
		written += n
		if len(k.block) == cap(k.block) {
			k.failed = k.flush()
		}
	}
	k.meta.Size += int64(written)
	return written, k.failed
}

// Link makes the first bytes of the file at path part of the snapshot, under
// name. No byte is copied: the file gets one more name. Whoever calls it has
// synced those bytes, and sees to it that they never change any more; more may
// be appended behind them. id is the File's.
func (k *Sink) Link(name, path string, bytes int64, id string) error {
	f := File{Name: name, Bytes: bytes, ID: id}
	switch {
	case k.ended:
		return errors.Join(errors.New("link into an ended snapshot"), k.err)
	case !f.valid():
		return fmt.Errorf("link %s into snapshot: bad name, id or length", name)
	}
	if err := k.store.fs.Link(path, filepath.Join(k.tmp, name)); err != nil {
		k.failed = errors.Join(k.failed, fmt.Errorf("link %s into snapshot: %w", name, err))
		return k.failed
	}
	k.files = append(k.files, f)
	return nil
}

func (k *Sink) flush() error {
	payload := k.block[blockHeader:]
	if len(payload) == 0 {
		return nil
	}
	binary.LittleEndian.PutUint32(k.block, uint32(len(payload)))
	binary.LittleEndian.PutUint32(k.block[4:], blockSum(k.blocks, payload))
	if _, err := k.file.Write(k.block); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	k.blocks++
	k.bytes += int64(len(k.block))
	k.block = k.block[:blockHeader]
	if k.bytes-k.out < vfs.StepBytes {
		return nil
	}
	if err := vfs.WriteOut(k.file, k.out, k.bytes); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	k.out = k.bytes
	return nil
}

// blockSum includes the block's number: one out of place is not a good one.
func blockSum(number uint64, payload []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], number)
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, payload)
}

// Close makes the snapshot durable and the newest one. Raft may discard its
// log up to here once this has answered nil.
func (k *Sink) Close() error {
	if k.ended {
		return k.err
	}
	k.ended = true
	if k.received { // before it has its name: nobody may take it for restored
		k.failed = errors.Join(k.failed, k.store.land(k.meta.ID))
	}
	k.err = k.finish()
	if k.err != nil {
		k.err = errors.Join(k.err, k.store.fs.Remove(k.tmp))
		if k.received { // it may have its name already
			k.err = errors.Join(k.err, k.store.Discard(true))
		}
		return k.err
	}
	k.store.reapOrWarn() // this one is good all the same
	if err := k.store.dropIncoming(); err != nil {
		k.store.log.Warn("what peers sent of earlier snapshots stays", "err", err)
	}
	return nil
}

func (k *Sink) finish() error {
	err := k.failed
	if err == nil {
		err = k.flush()
	}
	if err == nil {
		err = k.file.Sync()
	}
	if err := errors.Join(err, k.file.Close()); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	k.block = nil
	if err := k.store.writeMeta(k.tmp, description{k.meta, k.files}); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	// The names of the linked files are durable with the folder, as those of
	// state and description are; their bytes were before they were linked.
	if err := k.store.fs.SyncDir(k.tmp); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	if err := k.store.fs.Rename(k.tmp, filepath.Join(k.store.dir, k.meta.ID)); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	if err := k.store.fs.SyncDir(k.store.dir); err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	return nil
}

// Cancel gives the snapshot up; after Close it does nothing.
func (k *Sink) Cancel() error {
	if k.ended {
		return nil
	}
	k.ended, k.err = true, errCancelled
	k.block = nil
	return errors.Join(k.file.Close(), k.store.fs.Remove(k.tmp))
}
