package cluster

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// watchedPeer is a peer as a morgue sees it. Its morgue runs on fake time.
type watchedPeer struct {
	*morgue
	up, refusing atomic.Bool
	crashes      chan time.Time
}

func watchPeer() *watchedPeer {
	p := &watchedPeer{morgue: newMorgue(slog.New(slog.DiscardHandler)), crashes: make(chan time.Time, 10)}
	p.laneUp = func(string) bool { return p.up.Load() }
	p.refuses = func(context.Context, string) bool { return p.refusing.Load() }
	p.crashed = func(context.Context, string) { p.crashes <- time.Now() }
	return p
}

// noticed waits for the crash to be noticed.
func (p *watchedPeer) noticed(t *testing.T) time.Time {
	t.Helper()
	select {
	case at := <-p.crashes:
		return at
	case <-time.After(soon):
		t.Fatal("nobody noticed the crash")
		return time.Time{}
	}
}

func TestACrashSoonAfterAReturnIsNoticedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := watchPeer()
		defer p.close()
		defer cancel()
		p.refusing.Store(true)
		p.watch(ctx, "peer")
		p.noticed(t)
		rest(ctx, probeSlowEvery/2) // the next probe is not due yet
		p.up.Store(true)
		p.alive("peer")
		p.up.Store(false)
		p.refusing.Store(false) // it closes its port last
		p.watch(ctx, "peer")
		rest(ctx, 3*probeFastEvery+1)
		p.refusing.Store(true)
		closed := time.Now()
		if took := p.noticed(t).Sub(closed); took > probeFastEvery {
			t.Errorf("noticed after %s, while rare probes went on", took)
		}
	})
}

func TestALaneThatGoesDownWhileItsWatchEndsIsWatched(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := watchPeer()
		defer p.close()
		defer cancel()
		p.refusing.Store(true)
		var looked atomic.Bool
		p.laneUp = func(string) bool {
			if looked.CompareAndSwap(false, true) {
				p.watch(ctx, "peer") // it was up, and is down by now
				return true
			}
			return false
		}
		p.watch(ctx, "peer")
		p.noticed(t)
	})
}
