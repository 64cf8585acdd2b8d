package broker

import (
	"slices"
	"testing"

	"warren/mq"
)

func TestADedupExchangeLetsAMessageThroughOnce(t *testing.T) {
	h := newHouse(t, 3, 2)
	h.awaitLeaders(t)
	s := h.nodes[2].open(t)
	s.mustChange(t, mq.ExchangeDeclare{Name: "once", Type: dedupExchange, Args: args(cacheSize, "3")})
	for i, n := range h.nodes[:2] { // in both groups
		q := []string{"a", "b"}[i]
		n.open(t).mustChange(t, mq.QueueDeclare{Name: q, Durable: true}, mq.QueueBind{Queue: q, Exchange: "once", RoutingKey: "ignored"})
	}
	id := func(v any) mq.Table { return args(dedupHeader, v) }
	for i, headers := range []mq.Table{id("x"), id("x"), nil, nil, id("y"), id(int32(1)), id("1"), id("x")} {
		s = h.nodes[i%3].open(t)
		s.publishWith(t, "once", "k", string(rune('0'+i)), headers)
		if i == 3 {
			h.lead(1, h.nodes[1])
		}
	}
	for _, q := range []string{"a", "b"} { // the last x comes when y, 1 and "1" are remembered
		if got := s.bodies(t, q); !slices.Equal(got, []string{"0", "2", "3", "4", "5", "6", "7"}) {
			t.Errorf("%s has %q", q, got)
		}
	}
}

func TestADedupExchangeForgetsInTime(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t,
		mq.ExchangeDeclare{Name: "once", Type: dedupExchange, Args: args(cacheSize, int32(10), cacheTTL, int32(3600_000))},
		mq.QueueDeclare{Name: "q", Durable: true}, mq.QueueBind{Queue: "q", Exchange: "once"})
	s.publishWith(t, "once", "", "first", args(dedupHeader, "a", cacheTTL, int32(20)))
	s.publishWith(t, "once", "", "kept for an hour", args(dedupHeader, "b"))
	eventually(t, "a to be forgotten", func() bool {
		s.publishWith(t, "once", "", "again", args(dedupHeader, "a"))
		return s.ready(t, "q") == 3
	})
	s.publishWith(t, "once", "", "again", args(dedupHeader, "b"))
	if n := s.ready(t, "q"); n != 3 {
		t.Errorf("%d messages", n)
	}
}

func TestADedupQueueTakesNoDuplicateOfWhatIsInIt(t *testing.T) {
	for _, durable := range []bool{true, false} {
		h := newHouse(t, 2, 1)
		s := h.nodes[1].open(t)
		s.mustChange(t, mq.QueueDeclare{Name: "q", Durable: durable, Args: args(dedupExchange, true)})
		for _, body := range []string{"1", "2"} {
			s.publishWith(t, "", "q", body, args(dedupHeader, "a"))
			s.publishWith(t, "", "q", body, args(dedupHeader, "b"))
			s.publishWith(t, "", "q", body, nil)
		}
		if n := s.ready(t, "q"); n != 4 {
			t.Fatalf("durable=%v: %d messages", durable, n)
		}
		d := s.mustGet(t, "q")
		s.publishWith(t, "", "q", "3", args(dedupHeader, "a"))
		if n := s.ready(t, "q"); n != 3 {
			t.Fatalf("durable=%v: %d messages while the first one is checked out", durable, n)
		}
		s.settle(t, mq.Ack, d)
		if durable {
			h.lead(1, h.nodes[1])
		}
		eventually(t, "room for a", func() bool {
			s.publishWith(t, "", "q", "3", args(dedupHeader, "a"))
			return s.ready(t, "q") == 4
		})
	}
}

func TestAnExchangeDeclaredAgainHasSeenNothing(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.QueueDeclare{Name: "q", Durable: true})
	for range 2 {
		s.mustChange(t, mq.ExchangeDeclare{Name: "once", Type: dedupExchange, Args: args(cacheSize, int32(10))}, mq.QueueBind{Queue: "q", Exchange: "once"})
		s.publishWith(t, "once", "", "m", args(dedupHeader, "a"))
		s.mustChange(t, mq.ExchangeDelete{Name: "once"})
	}
	if n := s.ready(t, "q"); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestWhatDeduplicationRefuses(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	ops := []mq.Op{mq.QueueDeclare{Name: "q", Args: args(dedupExchange, "yes")}}
	for _, a := range []mq.Table{nil, args(cacheSize, int32(0)), args(cacheSize, "x"), args(cacheSize, int32(1), cacheTTL, int32(-1)), args(cacheSize, int32(1), cachePersists, "tape"), args(cacheSize, int64(1<<40))} {
		ops = append(ops, mq.ExchangeDeclare{Name: "once", Type: dedupExchange, Args: a})
	}
	for _, op := range ops {
		_, err := s.Change(t.Context(), op)
		if e, ok := err.(*mq.Error); !ok || e.Code != mq.PreconditionFailed {
			t.Errorf("%+v: %v", op, err)
		}
	}
}
