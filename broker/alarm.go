package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"warren/internal/fields"
	"warren/mq"
)

// A node that is short of memory or disk raises an alarm. Publishers that are
// connected to it wait, and so do those elsewhere whose messages go to queues
// that it leads; consumers go on, and everybody else does (RabbitMQ blocks all
// publishers of a cluster). Other nodes hear of an alarm with a frame, and of
// its end, and forget it with the connection. Its own a node knows without any.

const (
	// alarmReasonMax bounds what a peer may say.
	alarmReasonMax = 255
	// alarmRecheck is how soon a publisher that waits looks whether its queue
	// is led elsewhere by now.
	alarmRecheck = 250 * time.Millisecond
)

// alarms are the nodes that have raised one, and why.
type alarms struct {
	any     atomic.Bool // looked at with every publish
	telling sync.Mutex  // held from the look at the own reason until it is sent: the last one to be sent is the newest

	mu      sync.Mutex
	reasons map[mq.NodeID]string
	changed chan struct{} // closed and replaced whenever one is raised or ends
}

func newAlarms() *alarms {
	return &alarms{reasons: map[mq.NodeID]string{}, changed: make(chan struct{})}
}

// set raises or changes a node's alarm, or with an empty reason ends it.
func (a *alarms) set(node mq.NodeID, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reasons[node] == reason {
		return
	}
	a.reasons[node] = reason
	if reason == "" {
		delete(a.reasons, node)
	}
	a.any.Store(len(a.reasons) > 0)
	close(a.changed)
	a.changed = make(chan struct{})
}

// of answers why a node has raised an alarm, "" if it has not, and what is
// closed when any alarm changes.
func (a *alarms) of(node mq.NodeID) (reason string, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reasons[node], a.changed
}

// SetAlarm says that this node is short of something, in words for clients, or
// with "" that it is not any more.
func (b *Broker) SetAlarm(reason string) {
	reason = reason[:min(len(reason), alarmReasonMax)]
	b.alarms.set(b.lane.Self(), reason)
	for _, p := range b.lane.Peers() {
		b.tellAlarm(p)
	}
}

func (b *Broker) tellAlarm(to mq.NodeID) {
	b.alarms.telling.Lock()
	defer b.alarms.telling.Unlock()
	reason, _ := b.alarms.of(b.lane.Self())
	b.lane.Send(to, fields.AppendString([]byte{frameAlarm}, reason))
}

// alarmHeard takes another node's alarm, or the end of it.
func (b *Broker) alarmHeard(from mq.NodeID, p *parser) {
	reason := p.Text()
	if p.Err() == nil {
		b.alarms.set(from, reason[:min(len(reason), alarmReasonMax)])
	}
}

// awaitAlarms returns when no alarm is in the way of a message to these
// targets, or with the end of ctx. waits hears why it waits, if it does.
func (s *Session) awaitAlarms(ctx context.Context, targets []target, waits func(reason string)) error {
	told := false
	for {
		reason, changed := s.alarmOf(targets)
		if reason == "" {
			return nil
		}
		if !told {
			told = true
			s.Flush() // what came before must not wait for this one
			if waits != nil {
				waits(reason)
			}
		}
		again := time.NewTimer(alarmRecheck)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// alarmOf answers with the alarm of this node, or of one that leads a target.
func (s *Session) alarmOf(targets []target) (reason string, changed <-chan struct{}) {
	b := s.broker
	reason, changed = b.alarms.of(b.lane.Self())
	for i := 0; reason == "" && i < len(targets); i++ {
		if k, known, _ := b.leaders.of(targets[i].group); known {
			reason, _ = b.alarms.of(k.node)
		}
	}
	return reason, changed
}
