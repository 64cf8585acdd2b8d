package broker

import (
	"sync"

	"warren/mq"
)

// leaders is what this node has heard of who leads which group. Leaders
// announce themselves (frameLead); nobody has to be a replica to know.
type leaders struct {
	mu      sync.Mutex
	known   map[mq.GroupID]leader
	changed chan struct{} // closed and replaced at every change
}

type leader struct {
	node mq.NodeID
	term uint64
}

func newLeaders() *leaders {
	return &leaders{known: map[mq.GroupID]leader{}, changed: make(chan struct{})}
}

// newer reports whether an announcement is not older than what is known.
func (l *leaders) newer(g mq.GroupID, term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[g].term <= term
}

// heard takes an announcement.
func (l *leaders) heard(g mq.GroupID, node mq.NodeID, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[g] = leader{node, term}
	l.wake()
}

// lost forgets that node leads anything, and returns what it led. The terms
// stay, so that an older leader is not believed afterwards.
func (l *leaders) lost(node mq.NodeID) (groups []mq.GroupID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g, k := range l.known {
		if k.node == node {
			l.known[g] = leader{"", k.term}
			groups = append(groups, g)
		}
	}
	l.wake()
	return groups
}

// forget drops a group that is gone for good.
func (l *leaders) forget(g mq.GroupID) {
	l.mu.Lock()
	delete(l.known, g)
	l.wake()
	l.mu.Unlock()
}

func (l *leaders) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// of returns the leader of g, and a channel that is closed when anything changes.
func (l *leaders) of(g mq.GroupID) (k leader, ok bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k = l.known[g]
	return k, k.node != "", l.changed
}

// led lists the groups that node leads.
func (l *leaders) led(node mq.NodeID) (groups []mq.GroupID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g, k := range l.known {
		if k.node == node {
			groups = append(groups, g)
		}
	}
	return groups
}
