package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"warren/internal/fields"
)

// replicaReport is what a node says of its replica of a group.
type replicaReport struct {
	exists  bool // it has, or had, one
	healthy bool // it is open, whole, and not being rebuilt
	leads   bool // it leads in term, under a lease
	term    uint64
	last    uint64   // its newest entry; read before leads was looked at again
	voters  []string // of the newest configuration that it knows
}

// votersMax bounds the voters that a report names.
const votersMax = 255

var errNotOpen = errors.New("the replica is not open")

// onReplica answers kindReplica. A replica that is there and not open is an
// error: nobody can say what it has promised.
func (c *Cluster) onReplica(_ context.Context, _ string, req []byte) ([]byte, error) {
	if len(req) != 8 {
		return nil, errCodec
	}
	gid := binary.BigEndian.Uint64(req)
	if g := c.groups.get(gid); g != nil {
		r, err := g.report()
		return r.encode(), err
	}
	if hasGroup(filepath.Join(c.cfg.DataDir, groupsDir), gid) {
		return nil, errNotOpen
	}
	return replicaReport{}.encode(), nil
}

func (c *Cluster) askReplica(ctx context.Context, id string, gid uint64) (replicaReport, error) {
	b, err := c.Call(ctx, id, kindReplica, binary.BigEndian.AppendUint64(nil, gid))
	if err != nil {
		return replicaReport{}, err
	}
	return decodeReport(b)
}

// report fails between two runs of Raft, which knows the term.
func (g *Group) report() (replicaReport, error) {
	run := g.raft.Load()
	if run == nil {
		return replicaReport{}, errNotOpen
	}
	r := replicaReport{exists: true, healthy: g.standing.leads(), term: run.CurrentTerm(), voters: g.voters(run)}
	// Nothing is sent to a follower before it is in the log, and a term is led
	// once: what was sent in it by now is at or below last.
	term, leads := run.leads()
	r.last = run.LastIndex()
	if now, still := run.leads(); leads && still && now == term && g.Lease() {
		r.term, r.leads = term, true
	}
	return r, nil
}

func (r replicaReport) encode() []byte {
	b := fields.AppendBool(fields.AppendBool(fields.AppendBool(nil, r.exists), r.healthy), r.leads)
	b = binary.AppendUvarint(binary.AppendUvarint(b, r.term), r.last)
	b = binary.AppendUvarint(b, uint64(len(r.voters)))
	for _, v := range r.voters {
		b = fields.AppendString(b, v)
	}
	return b
}

func decodeReport(b []byte) (replicaReport, error) {
	d := decoder{fields.Read(b)}
	r := replicaReport{exists: d.Bool(), healthy: d.Bool(), leads: d.Bool(), term: d.Uint(), last: d.Uint()}
	for n := min(d.Uint(), votersMax); n > 0 && d.Err() == nil; n-- {
		r.voters = append(r.voters, d.Text())
	}
	return r, d.done()
}

// CanRebuild is nil if the others can bring up this node's replica of a group:
// one of them leads it, and those that are whole are a majority without this
// one. Otherwise it says what is missing; whoever removed a replica then could
// remove the last one that knows something.
func (c *Cluster) CanRebuild(ctx context.Context, gid uint64) error {
	healthy := map[string]bool{}
	var leader string
	var voters []string
	for _, id := range c.Peers() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := c.askReplicaSoon(ctx, id, gid)
		if err != nil || !r.healthy {
			continue
		}
		healthy[id] = true
		if r.leads {
			leader, voters = id, r.voters
		}
	}
	if leader == "" {
		return errors.New("no other node with a whole replica leads the group")
	}
	whole := 0
	for _, v := range voters {
		if v != c.id && healthy[v] {
			whole++
		}
	}
	if need := len(voters)/2 + 1; whole < need {
		return fmt.Errorf("%d other nodes have a whole replica, and a majority of %d is %d", whole, len(voters), need)
	}
	return nil
}

func (c *Cluster) askReplicaSoon(ctx context.Context, id string, gid uint64) (replicaReport, error) {
	ctx, cancel := context.WithTimeout(ctx, reportMax)
	defer cancel()
	return c.askReplica(ctx, id, gid)
}

// Whole reports whether another node's replica of a group may lead it.
func (c *Cluster) Whole(ctx context.Context, id string, gid uint64) bool {
	r, err := c.askReplicaSoon(ctx, id, gid)
	return err == nil && r.healthy
}

// askTerms is the newest term of a group that any other node knows. Every node
// that this one has ever heard of has to answer.
func (c *Cluster) askTerms(ctx context.Context, gid uint64) (term uint64, err error) {
	f := c.identity.get()
	ids := slices.Concat(f.Founders, slices.Collect(maps.Keys(f.Members)), c.Peers())
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if id == c.id || c.book.forgotten(id) {
			continue
		}
		r, err := c.askReplicaSoon(ctx, id, gid)
		if err != nil {
			return 0, fmt.Errorf("node %s: %w", id, err)
		}
		term = max(term, r.term)
	}
	return term, nil
}
