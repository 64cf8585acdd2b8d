package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// Replicas of a group that have applied the same entries are in the same state,
// unless something is broken: a build, a memory chip, a disk. So each node
// compares the milestones of its replicas with those of the others, and draws the
// conclusion for itself only: no node is told by another that it is wrong.

// compareWait is how long another node may take to tell its milestones.
const compareWait = 2 * time.Second

// agreement is what this node found when it compared its replicas.
type agreement struct {
	comparing sync.Mutex // held while it does

	mu         sync.Mutex
	groups     map[mq.GroupID]*comparison
	mismatches uint64
}

// comparison is how far one replica was compared.
type comparison struct {
	upTo map[mq.NodeID]uint64 // the newest milestone that it has in common with each
	// disputed: a milestone differs, and it is not settled who is wrong.
	disputed bool
}

// told is what another node has said of its replica.
type told struct {
	leads      uint64 // the term that it leads in, or 0
	milestones []milestone
}

func (t *told) at(index uint64) (digest uint64, ok bool) {
	for _, m := range t.milestones {
		if m.index == index {
			return m.digest, true
		}
	}
	return 0, false
}

// dispute is a milestone of this replica that another one does not agree with.
type dispute struct {
	with   mq.NodeID
	own    milestone
	theirs uint64
	// lost: it is this replica that is wrong. others are how many say so.
	lost   bool
	others int
}

// judge compares a replica with the others of its group, of which there are
// replicas in all. The majority of those is right; of two, the one that leads.
// A leader is believed only in a term that this replica has not led itself or
// an earlier one of: else each of two could take the other for the leader.
func judge(own standing, others map[mq.NodeID]told, replicas int) (out []dispute) {
	for _, m := range own.milestones {
		votes := map[uint64]int{}
		for _, t := range others {
			if d, ok := t.at(m.index); ok {
				votes[d]++
			}
		}
		for _, id := range slices.Sorted(maps.Keys(others)) {
			t := others[id]
			theirs, ok := t.at(m.index)
			if !ok || theirs == m.digest {
				continue
			}
			lost := 2*votes[theirs] > replicas || replicas == 2 && t.leads > own.led
			out = append(out, dispute{id, m, theirs, lost, votes[theirs]})
		}
	}
	return out
}

// compared is one replica and the nodes that have others of its group.
type compared struct {
	group   mq.GroupID
	replica replica
	members []mq.NodeID
	own     standing
}

// comparable lists the replicas here that have something to compare.
func (b *Broker) comparable() (out []compared) {
	v := b.View()
	x := compared{group: metaGroup, replica: b.meta, own: b.meta.standing()}
	for _, n := range v.Nodes() {
		x.members = append(x.members, n.ID)
	}
	out = append(out, x)
	for _, g := range v.Groups() {
		if s := b.Shard(g.ID); s != nil {
			out = append(out, compared{g.ID, s, g.Replicas, s.standing()})
		}
	}
	return slices.DeleteFunc(out, func(x compared) bool { return len(x.own.milestones) == 0 })
}

// Compare compares what this node's replicas have come to with what others'
// have. Nothing is asked while nothing new was marked. Call it every second or
// so; it takes compareWait at most.
func (b *Broker) Compare(ctx context.Context) {
	b.agreement.comparing.Lock()
	defer b.agreement.comparing.Unlock()
	b.meta.hashMilestones()
	all := b.comparable()
	wanted := map[mq.NodeID][]wantedMilestones{}
	peers := b.lane.Peers()
	for i := range all {
		for _, id := range all[i].members {
			if since, news := b.agreement.since(&all[i], id); news && slices.Contains(peers, id) {
				wanted[id] = append(wanted[id], wantedMilestones{all[i].group, since})
			}
		}
	}
	heard := b.askMilestones(ctx, wanted)
	for i := range all {
		if others := heard[all[i].group]; len(others) > 0 {
			b.drawConclusion(&all[i], others)
		}
	}
}

// since is from where on a node's milestones are wanted, if any are.
func (a *agreement) since(x *compared, id mq.NodeID) (index uint64, news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.groups[x.group]
	if g == nil || g.disputed {
		return 0, true
	}
	return g.upTo[id], x.own.milestones[len(x.own.milestones)-1].index > g.upTo[id]
}

// drawConclusion says what differs, and gives this replica up if it is wrong.
func (b *Broker) drawConclusion(x *compared, others map[mq.NodeID]told) {
	disputes := judge(x.own, others, len(x.members))
	for _, d := range b.agreement.note(x, others, disputes) {
		b.slog.Error("replicas have applied the same entries and differ", "group", uint64(x.group), "index", d.own.index,
			"digest", fmt.Sprintf("%016x", d.own.digest), "peer", d.with, "theirs", fmt.Sprintf("%016x", d.theirs))
	}
	for _, d := range disputes {
		if d.lost {
			x.replica.differs(d.own, fmt.Errorf("its state at index %d has digest %016x, and %d of the group's %d replicas agree on %016x",
				d.own.index, d.own.digest, d.others, len(x.members), d.theirs))
		}
	}
}

// note takes over what was compared, and returns those of the disputes that are
// new.
func (a *agreement) note(x *compared, others map[mq.NodeID]told, disputes []dispute) (fresh []dispute) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.groups[x.group]
	if g == nil {
		g = &comparison{upTo: map[mq.NodeID]uint64{}}
		a.groups[x.group] = g
	}
	for _, d := range disputes {
		if d.own.index > g.upTo[d.with] {
			fresh = append(fresh, d)
		}
	}
	for id, t := range others {
		for _, m := range x.own.milestones {
			if _, ok := t.at(m.index); ok {
				g.upTo[id] = max(g.upTo[id], m.index)
			}
		}
	}
	a.mismatches += uint64(len(fresh))
	g.disputed = len(disputes) > 0
	return fresh
}

// Compared is the newest log index at which this node's replica of a group was
// compared with another one; 0 if none was.
func (b *Broker) Compared(g mq.GroupID) (index uint64) {
	b.agreement.mu.Lock()
	defer b.agreement.mu.Unlock()
	if a := b.agreement.groups[g]; a != nil {
		for _, at := range a.upTo {
			index = max(index, at)
		}
	}
	return index
}

// Mismatches is how often this node found that a replica here and another one
// differ.
func (b *Broker) Mismatches() uint64 {
	b.agreement.mu.Lock()
	defer b.agreement.mu.Unlock()
	return b.agreement.mismatches
}

// wantedMilestones are those of a group after an index.
type wantedMilestones struct {
	group mq.GroupID
	since uint64
}

// askMilestones asks nodes for milestones, all at once. Who does not answer, or does not
// know the question, is not compared with.
func (b *Broker) askMilestones(ctx context.Context, wanted map[mq.NodeID][]wantedMilestones) map[mq.GroupID]map[mq.NodeID]told {
	ctx, cancel := context.WithTimeout(ctx, compareWait)
	defer cancel()
	var mu sync.Mutex
	heard := map[mq.GroupID]map[mq.NodeID]told{}
	var asking sync.WaitGroup
	for id, want := range wanted {
		asking.Go(func() {
			r, err := b.calls.ask(ctx, id, callMilestones, metaGroup, appendWantedMilestones(nil, want), nil)
			if err != nil {
				b.slog.Debug("no milestones to compare with", "peer", id, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			parseTold(&parser{fields.Read(r)}, func(g mq.GroupID, t told) {
				if heard[g] == nil {
					heard[g] = map[mq.NodeID]told{}
				}
				heard[g][id] = t
			})
		})
	}
	asking.Wait()
	return heard
}

// digestVersion names what the digests of a group are made of: nodes whose
// builds take different things must not be compared.
func digestVersion(g mq.GroupID) uint64 {
	if g == metaGroup {
		return meta.DigestVersion
	}
	return queue.DigestVersion
}

// appendWantedMilestones makes the body of a callMilestones:
//
//	uvarint groups, each: uvarint group | uvarint digest version | uvarint since
func appendWantedMilestones(b []byte, want []wantedMilestones) []byte {
	b = fields.AppendUint(b, uint64(len(want)))
	for _, w := range want {
		b = fields.AppendUint(fields.AppendUint(fields.AppendUint(b, uint64(w.group)), digestVersion(w.group)), w.since)
	}
	return b
}

// tellMilestones answers a callMilestones. Groups that are not here, or whose digests
// another version takes, are left out:
//
//	for each: uvarint group | uvarint the term that it leads in, or 0 | uvarint milestones, each: uvarint index | uvarint digest
func (b *Broker) tellMilestones(a asked, p *parser) {
	var out []byte
	for range p.Count() {
		g, version, since := mq.GroupID(p.Uint()), p.Uint(), p.Uint()
		if p.Err() != nil {
			break
		}
		var r replica = b.meta
		if g != metaGroup {
			s := b.Shard(g)
			if s == nil {
				continue
			}
			r = s
		}
		if version != digestVersion(g) {
			continue
		}
		out = appendTold(out, g, r.standing(), since)
	}
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	a.ok(out)
}

func appendTold(b []byte, g mq.GroupID, st standing, since uint64) []byte {
	news := slices.DeleteFunc(st.milestones, func(m milestone) bool { return m.index <= since })
	b = fields.AppendUint(fields.AppendUint(b, uint64(g)), st.leads)
	b = fields.AppendUint(b, uint64(len(news)))
	for _, m := range news {
		b = fields.AppendUint(fields.AppendUint(b, m.index), m.digest)
	}
	return b
}

// parseTold calls f with what a node told of each group, until what it sent
// makes no sense.
func parseTold(p *parser, f func(g mq.GroupID, t told)) {
	for p.More() {
		g, t := mq.GroupID(p.Uint()), told{leads: p.Uint()}
		for range p.Count() {
			t.milestones = append(t.milestones, milestone{p.Uint(), p.Uint()})
		}
		if p.Err() != nil {
			return
		}
		f(g, t)
	}
}
