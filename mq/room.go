package mq

import (
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
