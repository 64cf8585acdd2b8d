// Package fields reads and writes the fields that frames between nodes, log
// entries and snapshots are made of: numbers as varints
// (encoding/binary) and bytes behind their length. It knows no message.
package fields

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is what is wrong with bytes that do not hold the fields that
// were read from them.
var ErrMalformed = errors.New("malformed or cut short")

// Reader reads one field after another. After the first fault nothing is left
// and all further reads give zero values, so that Err or Done, at the end, is
// all that has to be checked; a loop over a number of items is bounded by Count.
type Reader struct {
	b   []byte
	bad bool
}

// Read begins to read b, which must not change while what was read is in use.
func Read(b []byte) Reader { return Reader{b: b} }

// Fail makes this the first fault: what was read makes no sense.
func (r *Reader) Fail() { r.b, r.bad = nil, true }

// Err is ErrMalformed after a fault.
func (r *Reader) Err() error {
	if r.bad {
		return ErrMalformed
	}
	return nil
}

// Done is Err when there is nothing more to come: bytes left over are a fault.
func (r *Reader) Done() error {
	if r.bad || len(r.b) > 0 {
		return ErrMalformed
	}
	return nil
}

// Rest is what has not been read.
func (r *Reader) Rest() []byte { return r.b }

// More reports whether there is anything to be read.
func (r *Reader) More() bool { return len(r.b) > 0 }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.b) == 0 {
		r.Fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// Bool reads what AppendBool wrote; every byte but 0 is true.
func (r *Reader) Bool() bool { return r.Byte() != 0 }

// Uint reads what AppendUint wrote.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// UpTo is Uint for a number that must not be more than most.
func (r *Reader) UpTo(most uint64) uint64 {
	n := r.Uint()
	if n > most {
		r.Fail()
		return 0
	}
	return n
}

// Int reads what AppendInt wrote.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Count reads how many items follow, each of which takes at least one byte.
func (r *Reader) Count() int { return int(r.UpTo(uint64(len(r.b)))) }

// Take reads n bytes. They lie in what is read, with no room to append; none
// are nil.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.Fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Skip leaves what is to be read at rest, the end of Rest: what something else
// has not read of it.
func (r *Reader) Skip(rest []byte) { r.b = rest }

// Bytes reads what AppendBytes wrote, as Take does.
func (r *Reader) Bytes() []byte { return r.Take(r.Uint()) }

// Text reads what AppendString wrote. (String would make a Reader print itself.)
func (r *Reader) Text() string { return string(r.Bytes()) }

// AppendUint appends a number that Uint reads.
func AppendUint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// AppendInt appends a number that Int reads.
func AppendInt(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// AppendBytes appends the length of v and v.
func AppendBytes(dst, v []byte) []byte { return append(AppendUint(dst, uint64(len(v))), v...) }

// AppendString appends the length of s and s.
func AppendString(dst []byte, s string) []byte {
	return append(AppendUint(dst, uint64(len(s))), s...)
}

// AppendBool appends a byte, 1 if v.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}
