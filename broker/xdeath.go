package broker

import (
	"fmt"
	"slices"
	"time"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// The arguments that name where a queue's dead letters go.
const (
	deadLetterExchange   = "x-dead-letter-exchange"
	deadLetterRoutingKey = "x-dead-letter-routing-key"
)

// reason is why a message was dead-lettered, as headers show it.
type reason string

const (
	rejected reason = "rejected"
	timedOut reason = "expired"
	tooMany  reason = "maxlen"
	tooOften reason = "delivery_limit"
)

// broughtByBroker is the bit of a stored message's flags that says that its
// x-death headers were written here. A client may send headers of that name,
// too; they are shown, but no death is counted on them (RabbitMQ 4 likewise).
const broughtByBroker uint8 = 2

// burial is a message as it goes to its dead-letter exchange.
type burial struct {
	content  mq.Content
	exchange string   // it is published to this one
	keys     [][]byte // it is routed by all of these
	deaths   []any    // x-death: newest first, a table for each queue and reason
	flags    uint8
	ttlMs    int64 // its own; negative means none
}

// bury makes the dead letter of a message in q (RabbitMQ, "Dead Letter
// Exchanges"): it notes the death in the headers, takes the message's own
// expiration off, and changes exchange and, if q says so, routing key.
func bury(q *meta.Queue, why reason, flags uint8, c mq.Content, atMs int64) (burial, error) {
	p, err := wire.ParseProperties(c.Properties())
	if err != nil {
		return burial{}, fmt.Errorf("properties of a dead letter: %w", err)
	}
	keys := routingKeys(c, p.Headers)
	b := burial{flags: flags | broughtByBroker, ttlMs: -1}
	known := flags&broughtByBroker != 0
	if known {
		v, _ := p.Headers.Get("x-death")
		b.deaths, _ = v.([]any)
	}
	known = known && len(b.deaths) > 0
	b.deaths = record(b.deaths, newDeath(q, why, c, keys, &p, atMs))
	exchange, _ := q.Effective().String(deadLetterExchange)
	key, replaced := q.Effective().String(deadLetterRoutingKey)
	b.exchange, b.keys = exchange, keys
	if replaced {
		b.keys = [][]byte{[]byte(key)}
	} else {
		key = string(c.RoutingKey())
	}

	h := slices.DeleteFunc(slices.Clone(p.Headers), func(f mq.Field) bool {
		switch f.Key {
		case "x-death", "x-last-death-queue", "x-last-death-reason", "x-last-death-exchange", "BCC":
			return true
		case "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange":
			return !known
		}
		return replaced && f.Key == "CC"
	})
	if !known {
		h = appendDeath(h, "x-first-death-", q, why, c)
	}
	h = appendDeath(h, "x-last-death-", q, why, c)
	p.Headers = append(h, mq.Field{Key: "x-death", Value: b.deaths})
	p.Present = p.Present&^wire.HasExpiration | wire.HasHeaders

	properties := wire.AppendProperties(nil, p)
	b.content = append(mq.NewContent(exchange, key, properties, len(c.Body())), c.Body()...)
	return b, nil
}

func appendDeath(h mq.Table, prefix string, q *meta.Queue, why reason, c mq.Content) mq.Table {
	return append(h,
		mq.Field{Key: prefix + "queue", Value: q.Name},
		mq.Field{Key: prefix + "reason", Value: string(why)},
		mq.Field{Key: prefix + "exchange", Value: string(c.Exchange())})
}

// routingKeys are the keys that a message was published with: CC counts, BCC
// does not (RabbitMQ, "Sender-selected Distribution").
func routingKeys(c mq.Content, headers mq.Table) [][]byte {
	keys := [][]byte{c.RoutingKey()}
	v, _ := headers.Get("CC")
	cc, _ := v.([]any)
	for _, k := range cc {
		if s, ok := k.(string); ok {
			keys = append(keys, []byte(s))
		}
	}
	return keys
}

// newDeath is the x-death entry of a first death.
func newDeath(q *meta.Queue, why reason, c mq.Content, keys [][]byte, p *wire.Properties, atMs int64) mq.Table {
	var d mq.Table
	if p.Has(wire.HasExpiration) {
		d = append(d, mq.Field{Key: "original-expiration", Value: p.Expiration})
	}
	shown := make([]any, len(keys))
	for i, k := range keys {
		shown[i] = string(k)
	}
	return append(d,
		mq.Field{Key: "count", Value: int64(1)},
		mq.Field{Key: "reason", Value: string(why)},
		mq.Field{Key: "queue", Value: q.Name},
		mq.Field{Key: "time", Value: time.UnixMilli(atMs).UTC().Truncate(time.Second)},
		mq.Field{Key: "exchange", Value: string(c.Exchange())},
		mq.Field{Key: "routing-keys", Value: shown})
}

// record puts a death in front. If the message has died so in that queue
// before, its entry moves there and counts one more; the rest of it tells of
// the first time and stays.
func record(deaths []any, d mq.Table) []any {
	out := []any{d}
	for _, old := range deaths {
		t, _ := old.(mq.Table)
		if !sameDeath(t, d) {
			out = append(out, old)
			continue
		}
		again := slices.Clone(t)
		for i := range again {
			if n, ok := mq.Int(again[i].Value); ok && again[i].Key == "count" {
				again[i].Value = n + 1
			}
		}
		out[0] = again
	}
	return out
}

func sameDeath(a, b mq.Table) bool {
	queueA, _ := a.String("queue")
	queueB, _ := b.String("queue")
	whyA, _ := a.String("reason")
	whyB, _ := b.String("reason")
	return queueA == queueB && whyA == whyB
}

// cycles reports whether a message with these deaths comes back to a queue
// that it died in, without having been rejected since: it would go round for
// ever with nobody wanting it to.
func cycles(deaths []any, queue string) bool {
	for _, d := range deaths {
		t, _ := d.(mq.Table)
		if why, _ := t.String("reason"); why == string(rejected) {
			return false
		}
		if in, _ := t.String("queue"); in == queue {
			return true
		}
	}
	return false
}

// outgoing is the burial on its way: as lasting and as urgent as the message
// was.
func (b *burial) outgoing(priority uint8) outgoing {
	return outgoing{flags: b.flags & (queue.Persistent | statesPriority | broughtByBroker), priority: priority, ttlMs: b.ttlMs, content: b.content}
}

// destinations finds where a dead letter goes, as of a View.
func (b *burial) destinations(from *Broker, v *meta.View, q *meta.Queue) ([]target, error) {
	x := v.Exchange(q.VHost, b.exchange)
	if x == nil {
		return nil, nil
	}
	w := newWalk(from, v, q.VHost, b.content, b.keys)
	w.avoid = func(queue string) bool { return cycles(b.deaths, queue) }
	w.died = len(b.deaths) > 0
	err := w.from(x)
	return w.targets, err
}
