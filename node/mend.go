package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"warren/cluster"
	"warren/mq"
)

const (
	// mendEvery is how often a node whose metadata is damaged looks whether the
	// others can bring it up.
	mendEvery = time.Second
	// lostReplicas is what an operator can do about a damaged replica that no
	// majority of others can bring up.
	lostReplicas = "start the nodes with the other replicas; if those are lost for good, restore this node's data directory from a copy"
)

// mend has the damaged replicas on this node rebuilt by the others, those that
// a majority of others is there for. The rest stay as they are, and say so.
func (g *groups) mend(ctx context.Context) {
	for _, group := range g.all() {
		id := mq.GroupID(group.ID())
		why := g.damage(id)
		if why == nil {
			continue
		}
		if _, leading := group.Leading(); leading {
			continue // until abdicate has found somebody
		}
		if !g.mayRebuild(ctx, id, why) {
			continue
		}
		if id == metaGroup {
			// What clients are told comes from here: it cannot begin anew under them.
			g.fatal(fmt.Errorf("the metadata on this node is damaged, and is rebuilt at the next start: %w", why))
			return
		}
		g.reopenEmpty(ctx, group)
	}
	for id, why := range g.refused() {
		if g.mayRebuild(ctx, id, why) {
			g.mu.Lock()
			if f, still := g.failures[id]; still {
				f.next = time.Time{} // sync opens it now
				g.failures[id] = f
			}
			g.mu.Unlock()
		}
	}
}

// refused are the groups that cannot be opened because they are damaged.
func (g *groups) refused() map[mq.GroupID]error {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[mq.GroupID]error{}
	for id, f := range g.failures {
		if errors.Is(f.err, cluster.ErrDamaged) {
			out[id] = f.err
		}
	}
	return out
}

// mayRebuild notes that a replica is to be rebuilt, if the others can do that.
func (g *groups) mayRebuild(ctx context.Context, id mq.GroupID, why error) bool {
	err := g.cluster.CanRebuild(ctx, uint64(id))
	if err == nil {
		var begun bool
		if begun, err = g.cluster.Rebuild(uint64(id), why); begun && err == nil {
			g.rebuilds.Add(1)
		}
	}
	g.mu.Lock()
	before := g.stuck[id]
	if g.stuck[id] = err; err == nil {
		delete(g.stuck, id)
	}
	g.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		g.slog.Error("a damaged replica cannot be rebuilt yet", "group", uint64(id), "damage", why, "err", err, "help", lostReplicas)
	}
	return err == nil
}

// reopenEmpty closes a replica that is to be rebuilt. sync opens it again, and
// finds the note. The group stays in the table of open ones until nothing of it
// is left, so that nobody opens it before.
func (g *groups) reopenEmpty(ctx context.Context, group *cluster.Group) {
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	id := mq.GroupID(group.ID())
	if s := g.broker.Shard(id); s != nil {
		s.Hurry() // a full disk may stay full
	}
	g.closeOne(ctx, group)
	g.broker.RemoveShard(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, id)
	delete(g.failures, id)
}

// damage is why this node's replica of a group should not lead.
func (g *groups) damage(id mq.GroupID) error {
	group := g.get(id)
	if group == nil {
		return nil
	}
	if group.Damaged() != nil {
		return group.Damaged()
	}
	var err error
	if s := g.broker.Shard(id); s != nil {
		err = s.Damaged()
	} else if id == metaGroup {
		err = g.broker.Metadata().Damaged()
	}
	if err != nil {
		group.MarkDamaged(err)
	}
	return group.Damaged()
}

// unfit is why this node's replica of a group should not be relied on.
func (g *groups) unfit(group *cluster.Group) error {
	if group.Rebuilding() {
		return errors.New("this replica is being rebuilt from its peers")
	}
	id := mq.GroupID(group.ID())
	return g.explain(id, g.damage(id))
}

// explain adds to damage why it is still there.
func (g *groups) explain(id mq.GroupID, err error) error {
	g.mu.Lock()
	stuck := g.stuck[id]
	g.mu.Unlock()
	if err == nil || stuck == nil {
		return err
	}
	return fmt.Errorf("%w; it is not rebuilt yet: %w; %s", err, stuck, lostReplicas)
}

// openMetadata opens the metadata group. If it is damaged, that waits for the
// others to bring it up.
func (g *groups) openMetadata(ctx context.Context, m metadataMachine, o cluster.GroupOptions) (*cluster.Group, error) {
	for {
		group, err := g.cluster.OpenGroup(uint64(metaGroup), m, o)
		if !errors.Is(err, cluster.ErrDamaged) {
			return group, err
		}
		g.mu.Lock()
		news := g.failures[metaGroup].err == nil || g.failures[metaGroup].err.Error() != err.Error()
		g.failures[metaGroup] = openFailure{err: err}
		g.mu.Unlock()
		if news {
			g.slog.Error("the metadata on this node is damaged", "err", err)
		}
		g.mayRebuild(ctx, metaGroup, err)
		select {
		case <-time.After(mendEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
