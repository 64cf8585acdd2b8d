package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

// shortstrBytesMax is the longest short string (AMQP 0-9-1 §4.2.5.3).
const shortstrBytesMax = 255

// cut shortens a string to what fits a short string, never inside a UTF-8
// character, and says so with dots. Names arrived as short strings and always fit; reply texts that
// quote them need not.
func cut(s string) string {
	if len(s) <= shortstrBytesMax {
		return s
	}
	const dots = "..."
	most := shortstrBytesMax - len(dots)
	n := most
	for n > most-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots
}

func appendShortstr(dst []byte, s string) []byte {
	s = cut(s)
	dst = append(dst, byte(len(s)))
	return append(dst, s...)
}

// appendShortBytes is appendShortstr for names that came as bytes of a frame
// or an mq.Content, where no longer one exists.
func appendShortBytes(dst, s []byte) []byte {
	s = s[:min(len(s), shortstrBytesMax)]
	dst = append(dst, byte(len(s)))
	return append(dst, s...)
}

func appendLongstr(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// appendBits appends one octet of flags, the first in the lowest bit.
func appendBits(dst []byte, flags ...bool) []byte {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(dst, b)
}

func appendShort(dst []byte, v uint16) []byte    { return binary.BigEndian.AppendUint16(dst, v) }
func appendLong(dst []byte, v uint32) []byte     { return binary.BigEndian.AppendUint32(dst, v) }
func appendLonglong(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }
