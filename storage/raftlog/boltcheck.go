package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// bbolt trusts its file: a wrong bit in a page can end the process, and one in
// the newer of its two meta pages takes back the last transaction without a
// word. So the file's skeleton is read here before bbolt sees it: both meta
// pages, and every page that the newer one reaches, whose parts must lie one
// behind the other as bbolt writes them. What is in the values has checksums of
// its own.
//
//	page  u64 id  u16 flags  u16 count  u32 overflow, elements, keys and values
//	meta  u32 magic  u32 version  u32 page size  u32 flags  u64 root  u64 sequence
//	      u64 freelist  u64 pages  u64 transaction  u64 FNV-64a of what is before
const (
	boltPageHead = 16
	boltElement  = 16
	boltMagic    = 0xED0CDAED
	boltMeta     = 64 // bytes with the checksum

	boltBranch, boltLeaf = 1, 2
	boltBucket           = 1 // flag of a leaf's element
	boltDepthMax         = 32
)

var (
	little      = binary.LittleEndian
	errBoltPage = errors.New("a page is not as it was written")
)

// checkBolt reports damage to the skeleton of a bbolt file. One that is missing
// or empty is in order.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	c := &boltCheck{f: f, size: info.Size(), used: map[uint64]bool{}}
	root, err := c.metas()
	if err == nil {
		_, _, err = c.page(root, 0)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	return nil
}

type boltCheck struct {
	f         io.ReaderAt
	size      int64
	pageBytes int64
	pages     uint64          // that are in use, or were
	used      map[uint64]bool // pages that were met
	in        string          // the bucket that is read; empty: the root
}

// named reports whether a key may be where it is: raft-boltdb has two buckets,
// and takes an entry under a damaged name for one that is missing.
func (c *boltCheck) named(key []byte, bucket bool) bool {
	switch c.in {
	case "":
		return bucket && (string(key) == "logs" || string(key) == "conf")
	case "logs":
		return !bucket && len(key) == 8
	default:
		return !bucket && (bytes.Equal(key, sealedKey) || slices.ContainsFunc(raftKeys, func(k []byte) bool { return bytes.Equal(k, key) }))
	}
}

// metas reads both meta pages and returns the newer one's root. Their
// transactions follow each other. The first one says how large pages are: a file
// may come from another machine.
func (c *boltCheck) metas() (root uint64, err error) {
	var txs, roots, counts [2]uint64
	for i := range int64(2) {
		b := make([]byte, boltPageHead+boltMeta)
		if _, err := c.f.ReadAt(b, i*c.pageBytes); err != nil {
			return 0, fmt.Errorf("meta page %d: %w", i, err)
		}
		m := b[boltPageHead:]
		h := fnv.New64a()
		h.Write(m[:boltMeta-8])
		pageBytes := int64(little.Uint32(m[8:]))
		if little.Uint32(m) != boltMagic || h.Sum64() != little.Uint64(m[boltMeta-8:]) || i > 0 && pageBytes != c.pageBytes {
			return 0, fmt.Errorf("meta page %d: %w", i, errBoltPage)
		}
		c.pageBytes = pageBytes
		roots[i], counts[i], txs[i] = little.Uint64(m[16:]), little.Uint64(m[40:]), little.Uint64(m[48:])
	}
	newer := 0
	if txs[1] > txs[0] {
		newer = 1
	}
	if txs[newer] != txs[1-newer]+1 {
		return 0, fmt.Errorf("the meta pages are of transactions %d and %d: %w", txs[0], txs[1], errBoltPage)
	}
	c.pages = counts[newer]
	return roots[newer], nil
}

// page checks the page with an id and what it reaches, and returns its first
// and its last key.
func (c *boltCheck) page(id uint64, depth int) (first, last []byte, err error) {
	if id < 2 || id >= c.pages || int64(id+1)*c.pageBytes > c.size || depth > boltDepthMax {
		return nil, nil, fmt.Errorf("page %d does not exist: %w", id, errBoltPage)
	}
	head := make([]byte, boltPageHead)
	if _, err := c.f.ReadAt(head, int64(id)*c.pageBytes); err != nil {
		return nil, nil, err
	}
	more := uint64(little.Uint32(head[12:]))
	if little.Uint64(head) != id || id+more >= c.pages || int64(id+more+1)*c.pageBytes > c.size {
		return nil, nil, fmt.Errorf("page %d: %w", id, errBoltPage)
	}
	for p := id; p <= id+more; p++ {
		if c.used[p] {
			return nil, nil, fmt.Errorf("page %d is there twice: %w", p, errBoltPage)
		}
		c.used[p] = true
	}
	b := make([]byte, int64(more+1)*c.pageBytes)
	if _, err := c.f.ReadAt(b, int64(id)*c.pageBytes); err != nil {
		return nil, nil, err
	}
	first, last, end, err := c.elements(b, depth)
	if err == nil && (int64(end)+c.pageBytes-1)/c.pageBytes != max(1, int64(more)+1) {
		err = errBoltPage
	}
	if err != nil {
		return nil, nil, fmt.Errorf("page %d: %w", id, err)
	}
	return first, last, nil
}

// elements checks a page's elements, and returns where the last one ends.
func (c *boltCheck) elements(b []byte, depth int) (first, last []byte, end int, err error) {
	flags, count := little.Uint16(b[8:]), int(little.Uint16(b[10:]))
	end = boltPageHead + count*boltElement
	if flags != boltBranch && flags != boltLeaf || end > len(b) || flags == boltBranch && count == 0 {
		return nil, nil, 0, errBoltPage
	}
	for i := range count {
		at := boltPageHead + i*boltElement
		e := b[at:][:boltElement]
		pos, keyBytes, valueBytes := little.Uint32(e), little.Uint32(e[4:]), uint32(0)
		if flags == boltLeaf {
			pos, keyBytes, valueBytes = little.Uint32(e[4:]), little.Uint32(e[8:]), little.Uint32(e[12:])
		}
		if uint64(at)+uint64(pos) != uint64(end) || uint64(end)+uint64(keyBytes)+uint64(valueBytes) > uint64(len(b)) {
			return nil, nil, 0, errBoltPage
		}
		key := b[end:][:keyBytes]
		value := b[end+int(keyBytes):][:valueBytes]
		end += int(keyBytes) + int(valueBytes)
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return nil, nil, 0, errBoltPage
		}
		if i == 0 {
			first = key
		}
		last = key
		switch bucket := flags == boltLeaf && little.Uint32(e) == boltBucket; {
		case flags == boltBranch:
			low, high, err := c.page(little.Uint64(e[8:]), depth+1)
			if err != nil {
				return nil, nil, 0, err
			}
			if !bytes.Equal(low, key) {
				return nil, nil, 0, errBoltPage
			}
			last = high
		case !bucket && little.Uint32(e) != 0 || !c.named(key, bucket):
			return nil, nil, 0, errBoltPage
		case bucket:
			c.in = string(key)
			err := c.bucket(value, depth)
			if c.in = ""; err != nil {
				return nil, nil, 0, err
			}
		}
	}
	return first, last, end, nil
}

// bucket checks a bucket: its root is a page of its own, or follows here.
func (c *boltCheck) bucket(b []byte, depth int) error {
	if len(b) < boltElement {
		return errBoltPage
	}
	if root := little.Uint64(b); root != 0 {
		_, _, err := c.page(root, depth+1)
		return err
	}
	if b = b[boltElement:]; len(b) < boltPageHead || depth > boltDepthMax {
		return errBoltPage
	}
	_, _, end, err := c.elements(b, depth+1)
	if err == nil && end != len(b) {
		err = errBoltPage
	}
	return err
}
