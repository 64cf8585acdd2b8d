package broker

import (
	"context"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// Limits of vhosts and users. What a client opens is counted before the others
// are asked for theirs, so there are never more than may be; when several come at
// once for the last place, it may be that none of them gets it. A node that does
// not answer has nothing.

// tallyWait is how long the other nodes have to say what they have.
const tallyWait = 500 * time.Millisecond

// tallied is what is counted: connections, or channels, of a vhost or user; ""
// is any.
type tallied struct {
	vhost, user string
	channels    bool
}

// tally counts on this node.
func (b *Broker) tally(what tallied) (n int64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, s := range b.sessions {
		switch {
		case what.vhost != "" && s.vhost != what.vhost || what.user != "" && s.user != what.user:
		case what.channels:
			n += s.channels.Load()
		default:
			n++
		}
	}
	return n
}

// tallyAll counts on all nodes.
func (b *Broker) tallyAll(ctx context.Context, what tallied) int64 {
	n := b.tally(what)
	ctx, cancel := context.WithTimeout(ctx, tallyWait)
	defer cancel()
	body := fields.AppendBool(fields.AppendString(fields.AppendString(nil, what.vhost), what.user), what.channels)
	var mu sync.Mutex // guards n
	var asking sync.WaitGroup
	for _, p := range b.lane.Peers() {
		asking.Go(func() {
			r, err := b.calls.ask(ctx, p, callTally, metaGroup, body, nil)
			theirs := parser{fields.Read(r)}
			if count := theirs.Uint(); err == nil && theirs.Err() == nil {
				mu.Lock()
				n += int64(min(count, 1<<32))
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return n
}

// serveTally answers how much of something this node has.
func (b *Broker) serveTally(a asked, p *parser) {
	what := tallied{p.Text(), p.Text(), p.Bool()}
	if p.Err() != nil {
		a.fail(errFrame)
		return
	}
	a.ok(fields.AppendUint(nil, uint64(max(0, b.tally(what)))))
}

// checkConnections refuses a session that is one too many, and has been counted.
func (s *Session) checkConnections(ctx context.Context) error {
	v := s.broker.View()
	if limit, ok := v.VHostConnections(s.vhost); ok && s.broker.tallyAll(ctx, tallied{vhost: s.vhost}) > limit {
		return mq.Errorf(mq.NotAllowed, "access to vhost '%s' refused for user '%s': connection limit (%d) is reached", s.vhost, s.user, limit)
	}
	if limit, ok := v.UserConnections(s.user); ok && s.broker.tallyAll(ctx, tallied{user: s.user}) > limit {
		return mq.Errorf(mq.NotAllowed, "connection refused for user '%s': user connection limit (%d) is reached", s.user, limit)
	}
	return nil
}

// OpenChannel counts a channel, unless it is one more than the user may have.
func (s *Session) OpenChannel(ctx context.Context) error {
	s.channels.Add(1)
	limit, ok := s.broker.View().UserChannels(s.user)
	if !ok || s.broker.tallyAll(ctx, tallied{user: s.user, channels: true}) <= limit {
		return nil
	}
	s.channels.Add(-1)
	return mq.Errorf(mq.NotAllowed, "number of channels opened for user '%s' has reached the maximum allowed user limit of (%d)", s.user, limit)
}

// CloseChannel counts a channel out.
func (s *Session) CloseChannel() { s.channels.Add(-1) }

// checkQueueLimit refuses a queue that would be one too many in its vhost.
func checkQueueLimit(v *meta.View, vhost, queue string) error {
	limit, ok := v.VHostQueues(vhost)
	if !ok {
		return nil
	}
	n := int64(0)
	for range v.EachQueue(vhost) {
		if n++; n >= limit {
			break
		}
	}
	if n < limit {
		return nil
	}
	return mq.Errorf(mq.PreconditionFailed, "cannot declare queue '%s': queue limit in vhost '%s' (%d) is reached", queue, vhost, limit)
}
