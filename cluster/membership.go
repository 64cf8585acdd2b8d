package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"
)

// voters are the ids of the voting members in the newest configuration; none
// between two runs of Raft.
func (g *Group) voters(r *groupRaft) []string {
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	servers := f.Configuration().Servers
	ids := make([]string, 0, len(servers))
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// Servers are the group's members by the newest configuration that is
// committed and applied here, and the index of its entry, for AddVoter and the
// like. The index is 0 as long as only the log knows the members.
func (g *Group) Servers() (servers []Server, index uint64, err error) {
	r := g.raft.Load()
	if r == nil {
		return nil, 0, ErrGroupClosed
	}
	var members []raft.Server
	if c := g.apply.config.Load(); c != nil {
		members, index = c.servers, c.index
	} else {
		members = r.GetConfiguration().Configuration().Servers
	}
	for _, s := range members {
		servers = append(servers, Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return servers, index, nil
}

// AddVoter makes id a full member; on the leader only. A member without the
// log counts for the quorum at once: add it with AddNonvoter first, and wait
// until it has caught up. prevIndex, if not 0, is the configuration entry that
// the change builds on: it fails if there is a newer one.
func (g *Group) AddVoter(ctx context.Context, id string, prevIndex uint64) error {
	return g.change(ctx, func(r *groupRaft) raft.IndexFuture {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(id), prevIndex, configWaitMax)
	})
}

// AddNonvoter makes id a member that receives the log and does not vote.
func (g *Group) AddNonvoter(ctx context.Context, id string, prevIndex uint64) error {
	return g.change(ctx, func(r *groupRaft) raft.IndexFuture {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), prevIndex, configWaitMax)
	})
}

// RemoveServer ends id's membership. The removed node is often never told.
func (g *Group) RemoveServer(ctx context.Context, id string, prevIndex uint64) error {
	return g.change(ctx, func(r *groupRaft) raft.IndexFuture {
		return r.RemoveServer(raft.ServerID(id), prevIndex, configWaitMax)
	})
}

func (g *Group) change(ctx context.Context, f func(*groupRaft) raft.IndexFuture) error {
	r := g.raft.Load()
	if r == nil {
		return ErrGroupClosed
	}
	ctx, cancel := context.WithTimeout(ctx, configWaitMax)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- f(r).Error() }() // Raft's call itself waits for its main loop
	return r.await(ctx, answer)
}

// TransferTo hands leadership to a voter, once per peer and term; or again
// after a while if this replica is damaged.
func (g *Group) TransferTo(ctx context.Context, id string) error {
	r := g.raft.Load()
	if r == nil {
		return ErrGroupClosed
	}
	term, leads := r.leads()
	if !leads {
		return raft.ErrNotLeader
	}
	if !g.transfers.try(term, id, g.Damaged() != nil) {
		return ErrTransferTried
	}
	err := g.wait(ctx, r, r.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id)))
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) { // to somebody else: this one was not asked
		g.transfers.forget(term, id)
	}
	return err
}
