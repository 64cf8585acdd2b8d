package cluster

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// lonely is a transport whose peer refuses connections. It is for fake time.
func lonely(t *testing.T) (tr *transport, up *atomic.Bool) {
	up = new(atomic.Bool)
	refuse := func(context.Context, string, role) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	tr = &transport{
		gid: 1, self: "self", calls: newCallers(refuse), gone: func(*transport) {}, callMax: time.Second,
		reachable: func(string) bool { return up.Load() },
	}
	tr.start()
	t.Cleanup(func() { tr.Close(); tr.calls.close() })
	return tr, up
}

// failsAfter is when Raft hears that a request has failed.
func failsAfter(t *testing.T, tr *transport, a *raft.AppendEntriesRequest) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := tr.AppendEntries("", "peer", a, new(raft.AppendEntriesResponse)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	return time.Since(begin)
}

func TestReplicationGoesOnAtThePeersReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr, up := lonely(t)
		const away = 4 * time.Second
		timer := time.AfterFunc(away, func() { up.Store(true) })
		defer timer.Stop()
		for _, a := range []*raft.AppendEntriesRequest{
			{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2, LeaderCommitIndex: 6},
			{Term: 3, Entries: []*raft.Log{{Index: 1, Term: 3, Data: []byte("first")}}},
		} {
			up.Store(false)
			timer.Reset(away)
			if took := failsAfter(t, tr, a); took < away || took > away+returnLook {
				t.Errorf("failed after %s, the peer was away for %s", took, away)
			}
		}
	})
}

func TestAPeerThatDoesNotReturnIsNotAwaitedForever(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr, _ := lonely(t)
		a := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2}
		if took := failsAfter(t, tr, a); took != returnWait {
			t.Errorf("failed after %s", took)
		}
		time.AfterFunc(time.Second, func() { tr.Close() })
		if took := failsAfter(t, tr, a); took != time.Second {
			t.Errorf("failed after %s, the group was closed after a second", took)
		}
	})
}

func TestAHeartbeatAwaitsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr, _ := lonely(t)
		if took := failsAfter(t, tr, &raft.AppendEntriesRequest{Term: 3}); took != 0 {
			t.Errorf("failed after %s", took)
		}
	})
}
