package broker

import (
	"strconv"
	"strings"
	"testing"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

func (h *house) administer(op meta.Op) {
	h.t.Helper()
	if _, err := h.nodes[len(h.nodes)-1].Administer(h.t.Context(), op); err != nil {
		h.t.Fatalf("%T: %v", op, err)
	}
}

func policyOf(pattern string, kv ...any) meta.PolicySet {
	return meta.PolicySet{Policy: meta.Policy{VHost: "/", Name: "p", Pattern: pattern, ApplyTo: meta.ApplyToAll, Definition: args(kv...)}}
}

func TestPolicyHoldsForWhatIsInTheQueueAlready(t *testing.T) {
	for _, c := range []struct {
		name       string
		definition meta.PolicySet
		want       string
	}{
		{"messages", policyOf("^q$", "max-length", int64(3)), "789"},
		{"bytes", policyOf("^q$", "max-length-bytes", int64(4)), "6789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, 3, 1)
			s := h.nodes[1].open(t)
			for _, q := range []string{"q", "other"} {
				s.mustDeclare(t, mq.QueueDeclare{Name: q, Durable: true})
				for i := range 10 {
					s.publishTo(t, "", q, strconv.Itoa(i), -1)
				}
			}
			h.lead(1, h.nodes[2]) // has touched neither queue
			h.administer(c.definition)
			eventually(t, "the rest to go", func() bool { return s.ready(t, "q") == uint32(len(c.want)) })
			if n := s.ready(t, "other"); n != 10 {
				t.Errorf("%d left in a queue that the policy is not about", n)
			}
			if d := s.mustGet(t, "q"); string(d.Content.Body()) != c.want[:1] {
				t.Errorf("the head is %q, want %q", d.Content.Body(), c.want[:1])
			}
			h.administer(meta.PolicyClear{VHost: "/", Name: "p"})
			for i := range 10 {
				s.publishTo(t, "", "q", strconv.Itoa(i), -1)
			}
			if n := s.ready(t, "q"); int(n) != len(c.want)-1+10 {
				t.Errorf("%d in the queue without the policy", n)
			}
		})
	}
}

func TestLimitInBytesCountsWhatCameBeforeIt(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	put := func(n int) {
		for range n {
			s.publishTo(t, "", "q", "0123456789", -1)
		}
	}
	put(5)
	h.administer(policyOf("q", "max-length-bytes", int64(100)))
	put(3)
	h.administer(meta.PolicyClear{VHost: "/", Name: "p"})
	put(4) // nobody counts these
	h.administer(policyOf("q", "max-length-bytes", int64(60)))
	eventually(t, "half of them to go", func() bool { return s.ready(t, "q") == 6 })
	put(2)
	eventually(t, "two more to go", func() bool { return s.ready(t, "q") == 6 })
}

func TestOperatorsPolicyCapsArguments(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-length", int32(8))})
	cap := policyOf("q", "max-length", int64(2))
	cap.Operator = true
	h.administer(cap)
	for i := range 6 {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	eventually(t, "the rest to go", func() bool { return s.ready(t, "q") == 2 })
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-length", int32(8))}) // what was declared counts
}

func TestPolicySendsDeadLettersAndUnroutableMessages(t *testing.T) {
	h := newHouse(t, 3, 2)
	s := h.nodes[2].open(t)
	for _, q := range []string{"q", "graves", "lost"} {
		s.mustDeclare(t, mq.QueueDeclare{Name: q, Durable: true})
	}
	s.mustDo(t, mq.ExchangeDeclare{Name: "ae", Type: "fanout"})
	s.mustDo(t, mq.QueueBind{Queue: "lost", Exchange: "ae"})
	h.administer(policyOf("^q$", "dead-letter-exchange", "", "dead-letter-routing-key", "graves"))
	alternate := policyOf(`^amq\.direct$`, "alternate-exchange", "ae")
	alternate.Name = "alternate"
	h.administer(alternate)
	s.publishTo(t, "", "q", "x", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "the dead letter", func() bool { return s.ready(t, "graves") == 1 })
	s.publishTo(t, "amq.direct", "nowhere", "y", -1)
	if d := s.mustGet(t, "lost"); string(d.Content.Body()) != "y" {
		t.Errorf("got %q by the alternate exchange", d.Content.Body())
	}
}

func TestPolicysTimeToLiveIsOfMessagesPublishedUnderIt(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	s.publishTo(t, "", "q", "before", -1)
	h.administer(policyOf("q", "message-ttl", int64(1)))
	s.publishTo(t, "", "q", "under", -1)
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "before" {
		t.Fatalf("got %q first", d.Content.Body())
	}
	eventually(t, "the other to expire", func() bool { return s.ready(t, "q") == 0 })
	h.administer(meta.PolicyClear{VHost: "/", Name: "p"})
	s.publishTo(t, "", "q", "after", -1)
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "after" {
		t.Errorf("got %q", d.Content.Body())
	}
}

func TestPolicyMakesAnUnusedQueueExpireAndNotAUsedOne(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	for _, q := range []string{"q1", "q2", "q3", "kept"} {
		s.mustDeclare(t, mq.QueueDeclare{Name: q, Durable: true})
	}
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q2", Prefetch: 1}, newInbox())
	h.administer(policyOf("^q3", "expires", int64(60000)))
	h.administer(policyOf("^q", "expires", int64(20))) // in place of the other
	gone := func(q string) bool { return h.nodes[1].View().Queue("/", q) == nil }
	eventually(t, "the unused queues to go", func() bool { return gone("q1") && gone("q3") })
	if gone("q2") || gone("kept") {
		t.Error("a queue went that is in use, or that the policy is not about")
	}
	s.mustDeclare(t, mq.QueueDeclare{Name: "q1", Durable: true, Args: args("x-expires", int32(60000))}) // the lower number counts
	eventually(t, "the queue that was declared under the policy to go", func() bool { return gone("q1") })
	h.administer(policyOf("^q", "expires", int64(60000)))
	s.mustDeclare(t, mq.QueueDeclare{Name: "q1", Durable: true})
	h.administer(meta.PolicyClear{VHost: "/", Name: "p"})
	q := h.nodes[0].View().Queue("/", "q1")
	shard := h.nodes[0].Shard(1)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if l := shard.lead.queues[q.ID]; l == nil || l.leaseMs != 0 {
		t.Errorf("without the policy the queue is still to expire: %+v", l)
	}
}

func TestPolicyRefusesPublishesToAFullQueue(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	h.administer(policyOf("q", "max-length", int64(2), "overflow", "reject-publish"))
	c := newConfirms()
	for i := range 4 {
		s.mustPublish(t, "q", strconv.Itoa(i), c, uint64(i+1))
		eventually(t, "an answer", func() bool { return c.count() == i+1 })
	}
	if c.of(2) != mq.Confirmed || c.of(3) != mq.Refused || c.of(4) != mq.Refused {
		t.Errorf("answers are %v %v %v %v", c.of(1), c.of(2), c.of(3), c.of(4))
	}
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "0" {
		t.Errorf("the head is %q: the policy is not to drop it", d.Content.Body())
	}
}

func TestPolicyLimitsAttemptsAndClearedNoMore(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	h.administer(policyOf("q", "delivery-limit", int64(1)))
	s.publishTo(t, "", "q", "x", -1)
	reject := func() { s.settle(t, mq.Fail, s.mustGet(t, "q")) }
	again := func() { eventually(t, "the message again", func() bool { return s.ready(t, "q") == 1 }) }
	reject()
	again()
	h.administer(meta.PolicyClear{VHost: "/", Name: "p"})
	reject()
	again()
	h.administer(policyOf("q", "delivery-limit", int64(1)))
	reject() // once, as far as anybody has counted, and once more
	eventually(t, "the message to go", func() bool { return s.ready(t, "q") == 0 })
}

// A return that was proposed under a policy and is applied when that is gone
// must not lose the message to a limit of -1.
func TestReturnUnderAPolicyThatGoesIsNoLoss(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	h.administer(policyOf("q", "delivery-limit", int64(5)))
	s.publishTo(t, "", "q", "x", -1)
	d := s.mustGet(t, "q")
	shard := h.nodes[0].Shard(1)
	shard.mu.Lock()
	q := shard.lead.queues[d.Queue]
	r := queue.Returned{Queue: d.Queue, Seq: d.Seq, Failed: 1, Acquired: 1}
	q.returning = map[mq.Seq]queue.Returned{d.Seq: r}
	for _, k := range q.d.Keys(shard.lead.homes[h.nodes[0].id]) {
		q.d.WithdrawFrom(k, []mq.Seq{d.Seq}, func(mq.Seq) {})
	}
	withdrawn := q.d.Withdrawn()
	q.rules.deliveries = -1
	shard.lead.cameBack(shard, &r)
	if st := shard.stat(d.Queue); withdrawn != 1 || q.d.Withdrawn() != 0 || st.Ready != 1 {
		t.Errorf("%d withdrawn, then %d, and %+v: want it ready", withdrawn, q.d.Withdrawn(), st)
	}
	shard.mu.Unlock()
}

// A node that takes over the metadata by a snapshot hears of no entry, and may
// lead queues meanwhile.
func TestPolicyThatComesWithASnapshotCounts(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	for i := range 6 {
		s.publishTo(t, "", "q", strconv.Itoa(i), -1)
	}
	state := meta.New()
	if err := state.Restore(h.nodes[0].View().AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	p := policyOf("q", "max-length", int64(2))
	if _, _, err := state.Apply(state.View().Index()+1, 1, meta.AppendEntry(nil, 1, 0, p)); err != nil {
		t.Fatal(err)
	}
	if err := h.nodes[0].Metadata().Restore(strings.NewReader(string(state.AppendTo(nil)))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest to go", func() bool { return h.nodes[0].Shard(1).Stat(h.nodes[0].View().Queue("/", "q").ID).Ready == 2 })
}

func TestPoliciesAreCheckedInRabbitMQsWords(t *testing.T) {
	h := newHouse(t, 1, 1)
	long := strings.Repeat("x", patternBytesMax+1)
	plain := func(change func(*meta.Policy)) meta.PolicySet {
		p := policyOf("q", "max-length", int64(1))
		change(&p.Policy)
		return p
	}
	for _, c := range []struct {
		policy meta.PolicySet
		want   string
	}{
		{policyOf("q", "max-length", int64(-10), "x", int64(1)), "-10 is not a valid maximum length"},
		{policyOf("q", "nope", int64(1)), `[{<<"nope">>,1}] are not recognised policy settings`},
		{policyOf("q", "max-priority", int64(10)), `[{<<"max-priority">>,10}] are not recognised policy settings`},
		{policyOf("q"), "no policy provided"},
		{policyOf("q", "overflow", "x"), `<<"x">> is not a valid overflow value`},
		{policyOf("q", "consumer-timeout", "a"), `<<"a">> is not a valid consumer timeout`},
		{policyOf("q", "dead-letter-strategy", "a"), `<<"a">> is not a valid dead letter strategy`},
		{policyOf("q", "delayed-retry-type", "x"), `<<"x">> is not a valid delayed retry type. Must be one of: all, failed, returned, disabled`},
		{policyOf("q", "delayed-retry-min", int64(0)), `0 is not a valid delayed retry minimum delay. Must be a positive integer`},
		{policyOf("q", "delayed-retry-max", "x"), `<<"x">> is not a valid delayed retry maximum delay. Must be a positive integer`},
		{policyOf("q", "delayed-retry-type", "all"), `delayed-retry-min is required when delayed-retry-type is all`},
		{policyOf("q", "delayed-retry-min", int64(5), "delayed-retry-max", int64(4)), `delayed-retry-max (4) must not be smaller than delayed-retry-min (5)`},
		{policyOf("q", "message-ttl", true), `true is not a valid message TTL`},
		{policyOf("q", "expires", int64(0)), `0 is not a valid queue expiry`},
		{policyOf("q", "alternate-exchange", int64(0)), `0 is not a valid alternate exchange name`},
		{policyOf("q", "max-length", int64(1), "max-length", int64(1)), `[<<"max-length">>] duplicate keys not allowed`},
		{policyOf("^q(", "max-length", int64(1)), "pattern should be regular expression but is invalid: error parsing regexp: missing closing ): `^q(`"},
		{policyOf(long, "max-length", int64(1)), "pattern should be regular expression but is invalid: 4097 bytes long, the limit is 4096"},
		{plain(func(p *meta.Policy) { p.ApplyTo = "foo" }), "apply-to 'foo' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'"},
		{plain(func(p *meta.Policy) { p.Name = "" }), "a policy's name must have 1 to 255 bytes"},
		{plain(func(p *meta.Policy) { p.Operator, p.Definition = true, args("dead-letter-exchange", "x") }), `[{<<"dead-letter-exchange">>,<<"x">>}] are not recognised policy settings`},
	} {
		_, err := h.nodes[0].Administer(t.Context(), c.policy)
		wantText(t, err, "PRECONDITION_FAILED - Validation failed\n\n"+c.want+"\n")
	}
	if _, err := h.nodes[0].Administer(t.Context(), meta.SessionEnd{}); err == nil {
		t.Error("an operator may end a node's session")
	}
	p := policyOf("q", "max-length", int64(1))
	p.VHost = "nope"
	_, err := h.nodes[0].Administer(t.Context(), p)
	wantText(t, err, "NOT_FOUND - Virtual host 'nope' does not exist")
}

// What an argument cannot ask for yet, a policy cannot either.
func TestEveryPolicyKeyThatIsTakenHasAnArgumentThatWorks(t *testing.T) {
	for key, value := range map[string]any{
		"dead-letter-strategy": "at-least-once", "expires": int64(1), "overflow": "reject-publish",
		"delivery-limit": int64(1), "consumer-timeout": int64(1), "max-length": int64(1), "queue-leader-locator": "balanced",
	} {
		_, implemented := queueArg("x-" + key)
		p := policyOf("q", key, value)
		if err := CheckPolicy(&p.Policy); (err == nil) != implemented {
			t.Errorf("%s: as an argument %v, as a policy %v", key, implemented, err)
		}
	}
}

func (s *Session) mustDo(t *testing.T, op mq.Op) {
	t.Helper()
	if _, err := s.Change(t.Context(), op); err != nil {
		t.Fatalf("%T: %v", op, err)
	}
}
