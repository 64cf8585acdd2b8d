package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// heraldTries is how often something that could not be sent is sent again, and
	// heraldPause how long the wait for that is: in all less than a change waits for
	// a node that does not apply it.
	heraldTries = 8
	heraldPause = 50 * time.Millisecond
)

// Raft tells a follower that an entry is committed with the next entry, or after
// CommitTimeout. Nobody waits for that with the entries of queue groups; a change
// of metadata is answered when every node has applied it. An entry without data
// behind each one would do, at the price of another write on every node; so the
// leader's transport says it instead.

// herald tells followers of a group what is committed, each one as soon as it has
// it, unless a request of Raft's own has said so already.
//
// What it sends is an AppendEntries without entries that names the committed
// entry as the one that precedes them. So Raft's rules keep it safe, whenever it
// arrives: a follower in a newer term refuses it, and one whose log has another
// entry in that place, or none, does too. What is lost after all is said by
// Raft's next request.
type herald struct {
	// send sends a request and waits for the answer: whether it was a success
	// there. It is called on a goroutine of its own.
	send func(to string, a *raft.AppendEntriesRequest) (bool, error)
	work sync.WaitGroup

	mu    sync.Mutex
	news  commitNews
	peers map[string]*hearer
	ended bool
}

// commitNews is an entry that is committed, and the term in which that is said.
type commitNews struct{ term, index, entryTerm uint64 }

// hearer is what is known of a follower.
type hearer struct {
	term uint64 // in which the rest is known
	has  uint64 // its log is the leader's up to here
	told uint64 // and this much of that it knows to be committed
	busy bool   // something is on its way to it, or will be sent again
	// failed is how often in a row nothing came through.
	failed int
}

// due reports whether a follower should hear the news now.
func (p *hearer) due(n commitNews) bool {
	return !p.busy && p.term == n.term && p.has >= n.index && p.told < n.index
}

// announce says that an entry is committed. The caller leads in the term.
func (h *herald) announce(n commitNews) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.term < h.news.term || n.index <= h.news.index {
		return
	}
	h.news = n
	for id, p := range h.peers {
		h.tell(id, p)
	}
}

// succeeded hears that a follower has taken a request of Raft's.
func (h *herald) succeeded(to string, a *raft.AppendEntriesRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.peers[to]
	if p == nil {
		if h.peers == nil {
			h.peers = map[string]*hearer{}
		}
		p = new(hearer)
		h.peers[to] = p
	}
	if a.Term > p.term {
		p.term, p.has, p.told = a.Term, 0, 0
	}
	has := a.PrevLogEntry + uint64(len(a.Entries))
	p.has = max(p.has, has)
	p.told = max(p.told, min(a.LeaderCommitIndex, has))
	p.failed = 0
	h.tell(to, p)
}

// tell sends the news to a follower if it is due. Runs with mu held.
func (h *herald) tell(id string, p *hearer) {
	if h.ended || !p.due(h.news) {
		return
	}
	n := h.news
	p.busy = true
	h.work.Go(func() {
		ok, err := h.send(id, &raft.AppendEntriesRequest{
			Term: n.term, PrevLogEntry: n.index, PrevLogTerm: n.entryTerm, LeaderCommitIndex: n.index,
		})
		h.mu.Lock()
		defer h.mu.Unlock()
		if err != nil && p.failed < heraldTries {
			p.failed++
			time.AfterFunc(heraldPause, func() { h.again(id, p) })
			return
		}
		p.busy = false
		if ok && p.term == n.term {
			p.told, p.failed = max(p.told, n.index), 0
			h.tell(id, p) // of what was committed meanwhile
		}
	})
}

// again sends what could not be sent, or what is news by now.
func (h *herald) again(id string, p *hearer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.busy = false
	h.tell(id, p)
}

// close waits for what is on its way, which the transport has ended.
func (h *herald) close() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.work.Wait()
}
