// Package placement plans who replicates and who leads which group. It is
// pure: the same members and groups give the same plan everywhere. It knows
// no Raft, no network and no time, and carries nothing out.
package placement

import "slices"

// Node is a member of the cluster.
type Node struct {
	ID    string
	Alive bool
}

// Group is a Raft group as it is now. Leader is "" if none is known.
type Group struct {
	ID       uint64
	Replicas []string
	Leader   string
}

// Kind says what a Move changes.
type Kind uint8

// The kinds of moves.
const (
	Replicate Kind = iota // set the group's replicas to Move.Replicas
	Transfer              // hand the group's leadership to Move.To
)

// Move is one step towards the wanted placement.
type Move struct {
	Kind     Kind
	Group    uint64
	Replicas []string
	To       string
}

// Spread lays groups 1..count out over the founders of a cluster, rf replicas
// each (or as many as there are founders), by turns. Both are sorted by id.
func Spread(founders []string, count, rf int) [][]string {
	ids := slices.Sorted(slices.Values(founders))
	rf = min(rf, len(ids))
	out := make([][]string, count)
	for g := range out {
		for i := range rf {
			out[g] = append(out[g], ids[(g+i)%len(ids)])
		}
		slices.Sort(out[g])
	}
	return out
}

// Plan returns the next steps, the most urgent first. A group grows to rf
// replicas when there are nodes for it, by one node at a time, and only onto
// nodes that are alive. Leaders are spread evenly over the live replicas: at
// most one transfer is planned, from the node that leads most to the one of
// that group's replicas that leads least, if that makes the spread more even.
func Plan(nodes []Node, groups []Group, rf int) []Move {
	p := newPlan(nodes, groups)
	var moves []Move
	for _, g := range p.groups {
		if m, ok := p.grow(g, rf); ok {
			moves = append(moves, m)
		}
	}
	if m, ok := p.even(); ok {
		moves = append(moves, m)
	}
	return moves
}

type plan struct {
	ids    []string // of live nodes, sorted
	groups []Group  // by id
	holds  map[string]int
	leads  map[string]int
}

func newPlan(nodes []Node, groups []Group) *plan {
	p := &plan{holds: map[string]int{}, leads: map[string]int{}, groups: slices.Clone(groups)}
	for _, n := range nodes {
		if n.Alive {
			p.ids = append(p.ids, n.ID)
		}
	}
	slices.Sort(p.ids)
	slices.SortFunc(p.groups, func(a, b Group) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	for _, g := range p.groups {
		for _, r := range g.Replicas {
			p.holds[r]++
		}
		if g.Leader != "" {
			p.leads[g.Leader]++
		}
	}
	return p
}

// grow adds the live node that holds least to a group that has too few replicas.
func (p *plan) grow(g Group, rf int) (Move, bool) {
	if len(g.Replicas) >= rf {
		return Move{}, false
	}
	best := ""
	for _, id := range p.ids {
		if !slices.Contains(g.Replicas, id) && (best == "" || p.holds[id] < p.holds[best]) {
			best = id
		}
	}
	if best == "" {
		return Move{}, false
	}
	p.holds[best]++
	replicas := append(slices.Clone(g.Replicas), best)
	slices.Sort(replicas)
	return Move{Kind: Replicate, Group: g.ID, Replicas: replicas}, true
}

// even finds the transfer that evens leaders out most.
func (p *plan) even() (Move, bool) {
	var best Move
	gap := 1 // moving one from a to b helps only if a leads at least two more
	for _, g := range p.groups {
		if !slices.Contains(p.ids, g.Leader) {
			continue // nobody leads, or somebody who cannot hand over
		}
		for _, to := range p.ids {
			d := p.leads[g.Leader] - p.leads[to]
			if d > gap && slices.Contains(g.Replicas, to) {
				gap, best = d, Move{Kind: Transfer, Group: g.ID, To: to}
			}
		}
	}
	return best, best.To != ""
}
