package broker

import (
	"fmt"
	"strings"
	"testing"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/mq"
)

// firehose has a queue for all that is traced in "/", and shows what comes.
func (h *house) firehose(t *testing.T, n *houseNode) *inbox {
	t.Helper()
	s := n.open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "traces", Durable: true})
	s.mustDo(t, mq.QueueBind{Queue: "traces", Exchange: traceExchange, RoutingKey: "#"})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "traces", NoAck: true}, in)
	return in
}

func traceOf(t *testing.T, d mq.Delivery) (key string, headers mq.Table, body string) {
	t.Helper()
	p, err := wire.ParseProperties(d.Content.Properties())
	if err != nil {
		t.Fatal(err)
	}
	return string(d.Content.RoutingKey()), p.Headers, string(d.Content.Body())
}

func TestFirehoseShowsWhatIsPublishedAndHandedOut(t *testing.T) {
	h := newHouse(t, 3, 2)
	in := h.firehose(t, h.nodes[2])
	open := h.nodes[1].open(t) // before tracing is on
	open.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	open.publishTo(t, "", "q", "before", -1)
	open.mustGet(t, "q")
	h.administer(meta.TracingSet{VHost: "/", On: true})
	properties := wire.AppendProperties(nil, wire.Properties{Present: wire.HasDeliveryMode | wire.HasCorrelationID, DeliveryMode: 2, CorrelationID: "c"})
	one := &mq.Publish{Content: append(mq.NewContent("", "q", properties, 3), "one"...), ExpirationMs: -1}
	if _, err := open.Publish(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	open.Flush()
	eventually(t, "the published one", func() bool { return len(in.all()) == 1 })
	late := h.nodes[0].open(t)
	eventually(t, "the one message", func() bool { return late.ready(t, "q") == 1 })
	d := late.mustGet(t, "q")
	late.settle(t, mq.Requeue, d)
	got := newInbox()
	late.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, got)
	eventually(t, "all of it", func() bool { return len(in.all()) == 3 })
	for i, want := range []struct{ key, headers string }{
		{"publish.", "[{exchange_name } {routing_keys [q]} {properties [{delivery_mode 2} {correlation_id c}]} {node node2} {vhost /} {user guest} {routed_queues [q]}]"},
		{"deliver.q", "[{exchange_name } {routing_keys [q]} {properties [{delivery_mode 2} {correlation_id c}]} {node node1} {vhost /} {user guest} {redelivered 0}]"},
		{"deliver.q", "[{exchange_name } {routing_keys [q]} {properties [{delivery_mode 2} {correlation_id c}]} {node node1} {vhost /} {user guest} {redelivered 1}]"},
	} {
		key, headers, body := traceOf(t, in.all()[i])
		if key != want.key || fmt.Sprint(headers) != want.headers || body != "one" {
			t.Errorf("%d: got  %s %v %s\nwant %s %s", i, key, headers, body, want.key, want.headers)
		}
	}
	h.administer(meta.TracingSet{VHost: "/"})
	open.publishTo(t, "", "q", "after", -1)
	if late.traced.Load() || open.traced.Load() {
		t.Error("tracing goes on")
	}
}

func TestFirehoseDropsWhatItCannotPublishFastEnough(t *testing.T) {
	h := newHouse(t, 1, 1)
	b := h.nodes[0].Broker
	b.traces.mu.Lock()
	b.traces.running = true // and nobody takes anything
	b.traces.mu.Unlock()
	c := append(mq.NewContent("", "q", []byte{0, 0}, 1), 'x')
	for range tracesMax + 5 {
		b.trace(traced{vhost: "/", content: c})
	}
	big := append(mq.NewContent("", "q", []byte{0, 0}, tracesBytesMax), strings.Repeat("x", tracesBytesMax)...)
	if b.traces.mu.Lock(); len(b.traces.waiting) != tracesMax || b.traces.dropped != 5 {
		t.Errorf("%d wait, %d dropped", len(b.traces.waiting), b.traces.dropped)
	}
	b.traces.waiting, b.traces.bytes = nil, 0
	b.traces.mu.Unlock()
	b.trace(traced{vhost: "/", content: big})
	b.trace(traced{vhost: "/", content: big})
	b.traces.mu.Lock()
	defer b.traces.mu.Unlock()
	if len(b.traces.waiting) != 1 {
		t.Errorf("%d messages of %d bytes wait", len(b.traces.waiting), tracesBytesMax)
	}
}
