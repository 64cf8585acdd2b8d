package broker

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

const hourMs = int32(3600_000)

// retrying declares q with delayed retry.
func (s *Session) retrying(t *testing.T, durable bool, kind string, minMs, maxMs int32, more ...any) {
	t.Helper()
	a := args(append([]any{retryType, kind, retryMin, minMs, retryMax, maxMs}, more...)...)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: durable, Args: a})
}

// waiting is how many messages of q wait, as its leader, if n is it, knows.
func (n *houseNode) waiting() int {
	rec := n.View().Queue("/", "q")
	s := n.Shard(rec.Group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil || s.lead.queues[rec.ID] == nil {
		return 0
	}
	return s.lead.queues[rec.ID].d.Deferred()
}

func (n *houseNode) mustWait(t *testing.T, want int) {
	t.Helper()
	eventually(t, strconv.Itoa(want)+" to wait", func() bool { return n.waiting() == want })
}

func (s *Session) wantNone(t *testing.T) {
	t.Helper()
	if d, ok, err := s.Get(t.Context(), "q", true); ok || err != nil {
		t.Fatalf("got %q, %v", d.Content.Body(), err)
	}
}

func TestWhatWaitsBeforeItIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		kind            string
		rejected, other bool // wait
	}{{"all", true, true}, {"failed", true, false}, {"returned", false, true}, {"disabled", false, false}} {
		for _, durable := range []bool{true, false} {
			for name, end := range map[string]func(*Session, mq.Delivery){
				"reject":               func(s *Session, d mq.Delivery) { s.settle(t, mq.Fail, d) },
				"nack":                 func(s *Session, d mq.Delivery) { s.settle(t, mq.Requeue, d) },
				"the consumer's end":   func(s *Session, _ mq.Delivery) { _ = s.Close() },
				"reject without limit": func(s *Session, d mq.Delivery) { s.settle(t, mq.Fail, d) },
			} {
				waits := c.rejected
				if name == "nack" {
					waits = c.other
				}
				t.Run(c.kind+" after "+name+"/durable="+strconv.FormatBool(durable), func(t *testing.T) {
					h := newHouse(t, 1, 1)
					s, con := h.nodes[0].open(t), h.nodes[0].open(t)
					limit := int32(5)
					if name == "reject without limit" {
						limit = -1
					}
					s.retrying(t, durable, c.kind, hourMs, hourMs, "x-delivery-limit", limit)
					s.publishTo(t, "", "q", "m", -1)
					end(con, con.get(t))
					if !waits {
						if d := s.get(t); !d.Redelivered {
							t.Error("it is not told as redelivered")
						}
						return
					}
					h.nodes[0].mustWait(t, 1)
					s.wantNone(t)
					st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
					if err != nil || st.Ready != 0 || st.Unacked != 1 {
						t.Errorf("%+v, %v", st, err)
					}
				})
			}
		}
	}
}

func TestWaitGrowsWithTheFailures(t *testing.T) {
	for _, c := range []struct {
		minMs, maxMs int64
		failed       uint32
		want         int64
	}{
		{100, 1000, 0, 100}, {100, 1000, 1, 100}, {100, 1000, 3, 300}, {100, 1000, 11, 1000},
		{100, -1, 7, 100}, {100, 0, 7, 100}, {100, 30, 1, 30}, {100, 100, 2, 100},
		{1, math.MaxInt64, math.MaxUint32, math.MaxUint32}, {math.MaxInt64, math.MaxInt64, 9, expiryMsMax},
		{math.MaxInt64, 5, 9, 5}, {0, 1000, 1, 0}, {-5, 1000, 1, 0},
	} {
		h := newHouse(t, 1, 1)
		s := h.nodes[0].open(t)
		a := args(retryType, "all", retryMin, c.minMs, retryMax, c.maxMs)
		if c.minMs < 0 {
			a = args(retryType, "all", retryMax, c.maxMs)
		} else if c.maxMs < 0 {
			a = args(retryType, "all", retryMin, c.minMs)
		}
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: a})
		r := rulesOf(h.nodes[0].View().Queue("/", "q")).retry
		if got := r.delayMs(c.failed, true); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestWrongRetryArgumentsAreRefused(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	for _, c := range []struct {
		key  string
		v    any
		want string
	}{
		{retryType, "Failed", "invalid_delayed_retry_type"},
		{retryType, int32(1), "{unacceptable_type,signedint}"},
		{retryMin, int32(-1), "{value_negative,-1}"},
		{retryMax, "1", "\"expected integer, got longstr\""},
	} {
		_, err := s.Change(t.Context(), mq.QueueDeclare{Name: "q", Durable: true, Args: args(c.key, c.v)})
		wantText(t, err, "PRECONDITION_FAILED - invalid arg '"+c.key+"' for queue 'q' in vhost '/': "+c.want)
	}
}

func TestWhatWaitedIsAtItsPlaceAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const delay = 300 * time.Millisecond
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.retrying(t, true, "all", int32(delay.Milliseconds()), int32(delay.Milliseconds()))
		for _, body := range []string{"a", "b", "c"} {
			s.publishTo(t, "", "q", body, -1)
		}
		a := s.get(t)
		begun := time.Now().Truncate(time.Millisecond) // as the clock of brokers
		s.settle(t, mq.Fail, a)
		if d := s.get(t); string(d.Content.Body()) != "b" {
			t.Fatalf("got %q while a waits", d.Content.Body())
		}
		eventually(t, "a to be ready", func() bool { return s.ready(t, "q") == 2 })
		if took := time.Since(begun); took < delay {
			t.Errorf("it waited for %v", took)
		}
		d := s.get(t)
		if string(d.Content.Body()) != "a" || !d.Redelivered {
			t.Fatalf("got %q, redelivered %v", d.Content.Body(), d.Redelivered)
		}
		wantCounts(t, d, 1, 1)
	})
}

func TestConsumerGetsWhatHasWaited(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.retrying(t, true, "returned", 20, 20)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	s.publishTo(t, "", "q", "m", -1)
	for n := range 3 {
		eventually(t, "delivery", func() bool { return len(in.all()) == n+1 })
		s.settle(t, mq.Requeue, in.all()[n])
	}
}

func TestNewLeaderLetsItWaitUntilTheSameTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const delay = 1500 * time.Millisecond
		h := newHouse(t, 3, 1)
		s := h.nodes[2].open(t)
		s.retrying(t, true, "failed", int32(delay.Milliseconds()), hourMs)
		s.publishTo(t, "", "q", "m", -1)
		d := s.get(t)
		begun := time.Now().Truncate(time.Millisecond) // as the clock of brokers
		s.settle(t, mq.Fail, d)
		h.nodes[0].mustWait(t, 1)
		in := newInbox()
		s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, in)
		for _, n := range []int{1, 0, 1} {
			h.restart(t, 1, h.nodes[n])
			h.lead(1, h.nodes[n])
			h.nodes[n].mustWait(t, 1)
		}
		eventually(t, "delivery", func() bool { return len(in.all()) == 1 })
		if took := time.Since(begun); took < delay || took > 3*delay {
			t.Errorf("it waited for %v", took)
		}
		wantCounts(t, in.all()[0], 1, 1)
	})
}

// By the clock of a new leader the message is not due, but a client has it.
func TestWhatAClientHoldsDoesNotWait(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[2].open(t)
	s.retrying(t, true, "all", 20, 20)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Fail, s.get(t))
	d := s.get(t)
	behind := h.nodes[1].Shard(1)
	behind.mu.Lock()
	behind.nowMs = func() int64 { return time.Now().UnixMilli() - int64(hourMs) }
	behind.mu.Unlock()
	h.lead(1, h.nodes[1])
	eventually(t, "dispatch", func() bool {
		behind.mu.Lock()
		defer behind.mu.Unlock()
		q := behind.lead.queues[d.Queue]
		return q != nil && q.waits != nil && !q.waits.unread
	})
	if st := behind.Stat(d.Queue); st.Unacked != 1 || h.nodes[1].waiting() != 0 {
		t.Fatalf("%+v, %d wait", st, h.nodes[1].waiting())
	}
	s.settle(t, mq.Ack, d)
	h.empty(t)
}

func TestPolicyMakesMessagesWait(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Fail, s.get(t))
	d := s.get(t)
	h.administer(policyOf("q", "delayed-retry-type", "failed", "delayed-retry-min", int64(hourMs)))
	s.settle(t, mq.Fail, d)
	h.nodes[0].mustWait(t, 1)
	h.administer(meta.PolicyClear{VHost: "/", Name: "p"}) // what waits goes on waiting
	h.lead(1, h.nodes[1])
	h.nodes[1].mustWait(t, 1)
	s.wantNone(t)
}

func TestPurgeTakesWhatWaits(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.retrying(t, true, "all", hourMs, hourMs)
	for i := range 2 * waitsSlack {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
		s.settle(t, mq.Fail, s.get(t))
	}
	h.nodes[0].mustWait(t, 2*waitsSlack)
	s.publishTo(t, "", "q", "ready", -1)
	r, err := s.Change(t.Context(), mq.QueuePurge{Name: "q"})
	if err != nil || r.Messages != 2*waitsSlack+1 {
		t.Fatalf("purged %d, %v", r.Messages, err)
	}
	h.empty(t)
	shard := h.nodes[0].Shard(1)
	eventually(t, "its memory to go", func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		q := shard.lead.queues[h.nodes[0].View().Queue("/", "q").ID]
		return q.waits.due == nil && q.retryMs == 0
	})
}

func TestWhatWaitsTakesRoom(t *testing.T) {
	for overflow, want := range map[string]mq.Outcome{"drop-head": mq.Confirmed, "reject-publish": mq.Refused} {
		for _, limit := range []string{"x-max-length", "x-max-length-bytes"} {
			h := newHouse(t, 3, 1)
			s := h.nodes[2].open(t)
			s.retrying(t, true, "all", hourMs, hourMs, limit, int32(1), "x-overflow", overflow)
			s.publishTo(t, "", "q", "1", -1)
			s.settle(t, mq.Fail, s.get(t))
			h.nodes[0].mustWait(t, 1)
			acks := newConfirms()
			s.mustPublish(t, "q", "2", acks, 1)
			eventually(t, "an answer", func() bool { return acks.count() == 1 })
			if got := acks.of(1); got != want {
				t.Errorf("%s, %s: %v", overflow, limit, got)
			}
			eventually(t, "the newer to go", func() bool {
				st := h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID)
				return st.Ready+st.Unacked == 1
			})
			h.nodes[0].mustWait(t, 1)
		}
	}
}

func TestItExpiresWhenItHasWaited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const delay = 400 * time.Millisecond
		h := newHouse(t, 3, 1)
		s := h.nodes[1].open(t)
		s.retrying(t, true, "all", int32(delay.Milliseconds()), hourMs)
		s.publishTo(t, "", "q", "m", 100)
		d := s.get(t)
		begun := time.Now().Truncate(time.Millisecond) // as the clock of brokers
		s.settle(t, mq.Fail, d)
		h.empty(t)
		if took := time.Since(begun); took < delay || h.nodes[0].Shard(1).Stats().Expired != 1 {
			t.Errorf("it went after %v, %d have expired", took, h.nodes[0].Shard(1).Stats().Expired)
		}
	})
}

func TestWhatHasFailedTooOftenDoesNotWait(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h, "x-delivery-limit", int32(0), retryType, "all", retryMin, hourMs)
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "poison", -1)
	s.settle(t, mq.Fail, s.get(t))
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	wantDeath(t, s.mustGet(t, "dead"), "q", tooOften, 1)
	h.empty(t)
}

func TestWhatATimeoutTookBackWaits(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.retrying(t, true, "returned", hourMs, hourMs, consumerTimeout, int32(100))
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, in)
	s.publishTo(t, "", "q", "m", -1)
	h.nodes[0].mustWait(t, 1)
	if n := len(in.all()); n != 1 {
		t.Errorf("handed out %d times", n)
	}
}

func TestAQueueWhoseMessagesWaitIsNotEmpty(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.retrying(t, true, "all", hourMs, hourMs)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Fail, s.get(t))
	h.nodes[0].mustWait(t, 1)
	_, err := s.Change(t.Context(), mq.QueueDelete{Name: "q", IfEmpty: true})
	wantText(t, err, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
	if _, err := s.Change(t.Context(), mq.QueueDelete{Name: "q"}); err != nil {
		t.Fatal(err)
	}
}

// What is withdrawn is bounded, and holds up the rest of its queue.
func TestAnyNumberMayWait(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.retrying(t, true, "all", hourMs, hourMs)
	acks := newConfirms()
	const n = withdrawnMax + 100
	for i := range uint64(n) {
		s.mustPublish(t, "q", "m", acks, i+1)
	}
	in, settled := newInbox(), 0
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 200}, in)
	eventually(t, "all to wait", func() bool {
		ds := in.all()
		s.settle(t, mq.Fail, ds[settled:]...)
		s.Drained(id, len(ds)-settled, len(ds)-settled)
		settled = len(ds)
		return h.nodes[0].waiting() == n
	})
	s.publishTo(t, "", "q", "new", -1)
	eventually(t, "the new one", func() bool { return len(in.all()) == n+1 })
}

func TestEveryMessageComesBackWhateverHappens(t *testing.T) {
	const n, tries = 60, 3
	h := newHouse(t, 3, 1)
	pub, con := h.nodes[0].open(t), h.nodes[2].open(t)
	pub.retrying(t, true, "all", 5, 20)
	r := rand.New(rand.NewPCG(1, 11))
	doubtSome(h, 12)
	for i := range n {
		pub.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	in, settled, had := newInbox(), 0, map[string]int{}
	con.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 7}, in)
	eventually(t, "every message to be tried and acked", func() bool {
		for ds := in.all(); settled < len(ds); settled++ {
			body := string(ds[settled].Content.Body())
			had[body]++
			v := mq.Fail
			switch {
			case had[body] > tries:
				v = mq.Ack
			case r.IntN(2) == 0:
				v = mq.Requeue
			}
			con.settle(t, v, ds[settled])
			switch r.IntN(40) {
			case 0:
				h.lead(1, h.nodes[r.IntN(3)])
			case 1:
				h.cut(h.nodes[r.IntN(2)], h.nodes[2])
				h.mend(h.nodes[0], h.nodes[2])
				h.mend(h.nodes[1], h.nodes[2])
			}
		}
		st, err := h.nodes[1].Stat(t.Context(), h.nodes[1].View().Queue("/", "q"))
		return err == nil && st.Ready+st.Unacked == 0
	})
	if len(had) != n {
		t.Errorf("%d of %d messages arrived", len(had), n)
	}
}
