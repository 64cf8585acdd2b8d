package broker

import (
	"slices"
	"strconv"
	"testing"

	"warren/mq"
)

func TestANewBindingGetsTheLatestMessages(t *testing.T) {
	h := newHouse(t, 3, 2)
	h.awaitLeaders(t)
	s := h.nodes[2].open(t)
	s.mustChange(t,
		mq.ExchangeDeclare{Name: "news", Type: historyExchange, Durable: true, Args: args(historyLength, int32(3))},
		mq.QueueDeclare{Name: "old", Durable: true},
		mq.QueueBind{Queue: "old", Exchange: "news"})
	for i := range 5 {
		s.publishWith(t, "news", "k", strconv.Itoa(i), nil)
	}
	s.publishWith(t, "news", "k", "not for later", args(historyNoStore, true))
	for i, n := range h.nodes {
		queue := "new" + strconv.Itoa(i)
		late := n.open(t)
		late.mustChange(t, mq.QueueDeclare{Name: queue, Durable: true}, mq.QueueBind{Queue: queue, Exchange: "news"}, mq.QueueBind{Queue: queue, Exchange: "news"})
		if got := late.bodies(t, queue); !slices.Equal(got, []string{"2", "3", "4"}) {
			t.Errorf("a queue bound later has %q", got)
		}
	}
	if got := s.bodies(t, "old"); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "not for later"}) {
		t.Errorf("the queue that was bound before has %q", got)
	}
}

func TestHistoryIsTwentyMessagesUnlessSaidOtherwise(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.ExchangeDeclare{Name: "news", Type: historyExchange})
	for i := range 25 {
		s.publishWith(t, "news", "k", strconv.Itoa(i), nil)
	}
	s.mustChange(t, mq.QueueDeclare{Name: "q"}, mq.QueueBind{Queue: "q", Exchange: "news"})
	if got := s.bodies(t, "q"); len(got) != 20 || got[0] != "5" {
		t.Errorf("got %q", got)
	}
}

func TestHistoryGoesThroughABoundExchange(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := h.nodes[1].open(t)
	s.mustChange(t,
		mq.ExchangeDeclare{Name: "news", Type: historyExchange},
		mq.ExchangeDeclare{Name: "x", Type: "direct"},
		mq.QueueDeclare{Name: "q", Durable: true}, mq.QueueBind{Queue: "q", Exchange: "x", RoutingKey: "k"})
	s.publishWith(t, "news", "k", "yes", nil)
	s.publishWith(t, "news", "other", "no", nil)
	s.mustChange(t, mq.ExchangeBind{Source: "news", Destination: "x"})
	if got := s.bodies(t, "q"); !slices.Equal(got, []string{"yes"}) {
		t.Errorf("got %q", got)
	}
}

func TestAMessageThatOnlyHistoryTakesIsUnroutable(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.ExchangeDeclare{Name: "news", Type: historyExchange})
	content := mq.NewContent("news", "k", []byte{0, 0}, 0)
	if o, err := s.Publish(t.Context(), &mq.Publish{Content: content, Mandatory: true, ExpirationMs: -1, Confirm: newConfirms()}); err != nil || o != mq.Unroutable {
		t.Errorf("got %v, %v", o, err)
	}
}

func TestHistoryOutlivesItsLeader(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustChange(t, mq.ExchangeDeclare{Name: "news", Type: historyExchange, Args: args(historyLength, int32(2))})
	for i := range 5 {
		s.publishWith(t, "news", "k", strconv.Itoa(i), nil)
	}
	h.lead(1, h.nodes[2])
	s.publishWith(t, "news", "k", "5", nil)
	s.mustChange(t, mq.QueueDeclare{Name: "q", Durable: true}, mq.QueueBind{Queue: "q", Exchange: "news"})
	if got := s.bodies(t, "q"); !slices.Equal(got, []string{"4", "5"}) {
		t.Errorf("got %q", got)
	}
}

func TestWhatAHistoryExchangeRefuses(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	for _, v := range []any{int32(0), int32(-1), "20"} {
		_, err := s.Change(t.Context(), mq.ExchangeDeclare{Name: "news", Type: historyExchange, Args: args(historyLength, v)})
		if e, ok := err.(*mq.Error); !ok || e.Code != mq.PreconditionFailed {
			t.Errorf("with %v: %v", v, err)
		}
	}
}
