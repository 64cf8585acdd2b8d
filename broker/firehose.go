package broker

import (
	"sync"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/mq"
)

// While a vhost is traced, a copy of every message that a client publishes in
// it, or is handed, goes to the exchange amq.rabbitmq.trace, with what there
// is to know of it in the headers (RabbitMQ, "Firehose"). Who is not traced
// pays for the look at one flag.

const traceExchange = "amq.rabbitmq.trace"

// Bounds of the copies that wait to be published. Those beyond them are
// dropped: tracing holds nobody up.
const (
	tracesMax      = 4096
	tracesBytesMax = 16 << 20
)

// traced is a message that was published or handed out.
type traced struct {
	vhost, user string
	queue       string   // that it was handed out from; "" for a publish
	routed      []target // of a publish
	redelivered bool
	content     mq.Content
}

// traces are the copies that wait, in their order. One goroutine publishes
// them, and lives as long as there are any: who hands messages out holds locks
// that publishing takes.
type traces struct {
	mu      sync.Mutex
	waiting []traced
	bytes   int
	running bool
	dropped uint64
}

// traceIn notes that a client's message was published.
func (s *Session) traceIn(c mq.Content, routed []target) {
	s.broker.trace(traced{vhost: s.vhost, user: s.user, routed: routed, content: c})
}

// traceOut notes that a client is handed a message.
func (s *Session) traceOut(queue string, d *mq.Delivery) {
	s.broker.trace(traced{vhost: s.vhost, user: s.user, queue: queue, redelivered: d.Redelivered, content: d.Content})
}

// trace must not block.
func (b *Broker) trace(t traced) {
	if string(t.content.Exchange()) == traceExchange {
		return // or every copy would be copied
	}
	q := &b.traces
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= tracesMax || q.bytes >= tracesBytesMax {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, t)
	q.bytes += len(t.content)
	if !q.running {
		q.running = true
		go b.publishTraces() // ends when nothing waits
	}
}

func (b *Broker) publishTraces() {
	q := &b.traces
	for {
		q.mu.Lock()
		batch, dropped := q.waiting, q.dropped
		q.waiting, q.bytes, q.dropped = nil, 0, 0
		q.running = len(batch) > 0
		q.mu.Unlock()
		if dropped > 0 {
			b.slog.Warn("traced messages dropped: they came faster than they could be published", "messages", dropped)
		}
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			if err := b.publishTrace(&batch[i]); err != nil {
				b.slog.Debug("traced message not published", "vhost", batch[i].vhost, "err", err)
			}
		}
	}
}

// publishTrace routes one copy, and puts it into the outboxes that have room.
func (b *Broker) publishTrace(t *traced) error {
	v := b.View()
	x := v.Exchange(t.vhost, traceExchange)
	if x == nil {
		return nil
	}
	c, key, err := b.copyOf(v, t)
	if err != nil {
		return err
	}
	w := newWalk(b, v, t.vhost, c, [][]byte{[]byte(key)})
	if err := w.from(x); err != nil {
		return err
	}
	m := outgoing{ttlMs: -1, content: c}
	for i := range w.targets {
		to := &w.targets[i]
		o, err := b.outbox(to.group)
		if err != nil {
			return err
		}
		o.offer(to, &m, m.expiry(to, b.nowMs))
		o.flush()
	}
	return nil
}

// copyOf is what the firehose shows of a message, and the routing key that it
// goes by.
func (b *Broker) copyOf(v *meta.View, t *traced) (c mq.Content, key string, err error) {
	p, err := wire.ParseProperties(t.content.Properties())
	if err != nil {
		return nil, "", err
	}
	var keys []any
	for _, k := range routingKeys(t.content, p.Headers) {
		keys = append(keys, string(k))
	}
	node := string(b.lane.Self())
	if n := v.NodeByID(b.lane.Self()); n != nil {
		node = n.Name
	}
	exchange := string(t.content.Exchange())
	h := mq.Table{
		{Key: "exchange_name", Value: exchange}, {Key: "routing_keys", Value: keys},
		{Key: "properties", Value: propertyTable(&p)}, {Key: "node", Value: node},
		{Key: "vhost", Value: t.vhost}, {Key: "user", Value: t.user},
	}
	if t.queue == "" {
		key = "publish." + exchange
		h = append(h, mq.Field{Key: "routed_queues", Value: queueNames(v, t.routed)})
	} else {
		key = "deliver." + t.queue
		redelivered := int32(0)
		if t.redelivered {
			redelivered = 1
		}
		h = append(h, mq.Field{Key: "redelivered", Value: redelivered})
	}
	key = key[:min(len(key), shortStringMax)]
	properties := wire.AppendProperties(nil, wire.Properties{Present: wire.HasHeaders, Headers: h})
	body := t.content.Body()
	return append(mq.NewContent(traceExchange, key, properties, len(body)), body...), key, nil
}

func queueNames(v *meta.View, targets []target) []any {
	names := []any{}
	for i := range targets {
		for _, id := range targets[i].queues {
			if q := v.QueueByID(id); q != nil {
				names = append(names, q.Name)
			}
		}
	}
	return names
}

// propertyTable is a message's properties as the firehose shows them.
func propertyTable(p *wire.Properties) mq.Table {
	t := mq.Table{}
	for _, x := range []struct {
		flag  uint16
		key   string
		value any
	}{
		{wire.HasContentType, "content_type", p.ContentType}, {wire.HasContentEncoding, "content_encoding", p.ContentEncoding},
		{wire.HasHeaders, "headers", p.Headers}, {wire.HasDeliveryMode, "delivery_mode", int32(p.DeliveryMode)},
		{wire.HasPriority, "priority", int32(p.Priority)}, {wire.HasCorrelationID, "correlation_id", p.CorrelationID},
		{wire.HasReplyTo, "reply_to", p.ReplyTo}, {wire.HasExpiration, "expiration", p.Expiration},
		{wire.HasMessageID, "message_id", p.MessageID}, {wire.HasTimestamp, "timestamp", p.Timestamp},
		{wire.HasType, "type", p.Type}, {wire.HasUserID, "user_id", p.UserID}, {wire.HasAppID, "app_id", p.AppID},
	} {
		if p.Has(x.flag) {
			t = append(t, mq.Field{Key: x.key, Value: x.value})
		}
	}
	return t
}

// tracingChanged makes this node's sessions look again whether they are traced.
func (b *Broker) tracingChanged() {
	v := b.View()
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, s := range b.sessions {
		s.traced.Store(v.Tracing(s.vhost))
	}
}
