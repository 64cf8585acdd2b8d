package cluster

import (
	"context"
	"slices"
	"time"
)

const (
	// firstLook is how often a node that opened a group looks whether the
	// others are there.
	firstLook = 20 * time.Millisecond
	// firstTries is how often it stands before Raft's own timers have to do.
	firstTries = 5
)

// firstElection has one voter stand for election as soon as it can win, where
// Raft's timers alone would take one to two heartbeat timeouts more to begin.
// Which voter depends on the group, so that groups begin spread over the
// nodes. Nobody stands where a leader is known, and Raft's vote decides as
// always.
func (c *Cluster) firstElection(ctx context.Context, g *Group, voters []string, after time.Duration) {
	voters = slices.Sorted(slices.Values(voters))
	if len(voters) < 2 || voters[int(g.gid)%len(voters)] != c.id || !rest(ctx, after) {
		return
	}
	for tries := 0; tries < firstTries; {
		if _, _, known := g.Leader(); known || !rest(ctx, firstLook) {
			return
		}
		if !c.hasMajority(voters) {
			continue
		}
		tries++
		g.InjectTimeoutNow()
		if !rest(ctx, electionMax) {
			return
		}
	}
}

// hasMajority reports whether this node can reach enough of voters.
func (c *Cluster) hasMajority(voters []string) bool {
	up := 1
	for _, p := range c.Peers() {
		if slices.Contains(voters, p) {
			up++
		}
	}
	return up > len(voters)/2
}
