package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"warren/mq"
)

// tableDepthMax is how deep tables and arrays may nest. RabbitMQ has no limit;
// a recursive decoder needs one.
const tableDepthMax = 64

// AppendTable appends a field table with its length. A value of a type that
// mq.Table does not name is a broken invariant and panics: tables from a peer
// hold none.
func AppendTable(dst []byte, t mq.Table) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for i := range t {
		dst = appendShortstr(dst, t[i].Key)
		dst = appendValue(dst, t[i].Value)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

func appendArray(dst []byte, values []any) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// appendValue appends a value behind its type letter, RabbitMQ's where they
// differ from the specification's (https://www.rabbitmq.com/amqp-0-9-1-errata).
func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, 'V')
	case bool:
		return appendBits(append(dst, 't'), v)
	case int8:
		return append(dst, 'b', byte(v))
	case uint8:
		return append(dst, 'B', v)
	case int16:
		return appendShort(append(dst, 's'), uint16(v))
	case uint16:
		return appendShort(append(dst, 'u'), v)
	case int32:
		return appendLong(append(dst, 'I'), uint32(v))
	case uint32:
		return appendLong(append(dst, 'i'), v)
	case int64:
		return appendLonglong(append(dst, 'l'), uint64(v))
	case uint64:
		// There is no letter that all read as unsigned; 'l' if that is no loss.
		if v <= math.MaxInt64 {
			return appendLonglong(append(dst, 'l'), v)
		}
		return appendLonglong(append(dst, 'L'), v)
	case float32:
		return appendLong(append(dst, 'f'), math.Float32bits(v))
	case float64:
		return appendLonglong(append(dst, 'd'), math.Float64bits(v))
	case mq.Decimal:
		return appendLong(append(dst, 'D', v.Scale), v.Value)
	case string:
		return appendLongstr(append(dst, 'S'), v)
	case []byte:
		return append(appendLong(append(dst, 'x'), uint32(len(v))), v...)
	case time.Time:
		return appendLonglong(append(dst, 'T'), uint64(v.Unix()))
	case mq.Table:
		return AppendTable(append(dst, 'F'), v)
	case []any:
		return appendArray(append(dst, 'A'), v)
	}
	panic(fmt.Sprintf("wire: %T in a field table", v))
}

// ParseTable decodes a field table with its length from the front of b. What
// it answers holds copies only.
func ParseTable(b []byte) (t mq.Table, rest []byte, err error) {
	d := decoder{b: b}
	t = d.table()
	if d.fault != "" {
		return nil, nil, mq.Errorf(mq.SyntaxError, "cannot decode field table: %s", d.fault)
	}
	return t, d.b, nil
}

// decodeTable decodes the entries of a table. Its strings share one copy of b.
func decodeTable(b []byte) (mq.Table, string) {
	if len(b) == 0 {
		return nil, ""
	}
	d := tableDecoder{b: b, s: string(b)}
	t := d.table(len(b), 1)
	return t, d.fault
}

// checkTable finds what decodeTable would refuse in a table with its length,
// without building it.
func checkTable(b []byte) (fault string) {
	if len(b) <= 4 {
		return ""
	}
	d := tableDecoder{b: b[4:]}
	d.check(len(d.b), 1, true)
	return d.fault
}

// tableDecoder reads table entries. Numbers are read from b, strings are cut
// out of s, which is a copy of b. The first fault sticks and ends the reading.
type tableDecoder struct {
	b     []byte
	s     string
	at    int
	fault string
}

func (d *tableDecoder) fail(what string) {
	if d.fault == "" {
		d.fault = what
	}
	d.at = len(d.b)
}

// take moves over n bytes before end and answers where they begin.
func (d *tableDecoder) take(n uint64, end int) (from int, ok bool) {
	if d.fault != "" || n > uint64(end-d.at) {
		d.fail("too short")
		return 0, false
	}
	from = d.at
	d.at += int(n)
	return from, true
}

// span reads the u32 length of what follows and moves over the length only.
func (d *tableDecoder) span(end int) (n int, ok bool) {
	from, ok := d.take(4, end)
	if !ok {
		return 0, false
	}
	u := uint64(binary.BigEndian.Uint32(d.b[from:]))
	if u > uint64(end-d.at) {
		d.fail("too short")
		return 0, false
	}
	return int(u), true
}

// count answers how many entries lie before end, so that they are allocated
// once and never for entries that are not there.
func (d *tableDecoder) count(end int, keyed bool) (n int) {
	for c := *d; c.at < end && c.fault == ""; n++ {
		if keyed {
			c.key(end)
		}
		c.next(end)
	}
	return n
}

// key moves over a key and answers where it begins.
func (d *tableDecoder) key(end int) (from int) {
	at, ok := d.take(1, end)
	if !ok {
		return d.at
	}
	if from, ok = d.take(uint64(d.b[at]), end); !ok {
		return d.at
	}
	return from
}

// check walks the table (keyed) or array up to end.
func (d *tableDecoder) check(end, depth int, keyed bool) {
	for d.deeper(end, depth) {
		if keyed {
			d.key(end)
		}
		letter, from, ok := d.next(end)
		if ok && (letter == 'F' || letter == 'A') {
			inner := d.at
			d.at = from
			d.check(inner, depth+1, letter == 'F')
		}
	}
}

// deeper reports whether the table or array at depth may be entered: it is
// not empty and not nested too deep.
func (d *tableDecoder) deeper(end, depth int) bool {
	if depth > tableDepthMax {
		d.fail("nested too deep")
	}
	return d.at < end && d.fault == ""
}

// table decodes the entries up to end; nil if there are none.
func (d *tableDecoder) table(end, depth int) mq.Table {
	if !d.deeper(end, depth) {
		return nil
	}
	t := make(mq.Table, 0, d.count(end, true))
	for d.at < end && d.fault == "" {
		from := d.key(end)
		key := d.s[from:d.at]
		t = append(t, mq.Field{Key: key, Value: d.value(end, depth)})
	}
	return t
}

// array decodes the values up to end; nil if there are none.
func (d *tableDecoder) array(end, depth int) []any {
	if !d.deeper(end, depth) {
		return nil
	}
	a := make([]any, 0, d.count(end, false))
	for d.at < end && d.fault == "" {
		a = append(a, d.value(end, depth))
	}
	return a
}

// fixedBytes is the size of a value of the given type letter; -1 if it says
// its length itself, -2 if there is no such type.
func fixedBytes(letter byte) int {
	switch letter {
	case 'V':
		return 0
	case 't', 'b', 'B':
		return 1
	case 's', 'u':
		return 2
	case 'I', 'i', 'f':
		return 4
	case 'D':
		return 5
	case 'l', 'L', 'd', 'T':
		return 8
	case 'S', 'x', 'F', 'A':
		return -1
	}
	return -2
}

// next moves over a value's letter and, if it has one, its length, and over
// the value itself; from is where the value begins.
func (d *tableDecoder) next(end int) (letter byte, from int, ok bool) {
	at, ok := d.take(1, end)
	if !ok {
		return 0, 0, false
	}
	letter = d.b[at]
	n := fixedBytes(letter)
	if n == -2 {
		d.fail("unknown field type")
		return 0, 0, false
	}
	if n == -1 {
		if n, ok = d.span(end); !ok {
			return 0, 0, false
		}
	}
	from, ok = d.take(uint64(n), end)
	return letter, from, ok
}

// value decodes one value before end.
func (d *tableDecoder) value(end, depth int) any {
	letter, from, ok := d.next(end)
	if !ok {
		return nil
	}
	b := d.b[from:d.at]
	switch letter {
	case 't':
		return b[0] != 0
	case 'b':
		return int8(b[0])
	case 'B':
		return b[0]
	case 's':
		return int16(binary.BigEndian.Uint16(b))
	case 'u':
		return binary.BigEndian.Uint16(b)
	case 'I':
		return int32(binary.BigEndian.Uint32(b))
	case 'i':
		return binary.BigEndian.Uint32(b)
	case 'l', 'L': // RabbitMQ reads both as signed
		return int64(binary.BigEndian.Uint64(b))
	case 'f':
		return math.Float32frombits(binary.BigEndian.Uint32(b))
	case 'd':
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	case 'D':
		return mq.Decimal{Scale: b[0], Value: binary.BigEndian.Uint32(b[1:])}
	case 'T':
		return time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC()
	case 'S':
		return d.s[from:d.at]
	case 'x':
		return []byte(d.s[from:d.at])
	case 'F', 'A':
		return d.nested(letter, from, depth+1)
	}
	return nil // 'V'
}

// nested decodes the table or array that lies between from and d.at.
func (d *tableDecoder) nested(letter byte, from, depth int) any {
	end := d.at
	d.at = from
	if letter == 'A' {
		return d.array(end, depth)
	}
	return d.table(end, depth)
}
