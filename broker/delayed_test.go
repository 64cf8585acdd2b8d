package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/mq"
)

// publishWith publishes a message with headers and waits for its confirm.
func (s *Session) publishWith(t *testing.T, exchange, key, body string, headers mq.Table) {
	t.Helper()
	acks := newConfirms()
	properties := wire.AppendProperties(nil, wire.Properties{Present: wire.HasHeaders, Headers: headers})
	content := append(mq.NewContent(exchange, key, properties, len(body)), body...)
	o, err := s.Publish(t.Context(), &mq.Publish{Content: content, ExpirationMs: -1, Confirm: acks, Tag: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Flush()
	if o == mq.Pending {
		eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
	}
}

func (s *Session) mustChange(t *testing.T, ops ...mq.Op) {
	t.Helper()
	for _, op := range ops {
		if _, err := s.Change(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
}

// withDelays declares "later", a delayed direct exchange in group 1, to which
// "q" in group 2 is bound by "k".
func withDelays(t *testing.T, h *house) {
	t.Helper()
	h.awaitLeaders(t)
	h.nodes[0].open(t).mustChange(t, mq.ExchangeDeclare{Name: "later", Type: delayedExchange, Durable: true, Args: args(delayedType, "direct")})
	h.nodes[1].open(t).mustChange(t, mq.QueueDeclare{Name: "q", Durable: true}, mq.QueueBind{Queue: "q", Exchange: "later", RoutingKey: "k"})
}

func (h *house) waiting(t *testing.T) []Delayed {
	t.Helper()
	d, err := h.nodes[2].Delayed(t.Context(), "/", "later", 1)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *Session) bodies(t *testing.T, queue string) (bodies []string) {
	t.Helper()
	for {
		d, ok, err := s.Get(t.Context(), queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return bodies
		}
		bodies = append(bodies, string(d.Content.Body()))
	}
}

func TestADelayedMessageArrivesWhenItsDelayIsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 2)
		withDelays(t, h)
		s := h.nodes[2].open(t)
		before := h.nodes[0].nowMs()
		s.publishWith(t, "later", "k", "late", args(delayHeader, int32(1500)))
		s.publishWith(t, "later", "k", "sooner", args(delayHeader, int64(1200)))
		s.publishWith(t, "later", "k", "at once", nil)
		s.publishWith(t, "later", "k", "at once, too", args(delayHeader, int32(-5)))
		s.publishWith(t, "later", "other", "nowhere", args(delayHeader, "10"))
		if got := s.bodies(t, "q"); !slices.Equal(got, []string{"at once", "at once, too"}) {
			t.Fatalf("got %q before any delay was over", got)
		}
		eventually(t, "delayed messages", func() bool { return s.ready(t, "q") == 2 })
		if took := h.nodes[0].nowMs() - before; took < 1500 {
			t.Errorf("a message with a delay of 1500 ms arrived after %d ms", took)
		}
		d := s.mustGet(t, "q")
		p, err := wire.ParseProperties(d.Content.Properties())
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := p.Headers.Get(delayHeader); string(d.Content.Body()) != "sooner" || v != int64(-1200) {
			t.Errorf("got %q with a delay of %v first", d.Content.Body(), v)
		}
		if string(d.Content.Exchange()) != "later" || string(d.Content.RoutingKey()) != "k" || d.Redelivered {
			t.Errorf("it came from %q by %q, redelivered=%v", d.Content.Exchange(), d.Content.RoutingKey(), d.Redelivered)
		}
		eventually(t, "nothing to wait", func() bool { return len(h.waiting(t)) == 0 })
	})
}

func TestDelaysOutliveTheirLeaders(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDelays(t, h)
	s := h.nodes[2].open(t)
	const n = 50
	for i := range n {
		s.publishWith(t, "later", "k", strconv.Itoa(i), args(delayHeader, int32(100+10*i)))
		if i%10 == 9 {
			h.lead(1, h.nodes[(i/10)%2])
		}
	}
	h.end(h.nodes[0])
	h.lead(metaGroup, h.nodes[1])
	h.lead(1, h.nodes[1])
	eventually(t, "all of them", func() bool { return int(s.ready(t, "q")) >= n })
	seen := map[string]bool{}
	for _, b := range s.bodies(t, "q") {
		seen[b] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d arrived", len(seen), n)
	}
}

// forgetMetadata makes a node's metadata that of one that has just been
// started; back brings back what there is by then.
func (h *house) forgetMetadata(t *testing.T, n *houseNode) (back func()) {
	t.Helper()
	l := h.groups[metaGroup]
	l.mu.Lock()
	defer l.mu.Unlock()
	n.meta.state = meta.New()
	n.meta.view.Store(n.meta.state.View())
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := n.Metadata().Restore(bytes.NewReader(h.nodes[0].View().AppendTo(nil))); err != nil {
			t.Fatal(err)
		}
	}
}

// When all nodes are started again, a group may have its leader before that
// node has the metadata.
func TestDelaysAndExpiriesGoOnUnderALeaderThatHearsOfItsQueuesLater(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDelays(t, h)
	s := h.nodes[2].open(t)
	s.mustChange(t, mq.QueueDeclare{Name: "short", Durable: true, Args: args("x-message-ttl", int32(1), "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "q")})
	dead := h.nodes[0].View().Queue("/", "short").Group
	back := h.forgetMetadata(t, h.nodes[1])
	h.lead(1, h.nodes[1])
	h.lead(2, h.nodes[1])
	s.publishWith(t, "later", "k", "late", args(delayHeader, int32(1)))
	s.publishWith(t, "", "short", "expired", nil)
	for _, g := range []mq.GroupID{1, dead} {
		eventually(t, "an open leader", func() bool {
			sh := h.nodes[1].Shard(g)
			sh.mu.Lock()
			defer sh.mu.Unlock()
			return sh.lead.opened
		})
	}
	back()
	eventually(t, "both messages", func() bool { return s.ready(t, "q") == 2 })
}

func TestDelayedMessagesAreListedAndCancelled(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDelays(t, h)
	s := h.nodes[1].open(t)
	for i := range 3 {
		s.publishWith(t, "later", "k", fmt.Sprint("message ", i), args(delayHeader, int32(3600_000)))
	}
	all := h.waiting(t)
	if len(all) != 3 || all[0].RoutingKey != "k" || all[0].Exchange != "later" || all[0].BodyBytes != 9 || all[0].DueMs <= h.nodes[0].nowMs() {
		t.Fatalf("waiting are %+v", all)
	}
	for _, want := range []bool{true, false} {
		if did, err := h.nodes[1].CancelDelayed(t.Context(), "/", "later", all[1].Seq); err != nil || did != want {
			t.Fatalf("cancelled: %v, %v; want %v", did, err, want)
		}
	}
	if left := h.waiting(t); len(left) != 2 || left[0] != all[0] || left[1] != all[2] {
		t.Errorf("left are %+v of %+v", left, all)
	}
	if _, err := h.nodes[1].CancelDelayed(t.Context(), "/", "none", 1); err == nil {
		t.Error("no error for an exchange that is not there")
	}
	if _, err := h.nodes[1].Delayed(t.Context(), "/", "amq.direct", 1); err == nil {
		t.Error("no error for an exchange that delays nothing")
	}
}

func TestDelayedMessagesGoWithTheirExchange(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDelays(t, h)
	s := h.nodes[2].open(t)
	s.publishWith(t, "later", "k", "m", args(delayHeader, int32(3600_000)))
	s.mustChange(t, mq.ExchangeDelete{Name: "later"})
	for _, n := range h.nodes {
		shard := n.Shard(1)
		eventually(t, "the keeper to go", func() bool {
			shard.mu.Lock()
			defer shard.mu.Unlock()
			return len(shard.state.Queues()) == 0
		})
	}
}

func TestADelayOverGoesThroughHeadersTopicsAndOtherExchanges(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := h.nodes[0].open(t)
	s.mustChange(t,
		mq.QueueDeclare{Name: "q", Durable: true},
		mq.ExchangeDeclare{Name: "front", Type: "fanout"},
		mq.ExchangeDeclare{Name: "later", Type: delayedExchange, Args: args(delayedType, "headers")},
		mq.ExchangeDeclare{Name: "later still", Type: delayedExchange, Args: args(delayedType, "topic")},
		mq.ExchangeBind{Source: "front", Destination: "later"},
		mq.ExchangeBind{Source: "later", Destination: "later still", Args: args("color", "red")},
		mq.QueueBind{Exchange: "later still", Queue: "q", RoutingKey: "a.*"})
	s.publishWith(t, "front", "a.b", "red", args(delayHeader, int32(20), "color", "red"))
	s.publishWith(t, "front", "a.b", "blue", args(delayHeader, int32(20), "color", "blue"))
	eventually(t, "the red one", func() bool { return s.ready(t, "q") == 1 })
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "red" || string(d.Content.Exchange()) != "front" {
		t.Errorf("got %q of %q", d.Content.Body(), d.Content.Exchange())
	}
}

func TestADelayedMessageLivesFromWhenItIsDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 1, 1)
		s := h.nodes[0].open(t)
		s.mustChange(t,
			mq.QueueDeclare{Name: "q", Durable: true},
			mq.ExchangeDeclare{Name: "later", Type: delayedExchange, Args: args(delayedType, "fanout")},
			mq.QueueBind{Exchange: "later", Queue: "q"})
		properties := wire.AppendProperties(nil, wire.Properties{
			Present: wire.HasHeaders | wire.HasExpiration, Headers: args(delayHeader, int32(50)), Expiration: "10000",
		})
		acks := newConfirms()
		if o, err := s.Publish(t.Context(), &mq.Publish{Content: mq.NewContent("later", "k", properties, 0), ExpirationMs: 10, Confirm: acks}); err != nil || o != mq.Pending {
			t.Fatal(o, err)
		}
		s.Flush()
		eventually(t, "message", func() bool { return s.ready(t, "q") == 1 })
	})
}

func TestWhatADelayedExchangeRefuses(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	for _, a := range []mq.Table{nil, args(delayedType, int32(1)), args(delayedType, "none"), args(delayedType, delayedExchange)} {
		_, err := s.Change(t.Context(), mq.ExchangeDeclare{Name: "later", Type: delayedExchange, Args: a})
		if e, ok := err.(*mq.Error); !ok || e.Code != mq.PreconditionFailed {
			t.Errorf("with %v: %v", a, err)
		}
	}
}
