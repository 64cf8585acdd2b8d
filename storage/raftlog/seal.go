package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/hashicorp/raft"
)

// raft-boltdb has no checksum over what it stores, so a Bolt adds one to all
// that it stores: 8 bytes, u32 magic and u32 CRC-32C. Of an entry they end the
// Extensions, which earlier versions read and make nothing of; of a term or a
// vote they follow the value, of which earlier versions read the beginning.
//
// A file from before the seals is sealed when it is opened, and has the key
// sealedKey from then on: what has no seal after that is damaged.
const (
	sealBytes = 8
	sealMagic = 0x5ea1c3c5
)

var sealedKey = []byte("warren.sealed")

func appendSeal(dst []byte, crc uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(dst, sealMagic), crc)
}

// cutSeal splits what has a seal from it. A magic with a few wrong bits is one
// that was damaged: the checksum tells whether anything else was.
func cutSeal(b []byte) (rest []byte, crc uint32, ok bool) {
	n := len(b) - sealBytes
	if n < 0 || bits.OnesCount32(binary.LittleEndian.Uint32(b[n:])^sealMagic) > 4 {
		return b, 0, false
	}
	return b[:n:n], binary.LittleEndian.Uint32(b[n+4:]), true
}

func entrySum(l *raft.Log, extensions []byte) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	crc := crc32.Checksum(head[:], castagnoli)
	return crc32.Update(crc32.Update(crc, castagnoli, l.Data), castagnoli, extensions)
}

// sealed are copies of entries with their checksums; the data is shared.
func sealed(logs []*raft.Log) []*raft.Log {
	copies := make([]raft.Log, len(logs))
	out := make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		ext := append(make([]byte, 0, len(l.Extensions)+sealBytes), l.Extensions...)
		copies[i].Extensions = appendSeal(ext, entrySum(l, l.Extensions))
		out[i] = &copies[i]
	}
	return out
}

// unsealEntry takes the checksum off an entry that was read as index, and checks it.
func unsealEntry(index uint64, l *raft.Log) error {
	ext, crc, ok := cutSeal(l.Extensions)
	if !ok || l.Index != index || crc != entrySum(l, ext) {
		return fmt.Errorf("entry %d: %w", index, ErrDamaged)
	}
	if l.Extensions = ext; len(ext) == 0 {
		l.Extensions = nil
	}
	return nil
}

func valueSum(k, v []byte) uint32 {
	return crc32.Update(crc32.Checksum(k, castagnoli), castagnoli, v)
}

func sealValue(k, v []byte) []byte {
	return appendSeal(append(make([]byte, 0, len(v)+sealBytes), v...), valueSum(k, v))
}

func unsealValue(k, b []byte) ([]byte, error) {
	v, crc, ok := cutSeal(b)
	if !ok || crc != valueSum(k, v) {
		return nil, fmt.Errorf("%s: %w", k, ErrDamaged)
	}
	return v, nil
}
