package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// An extent is a chunk in a file: what lived of it when it was written. All
// numbers are little endian.
//
//	 0 u32 magic     4 u32 CRC-32C of bytes 8 to 64
//	 8 u64 queue    16 u64 first sequence number
//	24 u32 messages 28 u32 CRC-32C of the index   32 u64 bytes of all bodies   40 to 64 zero
//	64 index, for each message:
//	   u32 bytes, u32 CRC-32C of the body, i64 expiryMs, u32 weight, u16 slot, u8 flags, u8 priority
//	.. bodies, and zeros up to a multiple of 64
//
// Slots are in ascending order. The queue and the first number are compared
// with what the reader looks for, so that an extent in another's place is not
// taken for the right one.
const (
	extentMagic = 0x54584551 // "QEXT"
	extentAlign = 64
	extentHead  = 64
	entryBytes  = 24
)

// pieceBytes is how much is read or written at once.
const pieceBytes = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that what is on disk is not what was written there.
var ErrDamaged = errors.New("message on disk is damaged")

// appendIndex appends the head and the index of c's extent.
func (c *viewedChunk) appendIndex(dst []byte, q uint64, weigh func([]byte) uint32) (_ []byte, bodyBytes int64) {
	at := len(dst)
	dst = append(dst, make([]byte, extentHead)...)
	count := uint32(0)
	for slot := c.prefix; slot < c.slots; slot++ {
		if c.isDead(slot) {
			continue
		}
		r := c.recs[slot].record(c.blocks)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r.Body)))
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(r.Body, castagnoli))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.ExpiryMs))
		dst = binary.LittleEndian.AppendUint32(dst, weigh(r.Body))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(slot))
		dst = append(dst, r.Flags, r.Priority)
		bodyBytes += int64(len(r.Body))
		count++
	}
	head := dst[at : at+extentHead]
	binary.LittleEndian.PutUint32(head, extentMagic)
	binary.LittleEndian.PutUint64(head[8:], q)
	binary.LittleEndian.PutUint64(head[16:], c.first)
	binary.LittleEndian.PutUint32(head[24:], count)
	binary.LittleEndian.PutUint32(head[28:], crc32.Checksum(dst[at+extentHead:], castagnoli))
	binary.LittleEndian.PutUint64(head[32:], uint64(bodyBytes))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(head[8:], castagnoli))
	return dst, bodyBytes
}

// entry is one message in an extent's index.
type entry struct {
	bytes, sum  uint32
	expiryMs    int64
	weight      uint32
	slot        int
	flags, prio uint8
}

func parseEntry(b []byte) entry {
	return entry{
		bytes: binary.LittleEndian.Uint32(b), sum: binary.LittleEndian.Uint32(b[4:]),
		expiryMs: int64(binary.LittleEndian.Uint64(b[8:])), weight: binary.LittleEndian.Uint32(b[16:]),
		slot: int(binary.LittleEndian.Uint16(b[20:])), flags: b[22], prio: b[23],
	}
}

// index reads an extent's index, and checks that it is that of c.
func (c *viewedChunk) index(q uint64, b []byte) (entries []byte, bodyBytes int64, err error) {
	bad := func(what string) ([]byte, int64, error) {
		return nil, 0, fmt.Errorf("%w: %s at %d: %s", ErrDamaged, c.file.name, int64(c.at)*extentAlign, what)
	}
	if len(b) < extentHead || binary.LittleEndian.Uint32(b) != extentMagic ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:extentHead], castagnoli) {
		return bad("no extent")
	}
	count := int64(binary.LittleEndian.Uint32(b[24:]))
	bodyBytes = int64(binary.LittleEndian.Uint64(b[32:]))
	switch {
	case binary.LittleEndian.Uint64(b[8:]) != q || binary.LittleEndian.Uint64(b[16:]) != c.first:
		return bad("the extent of another chunk")
	case count > int64(c.slots) || int64(len(b)) < extentHead+count*entryBytes:
		return bad(fmt.Sprintf("index of %d messages", count))
	case bodyBytes < 0 || extentHead+count*entryBytes+bodyBytes > int64(c.size):
		return bad(fmt.Sprintf("%d bytes of bodies", bodyBytes))
	}
	entries = b[extentHead : extentHead+count*entryBytes]
	if binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(entries, castagnoli) {
		return bad("checksum of the index")
	}
	return entries, bodyBytes, nil
}

// indexBytes is how much to read of an extent to have all of its index.
func (c *viewedChunk) indexBytes() int {
	return int(min(int64(c.size), extentHead+int64(c.slots)*entryBytes))
}

// loaded is what an extent holds, as a chunk has it in memory.
type loaded struct {
	recs   []rec
	blocks [][]byte
	bytes  int64 // of memory
}

// load reads the extent of c and checks all of it.
func (c *viewedChunk) load(q uint64) (loaded, error) {
	b := make([]byte, c.size)
	if err := c.read(b); err != nil {
		return loaded{}, err
	}
	entries, bodyBytes, err := c.index(q, b)
	if err != nil {
		return loaded{}, err
	}
	l := loaded{recs: make([]rec, c.slots), bytes: int64(c.slots)*recBytes + int64(len(b))}
	for i := range l.recs {
		l.recs[i].hole = true
	}
	bodies := b[extentHead+len(entries):]
	bodies = bodies[:bodyBytes:bodyBytes]
	off := int64(0)
	for ; len(entries) > 0; entries = entries[entryBytes:] {
		e := parseEntry(entries)
		end := off + int64(e.bytes)
		if e.slot >= c.slots || end > bodyBytes || crc32.Checksum(bodies[off:end], castagnoli) != e.sum {
			return loaded{}, fmt.Errorf("%w: %s at %d: message %d", ErrDamaged, c.file.name, int64(c.at)*extentAlign, c.first+uint64(e.slot))
		}
		l.recs[e.slot] = rec{expiryMs: e.expiryMs, off: uint32(off), bytes: e.bytes, flags: e.flags, prio: e.prio}
		off = end
	}
	for slot := c.prefix; slot < c.slots; slot++ {
		if l.recs[slot].hole && !c.isDead(slot) {
			return loaded{}, fmt.Errorf("%w: %s at %d: message %d is missing", ErrDamaged, c.file.name, int64(c.at)*extentAlign, c.first+uint64(slot))
		}
	}
	l.blocks = [][]byte{bodies}
	return l, nil
}

// read fills b from the beginning of the extent.
func (c *viewedChunk) read(b []byte) error { return c.readAt(b, 0) }

// readAt fills b from some place in the extent, a piece at a time.
func (c *viewedChunk) readAt(b []byte, off int64) error {
	off += int64(c.at) * extentAlign
	for len(b) > 0 {
		n := min(len(b), pieceBytes)
		got, err := c.file.f.ReadAt(b[:n], off)
		if got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: %s at %d: %w", ErrDamaged, c.file.name, off, err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
