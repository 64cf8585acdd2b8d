package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"strings"

	"warren/internal/fields"
)

// A manifest says where the messages of a View are:
//
//	u8 version
//	uvarint files,  each: string name | string id | uvarint bytes
//	uvarint queues, each: uvarint id | uvarint chunks, each:
//	  uvarint sequence numbers passed over since the chunk before | uvarint slots | uvarint prefix
//	  uvarint file | uvarint at | uvarint size | uvarint stored | uvarint live bytes
//	  u8 bits | u8 flags | u8 priority
//	  with manifestDead 16 x u64 little endian; with manifestMarks 2 bytes for each slot
//
// A string has its length before it, as a uvarint. Queues and chunks are in
// ascending order, and at is in units of extentAlign. A chunk takes about 25
// bytes, so that 50 million messages are about a megabyte.
const manifestVersion = 1

// The bits of a chunk in a manifest.
const (
	manifestDead    = 1 // some slot above the prefix is dead
	manifestMarks   = 2 // messages have different marks
	manifestExpires = 4
)

// mostLive is more than the messages of a chunk can have, and little enough
// for the sum over all chunks.
const mostLive = 1 << 40

var errManifest = errors.New("manifest of segments is malformed")

// AppendTo appends the manifest of a saved view.
func (v *View) AppendTo(dst []byte) []byte {
	dst = append(dst, manifestVersion)
	files := v.Files()
	dst = binary.AppendUvarint(dst, uint64(len(files)))
	for i := range files {
		dst = fields.AppendString(dst, files[i].Name)
		dst = fields.AppendString(dst, files[i].ID)
		dst = binary.AppendUvarint(dst, uint64(files[i].Bytes))
	}
	number := make(map[*file]uint64, len(v.saved))
	for i, x := range v.saved {
		number[x.file] = uint64(i)
	}
	dst = binary.AppendUvarint(dst, uint64(len(v.queues)))
	for i := range v.queues {
		q := &v.queues[i]
		dst = binary.AppendUvarint(dst, q.id)
		dst = binary.AppendUvarint(dst, uint64(len(q.chunks)))
		next := uint64(0)
		for j := range q.chunks {
			c := &q.chunks[j]
			dst = c.appendTo(dst, c.first-next, number[c.file])
			next = c.first + uint64(c.slots)
		}
	}
	return dst
}

func (c *viewedChunk) appendTo(dst []byte, skipped, file uint64) []byte {
	for _, n := range [...]uint64{skipped, uint64(c.slots), uint64(c.prefix), file, uint64(c.at), uint64(c.size), uint64(c.stored), uint64(c.liveBytes)} {
		dst = binary.AppendUvarint(dst, n)
	}
	has := byte(0)
	if c.dead != nil {
		has |= manifestDead
	}
	if c.marks != nil {
		has |= manifestMarks
	}
	if c.expires {
		has |= manifestExpires
	}
	dst = append(dst, has, c.alike.flags, c.alike.prio)
	if c.dead != nil {
		for _, w := range c.dead {
			dst = binary.LittleEndian.AppendUint64(dst, w)
		}
	}
	if c.marks != nil {
		for _, m := range c.marks.of[:c.slots] {
			dst = append(dst, m.flags, m.prio)
		}
	}
	return dst
}

// manifest is what a reader has of one that is left to read.
type manifest struct{ fields.Reader }

// bytes is the next n, zeros after a fault.
func (m *manifest) bytes(n int) []byte {
	if b := m.Take(uint64(n)); len(b) == n {
		return b
	}
	return make([]byte, n)
}

// restoredFile is a file that a manifest lists.
type restoredFile struct {
	name, id string
	bytes    int64
	file     *file
}

func (m *manifest) files() ([]restoredFile, error) {
	if v := m.bytes(1)[0]; v != manifestVersion && m.Err() == nil {
		return nil, fmt.Errorf("manifest of segments has version %d, this build reads %d", v, manifestVersion)
	}
	files := make([]restoredFile, m.UpTo(uint64(len(m.Rest()))))
	for i := range files {
		files[i] = restoredFile{name: m.Text(), id: m.Text(), bytes: int64(m.UpTo(1 << 62))}
		if f := &files[i]; m.Err() != nil || f.name != filepath.Base(f.name) || !strings.HasSuffix(f.name, fileSuffix) || f.bytes < fileHead {
			return nil, errManifest
		}
	}
	if m.Err() != nil {
		return nil, errManifest
	}
	return files, nil
}

// chunk reads one that begins at next or later.
func (m *manifest) chunk(next uint64, files []restoredFile) (*chunk, error) {
	c := &chunk{sealed: true, headMs: headUnknown}
	c.first = next + m.UpTo(1<<62)
	c.slots = uint16(m.UpTo(chunkSlots))
	c.prefix = uint16(m.UpTo(uint64(c.slots)))
	number := m.Uint()
	c.at, c.size = uint32(m.UpTo(1<<32-1)), uint32(m.UpTo(1<<32-1))
	c.stored = uint16(m.UpTo(uint64(c.slots)))
	c.liveBytes = int64(m.UpTo(mostLive)) // an estimate: it may be more than the extent has
	has := m.bytes(1)[0]
	c.alike = mark{flags: m.bytes(1)[0], prio: m.bytes(1)[0]}
	c.expires = has&manifestExpires != 0
	if has&manifestDead != 0 {
		c.dead = new(bitmap)
		for w, b := 0, m.bytes(len(c.dead)*8); w < len(c.dead); w++ {
			c.dead[w] = binary.LittleEndian.Uint64(b[w*8:])
		}
	}
	if has&manifestMarks != 0 {
		c.marks = &marks{make([]mark, c.slots)}
		for i, b := 0, m.bytes(2*int(c.slots)); i < int(c.slots); i++ {
			c.marks.of[i] = mark{flags: b[2*i], prio: b[2*i+1]}
		}
	}
	c.live = c.count()
	if m.Err() != nil || c.live == 0 || c.live > c.stored || c.first > 1<<62 || c.size < extentHead || number >= uint64(len(files)) ||
		c.at < fileHead/extentAlign || int64(c.at)*extentAlign+int64(c.size) > files[number].bytes {
		return nil, errManifest
	}
	c.file = files[number].file
	return c, nil
}

// count is how many slots are not dead.
func (c *chunk) count() (live uint16) {
	if c.dead == nil {
		return c.slots - c.prefix
	}
	for slot := int(c.prefix); slot < int(c.slots); slot++ {
		if slot%64 == 0 && slot+64 <= int(c.slots) {
			live += uint16(64 - bits.OnesCount64(c.dead[slot/64]))
			slot += 63
		} else if !c.dead.has(slot) {
			live++
		}
	}
	return live
}
