package meta

import (
	"cmp"
	"iter"
	"slices"

	"warren/mq"
)

// numbered is a table of queues by group and number, or by number only. Like a
// table, it can be shared: freeze gives out what is there as it is, and later
// writes copy what they change. Queues are many, and their numbers short: next
// to each other in sorted slices they take a tenth of what a tree of bytes
// needs, which has four allocations for each.
type numbered struct {
	root *numberedNode
	era  uint64 // of writes since the last freeze
}

// numberedFan is how many entries a node has at most.
const numberedFan = 64

// numberedNode is a part of the tree. It may be changed only in the era that it
// was made in; after that others may hold it.
type numberedNode struct {
	era  uint64
	keys []numberedKey // in order; of an inner node, the lowest of each part
	// One of these is as long as keys.
	queues []*Queue
	parts  []*numberedNode
}

type numberedKey struct {
	group mq.GroupID // 0 in a table by number only
	id    mq.QueueID
}

func compareNumbered(a, b numberedKey) int {
	if a.group != b.group {
		return cmp.Compare(a.group, b.group)
	}
	return cmp.Compare(a.id, b.id)
}

func newNumbered() numbered { return numbered{root: &numberedNode{}} }

func (t *numbered) put(k numberedKey, q *Queue) {
	root, right := t.root.put(t.era, k, q)
	if right != nil {
		root = &numberedNode{
			era: t.era, keys: []numberedKey{root.keys[0], right.keys[0]}, parts: []*numberedNode{root, right},
		}
	}
	t.root = root
}

func (t *numbered) delete(k numberedKey) {
	if t.root.find(k) == nil {
		return
	}
	t.root = t.root.delete(t.era, k)
	for len(t.root.parts) == 1 {
		t.root = t.root.parts[0]
	}
}

// freeze gives out what is there. It never changes.
func (t *numbered) freeze() *numberedNode {
	t.era++
	return t.root
}

// own is n if it may be changed in an era, or a copy that may be.
func (n *numberedNode) own(era uint64) *numberedNode {
	if n.era == era {
		return n
	}
	return &numberedNode{era: era, keys: roomy(n.keys), queues: roomy(n.queues), parts: roomy(n.parts)}
}

// roomy is a copy with room for one more; nil stays nil.
func roomy[T any](s []T) []T {
	if s == nil {
		return nil
	}
	return append(make([]T, 0, len(s)+1), s...)
}

// put returns n with an entry more, or another in its place, and what does not
// fit into it any more.
func (n *numberedNode) put(era uint64, k numberedKey, q *Queue) (left, right *numberedNode) {
	n = n.own(era)
	if n.parts == nil {
		at, there := slices.BinarySearchFunc(n.keys, k, compareNumbered)
		if there {
			n.queues[at] = q
			return n, nil
		}
		n.keys, n.queues = slices.Insert(n.keys, at, k), slices.Insert(n.queues, at, q)
		return n, n.split(at)
	}
	at := n.part(k)
	part, more := n.parts[at].put(era, k, q)
	n.keys[at], n.parts[at] = part.keys[0], part
	if more == nil {
		return n, nil
	}
	n.keys, n.parts = slices.Insert(n.keys, at+1, more.keys[0]), slices.Insert(n.parts, at+1, more)
	return n, n.split(at + 1)
}

// split takes away what follows the newest entry of a node that has become too
// long, or only that if nothing does. Numbers grow, in each group: the next ones
// come behind it, and what they leave behind is full.
func (n *numberedNode) split(at int) (right *numberedNode) {
	if len(n.keys) <= numberedFan {
		return nil
	}
	if at < numberedFan {
		at++
	}
	right = &numberedNode{era: n.era, keys: slices.Clone(n.keys[at:])}
	if n.parts == nil {
		right.queues = slices.Clone(n.queues[at:])
		n.queues = slices.Clone(n.queues[:at])
	} else {
		right.parts = slices.Clone(n.parts[at:])
		n.parts = slices.Clone(n.parts[:at])
	}
	n.keys = slices.Clone(n.keys[:at])
	return right
}

// delete returns n without an entry that it has.
func (n *numberedNode) delete(era uint64, k numberedKey) *numberedNode {
	n = n.own(era)
	if n.parts == nil {
		at, _ := slices.BinarySearchFunc(n.keys, k, compareNumbered)
		n.keys, n.queues = slices.Delete(n.keys, at, at+1), slices.Delete(n.queues, at, at+1)
		return n
	}
	at := n.part(k)
	part := n.parts[at].delete(era, k)
	if len(part.keys) > 0 {
		n.keys[at], n.parts[at] = part.keys[0], part
		return n
	}
	n.keys, n.parts = slices.Delete(n.keys, at, at+1), slices.Delete(n.parts, at, at+1)
	if len(n.parts) == 0 {
		n.parts = nil // nothing is left: a leaf
	}
	return n
}

// part is where in an inner node k belongs.
func (n *numberedNode) part(k numberedKey) int {
	at, there := slices.BinarySearchFunc(n.keys, k, compareNumbered)
	if there || at == 0 {
		return at
	}
	return at - 1
}

// find returns a queue, nil if it is not there.
func (n *numberedNode) find(k numberedKey) *Queue {
	for n.parts != nil {
		n = n.parts[n.part(k)]
	}
	if at, there := slices.BinarySearchFunc(n.keys, k, compareNumbered); there {
		return n.queues[at]
	}
	return nil
}

// of goes through the queues of a group, in the order of their numbers.
func (n *numberedNode) of(g mq.GroupID) iter.Seq[*Queue] {
	return func(yield func(*Queue) bool) { n.each(g, yield) }
}

func (n *numberedNode) each(g mq.GroupID, yield func(*Queue) bool) bool {
	from := numberedKey{group: g}
	if n.parts == nil {
		at, _ := slices.BinarySearchFunc(n.keys, from, compareNumbered)
		for ; at < len(n.keys) && n.keys[at].group == g; at++ {
			if !yield(n.queues[at]) {
				return false
			}
		}
		return true
	}
	for at := n.part(from); at < len(n.keys) && n.keys[at].group <= g; at++ {
		if !n.parts[at].each(g, yield) {
			return false
		}
	}
	return true
}
