package meta

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

// sortedNumbers are the queues of a group in the order that a table has to show.
func sortedNumbers(m map[numberedKey]*Queue, g mq.GroupID) (out []*Queue) {
	for _, k := range slices.SortedFunc(maps.Keys(m), compareNumbered) {
		if k.group == g {
			out = append(out, m[k])
		}
	}
	return out
}

func sameAsMap(t rapid.TB, n *numberedNode, m map[numberedKey]*Queue) {
	t.Helper()
	for g := range mq.GroupID(4) {
		if got, want := slices.Collect(n.of(g)), sortedNumbers(m, g); !slices.Equal(got, want) {
			t.Fatalf("group %d has %d queues, want %d", g, len(got), len(want))
		}
	}
	for k, q := range m {
		if n.find(k) != q {
			t.Fatalf("%v is not found", k)
		}
	}
}

func TestANumberedTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, m := newNumbered(), map[numberedKey]*Queue{}
		type frozen struct {
			node *numberedNode
			m    map[numberedKey]*Queue
		}
		var views []frozen
		keys := rapid.Custom(func(t *rapid.T) numberedKey {
			return numberedKey{mq.GroupID(rapid.IntRange(0, 3).Draw(t, "group")), mq.QueueID(rapid.IntRange(1, 300).Draw(t, "id"))}
		})
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			for _, k := range rapid.SliceOfN(keys, 0, 100).Draw(t, "puts") {
				m[k] = &Queue{ID: k.id}
				table.put(k, m[k])
			}
			for _, k := range rapid.SliceOfN(keys, 0, 100).Draw(t, "deletes") {
				table.delete(k)
				delete(m, k)
			}
			if table.root.find(numberedKey{9, 9}) != nil {
				t.Fatal("found what is not there")
			}
			sameAsMap(t, table.root, m)
			if rapid.Bool().Draw(t, "freeze") {
				views = append(views, frozen{table.freeze(), maps.Clone(m)})
			}
		}
		for _, v := range views {
			sameAsMap(t, v.node, v.m) // still, whatever came after it
		}
	})
}

func TestANumberedTableThatIsEmptiedStartsAnew(t *testing.T) {
	table := newNumbered()
	for range 2 {
		for i := range mq.QueueID(1000) {
			table.put(numberedKey{id: i}, &Queue{})
		}
		for i := range mq.QueueID(1000) {
			table.delete(numberedKey{id: i})
		}
		if n := table.root; len(n.keys)+len(n.queues)+len(n.parts) != 0 {
			t.Fatalf("left: %+v", n)
		}
	}
}

func TestALoopThroughANumberedTableCanEnd(t *testing.T) {
	table := newNumbered()
	for i := range mq.QueueID(1000) {
		table.put(numberedKey{id: i}, &Queue{ID: i})
	}
	for q := range table.root.of(0) {
		if q.ID == 500 {
			return
		}
	}
	t.Error("the queue is not there")
}

// leaves counts the nodes with queues in them, and how deep they are.
func (n *numberedNode) leaves() (count, depth int) {
	if n.parts == nil {
		return 1, 1
	}
	for _, p := range n.parts {
		c, d := p.leaves()
		count, depth = count+c, max(depth, d+1)
	}
	return count, depth
}

func TestNumbersThatGrowFillTheirNodes(t *testing.T) {
	const queues = 50_000
	inTurn, restored := newNumbered(), newNumbered()
	for i := range queues {
		inTurn.put(numberedKey{mq.GroupID(i % 6), mq.QueueID(i << 12)}, &Queue{})
	}
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(queues) { // a snapshot has them by name
		restored.put(numberedKey{mq.GroupID(i % 6), mq.QueueID(i << 12)}, &Queue{})
	}
	for what, c := range map[string]struct {
		table numbered
		least int // queues to a leaf
	}{
		"in turn":  {inTurn, numberedFan * 9 / 10},
		"restored": {restored, numberedFan / 3},
	} {
		leaves, depth := c.table.root.leaves()
		t.Logf("%s: %d leaves, %d deep", what, leaves, depth)
		if queues/leaves < c.least || depth > 5 {
			t.Errorf("%s: %d queues to a leaf, %d deep", what, queues/leaves, depth)
		}
	}
}
