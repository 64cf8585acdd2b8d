package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// firstLook is how often a node that opened a group looks whether the
	// others are there.
	firstLook = 20 * time.Millisecond
	// firstTurn is how much later than the one before it each voter begins.
	firstTurn = 300 * time.Millisecond
	// firstAsks is how often a node asks the others whether they would elect it,
	// and firstTries how often it stands, before Raft's own timers have to do.
	firstAsks  = 200
	firstTries = 5
	// firstAskWait is how long it waits for their answers.
	firstAskWait = 500 * time.Millisecond
)

// first is the first election of a group that a node has opened, as this node
// takes part in it.
type first struct {
	group *Group
	self  string
	after time.Duration              // nobody votes before
	meets func(voters []string) bool // whether enough of them can be reached
}

// run has this voter stand for election as soon as it can win, where Raft's
// timers alone would take one to two heartbeat timeouts more to begin. Which
// voter's turn it is first depends on the group, so that groups begin spread
// over the nodes; the next ones' turns come if that one has not begun, or its
// log is behind. Nobody stands where a leader is known, and Raft's vote decides
// as always.
//
// Raft gives an election that it was told to begin no second chance before an
// election timeout has passed, so it is not begun while it would be lost: the
// others may have been started later than this node, and hold back their votes
// still. So they are asked first.
func (f *first) run(ctx context.Context, voters []string) {
	voters = slices.Sorted(slices.Values(voters))
	turn := turnOf(voters, f.self, f.group.gid)
	if len(voters) < 2 || turn < 0 || !rest(ctx, f.after+time.Duration(turn)*firstTurn) {
		return
	}
	q, err := f.group.question() // what the log ends with changes only if somebody leads
	if err != nil {
		return
	}
	for asks, tries := 0, 0; asks < firstAsks && tries < firstTries; {
		r := f.group.raft.Load()
		if _, _, known := f.group.Leader(); known || f.group.closing.Load() || !rest(ctx, firstLook) {
			return
		}
		if r == nil || r.State() != raft.Follower || !f.meets(voters) {
			continue // one that stands already hears no second call
		}
		asks++
		wins, loses := f.group.poll(ctx, r, q, voters)
		if loses {
			return
		}
		if !wins {
			continue
		}
		tries++
		f.group.InjectTimeoutNow()
		if !rest(ctx, electionMax) {
			return
		}
	}
}

// turnOf is how many of the voters, which are in order, come before self; -1 if
// it is none.
func turnOf(voters []string, self string, gid uint64) int {
	at := slices.Index(voters, self)
	if at < 0 {
		return -1
	}
	n := len(voters)
	return (at - int(gid%uint64(n)) + n) % n
}

// question is whether others would elect this node. To be asked changes nothing
// anywhere: it is what Raft's own pre-vote asks.
func (g *Group) question() (q raft.RequestPreVoteRequest, err error) {
	q.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.seat.id), Addr: []byte(g.seat.id)}
	q.LastLogIndex, q.LastLogTerm, err = g.stores.lastEntry()
	return q, err
}

// poll asks the other voters. wins says that a majority would elect this node,
// loses that it would not whenever it is asked again.
func (g *Group) poll(ctx context.Context, r *groupRaft, q raft.RequestPreVoteRequest, voters []string) (wins, loses bool) {
	asker, ok := r.transport.(raft.WithPreVote)
	if !ok {
		return false, true
	}
	q.Term = r.CurrentTerm() + 1
	answers := make(chan raft.RequestPreVoteResponse, len(voters))
	for _, v := range voters {
		if v == g.seat.id {
			continue
		}
		go func() { // ends with the call, which has a timeout and ends with the group
			var a raft.RequestPreVoteResponse
			if asker.RequestPreVote(raft.ServerID(v), raft.ServerAddress(v), &q, &a) != nil {
				a = raft.RequestPreVoteResponse{}
			}
			answers <- a
		}()
	}
	patience := time.NewTimer(firstAskWait)
	defer patience.Stop()
	granted, refused := 1, 0
	for range len(voters) - 1 {
		select {
		case a := <-answers:
			switch {
			case a.Granted:
				granted++
			case a.Term > 0: // one that holds back its vote, or is not there, has none
				refused++
			}
		case <-patience.C:
			return false, false
		case <-ctx.Done():
			return false, false
		}
		if granted > len(voters)/2 || refused >= len(voters)-len(voters)/2 {
			break
		}
	}
	return granted > len(voters)/2, refused >= len(voters)-len(voters)/2
}

// lastEntry is the place of the newest entry that the log or a snapshot has.
func (s *groupStores) lastEntry() (index, term uint64, err error) {
	index, err = s.log.LastIndex()
	if err != nil {
		return 0, 0, err
	}
	if index > 0 {
		var last raft.Log
		if err := s.log.GetLog(index, &last); err != nil {
			return 0, 0, err
		}
		term = last.Term
	}
	list, err := s.snapshots.List()
	if err == nil && len(list) > 0 && list[0].Index > index {
		index, term = list[0].Index, list[0].Term
	}
	return index, term, err
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
