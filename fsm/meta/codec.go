package meta

import (
	"slices"
	"strings"

	"warren/amqp/wire"
	"warren/internal/fields"
	"warren/mq"
)

func appendStrings(dst []byte, ss []string) []byte {
	dst = fields.AppendUint(dst, uint64(len(ss)))
	for _, s := range ss {
		dst = fields.AppendString(dst, s)
	}
	return dst
}

func appendNodeIDs(dst []byte, ids []mq.NodeID) []byte {
	dst = fields.AppendUint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = fields.AppendString(dst, string(id))
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

// decoder reads what the append functions wrote.
type decoder struct{ fields.Reader }

func (d *decoder) strs() []string {
	n := d.Count()
	if n == 0 {
		return nil
	}
	ss := make([]string, 0, n)
	for range n {
		ss = append(ss, d.Text())
	}
	return ss
}

func (d *decoder) nodeIDs() []mq.NodeID {
	n := d.Count()
	if n == 0 {
		return nil
	}
	ids := make([]mq.NodeID, 0, n)
	for range n {
		ids = append(ids, mq.NodeID(d.Text()))
	}
	return ids
}

func (d *decoder) flags(flags ...*bool) {
	b := d.Byte()
	if b>>len(flags) != 0 {
		d.Fail()
		return
	}
	for i, f := range flags {
		*f = b>>i&1 != 0
	}
}

func (d *decoder) table() mq.Table {
	if d.Err() != nil {
		return nil
	}
	t, rest, err := wire.ParseTable(d.Rest())
	if err != nil {
		d.Fail()
		return nil
	}
	d.Skip(rest)
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

func (d *decoder) nodeID() mq.NodeID       { return mq.NodeID(d.Text()) }
func (d *decoder) sessionID() mq.SessionID { return mq.SessionID(d.Uint()) }
func (d *decoder) queueID() mq.QueueID     { return mq.QueueID(d.Uint()) }
