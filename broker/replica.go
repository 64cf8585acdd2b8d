package broker

import (
	"io"
	"slices"

	"warren/fsm/meta"
	"warren/mq"
)

// Metadata is what the metadata group's log drives on this node.
type Metadata struct{ b *Broker }

// Metadata returns the machine of the metadata group.
func (b *Broker) Metadata() Metadata { return Metadata{b} }

// Start gives the metadata its log.
func (m Metadata) Start(log Log) { m.b.meta.start(log) }

// Apply takes committed entries; one result each.
func (m Metadata) Apply(batch []Entry) []any { return m.b.meta.apply(batch) }

// Snapshot captures the metadata, unless they are damaged: what is wrong must
// not outlive the log that could put it right.
func (m Metadata) Snapshot() (Snapshot, error) {
	if err := m.Damaged(); err != nil {
		return nil, err
	}
	return m.b.metadataSnapshot(), nil
}

// Damaged is why this replica is not to be believed, nil if it is.
func (m Metadata) Damaged() error { return m.b.meta.damaged() }

// Lead makes this node propose changes.
func (m Metadata) Lead(term uint64) { m.b.meta.lead(term) }

// Follow ends that.
func (m Metadata) Follow() { m.b.meta.follow() }

// Restore replaces the metadata by a snapshot, and ends what is gone with it.
func (m Metadata) Restore(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	state := meta.New()
	if err := state.Restore(raw); err != nil {
		return err
	}
	before := m.b.View()
	m.b.meta.state = state
	m.b.meta.forgetMilestones()
	m.b.meta.publish(differences(before, state.View()))
	return nil
}

// differences are the changes that running parts have to hear of when the
// metadata jumps from one state to a later one.
func differences(from, to *meta.View) (out []meta.Change) {
	gone := func(q *meta.Queue) {
		switch now := to.QueueByID(q.ID); {
		case now == nil:
			out = append(out, meta.QueueDeleted{Queue: q})
		case q.Policy() != nil || q.OperatorPolicy() != nil || now.Policy() != nil || now.OperatorPolicy() != nil:
			out = append(out, meta.QueueChanged{Queue: now}) // or not: it does no harm
		}
	}
	for q := range to.AllQueues() {
		if from.QueueByID(q.ID) == nil {
			out = append(out, meta.QueueCreated{Queue: q})
		}
	}
	for q := range from.AllQueues() {
		gone(q)
	}
	for v := range from.VHosts() {
		if to.VHost(v.Name) == nil {
			out = append(out, meta.VHostDeleted{Name: v.Name})
		}
	}
	for u := range from.Users() {
		if to.User(u.Name) == nil {
			out = append(out, meta.UserDeleted{Name: u.Name})
		}
	}
	for _, n := range from.Nodes() {
		was, ok := from.Session(n.ID)
		if is, _ := to.Session(n.ID); ok && is != was {
			out = append(out, meta.SessionEnded{Node: n.ID, Session: was})
		}
	}
	return append(out, meta.TracingChanged{}, meta.SettingsChanged{}, meta.GroupsChanged{}, meta.NodesChanged{}, meta.PermissionsChanged{})
}

// LeadsMetadata reports whether this node leads the metadata group.
func (b *Broker) LeadsMetadata() bool {
	term, _ := b.meta.leader()
	return term != 0
}

// EndDeadSessions ends the runs of nodes that are known to have ended. The
// metadata leader calls it every second or so.
func (b *Broker) EndDeadSessions() []meta.Op {
	v := b.View()
	var ops []meta.Op
	for _, n := range v.Nodes() {
		s, ok := v.Session(n.ID)
		if ok && n.ID != b.lane.Self() && !slices.Contains(b.lane.Peers(), n.ID) && b.lane.Dead(n.ID) {
			ops = append(ops, meta.SessionEnd{Session: s})
		}
	}
	return ops
}

// GroupFor picks the group of a new durable queue: one that this node leads,
// so that a client's messages need not cross the network twice; or with
// x-queue-leader-locator=balanced, any. Among those it goes round.
func (b *Broker) GroupFor(_, _ string, args mq.Table) mq.GroupID {
	groups := b.View().Groups()
	if len(groups) == 0 {
		return 0
	}
	turn := int(b.placed.Add(1))
	if locator, _ := args.String("x-queue-leader-locator"); locator != "balanced" {
		mine := b.leaders.led(b.lane.Self())
		var own []mq.GroupID
		for _, g := range groups {
			if slices.Contains(mine, g.ID) {
				own = append(own, g.ID)
			}
		}
		if len(own) > 0 {
			return own[turn%len(own)]
		}
	}
	return groups[turn%len(groups)].ID
}
