package wire

import (
	"encoding/binary"
	"unicode/utf8"

	"warren/mq"
)

// malformedUTF8 is the one fault that is a FRAME_ERROR, as RabbitMQ words it
// (rabbit_binary_parser:assert_utf8).
const malformedUTF8 = "Malformed UTF-8 in shortstr"

// decoder reads a method's arguments from a slice. The first fault sticks:
// from then on every read answers zero, and fault says what was wrong.
type decoder struct {
	b     []byte
	fault string
}

// fail notes the first fault and leaves nothing to read.
func (d *decoder) fail(what string) {
	if d.fault == "" {
		d.fault = what
	}
	d.b = nil
}

// take returns the next n bytes without copying them; nil if there are fewer.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("too short")
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) octet() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) short() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) long() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) longlong() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bits reads one octet of flags, the first from the lowest bit up. No method
// has more than eight in a row.
func (d *decoder) bits(flags ...*bool) {
	b := d.octet()
	for i, f := range flags {
		*f = b&(1<<i) != 0
	}
}

// shortBytes reads a short string without copying it.
func (d *decoder) shortBytes() []byte { return d.take(int(d.octet())) }

// shortstr reads a short string that must be UTF-8. RabbitMQ asks that of
// every method that carries no content; what comes with a message (names in
// basic.publish, properties) may be any bytes.
func (d *decoder) shortstr() string {
	b := d.shortBytes()
	if !utf8.Valid(b) {
		d.fail(malformedUTF8)
		return ""
	}
	return string(b)
}

// longBytes reads a long string without copying it. The length is compared as
// 64 bits, so that it cannot turn negative where int has 32.
func (d *decoder) longBytes() []byte {
	n := d.long()
	if uint64(n) > uint64(len(d.b)) {
		d.fail("too short")
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) longstr() string { return string(d.longBytes()) }

func (d *decoder) table() mq.Table {
	t, fault := decodeTable(d.longBytes())
	if fault != "" {
		d.fail(fault)
	}
	return t
}

// skip passes over n bytes of a reserved field.
func (d *decoder) skip(n int) { d.take(n) }

// finish ends the decoding of what: all bytes must have been read, as in
// RabbitMQ, where they must match the method's fields exactly.
func (d *decoder) finish(what string) error {
	if len(d.b) > 0 {
		d.fail("trailing octets")
	}
	switch d.fault {
	case "":
		return nil
	case malformedUTF8:
		return mq.Errorf(mq.FrameError, "%s", d.fault)
	}
	return mq.Errorf(mq.SyntaxError, "cannot decode '%s': %s", what, d.fault)
}
