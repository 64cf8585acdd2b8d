package cluster

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// heard is a herald whose followers write down what they are told.
type heard struct {
	herald
	refuse atomic.Bool
	lose   atomic.Bool   // the connection is lost
	hold   chan struct{} // if set, an answer waits for it

	guard sync.Mutex
	got   []string
}

func newHeard() *heard {
	h := &heard{}
	h.send = func(to string, a *raft.AppendEntriesRequest) (bool, error) {
		if a.PrevLogEntry != a.LeaderCommitIndex || len(a.Entries) != 0 {
			panic("what is committed must be what precedes")
		}
		h.guard.Lock()
		h.got = append(h.got, fmt.Sprintf("%s: %d of term %d in term %d", to, a.PrevLogEntry, a.PrevLogTerm, a.Term))
		h.guard.Unlock()
		if h.hold != nil {
			<-h.hold
		}
		if h.lose.Load() {
			return false, errTest
		}
		return !h.refuse.Load(), nil
	}
	return h
}

// took is a request of Raft's with which a follower's log has come to last.
func (h *heard) took(term, last, commit uint64) {
	h.succeeded("b", &raft.AppendEntriesRequest{Term: term, PrevLogEntry: last - 1, Entries: []*raft.Log{{Index: last}}, LeaderCommitIndex: commit})
	synctest.Wait()
}

func (h *heard) say(term, index, entryTerm uint64) {
	h.announce(commitNews{term, index, entryTerm})
	synctest.Wait()
}

// heard is what was told since it was asked last.
func (h *heard) heard() (got []string) {
	synctest.Wait()
	h.guard.Lock()
	defer h.guard.Unlock()
	got, h.got = h.got, nil
	return got
}

func (h *heard) want(t *testing.T, want ...string) {
	t.Helper()
	if got := h.heard(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAFollowerHearsOfACommitOnceItHasTheEntry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.say(4, 9, 3)
		h.want(t)
		h.took(4, 8, 7)
		h.want(t)
		h.took(4, 9, 8)
		h.want(t, "b: 9 of term 3 in term 4")
		h.took(4, 10, 9)
		h.say(4, 9, 3)
		h.want(t)
		h.say(4, 10, 4)
		h.want(t, "b: 10 of term 4 in term 4")
	})
}

func TestAFollowerIsNotToldWhatRaftHasTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.took(4, 10, 9)
		h.say(4, 9, 4)
		h.want(t)
	})
}

func TestWhatIsCommittedMeanwhileIsSaidNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.hold = make(chan struct{})
		h.took(4, 20, 0)
		for i := range uint64(3) {
			h.say(4, 18+i, 4)
		}
		h.want(t, "b: 18 of term 4 in term 4")
		close(h.hold)
		synctest.Wait()
		h.want(t, "b: 20 of term 4 in term 4")
	})
}

func TestARefusalIsNotRepeatedBeforeRaftHasComeThrough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.took(4, 9, 0)
		h.refuse.Store(true)
		h.say(4, 9, 4)
		pause(time.Minute)
		h.want(t, "b: 9 of term 4 in term 4")
		h.refuse.Store(false)
		h.took(4, 9, 0)
		h.want(t, "b: 9 of term 4 in term 4")
	})
}

func TestWhatDoesNotComeThroughIsSentAgainForAWhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.took(4, 9, 0)
		h.lose.Store(true)
		h.say(4, 8, 4)
		h.say(4, 9, 4)
		h.want(t, "b: 8 of term 4 in term 4")
		pause(heraldPause + time.Millisecond)
		h.want(t, "b: 9 of term 4 in term 4")
		h.lose.Store(false)
		pause(heraldPause)
		h.want(t, "b: 9 of term 4 in term 4")
		h.took(4, 10, 9)
		h.lose.Store(true)
		h.say(4, 10, 4)
		pause(time.Minute)
		if tries := len(h.heard()); tries != 1+heraldTries {
			t.Errorf("tried %d times", tries)
		}
	})
}

func TestWhatAFollowerHadInAnEarlierTermDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.took(4, 9, 0)
		h.say(6, 9, 4)
		h.want(t)
		h.took(6, 8, 0)
		h.want(t)
		h.took(6, 9, 0)
		h.want(t, "b: 9 of term 4 in term 6")
	})
}

func TestAClosedHeraldIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHeard()
		h.took(4, 9, 0)
		h.close()
		h.say(4, 9, 4)
		h.want(t)
	})
}

// A notice may be late, and the follower's log another one by then.
func TestAFollowerWithAnotherEntryRefusesTheNews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, l := runningCluster(t, 3, 3, true)
		c.mustPropose(l, "x")
		c.converged(l)
		f := c.others(l)[0]
		last, term := f.group.LastIndex(), f.group.Term()
		news := l.group.raft.Load().transport.(*memTransport)
		for _, a := range []raft.AppendEntriesRequest{
			{Term: term, PrevLogEntry: last, PrevLogTerm: term + 1, LeaderCommitIndex: last},
			{Term: term, PrevLogEntry: last + 1, PrevLogTerm: term, LeaderCommitIndex: last + 1},
			{Term: term - 1, PrevLogEntry: last, PrevLogTerm: term, LeaderCommitIndex: last},
		} {
			if ok, err := news.sendNews(f.id, &a); ok || err != nil {
				t.Errorf("taken: %+v, %v", a, err)
			}
		}
		a := raft.AppendEntriesRequest{Term: term, PrevLogEntry: last, PrevLogTerm: term, LeaderCommitIndex: last}
		if ok, err := news.sendNews(f.id, &a); !ok || err != nil {
			t.Errorf("what it has is refused: %v", err)
		}
	})
}
