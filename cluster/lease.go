package cluster

import (
	"sync"
	"time"
)

// ackTable remembers, per peer, the newest send time of something that the
// peer answered with success, and in which term: what a lease is made of. Send
// times, not answer times: the peer cannot have heard it earlier.
type ackTable struct {
	mu    sync.Mutex
	peers map[string]ack
	term  uint64 // the newest of all acks

	heldTerm uint64    // no lease in this term or an earlier one
	held     time.Time // until then
}

type ack struct {
	term uint64
	sent time.Time
}

func (a *ackTable) note(peer string, term uint64, sent time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.peers[peer]
	if term < old.term || (term == old.term && !sent.After(old.sent)) {
		return
	}
	if a.peers == nil {
		a.peers = map[string]ack{}
	}
	a.peers[peer] = ack{term, sent}
	a.term = max(a.term, term)
}

// hold ends the lease of the present term for leaseHold from now. A later term
// is another leadership, with a lease of its own.
func (a *ackTable) hold() {
	a.mu.Lock()
	a.heldTerm, a.held = a.term, time.Now().Add(leaseHold)
	a.mu.Unlock()
}

// lease counts the voters that answered in term to something sent after since.
func (a *ackTable) lease(term uint64, voters []string, self string, since time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if term <= a.heldTerm && time.Now().Before(a.held) {
		return false
	}
	n := 0
	for _, id := range voters {
		if p := a.peers[id]; id == self || (p.term == term && p.sent.After(since)) {
			n++
		}
	}
	return n > len(voters)/2
}
