package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"warren/internal/fields"
)

const (
	// stableFor is how long the same nodes must be in view before they found a cluster.
	stableFor = 500 * time.Millisecond
	// formTick is how often a node that belongs to no cluster looks again.
	formTick = 100 * time.Millisecond
	// sayEvery is how often it says what it waits for.
	sayEvery = 10 * time.Second
	// foundingMax is how long a coordinator waits for its founders' promises
	// before it gives up this attempt and looks who is there now.
	foundingMax = 5 * time.Second
	formCallMax = 2 * time.Second
	joinCallMax = 30 * time.Second
	foundersMax = 256
)

// Formation says how this node came to belong to its cluster.
type Formation struct {
	ClusterID string
	// Founders are the sorted ids of the nodes that founded the cluster; empty
	// on a node that joined later.
	Founders []string
	// Bootstrap asks the node to bootstrap the groups with Founders as members,
	// and to call Founded when they exist. It stays true over restarts until then.
	Bootstrap bool
	// Join says that this start was let in as a new member.
	Join bool
}

// JoinHandler decides on the metadata leader whether a node may join, and makes
// it a member. It may be asked again for the same node. A node that does not
// lead answers a *Redirect.
type JoinHandler func(ctx context.Context, id, name, addr string) error

// Redirect is a JoinHandler's way to say that node ID decides. An empty ID
// means that nobody is known to.
type Redirect struct{ ID string }

// Error implements error.
func (r *Redirect) Error() string { return "ask node " + r.ID }

// former brings a fresh node into a cluster. Founding is two-phase:
//
// The lowest id of N stable fresh nodes coordinates. It draws a cluster id for
// this attempt, makes (id, founders) durable as its own promise, and asks the
// others for theirs. A node promises one attempt at a time. When all have
// promised, the coordinator makes its membership durable: that is the moment of
// decision, and only the coordinator can bring it about. The others follow: they
// are told, and ask while they are not. A coordinator that gives up forgets its
// promise first; an attempt is never taken up again, since the next one draws
// another id. So a participant that asks hears "formed", "still trying" or, for
// ever after, "no". A crash at any point leaves one of these three.
type former struct {
	id     *identity
	log    *slog.Logger
	expect int
	join   []string
	gossip *gossip
	seek   *seeker
	call   func(ctx context.Context, id string, kind uint8, req []byte) ([]byte, error)
	onJoin JoinHandler

	done   chan struct{} // closed when formed
	formed Formation     // valid then
}

func (f *former) run(ctx context.Context) {
	joined := false
	var list []string // the candidates, and since when they are the same
	var since, said time.Time
	said = time.Now()
	for {
		self := f.id.get()
		if self.ClusterID != "" {
			f.finish(self, joined)
			return
		}
		members, changed := f.gossip.view()
		switch now := time.Now(); {
		case self.Prepared != nil && self.Prepared.Founders[0] == self.ID:
			f.coordinate(ctx, self.Prepared)
			continue
		case self.Prepared != nil:
			f.follow(ctx, self.Prepared)
		case f.anyFormed(members):
			joined = f.askToJoin(ctx, members)
		case len(f.join) == 0 && f.expect <= 1:
			f.found([]string{self.ID})
			continue
		case f.expect > 1:
			if c := f.candidates(members); !slices.Equal(c, list) {
				list, since = c, now
			}
			if len(list) == f.expect && list[0] == self.ID && now.Sub(since) >= stableFor {
				f.found(list)
				continue
			}
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			f.say(members)
		}
		if f.id.get().ClusterID != "" {
			continue
		}
		t := time.NewTimer(formTick)
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

func (f *former) finish(self *nodeFile, joined bool) {
	f.formed = Formation{
		ClusterID: self.ClusterID, Founders: self.Founders,
		Bootstrap: len(self.Founders) > 0 && !self.Founded, Join: joined,
	}
	f.log.Info("cluster formed", "cluster", self.ClusterID, "founders", self.Founders, "joined", joined)
	close(f.done)
}

func (f *former) anyFormed(members []Member) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.Alive && m.ClusterID != "" })
}

// candidates are the expect lowest ids among the fresh nodes in view. Those
// beyond will join.
func (f *former) candidates(members []Member) (ids []string) {
	for _, m := range members { // in order of id
		if m.Alive && m.ClusterID == "" && !m.Prepared && len(ids) < f.expect {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (f *former) say(members []Member) {
	self := f.id.get()
	var seen []string
	for _, m := range members {
		if m.Alive && m.ID != self.ID {
			seen = append(seen, m.ID+" at "+m.Addr)
		}
	}
	args := []any{"seen", seen, "not_reached", f.seek.missing()}
	switch {
	case self.Prepared != nil:
		f.log.Warn("waiting for the node that coordinates the founding of the cluster; if it is gone for good, "+
			"stop these nodes, delete their empty data directories and start again",
			append(args, "coordinator", self.Prepared.Founders[0], "founders", self.Prepared.Founders)...)
	case f.expect > 1 && !f.anyFormed(members):
		f.log.Info("waiting for the nodes that found the cluster", append(args, "expected", f.expect)...)
	default:
		f.log.Info("waiting for a member of the cluster that lets this node in", args...)
	}
}

// found starts an attempt as its coordinator: the promise of its own.
func (f *former) found(list []string) {
	p := &founding{ClusterID: clusterIDOf(list), Founders: slices.Clone(list)}
	err := f.id.update(func(n *nodeFile) bool {
		if n.ClusterID != "" || n.Prepared != nil {
			return false
		}
		n.Prepared = p
		return true
	})
	if err != nil {
		f.log.Error("founding not started", "err", err)
	}
}

// clusterIDOf draws an id for one attempt of these founders.
func clusterIDOf(list []string) string {
	h := sha256.Sum256([]byte(newID() + "\n" + strings.Join(list, "\n")))
	return hex.EncodeToString(h[:idBytes/2])
}

// coordinate takes an attempt of this node's own to its end.
func (f *former) coordinate(ctx context.Context, p *founding) {
	req := encodeFounding(p)
	f.gossip.announce()
	for give := time.Now().Add(foundingMax); ; {
		refused, missing := f.prepareAll(ctx, p, req)
		if refused == nil && missing == nil {
			break
		}
		if ctx.Err() != nil {
			return // the promise stands; the next start goes on
		}
		if refused != nil || time.Now().After(give) {
			f.log.Info("founding given up for now", "founders", p.Founders, "err", errors.Join(refused, missing))
			f.settle(p, false)
			rest(ctx, formTick)
			return
		}
		rest(ctx, formTick)
	}
	if !f.settle(p, true) {
		return
	}
	for _, id := range p.Founders[1:] { // a courtesy: they ask anyway
		cctx, cancel := context.WithTimeout(ctx, formCallMax)
		if _, err := f.call(cctx, id, kindCommit, req); err != nil {
			f.log.Info("founder not told yet", "peer", id, "err", err)
		}
		cancel()
	}
}

// prepareAll asks every other founder for its promise. refused is final for the attempt.
func (f *former) prepareAll(ctx context.Context, p *founding, req []byte) (refused, missing error) {
	for _, id := range p.Founders[1:] {
		cctx, cancel := context.WithTimeout(ctx, formCallMax)
		_, err := f.call(cctx, id, kindPrepare, req)
		cancel()
		var remote *remoteError
		if errors.As(err, &remote) {
			return fmt.Errorf("node %s: %w", id, err), nil
		}
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", id, err)
		}
	}
	return nil, nil
}

// settle ends the promise p, as a member or with nothing.
func (f *former) settle(p *founding, member bool) bool {
	ended := false
	err := f.id.update(func(n *nodeFile) bool {
		if n.Prepared == nil || n.Prepared.ClusterID != p.ClusterID || n.ClusterID != "" {
			return false
		}
		n.Prepared = nil
		if member {
			n.ClusterID, n.Founders = p.ClusterID, p.Founders
		}
		ended = true
		return true
	})
	if err != nil {
		f.log.Error("identity not saved", "err", err)
		return false
	}
	f.gossip.announce()
	return ended
}

// follow asks what became of a promise to another coordinator: that node first,
// then the others, who may have heard.
func (f *former) follow(ctx context.Context, p *founding) {
	self := f.id.get().ID
	for i, id := range p.Founders {
		if id == self {
			continue
		}
		cctx, cancel := context.WithTimeout(ctx, formCallMax)
		b, err := f.call(cctx, id, kindStatus, encodeFounding(p))
		cancel()
		if err != nil || len(b) != 1 {
			continue
		}
		switch {
		case b[0] == statusFormed:
			f.settle(p, true)
			return
		case b[0] == statusNo && i == 0:
			f.settle(p, false)
			return
		}
	}
}

// Answers of kindStatus.
const (
	statusNo = iota
	statusTrying
	statusFormed
)

func (f *former) onStatus(_ context.Context, _ string, req []byte) ([]byte, error) {
	p, err := decodeFounding(req)
	if err != nil {
		return nil, err
	}
	self := f.id.get()
	switch {
	case self.ClusterID == p.ClusterID:
		return []byte{statusFormed}, nil
	case self.Prepared != nil && self.Prepared.ClusterID == p.ClusterID:
		return []byte{statusTrying}, nil
	}
	return []byte{statusNo}, nil
}

func (f *former) onPrepare(_ context.Context, from string, req []byte) ([]byte, error) {
	p, err := decodeFounding(req)
	if err != nil {
		return nil, err
	}
	self := f.id.get()
	members, _ := f.gossip.view()
	switch {
	case p.Founders[0] != from || !slices.Contains(p.Founders, self.ID):
		return nil, errors.New("not an attempt that concerns this node")
	case f.expect != len(p.Founders):
		return nil, fmt.Errorf("this node expects %d founders, not %d", f.expect, len(p.Founders))
	case self.ClusterID == "" && f.anyFormed(members):
		return nil, errors.New("this node sees a cluster that exists already")
	}
	var refusal error
	err = f.id.update(func(n *nodeFile) bool {
		switch {
		case n.ClusterID == p.ClusterID:
		case n.ClusterID != "":
			refusal = fmt.Errorf("this node belongs to cluster %s", n.ClusterID)
		case n.Prepared != nil && n.Prepared.ClusterID != p.ClusterID:
			refusal = errors.New("this node promised another attempt")
		case n.Prepared == nil:
			n.Prepared = p
			return true
		}
		return false
	})
	return nil, errors.Join(err, refusal)
}

func (f *former) onCommit(_ context.Context, from string, req []byte) ([]byte, error) {
	p, err := decodeFounding(req)
	if err != nil {
		return nil, err
	}
	if p.Founders[0] != from {
		return nil, errors.New("only the coordinator commits")
	}
	f.settle(p, true)
	return nil, nil
}

func encodeFounding(p *founding) []byte {
	dst := fields.AppendString(nil, p.ClusterID)
	dst = binary.AppendUvarint(dst, uint64(len(p.Founders)))
	for _, id := range p.Founders {
		dst = fields.AppendString(dst, id)
	}
	return dst
}

func decodeFounding(b []byte) (*founding, error) {
	d := decoder{fields.Read(b)}
	p := &founding{ClusterID: d.Text()}
	n := d.Uint()
	if n == 0 || n > foundersMax {
		return nil, errors.New("malformed founding")
	}
	for range n {
		p.Founders = append(p.Founders, d.Text())
	}
	sorted := slices.IsSorted(p.Founders) && len(slices.Compact(slices.Clone(p.Founders))) == int(n)
	if d.done() != nil || !validID(p.ClusterID) || !sorted || slices.ContainsFunc(p.Founders, func(s string) bool { return !validID(s) }) {
		return nil, errors.New("malformed founding")
	}
	return p, nil
}

// Answers of kindJoin.
const (
	joinedNow = iota
	joinElsewhere
)

// askToJoin asks the members in view, and whom they name, to let this node in.
func (f *former) askToJoin(ctx context.Context, members []Member) bool {
	asked := map[string]bool{}
	var ask []string
	for _, m := range members {
		if m.Alive && m.ClusterID != "" {
			ask = append(ask, m.ID)
		}
	}
	me := f.gossip.me()
	req := fields.AppendString(fields.AppendString(nil, me.Name), me.Addr)
	for len(ask) > 0 && ctx.Err() == nil {
		id := ask[0]
		ask = ask[1:]
		if asked[id] {
			continue
		}
		asked[id] = true
		cctx, cancel := context.WithTimeout(ctx, joinCallMax)
		b, err := f.call(cctx, id, kindJoin, req)
		cancel()
		if err != nil {
			f.log.Info("not let in yet", "peer", id, "err", err)
			continue
		}
		d := decoder{fields.Read(b)}
		if d.Byte() == joinElsewhere {
			if next := d.Text(); validID(next) {
				ask = append([]string{next}, ask...)
			}
			continue
		}
		clusterID, incarnation := d.Text(), uint32(d.Uint())
		if d.done() != nil || !validID(clusterID) {
			f.log.Warn("malformed answer to a request to join", "peer", id)
			continue
		}
		return f.enter(clusterID, incarnation)
	}
	return false
}

// enter makes the membership that was granted durable.
func (f *former) enter(clusterID string, incarnation uint32) bool {
	entered := false
	err := f.id.update(func(n *nodeFile) bool {
		if n.ClusterID != "" || n.Prepared != nil {
			return false
		}
		n.ClusterID, n.Incarnation = clusterID, incarnation
		entered = true
		return true
	})
	if err != nil {
		f.log.Error("identity not saved", "err", err)
		return false
	}
	f.gossip.announce()
	return entered
}

func (f *former) onJoinCall(ctx context.Context, from string, req []byte) ([]byte, error) {
	d := decoder{fields.Read(req)}
	name, addr := d.Text(), d.Text()
	if err := d.done(); err != nil {
		return nil, err
	}
	self := f.id.get()
	if self.ClusterID == "" || f.onJoin == nil {
		return nil, errors.New("this node belongs to no cluster yet")
	}
	err := f.onJoin(ctx, from, name, addr)
	var elsewhere *Redirect
	if errors.As(err, &elsewhere) {
		if elsewhere.ID == "" || elsewhere.ID == self.ID {
			return nil, errors.New("the cluster has no leader at the moment")
		}
		return fields.AppendString([]byte{joinElsewhere}, elsewhere.ID), nil
	}
	if err != nil {
		return nil, err
	}
	return binary.AppendUvarint(fields.AppendString([]byte{joinedNow}, self.ClusterID), uint64(self.Incarnation)), nil
}
