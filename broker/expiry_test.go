package broker

import (
	"strconv"
	"testing"

	"warren/mq"
)

func args(kv ...any) (t mq.Table) {
	for i := 0; i < len(kv); i += 2 {
		t = append(t, mq.Field{Key: kv[i].(string), Value: kv[i+1]})
	}
	return t
}

// publishTo sends a message to an exchange, with its own time to live in
// milliseconds if that is not negative, and waits for the confirm.
func (s *Session) publishTo(t *testing.T, exchange, key, body string, ttlMs int64) {
	t.Helper()
	acks := newConfirms()
	content := append(mq.NewContent(exchange, key, []byte{0, 0}, len(body)), body...)
	o, err := s.Publish(t.Context(), &mq.Publish{Content: content, ExpirationMs: ttlMs, Confirm: acks, Tag: 1})
	if err != nil || o != mq.Pending {
		t.Fatalf("publish: %v, %v", o, err)
	}
	s.Flush()
	eventually(t, "confirm", func() bool { return acks.of(1) == mq.Confirmed })
}

// ready is how many messages of a queue are ready.
func (s *Session) ready(t *testing.T, queue string) uint32 {
	t.Helper()
	r, err := s.Change(t.Context(), mq.QueueDeclare{Name: queue, Passive: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.Messages
}

func (s *Session) mustGet(t *testing.T, queue string) mq.Delivery {
	t.Helper()
	d, ok, err := s.Get(t.Context(), queue, false)
	if err != nil || !ok {
		t.Fatalf("get from %q: %v, %v", queue, ok, err)
	}
	return d
}

func TestExpiredGoesThoughNobodyConsumes(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  mq.Table
		ttlMs int64
	}{
		{"of the queue", args("x-message-ttl", int32(20)), -1},
		{"of the message", nil, 20},
		{"the shorter, the message's", args("x-message-ttl", int32(3600_000)), 20},
		{"the shorter, the queue's", args("x-message-ttl", int32(20)), 3600_000},
		{"zero", args("x-message-ttl", int32(0)), -1},
	} {
		for _, durable := range []bool{true, false} {
			t.Run(c.name+"/durable="+strconv.FormatBool(durable), func(t *testing.T) {
				h := newHouse(t, 3, 1)
				s := h.nodes[1].open(t)
				s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: durable, Args: c.args})
				for i := range 3 {
					s.publishTo(t, "", "q", strconv.Itoa(i), c.ttlMs)
				}
				eventually(t, "empty queue", func() bool { return s.ready(t, "q") == 0 })
				if d, ok, err := s.Get(t.Context(), "q", true); ok || err != nil {
					t.Fatalf("got %q, %v", d.Content.Body(), err)
				}
			})
		}
	}
}

func TestExpiredWaitsForTheHead(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "clock", Durable: true})
	s.publishTo(t, "", "q", "stays", -1)
	s.publishTo(t, "", "q", "expires", 1)
	s.publishTo(t, "", "clock", "later", 20)
	eventually(t, "a later expiry", func() bool { return s.ready(t, "clock") == 0 })
	if n := s.ready(t, "q"); n != 2 {
		t.Fatalf("%d ready, want 2: the expired one is not at the head", n)
	}
	d := s.mustGet(t, "q")
	eventually(t, "what was behind to expire", func() bool { return s.ready(t, "q") == 0 })
	s.settle(t, mq.Requeue, d)
	eventually(t, "the first to be back", func() bool { return s.ready(t, "q") == 1 })
}

func TestRequeuedKeepsItsExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHouse(t, 3, 1)
		s := h.nodes[0].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-message-ttl", int32(400))})
		s.mustDeclare(t, mq.QueueDeclare{Name: "clock", Durable: true})
		s.publishTo(t, "", "q", "held", -1)
		d := s.mustGet(t, "q")
		s.publishTo(t, "", "clock", "later", 420)
		eventually(t, "a later expiry", func() bool { return s.ready(t, "clock") == 0 })
		s.settle(t, mq.Requeue, d)
		eventually(t, "expiry", func() bool { return h.nodes[0].Shard(1).Stats().Expired == 2 && s.ready(t, "q") == 0 })
	})
}

func TestTimeToLiveOfZeroReachesWhoIsWaiting(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-message-ttl", int32(0))})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 2}, in)
	for i := range 4 {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	eventually(t, "two deliveries", func() bool { return len(in.all()) == 2 })
	eventually(t, "two expiries", func() bool { return h.nodes[0].Shard(1).Stats().Expired == 2 })
	s.settle(t, mq.Requeue, in.all()...)
	eventually(t, "requeued ones to expire", func() bool { return h.nodes[0].Shard(1).Stats().Expired == 4 })
	if n := len(in.all()); n != 2 {
		t.Fatalf("%d deliveries, want 2", n)
	}
}

func TestExpiryGoesOnUnderANewLeader(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-message-ttl", int32(100))})
	for i := range 10 {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	h.lead(1, h.nodes[1])
	if n := s.ready(t, "q"); n != 10 {
		t.Logf("%d ready: the machine is slow", n)
	}
	eventually(t, "expiry", func() bool { return s.ready(t, "q") == 0 })
}

func TestConsumersGetWhatIsBehindExpiredMessages(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	s.mustDeclare(t, mq.QueueDeclare{Name: "clock", Durable: true})
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	s.publishTo(t, "", "q", "held", -1)
	eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
	s.publishTo(t, "", "q", "stays", -1)
	for range 3 {
		s.publishTo(t, "", "q", "expires", 1)
	}
	s.publishTo(t, "", "q", "last", -1)
	s.publishTo(t, "", "clock", "later", 20)
	eventually(t, "a later expiry", func() bool { return s.ready(t, "clock") == 0 })
	for i, want := range []string{"held", "stays", "last"} {
		eventually(t, "delivery of "+want, func() bool { return len(in.all()) == i+1 })
		d := in.all()[i]
		if string(d.Content.Body()) != want {
			t.Fatalf("got %q, want %q", d.Content.Body(), want)
		}
		s.settle(t, mq.Ack, d)
	}
}

func TestOneMessageLivesAsLongAsEachQueueSays(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	for name, ttl := range map[string]int32{"short": 10, "long": 3600_000} {
		s.mustDeclare(t, mq.QueueDeclare{Name: name, Durable: true, Args: args("x-message-ttl", ttl)})
		if _, err := s.Change(t.Context(), mq.QueueBind{Queue: name, Exchange: "amq.fanout"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second by the cached route
		s.publishTo(t, "amq.fanout", "", "m", -1)
	}
	eventually(t, "expiry", func() bool { return s.ready(t, "short") == 0 })
	if n := s.ready(t, "long"); n != 2 {
		t.Fatalf("%d ready, want 2", n)
	}
}

func TestManyExpireAtOnce(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, durable)
	for range 3 * withdrawnMax {
		p := &mq.Publish{Content: mq.NewContent("", "q", []byte{0, 0}, 0), ExpirationMs: 1}
		if _, err := s.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	s.publishTo(t, "", "q", "stays", -1)
	eventually(t, "one left", func() bool { return s.ready(t, "q") == 1 })
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "stays" {
		t.Fatalf("got %q", d.Content.Body())
	}
}
