package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"warren/cluster"
	"warren/cluster/placement"
	"warren/fsm/meta"
	"warren/mq"
)

const (
	// leaderHoldDown is how long a leadership is left where an election put it.
	leaderHoldDown = 5 * time.Second
	// transferMax is how long one leadership may take to change hands.
	transferMax = 2 * time.Second
)

// ledSince is when this node was first seen to lead a group in a term.
type ledSince struct {
	term uint64
	at   time.Time
}

// recent reports whether this node has led a group for a short time only.
func (g *groups) recent(group *cluster.Group) bool {
	term, _ := group.Leading()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.led[group.ID()].term != term {
		g.led[group.ID()] = ledSince{term, time.Now()}
	}
	return time.Since(g.led[group.ID()].at) < leaderHoldDown
}

// balance hands one leadership to a node that leads too little, if this node
// leads too much.
func (g *groups) balance(ctx context.Context) {
	for _, m := range placement.Plan(g.nodes(), g.placed(), replication) {
		group := g.get(mq.GroupID(m.Group))
		if m.Kind != placement.Transfer || group == nil {
			continue
		}
		if _, leading := group.Leading(); !leading || g.recent(group) || !slices.Contains(g.votersBut(group), m.To) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, transferMax)
		_, err := g.askApplied(ctx, m.To, group.ID()) // which a damaged replica does not answer
		if err == nil {
			err = group.TransferTo(ctx, m.To)
		}
		cancel()
		if err != nil && !errors.Is(err, cluster.ErrTransferTried) {
			g.slog.Info("leadership not handed over", "group", m.Group, "to", m.To, "err", err)
		}
		return
	}
}

// abdicate hands over the leaderships of damaged replicas, to whole ones only.
// They go on until somebody else leads: most of what they had they still have.
func (g *groups) abdicate(ctx context.Context) {
	for _, group := range g.all() {
		if _, leading := group.Leading(); leading && g.damage(mq.GroupID(group.ID())) != nil {
			ctx, cancel := context.WithTimeout(ctx, transferMax)
			whole, _ := g.heirs(ctx, group)
			g.handOverOne(ctx, group, whole)
			cancel()
		}
	}
}

// handOver offers every leadership to another node before this one stops, to
// the nodes by turns.
func (g *groups) handOver(ctx context.Context) {
	var work sync.WaitGroup
	for _, group := range g.all() {
		if _, leading := group.Leading(); leading {
			work.Go(func() {
				whole, others := g.heirs(ctx, group)
				g.handOverOne(ctx, group, append(whole, others...))
			})
		}
	}
	work.Wait()
}

// heirs are the other voters of a group that can be reached: those that say
// that their replica is whole, and those that do not say so, or cannot. Which
// comes first depends on the group.
func (g *groups) heirs(ctx context.Context, group *cluster.Group) (whole, others []string) {
	all := g.votersBut(group)
	for i := range all {
		heir := all[(i+int(group.ID()))%len(all)]
		if g.cluster.Whole(ctx, heir, group.ID()) {
			whole = append(whole, heir)
		} else {
			others = append(others, heir)
		}
	}
	return whole, others
}

func (g *groups) handOverOne(ctx context.Context, group *cluster.Group, heirs []string) {
	for _, heir := range heirs {
		err := group.TransferTo(ctx, heir)
		if err == nil || ctx.Err() != nil {
			return
		}
		g.slog.Info("leadership not handed over", "group", group.ID(), "to", heir, "err", err)
	}
}

// votersBut lists the other voters of a group that can be reached.
func (g *groups) votersBut(group *cluster.Group) (out []string) {
	servers, _, err := group.Servers()
	if err != nil {
		return nil
	}
	up := g.cluster.Peers()
	for _, s := range servers {
		if s.Voter && slices.Contains(up, s.ID) {
			out = append(out, s.ID)
		}
	}
	return out
}

// leave ends this node's session, so that nobody waits for it.
func (g *groups) leave(ctx context.Context) {
	session, ok := g.broker.View().Session(mq.NodeID(g.cluster.ID()))
	if !ok || len(g.cluster.Peers()) == 0 {
		return // nobody would hear
	}
	if err := g.propose(ctx, meta.SessionEnd{Session: session}); err != nil {
		g.slog.Info("session not ended, the others will find out", "err", err)
	}
}
