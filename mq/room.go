package mq

import (
	"slices"
	"strings"
	"unsafe"
)

// Room returns an empty slice with room for n bytes that nobody has cleared. To
// clear 128 MiB takes as long as dozens of commits, and whoever asks for them
// may have a lock that these need. The bytes beyond the slice's length are
// whatever was there: they can only be written to, by appending.
func Room(n int) []byte {
	if n <= 0 {
		return nil
	}
	var b strings.Builder // the one thing in the library that does not clear
	b.Grow(n)
	b.WriteByte(0) // a string without bytes is nowhere
	return unsafe.Slice(unsafe.StringData(b.String()), n)[:0]
}

// copyBytes is how much is copied without a break.
const copyBytes = 64 << 10

// Joined returns a slice with room for n bytes that begins with those of the
// parts. It copies a piece at a time. Memory that was never used is slow to fill,
// and nothing interrupts one copy: 16 MiB took 30 ms of a processor, and of the
// other one as well, where the garbage collector waited to look at the goroutine.
func Joined(n int, parts ...[]byte) []byte {
	to := Room(n)
	for _, part := range parts {
		for piece := range slices.Chunk(part, copyBytes) {
			to = append(to, piece...)
		}
	}
	return to
}
