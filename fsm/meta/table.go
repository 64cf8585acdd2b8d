package meta

import (
	"encoding/binary"
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"warren/internal/fields"
)

// table is an ordered map that a View can share: writes go to a transaction,
// which freeze turns into an immutable tree without copying.
type table[T any] struct {
	tree *iradix.Tree[T]
	txn  *iradix.Txn[T] // nil when nothing was written since the last freeze
}

func newTable[T any]() table[T] { return table[T]{tree: iradix.New[T]()} }

func (t *table[T]) root() *iradix.Node[T] {
	if t.txn != nil {
		return t.txn.Root()
	}
	return t.tree.Root()
}

func (t *table[T]) get(key []byte) (T, bool) { return t.root().Get(key) }

func (t *table[T]) put(key []byte, v T) {
	if t.txn == nil {
		t.txn = t.tree.Txn()
	}
	t.txn.Insert(key, v)
}

func (t *table[T]) delete(key []byte) {
	if t.txn == nil {
		t.txn = t.tree.Txn()
	}
	t.txn.Delete(key)
}

// any reports whether there is a key with the prefix.
func (t *table[T]) any(prefix []byte) bool {
	for range each(t.root(), prefix) {
		return true
	}
	return false
}

// list copies out what has the prefix, so that the caller may write meanwhile.
func (t *table[T]) list(prefix []byte) []T {
	var vs []T
	for v := range each(t.root(), prefix) {
		vs = append(vs, v)
	}
	return vs
}

func (t *table[T]) freeze() *iradix.Tree[T] {
	if t.txn != nil {
		t.tree = t.txn.CommitOnly()
		t.txn = nil
	}
	return t.tree
}

// each goes through what has the prefix, in the order of keys.
func each[T any](root *iradix.Node[T], prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := root.Iterator()
		it.SeekPrefix(prefix)
		for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
			if !yield(v) {
				return
			}
		}
	}
}

// Keys are strings with their length before them, so that no name can run
// into the next, and numbers in big-endian order. A name that comes last has
// no length: names are then in alphabetical order.

func nameKey(vhost, name string) []byte {
	return append(fields.AppendString(make([]byte, 0, 2+len(vhost)+len(name)), vhost), name...)
}

func vhostPrefix(vhost string) []byte { return fields.AppendString(nil, vhost) }

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func permissionKey(user, vhost string) []byte { return nameKey(user, vhost) }

func fromPrefix(vhost, source string) []byte {
	return fields.AppendString(fields.AppendString(nil, vhost), source)
}

func toPrefix(vhost, destination string, toExchange bool) []byte {
	return fields.AppendString(appendFlags(fields.AppendString(nil, vhost), toExchange), destination)
}

// fromKey is where a binding is found from its source, in the order in which
// BindingsFrom shows them: queues first.
func fromKey(b *Binding) []byte {
	k := appendFlags(fromPrefix(b.VHost, b.Source), b.ToExchange)
	return appendTable(fields.AppendString(fields.AppendString(k, b.Destination), b.Key), b.Args)
}

// toKey is where a binding is found from its destination.
func toKey(b *Binding) []byte {
	k := toPrefix(b.VHost, b.Destination, b.ToExchange)
	return appendTable(fields.AppendString(fields.AppendString(k, b.Source), b.Key), b.Args)
}
