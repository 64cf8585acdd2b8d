package broker

import (
	"fmt"
	"slices"

	"warren/fsm/meta"
)

const (
	// milestoneEvery is how many log indexes lie between two milestones.
	milestoneEvery = 1000
	// milestonesKept is how many milestones a replica remembers: what others come to a
	// little later is compared with them.
	milestonesKept = 32
	// hashesMax is how many views of the metadata may wait to be hashed.
	hashesMax = 4
)

// milestone is what a replica had come to when it had applied every entry up to an
// index. Replicas of a group that are sound have the same digest at the same
// index, whenever they came there.
type milestone struct{ index, digest uint64 }

// milestones are the latest of a replica, oldest first.
type milestones struct {
	all []milestone
	// next is the index that is to be marked next, once an entry after it comes;
	// 0 if it is not known which entries the state holds.
	next uint64
}

// pass goes on to the entry at index, which is to be applied and is after next.
// It returns the index that is to be marked with the state as it is before
// that. Not every index has an entry for us: then it is a round one that lies
// between the last entry and this one.
func (m *milestones) pass(index uint64) (at uint64, known bool) {
	at, known = (index-1)/milestoneEvery*milestoneEvery, m.next != 0
	m.next = at + milestoneEvery
	return at, known
}

func (m *milestones) add(x milestone) {
	if m.all == nil {
		m.all = make([]milestone, 0, milestonesKept)
	}
	if len(m.all) == milestonesKept {
		m.all = m.all[:copy(m.all, m.all[1:])]
	}
	m.all = append(m.all, x)
}

// standing is what a replica says of itself when it is compared.
type standing struct {
	milestones []milestone // none if it knows that it is damaged
	// leads is the term that it leads in, 0 if it does not; led is the highest
	// that it ever led in.
	leads, led uint64
}

// replica is what is compared with other nodes' of the same group. Its methods
// may be called from any goroutine.
type replica interface {
	standing() standing
	// differs says that the replica is wrong at a milestone of its own. That counts
	// only as long as its state is the one that was marked.
	differs(at milestone, err error)
}

// milestone milestones the state, before the entry at index is applied. Runs with mu held.
func (s *Shard) reach(index uint64) {
	if at, known := s.milestones.pass(index); known {
		s.milestones.add(milestone{at, s.state.Digest()})
	}
}

func (s *Shard) standing() standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := standing{led: s.led}
	if s.lead != nil {
		st.leads = s.lead.term
	}
	if s.damaged == nil {
		st.milestones = slices.Clone(s.milestones.all)
	}
	return st
}

func (s *Shard) differs(at milestone, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.milestones.all, at) { // else it was restored meanwhile
		pages{s}.Damaged(err)
	}
}

// sound is nil if the state may go into a snapshot. What is wrong here must
// not outlive the log that could put it right. Runs with mu held.
func (s *Shard) sound() error {
	if err := s.state.Audit(); err != nil {
		pages{s}.Damaged(err)
	}
	if s.damaged != nil {
		return fmt.Errorf("no snapshot of a damaged replica: %w", s.damaged)
	}
	return nil
}

// metaMilestones are the milestones of the metadata, whose state is hashed as a whole:
// seldom, and not while entries are applied. Guarded by metadata.mu.
type metaMilestones struct {
	milestones
	views []viewAt // to be hashed; at most hashesMax
	runs  uint64   // how often the state was replaced by a snapshot
	led   uint64
	err   error // why this replica is damaged
}

type viewAt struct {
	index uint64
	view  *meta.View
}

// milestone keeps the state as it is before the entry at index is applied.
func (m *metadata) reach(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, known := m.milestones.pass(index)
	if !known {
		return
	}
	if len(m.milestones.views) == hashesMax {
		m.milestones.views = slices.Delete(m.milestones.views, 0, 1)
	}
	m.milestones.views = append(m.milestones.views, viewAt{at, m.state.View()})
}

// hashMilestones hashes the states that were marked.
func (m *metadata) hashMilestones() {
	m.mu.Lock()
	views, runs := m.milestones.views, m.milestones.runs
	m.milestones.views = nil
	m.mu.Unlock()
	for _, v := range views {
		x := milestone{v.index, v.view.Hash()}
		m.mu.Lock()
		if m.milestones.runs == runs {
			m.milestones.add(x)
		}
		m.mu.Unlock()
	}
}

// forgetMilestones begins anew, with a state that was restored.
func (m *metadata) forgetMilestones() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.milestones = metaMilestones{runs: m.milestones.runs + 1, led: m.milestones.led}
}

func (m *metadata) standing() standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := standing{leads: m.leading, led: m.milestones.led}
	if m.milestones.err == nil {
		st.milestones = slices.Clone(m.milestones.all)
	}
	return st
}

func (m *metadata) differs(at milestone, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.milestones.err == nil && slices.Contains(m.milestones.all, at) {
		m.slog.Error("this replica is damaged: it should not lead any more", "err", err)
		m.milestones.err = err
	}
}

func (m *metadata) damaged() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.milestones.err
}
