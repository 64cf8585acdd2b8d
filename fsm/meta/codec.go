package meta

import (
	"encoding/binary"
	"slices"
	"strings"

	"warren/amqp/wire"
	"warren/mq"
)

func appendUint(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }

func appendString(dst []byte, s string) []byte {
	return append(appendUint(dst, uint64(len(s))), s...)
}

func appendStrings(dst []byte, ss []string) []byte {
	dst = appendUint(dst, uint64(len(ss)))
	for _, s := range ss {
		dst = appendString(dst, s)
	}
	return dst
}

func appendNodeIDs(dst []byte, ids []mq.NodeID) []byte {
	dst = appendUint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = appendString(dst, string(id))
	}
	return dst
}

// appendFlags packs at most eight flags into a byte, the first one lowest.
func appendFlags(dst []byte, flags ...bool) []byte {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(dst, b)
}

// appendTable writes a table as AMQP does, so that it is read back value for
// value: the widths of numbers are part of what a client declared.
func appendTable(dst []byte, t mq.Table) []byte { return wire.AppendTable(dst, t) }

// decoder reads what the append functions wrote. After the first fault all
// reads give zero values and bad stays set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad = true
	d.b = nil
}

// done reports whether everything was read and nothing was wrong.
func (d *decoder) done() bool { return !d.bad && len(d.b) == 0 }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) str() string { return string(d.bytes()) }

// count reads a number of items that take at least one byte each.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) strs() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	ss := make([]string, 0, n)
	for range n {
		ss = append(ss, d.str())
	}
	return ss
}

func (d *decoder) nodeIDs() []mq.NodeID {
	n := d.count()
	if n == 0 {
		return nil
	}
	ids := make([]mq.NodeID, 0, n)
	for range n {
		ids = append(ids, mq.NodeID(d.str()))
	}
	return ids
}

func (d *decoder) flags(flags ...*bool) {
	b := d.byte()
	if b>>len(flags) != 0 {
		d.fail()
		return
	}
	for i, f := range flags {
		*f = b>>i&1 != 0
	}
}

func (d *decoder) table() mq.Table {
	if d.bad {
		return nil
	}
	t, rest, err := wire.ParseTable(d.b)
	if err != nil {
		d.fail()
		return nil
	}
	d.b = rest
	if len(t) == 0 {
		return nil // one form for "no arguments"
	}
	return t
}

// sortedArgs orders a binding's arguments by key, as RabbitMQ does: their
// order is not part of a binding's identity.
func sortedArgs(t mq.Table) mq.Table {
	byKey := func(a, b mq.Field) int { return strings.Compare(a.Key, b.Key) }
	if slices.IsSortedFunc(t, byKey) {
		return t
	}
	t = slices.Clone(t)
	slices.SortStableFunc(t, byKey)
	return t
}

func (d *decoder) nodeID() mq.NodeID       { return mq.NodeID(d.str()) }
func (d *decoder) sessionID() mq.SessionID { return mq.SessionID(d.uint()) }
func (d *decoder) queueID() mq.QueueID     { return mq.QueueID(d.uint()) }
