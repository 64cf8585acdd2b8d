package wire

import (
	"encoding/binary"
	"slices"
)

// Present returns the flags of the properties that are there.
func Present(b []byte) uint16 {
	d := decoder{b: b}
	return d.short()
}

// PeekProperty picks one property out of property flags and list that have
// been checked: its bytes, without the length of a short string, but headers
// with theirs, as ParseTable takes it. nil means that it is not there. It
// allocates nothing: what it answers is of b.
func PeekProperty(b []byte, flag uint16) []byte {
	d, ok := seekProperty(b, flag)
	if !ok {
		return nil
	}
	return d.property(flag)
}

// seekProperty moves to where a property begins, if it is there.
func seekProperty(b []byte, flag uint16) (d decoder, ok bool) {
	d = decoder{b: b}
	present := d.short()
	for before := HasContentType; before > flag; before >>= 1 {
		if present&before != 0 {
			d.property(before)
		}
	}
	return d, present&flag != 0
}

// property reads one property as it is encoded.
func (d *decoder) property(flag uint16) []byte {
	switch flag {
	case HasHeaders:
		at := d.b
		n := len(d.longBytes())
		return at[:min(4+n, len(at))]
	case HasDeliveryMode, HasPriority:
		return d.take(1)
	case HasTimestamp:
		return d.take(8)
	}
	return d.shortBytes()
}

// WithoutHeader returns a copy of property flags and list without a header;
// all others stay byte for byte as they were.
func WithoutHeader(b []byte, key string) []byte {
	at, ok := seekProperty(b, HasHeaders)
	if !ok {
		return slices.Clone(b)
	}
	start := len(b) - len(at.b)
	d := tableDecoder{b: at.longBytes()}
	out := append(make([]byte, 0, len(b)), b[:start+4]...)
	for end := len(d.b); d.at < end; {
		from := d.at
		k := d.key(end)
		name := d.b[k:d.at]
		d.next(end)
		if string(name) != key {
			out = append(out, d.b[from:d.at]...)
		}
	}
	binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	return append(out, at.b...)
}
