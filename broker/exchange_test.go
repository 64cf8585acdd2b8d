package broker

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

// post is a message to an exchange.
type post struct {
	exchange, key string
	properties    wire.Properties
}

// publish waits until the message is in its queues.
func (p post) publish(t *testing.T, s *Session, body string) (mq.Outcome, error) {
	t.Helper()
	acks := newConfirms()
	properties := wire.AppendProperties(nil, p.properties)
	m := &mq.Publish{
		Content:      append(mq.NewContent(p.exchange, p.key, properties, len(body)), body...),
		ExpirationMs: -1, Confirm: acks,
	}
	o, err := s.Publish(t.Context(), m)
	s.Flush()
	if err == nil && o == mq.Pending {
		eventually(t, "confirm", func() bool { return acks.count() == 1 })
	}
	return o, err
}

func (p post) must(t *testing.T, s *Session, body string) mq.Outcome {
	t.Helper()
	o, err := p.publish(t, s, body)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func headed(kv ...any) wire.Properties {
	p := wire.Properties{Present: wire.HasHeaders}
	for i := 0; i < len(kv); i += 2 {
		p.Headers = append(p.Headers, mq.Field{Key: kv[i].(string), Value: kv[i+1]})
	}
	return p
}

// drain takes all that is in a queue.
func (s *Session) drain(t *testing.T, queue string) (bodies []string, last mq.Content) {
	t.Helper()
	for {
		d, ok, err := s.Get(t.Context(), queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return bodies, last
		}
		bodies, last = append(bodies, string(d.Content.Body())), d.Content
	}
}

func TestMessagesWithOneKeyGoToOneQueueFromEveryNode(t *testing.T) {
	for _, kind := range []string{"x-consistent-hash", "x-modulus-hash"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t, 3, 2)
			s := h.nodes[0].open(t)
			s.mustChange(t, mq.ExchangeDeclare{Name: "e", Type: kind})
			for i := range 4 {
				name := "q" + strconv.Itoa(i)
				s.mustChange(t, mq.QueueDeclare{Name: name, Durable: true}, mq.QueueBind{Queue: name, Exchange: "e", RoutingKey: "1"})
			}
			for _, n := range h.nodes {
				from := n.open(t)
				for i := range 40 {
					key := strconv.Itoa(i)
					if o := (post{exchange: "e", key: key}).must(t, from, key); o != mq.Pending {
						t.Fatalf("key %s: %v", key, o)
					}
				}
			}
			total := 0
			for i := range 4 {
				got, _ := s.drain(t, "q"+strconv.Itoa(i))
				slices.Sort(got)
				if len(got) == 0 || len(got)%3 != 0 || len(slices.Compact(slices.Clone(got))) != len(got)/3 {
					t.Errorf("q%d has %v", i, got)
				}
				total += len(got)
			}
			if total != 120 {
				t.Errorf("%d messages of 120", total)
			}
		})
	}
}

// The route cache knows exchange and key only.
func TestWhatTheKeyDoesNotDecideIsNotRemembered(t *testing.T) {
	for _, c := range []struct {
		kind string
		args mq.Table
		of   func(i int) wire.Properties
	}{
		{"x-random", nil, func(int) wire.Properties { return wire.Properties{} }},
		{"x-local-random", nil, func(int) wire.Properties { return wire.Properties{} }},
		{"x-consistent-hash", mq.Table{{Key: "hash-header", Value: "user"}}, func(i int) wire.Properties { return headed("user", int32(i)) }},
		{"x-consistent-hash", mq.Table{{Key: "hash-property", Value: "correlation_id"}}, func(i int) wire.Properties {
			return wire.Properties{Present: wire.HasCorrelationID, CorrelationID: strconv.Itoa(i)}
		}},
		{"x-consistent-hash", mq.Table{{Key: "hash-property", Value: "timestamp"}}, func(i int) wire.Properties {
			return wire.Properties{Present: wire.HasTimestamp, Timestamp: time.Unix(int64(i), 0).UTC()}
		}},
	} {
		t.Run(fmt.Sprint(c.kind, c.args), func(t *testing.T) {
			h := newHouse(t, 1, 1)
			s := h.nodes[0].open(t)
			// Through an exchange by key: that does not make it one.
			s.mustChange(t, mq.ExchangeDeclare{Name: "front", Type: "direct"}, mq.ExchangeDeclare{Name: "e", Type: c.kind, Args: c.args},
				mq.ExchangeBind{Source: "front", Destination: "e", RoutingKey: "k"})
			key := ""
			if c.kind == "x-consistent-hash" {
				key = "1"
			}
			for _, q := range []string{"a", "b"} {
				s.mustChange(t, mq.QueueDeclare{Name: q}, mq.QueueBind{Queue: q, Exchange: "e", RoutingKey: key})
			}
			for i := range 60 {
				post{exchange: "front", key: "k", properties: c.of(i)}.must(t, s, "")
			}
			a, _ := s.drain(t, "a")
			b, _ := s.drain(t, "b")
			if len(a)+len(b) != 60 || len(a) == 0 || len(b) == 0 {
				t.Errorf("%d and %d of 60", len(a), len(b))
			}
		})
	}
}

func TestLocalRandomStaysOnThePublishersNode(t *testing.T) {
	h := newHouse(t, 3, 3)
	s := []*Session{h.nodes[0].open(t), h.nodes[1].open(t), h.nodes[2].open(t)}
	s[0].mustChange(t, mq.ExchangeDeclare{Name: "e", Type: "x-local-random"})
	for i := range 2 { // the third node has none
		name := "mem" + strconv.Itoa(i)
		s[i].mustChange(t, mq.QueueDeclare{Name: name, Exclusive: true}, mq.QueueBind{Queue: name, Exchange: "e"})
	}
	for i := range 2 {
		for range 10 {
			post{exchange: "e", key: "whatever"}.must(t, s[i], "")
		}
		if got, _ := s[i].drain(t, "mem"+strconv.Itoa(i)); len(got) != 10 {
			t.Errorf("node %d: %d of 10", i+1, len(got))
		}
	}
	if o := (post{exchange: "e"}).must(t, s[2], ""); o != mq.Unroutable {
		t.Errorf("without a local queue: %v", o)
	}
}

// A replicated queue is where its leader is, and reachable from everywhere.
func TestLocalRandomTakesAReplicatedQueueWhereverItIsLed(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.awaitLeaders(t)
	near, far := h.nodes[0].open(t), h.nodes[1].open(t)
	near.mustChange(t, mq.ExchangeDeclare{Name: "e", Type: "x-local-random"},
		mq.QueueDeclare{Name: "durable", Durable: true}, mq.QueueBind{Queue: "durable", Exchange: "e"})
	far.mustChange(t, mq.QueueDeclare{Name: "memory"}, mq.QueueBind{Queue: "memory", Exchange: "e"})
	for range 5 {
		post{exchange: "e"}.must(t, near, "")
		post{exchange: "e"}.must(t, far, "")
	}
	durable, _ := near.drain(t, "durable")
	memory, _ := far.drain(t, "memory")
	if len(durable) != 5 || len(memory) != 5 {
		t.Errorf("got %d and %d, want 5 each", len(durable), len(memory))
	}
	h.lead(1, h.nodes[1])
	h.nodes[0].caughtUp()
	if o := (post{exchange: "e"}).must(t, near, ""); o != mq.Pending {
		t.Errorf("after the leader moved away: %v", o)
	}
}
