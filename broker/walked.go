package broker

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"

	"warren/amqp/wire"
	"warren/broker/route"
	"warren/fsm/meta"
	"warren/mq"
)

var _ route.Message = (*walk)(nil)

// Keys implements route.Message.
func (w *walk) Keys() [][]byte { return w.keys }

// Headers implements route.Message.
func (w *walk) Headers() mq.Table {
	raw := wire.PeekProperty(w.content.Properties(), wire.HasHeaders)
	if len(raw) == 0 {
		return nil
	}
	t, _, err := wire.ParseTable(raw)
	if err != nil {
		return nil // it was checked when it came
	}
	return t
}

// Property implements route.Message.
func (w *walk) Property(name string) []byte {
	p := w.content.Properties()
	switch name {
	case "correlation_id":
		return wire.PeekProperty(p, wire.HasCorrelationID)
	case "message_id":
		return wire.PeekProperty(p, wire.HasMessageID)
	case "timestamp":
		if b := wire.PeekProperty(p, wire.HasTimestamp); len(b) == 8 {
			return strconv.AppendUint(nil, binary.BigEndian.Uint64(b), 10)
		}
	}
	return nil
}

// Random implements route.Message.
func (w *walk) Random(n int) int { return rand.IntN(n) }

// Place implements route.Message. It is asked before any destination is
// followed, so that at is still the exchange that asks.
func (w *walk) Place(dest int) route.Place {
	b := w.at.dests[dest]
	if b.ToExchange {
		return route.Elsewhere
	}
	q := w.view.Queue(w.vhost, b.Destination)
	if q == nil {
		return route.Elsewhere
	}
	return w.broker.placeOf(q)
}

// placeOf says where a queue is, as far as this node has heard.
func (b *Broker) placeOf(q *meta.Queue) route.Place {
	if q.Owner != 0 {
		if _, session := b.run(); q.Owner == session {
			return route.Here
		}
		return route.Elsewhere
	}
	if node, _, ok := b.Leader(q.Group); ok && node == b.lane.Self() {
		return route.Here
	}
	return route.Anywhere
}
