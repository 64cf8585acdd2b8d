package raftlog

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// A file of the WAL is a header and then records, each at a multiple of 8:
//
//	header   0 magic   8 u32 version   12 u32 zero   16 u64 seq   24 u64 random
//	        32 i64 made at (unix ns)   40 zeros   60 u32 crc of bytes 0..60
//	record   0 u32 bytes of payload    4 u32 crc of payload
//	         8 u32 crc of bytes 0..8 and 12..48    12 u8 kind    13 u8 Raft's type
//	        14 u16 zero   16 u64 group   24 u64 index   32 u64 term
//	        40 u32 bytes of extensions, at the end of payload   44 u32 zero
//	        48 i64 appended at (unix ns)   56 payload, then zeros up to 8
//
// All little endian, all checksums CRC32C. Those of records begin with the
// checksum of their file's header, which holds a random number: what an earlier
// life of a recycled file left behind never passes for a record.
//
// The header of a record has a checksum of its own, so that damage to a
// payload, which is most of the bytes, can be laid to one group.
const (
	walMagic    = "WARRNWAL"
	walVersion  = 1
	headerBytes = 64
	recordHead  = 56
)

// kind is what a record says.
type kind uint8

const (
	// kindEntry is the group's entry at index. One that the group has already,
	// and all after it, are replaced.
	kindEntry kind = 1 + iota
	// kindTruncPrefix forgets entries up to index, kindTruncSuffix from index on.
	kindTruncPrefix
	kindTruncSuffix
	// kindCarry is a copy of an entry, so that an old file can go.
	kindCarry
	// kindBatch begins every write: all bytes of the file before it are synced,
	// as its index says. Its group and term say which file came before this one
	// and up to where that holds records.
	kindBatch
	// kindDrop says that the group begins anew: nothing of it that was written
	// before counts, and no damage to it either.
	kindDrop
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// padded is n rounded up to where the next record may begin.
func padded(n int) int { return (n + 7) &^ 7 }

func appendFileHeader(dst []byte, seq, random uint64, made time.Time) []byte {
	at := len(dst)
	dst = append(dst, walMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, walVersion)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = binary.LittleEndian.AppendUint64(dst, random)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(made.UnixNano()))
	dst = append(dst, make([]byte, 20)...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// readFileHeader returns the number of the file and what its records' checksums begin with.
func readFileHeader(b []byte) (seq uint64, seed uint32, ok bool) {
	if len(b) < headerBytes || string(b[:8]) != walMagic || binary.LittleEndian.Uint64(b[8:]) != walVersion {
		return 0, 0, false
	}
	seed = binary.LittleEndian.Uint32(b[60:])
	return binary.LittleEndian.Uint64(b[16:]), seed, seed == crc32.Checksum(b[:60], castagnoli)
}

// record is a decoded record; payload is what it was decoded from.
type record struct {
	kind       kind
	logType    raft.LogType
	gid        uint64
	index      uint64
	term       uint64
	appendedAt int64
	extensions uint32
	payloadLen uint32
	payloadCRC uint32
}

// bytes is the room that the record takes in its file.
func (r *record) bytes() int64 { return recordHead + int64(padded(int(r.payloadLen))) }

func appendHead(dst []byte, r *record, seed uint32) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, r.payloadLen)
	dst = binary.LittleEndian.AppendUint32(dst, r.payloadCRC)
	dst = append(dst, 0, 0, 0, 0, byte(r.kind), byte(r.logType), 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, r.gid)
	dst = binary.LittleEndian.AppendUint64(dst, r.index)
	dst = binary.LittleEndian.AppendUint64(dst, r.term)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.extensions))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.appendedAt))
	binary.LittleEndian.PutUint32(dst[at+8:], headCRC(dst[at:], seed))
	return dst
}

func headCRC(b []byte, seed uint32) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, b[:8]), castagnoli, b[12:recordHead])
}

// appendMark appends a record without a payload.
func appendMark(dst []byte, k kind, gid, index, term uint64, seed uint32) []byte {
	return appendHead(dst, &record{kind: k, gid: gid, index: index, term: term, payloadCRC: seed}, seed)
}

// appendEntry appends an entry. This is the one copy of its data.
func appendEntry(dst []byte, k kind, gid uint64, l *raft.Log, seed uint32) []byte {
	r := record{
		kind: k, logType: l.Type, gid: gid, index: l.Index, term: l.Term,
		payloadLen: uint32(len(l.Data) + len(l.Extensions)), extensions: uint32(len(l.Extensions)),
		payloadCRC: crc32.Update(crc32.Update(seed, castagnoli, l.Data), castagnoli, l.Extensions),
	}
	if !l.AppendedAt.IsZero() {
		r.appendedAt = l.AppendedAt.UnixNano()
	}
	dst = appendHead(dst, &r, seed)
	dst = append(dst, l.Data...)
	dst = append(dst, l.Extensions...)
	for len(dst)%8 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// entryRoom is the room that an entry takes in a file.
func entryRoom(l *raft.Log) int { return recordHead + padded(len(l.Data)+len(l.Extensions)) }

// readHead decodes a record's header, and reports whether it is whole.
func readHead(b []byte, seed uint32) (r record, ok bool) {
	if len(b) < recordHead || kind(b[12]) < kindEntry || kind(b[12]) > kindDrop {
		return r, false // this is what a search for records meets most
	}
	r = record{
		payloadLen: binary.LittleEndian.Uint32(b), payloadCRC: binary.LittleEndian.Uint32(b[4:]),
		kind: kind(b[12]), logType: raft.LogType(b[13]),
		gid: binary.LittleEndian.Uint64(b[16:]), index: binary.LittleEndian.Uint64(b[24:]), term: binary.LittleEndian.Uint64(b[32:]),
		extensions: binary.LittleEndian.Uint32(b[40:]), appendedAt: int64(binary.LittleEndian.Uint64(b[48:])),
	}
	return r, r.extensions <= r.payloadLen && headCRC(b, seed) == binary.LittleEndian.Uint32(b[8:])
}

// payloadOK reports whether payload is what was written.
func (r *record) payloadOK(payload []byte, seed uint32) bool {
	return crc32.Update(seed, castagnoli, payload) == r.payloadCRC
}

// entry makes the record's entry, sharing payload.
func (r *record) entry(payload []byte, l *raft.Log) {
	data := len(payload) - int(r.extensions)
	*l = raft.Log{Index: r.index, Term: r.term, Type: r.logType, Data: payload[:data:data]}
	if r.extensions > 0 {
		l.Extensions = payload[data:]
	}
	if r.appendedAt != 0 {
		l.AppendedAt = time.Unix(0, r.appendedAt).UTC()
	}
}
