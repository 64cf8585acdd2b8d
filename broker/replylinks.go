package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"warren/internal/fields"
	"warren/mq"
)

// Bounds of the direct replies that are on their way to one node. They wait for
// nothing there, so this fills up only while the node or the network is slow.
const (
	// replyLinkBytes is how much is sent and not reported as taken before
	// publishers wait.
	replyLinkBytes = 8 << 20
	// replyReport is how much a node takes before it reports.
	replyReport = 256 << 10
	// replyWait is how long a publisher waits at most; then the reply is dropped.
	replyWait = 5 * time.Second
)

// replyLinks counts the direct replies between this node and its peers.
type replyLinks struct {
	lane Lane

	mu     sync.Mutex
	room   *sync.Cond        // on mu: owed has fallen
	owed   map[mq.NodeID]int // bytes that a peer has not reported
	unsaid map[mq.NodeID]int // bytes of a peer's that were not reported to it

	dropped atomic.Uint64 // replies
}

func newReplyLinks(lane Lane) *replyLinks {
	l := &replyLinks{lane: lane, owed: map[mq.NodeID]int{}, unsaid: map[mq.NodeID]int{}}
	l.room = sync.NewCond(&l.mu)
	return l
}

// send puts a reply on its way, or drops it if the peer is down or has been too
// slow for too long. It counts as so many bytes: as many as took is told there.
// The error is that of ctx.
func (l *replyLinks) send(ctx context.Context, to mq.NodeID, frame []byte, bytes int) (sent bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owed[to] >= replyLinkBytes && !l.awaitRoom(ctx, to) {
		l.dropped.Add(1)
		return false, ctx.Err()
	}
	if !l.lane.Send(to, frame) {
		l.dropped.Add(1)
		return false, nil
	}
	l.owed[to] += bytes
	return true, nil
}

// awaitRoom runs with mu held.
func (l *replyLinks) awaitRoom(ctx context.Context, to mq.NodeID) bool {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.room.Broadcast()
		l.mu.Unlock()
	})
	defer stop()
	for l.owed[to] >= replyLinkBytes {
		if ctx.Err() != nil {
			return false
		}
		l.room.Wait()
	}
	return true
}

// took counts a reply that came from a peer, and reports now and then.
func (l *replyLinks) took(from mq.NodeID, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsaid[from] += bytes
	if n := l.unsaid[from]; n >= replyReport {
		l.unsaid[from] = 0
		l.lane.Send(from, fields.AppendUint([]byte{frameDirectTaken}, uint64(n)))
	}
}

// taken hears a peer's report.
func (l *replyLinks) taken(from mq.NodeID, p *parser) {
	n := p.Uint()
	if p.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed[from] -= int(min(n, uint64(l.owed[from]))) // bounded: a peer's numbers must not overflow
	l.room.Broadcast()
}

// lost hears that a connection is gone, with all that was on its way.
func (l *replyLinks) lost(peer mq.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owed, peer)
	delete(l.unsaid, peer)
	l.room.Broadcast()
}
