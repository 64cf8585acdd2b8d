package placement

import (
	"fmt"
	"slices"
	"testing"
)

func nodes(ids ...string) (list []Node) {
	for _, id := range ids {
		list = append(list, Node{ID: id, Alive: true})
	}
	return list
}

func TestPlan(t *testing.T) {
	abc := []string{"a", "b", "c"}
	for _, c := range []struct {
		name   string
		nodes  []Node
		groups []Group
		rf     int
		want   string
	}{
		{"nothing to do", nodes("a", "b", "c"), []Group{{1, abc, "a"}, {2, abc, "b"}, {3, abc, "c"}}, 3, "[]"},
		{"no nodes", nil, []Group{{1, abc, "a"}}, 3, "[]"},
		{"one node holds all that there is", nodes("a"), []Group{{1, []string{"a"}, "a"}, {2, []string{"a"}, "a"}}, 3, "[]"},
		{"a group grows by one node", nodes("a", "b", "c"), []Group{{1, []string{"a"}, "a"}}, 3, "[{0 1 [a b] }]"},
		{"growth goes where least is held", nodes("a", "b", "c"),
			[]Group{{1, []string{"a", "b"}, "a"}, {2, []string{"a"}, "b"}}, 2, "[{0 2 [a c] }]"},
		{"growth is spread within one plan", nodes("a", "b", "c"),
			[]Group{{1, []string{"a"}, ""}, {2, []string{"a"}, ""}}, 2, "[{0 1 [a b] } {0 2 [a c] }]"},
		{"not onto a dead node", []Node{{"a", true}, {"b", false}}, []Group{{1, []string{"a"}, "a"}}, 3, "[]"},
		{"leaders are evened out", nodes("a", "b", "c"),
			[]Group{{1, abc, "a"}, {2, abc, "a"}, {3, abc, "a"}}, 3, "[{1 1 [] b}]"},
		{"a difference of one stays", nodes("a", "b"),
			[]Group{{1, []string{"a", "b"}, "a"}}, 2, "[]"},
		{"only replicas can lead", nodes("a", "b", "c"),
			[]Group{{1, []string{"a", "b"}, "a"}, {2, []string{"a", "b"}, "a"}}, 2, "[{1 1 [] b}]"},
		{"not to a dead node", []Node{{"a", true}, {"b", false}, {"c", false}},
			[]Group{{1, abc, "a"}, {2, abc, "a"}}, 3, "[]"},
		{"not from a dead node", []Node{{"a", false}, {"b", true}, {"c", true}},
			[]Group{{1, abc, "a"}, {2, abc, "a"}}, 3, "[]"},
		{"an unknown leader is left alone", nodes("a", "b", "c"),
			[]Group{{1, abc, ""}, {2, abc, ""}}, 3, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(Plan(c.nodes, c.groups, c.rf)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			slices.Reverse(c.nodes)
			slices.Reverse(c.groups)
			if got := fmt.Sprint(Plan(c.nodes, c.groups, c.rf)); got != c.want {
				t.Errorf("in another order: got %s, want %s", got, c.want)
			}
		})
	}
}

func TestCarryingPlansOutComesToRest(t *testing.T) {
	ns := nodes("a", "b", "c", "d", "e")
	var groups []Group
	for id := uint64(1); id <= 12; id++ {
		groups = append(groups, Group{id, []string{"a"}, "a"})
	}
	for step := 0; ; step++ {
		moves := Plan(ns, groups, 3)
		if len(moves) == 0 {
			break
		}
		if step > 200 {
			t.Fatalf("no rest after %d steps: %v", step, moves)
		}
		m := moves[0]
		g := &groups[m.Group-1]
		if m.Kind == Replicate {
			g.Replicas = m.Replicas
		} else {
			g.Leader = m.To
		}
	}
	holds, leads := map[string]int{}, map[string]int{}
	for _, g := range groups {
		if len(g.Replicas) != 3 {
			t.Errorf("group %d has %v", g.ID, g.Replicas)
		}
		leads[g.Leader]++
		for _, r := range g.Replicas {
			holds[r]++
		}
	}
	for _, n := range ns {
		if leads[n.ID] < 2 || leads[n.ID] > 4 {
			t.Errorf("%s leads %d of 12", n.ID, leads[n.ID])
		}
		if n.ID != "a" && holds[n.ID] != 6 {
			t.Errorf("%s holds %d", n.ID, holds[n.ID])
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		founders []string
		groups   int
		want     string
	}{
		{[]string{"a"}, 2, "[[a] [a]]"},
		{[]string{"b", "a"}, 2, "[[a b] [a b]]"},
		{[]string{"c", "a", "d", "b"}, 4, "[[a b c] [b c d] [a c d] [a b d]]"},
	} {
		if got := fmt.Sprint(Spread(c.founders, c.groups, 3)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.founders, got, c.want)
		}
	}
}
