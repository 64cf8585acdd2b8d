package broker

import (
	"errors"
	"slices"
	"testing"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/mq"
)

func keyList(keys ...string) (a []any) {
	for _, k := range keys {
		a = append(a, k)
	}
	return a
}

func TestCarbonCopiesAreRoutedInAdditionAndOnceToEachQueue(t *testing.T) {
	for _, kind := range []string{"", "direct", "topic"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t, 2, 2)
			s := h.nodes[1].open(t)
			if kind != "" {
				s.mustChange(t, mq.ExchangeDeclare{Name: kind, Type: kind})
			}
			for _, q := range []string{"to", "cc", "bcc", "none"} {
				s.mustChange(t, mq.QueueDeclare{Name: q, Durable: q == "cc"})
				if kind != "" {
					s.mustChange(t, mq.QueueBind{Queue: q, Exchange: kind, RoutingKey: q})
				}
			}
			p := post{exchange: kind, key: "to", properties: headed("CC", keyList("cc", "to", "nobody"), "BCC", keyList("bcc", "cc"))}
			for range 2 { // the second time the route of the key alone is known
				p.must(t, s, "hello")
				for _, q := range []string{"to", "cc", "bcc"} {
					got, content := s.drain(t, q)
					if !slices.Equal(got, []string{"hello"}) {
						t.Fatalf("%s has %q", q, got)
					}
					headers, err := wire.ParseProperties(content.Properties())
					if _, there := headers.Headers.Get("BCC"); err != nil || there {
						t.Errorf("%s sees BCC: %+v, %v", q, headers, err)
					}
					if _, there := headers.Headers.Get("CC"); !there || string(content.RoutingKey()) != "to" {
						t.Errorf("%s: CC is gone, or the key is %q", q, content.RoutingKey())
					}
				}
				if got, _ := s.drain(t, "none"); got != nil {
					t.Errorf("none has %q", got)
				}
				post{exchange: kind, key: "to"}.must(t, s, "alone")
				if got, _ := s.drain(t, "to"); !slices.Equal(got, []string{"alone"}) {
					t.Errorf("to has %q", got)
				}
				if got, _ := s.drain(t, "cc"); got != nil {
					t.Errorf("cc of a message without CC has %q", got)
				}
			}
		})
	}
}

func TestAnExchangeThatPicksOnePicksOneInSpiteOfCarbonCopies(t *testing.T) {
	for _, kind := range []string{"x-consistent-hash", "x-modulus-hash", "x-random"} {
		h := newHouse(t, 1, 1)
		s := h.nodes[0].open(t)
		s.mustChange(t, mq.ExchangeDeclare{Name: "e", Type: kind})
		for _, q := range []string{"a", "b", "c"} {
			s.mustChange(t, mq.QueueDeclare{Name: q}, mq.QueueBind{Queue: q, Exchange: "e", RoutingKey: "1"})
		}
		post{exchange: "e", key: "k", properties: headed("CC", keyList("1", "2", "3", "4", "5"))}.must(t, s, "")
		total := 0
		for _, q := range []string{"a", "b", "c"} {
			got, _ := s.drain(t, q)
			total += len(got)
		}
		if total != 1 {
			t.Errorf("%s: %d copies", kind, total)
		}
	}
}

func TestKeysOfTheSenderAreReadFromTheHeaders(t *testing.T) {
	for _, c := range []struct {
		claim string
		p     wire.Properties
		keys  []string
		blind bool
		err   string
	}{
		{"no headers", wire.Properties{Present: wire.HasType, Type: "CC"}, nil, false, ""},
		{"other headers", headed("a", "CC", "xCCx", keyList("k"), "cc", "k"), nil, false, ""},
		{"both", headed("BCC", keyList("b"), "CC", keyList("c", "d")), []string{"c", "d", "b"}, true, ""},
		{"no keys", headed("CC", []any(nil), "BCC", []any(nil)), nil, true, ""},
		{"what is no string is passed over", headed("CC", []any{"a", int32(1), []byte("b"), nil, "c"}), []string{"a", "c"}, false, ""},
		{"a string", headed("CC", "k"), nil, false, `invalid message: {unacceptable_type_in_header,"CC",longstr}`},
		{"a number", headed("BCC", int32(5)), nil, false, `invalid message: {unacceptable_type_in_header,"BCC",signedint}`},
		{"nothing", headed("CC", nil), nil, false, `invalid message: {unacceptable_type_in_header,"CC",void}`},
		{"CC is looked at first", headed("BCC", "x", "CC", mq.Table{}), nil, false, `invalid message: {unacceptable_type_in_header,"CC",table}`},
	} {
		got, err := keysOfSender(wire.AppendProperties(nil, c.p))
		if c.err != "" {
			wantText(t, err, "PRECONDITION_FAILED - "+c.err)
			continue
		}
		var keys []string
		for _, k := range got.keys {
			keys = append(keys, string(k))
		}
		if err != nil || !slices.Equal(keys, c.keys) || got.blind != c.blind {
			t.Errorf("%s: got %q, blind %v, %v", c.claim, keys, got.blind, err)
		}
	}
}

func TestMessagesWithoutCopiesCostNoAllocation(t *testing.T) {
	for _, p := range []wire.Properties{{}, {Present: wire.HasDeliveryMode}, headed("a", "b", "trace-id", "0123456789")} {
		b := wire.AppendProperties(nil, p)
		if n := testing.AllocsPerRun(100, func() {
			if more, err := keysOfSender(b); err != nil || more.keys != nil {
				t.Fatal(more, err)
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", p, n)
		}
	}
}

// A message with BCC is given back as it would have been stored.
func TestAReturnedMessageShowsNoBlindCopies(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	properties := wire.AppendProperties(nil, headed("BCC", keyList("nobody"), "a", "b"))
	p := &mq.Publish{Content: mq.NewContent("", "nowhere", properties, 0), Mandatory: true, ExpirationMs: -1}
	o, err := s.Publish(t.Context(), p)
	if err != nil || o != mq.Unroutable {
		t.Fatal(o, err)
	}
	if want := wire.AppendProperties(nil, headed("a", "b")); string(p.Content.Properties()) != string(want) {
		t.Errorf("got %q", p.Content.Properties())
	}
}

func TestADelayedMessageGoesToItsCopiesWhenItsDelayIsOver(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDelays(t, h)
	s := h.nodes[2].open(t)
	for _, q := range []string{"cc", "bcc"} {
		s.mustChange(t, mq.QueueDeclare{Name: q}, mq.QueueBind{Queue: q, Exchange: "later", RoutingKey: q})
	}
	s.publishWith(t, "later", "k", "late", mq.Table{{Key: delayHeader, Value: int32(50)}, {Key: "CC", Value: keyList("cc")}, {Key: "BCC", Value: keyList("bcc")}})
	for _, q := range []string{"q", "cc", "bcc"} {
		var last mq.Content
		eventually(t, "the message in "+q, func() bool { var got []string; got, last = s.drain(t, q); return len(got) == 1 })
		p, err := wire.ParseProperties(last.Properties())
		if _, there := p.Headers.Get("BCC"); err != nil || there {
			t.Errorf("%s sees BCC: %+v, %v", q, p.Headers, err)
		}
	}
}

func TestDeadLettersGoToCarbonCopiesUnlessTheirKeyIsReplaced(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		h := newHouse(t, 2, 2)
		s := h.nodes[0].open(t)
		args := mq.Table{{Key: "x-dead-letter-exchange", Value: "dlx"}}
		if replaced {
			args = append(args, mq.Field{Key: "x-dead-letter-routing-key", Value: "other"})
		}
		s.mustChange(t, mq.ExchangeDeclare{Name: "dlx", Type: "direct"}, mq.QueueDeclare{Name: "q", Durable: true, Args: args})
		for _, q := range []string{"cc", "bcc", "other"} {
			s.mustChange(t, mq.QueueDeclare{Name: q}, mq.QueueBind{Queue: q, Exchange: "dlx", RoutingKey: q})
		}
		s.mustChange(t, mq.QueueBind{Queue: "other", Exchange: "dlx", RoutingKey: "q"})
		post{key: "q", properties: headed("CC", keyList("cc"), "BCC", keyList("bcc"))}.must(t, s, "")
		s.drain(t, "cc") // what was published to it in the first place
		s.drain(t, "bcc")
		d, ok, err := s.Get(t.Context(), "q", false)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		s.settle(t, mq.Discard, d)
		var got []string
		eventually(t, "the dead letter", func() bool { got, _ = s.drain(t, "other"); return len(got) == 1 })
		copied, _ := s.drain(t, "cc")
		blind, _ := s.drain(t, "bcc")
		if want := 1; replaced && len(copied) != 0 || !replaced && len(copied) != want || len(blind) != 0 {
			t.Errorf("replaced %v: %d copies, %d blind ones", replaced, len(copied), len(blind))
		}
	}
}

// RabbitMQ's order: permission, exchange, internal, expiration, CC, user-id.
func TestAPublishIsCheckedInOrder(t *testing.T) {
	h := newHouse(t, 1, 1)
	n := h.nodes[0]
	if _, err := n.Propose(t.Context(),
		meta.UserPut{Name: "bob"}, meta.PermissionSet{User: "bob", VHost: "/", Configure: ".*", Write: "^may", Read: ".*"},
		meta.UserPut{Name: "carol", Tags: []string{"impersonator"}}, meta.PermissionSet{User: "carol", VHost: "/", Write: ".*"},
	); err != nil {
		t.Fatal(err)
	}
	open := func(user string) *Session {
		s, err := n.Open(t.Context(), user, "/", func(*mq.Error) {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	bob, carol := open("bob"), open("carol")
	bob.mustChange(t, mq.ExchangeDeclare{Name: "may", Type: "fanout"}, mq.ExchangeDeclare{Name: "may-internal", Type: "fanout", Internal: true},
		mq.QueueDeclare{Name: "q", Exclusive: true})
	h.nodes[0].open(t).mustChange(t, mq.ExchangeDeclare{Name: "closed", Type: "fanout"})
	late := mq.Errorf(mq.PreconditionFailed, "the fault")
	bad := headed("CC", "no array")
	bad.Present |= wire.HasUserID
	bad.UserID = "alice"
	alice := wire.Properties{Present: wire.HasUserID, UserID: "alice"}
	for _, c := range []struct {
		s        *Session
		exchange string
		p        wire.Properties
		fault    *mq.Error
		want     string // "" for none
	}{
		{bob, "closed", bad, late, "ACCESS_REFUSED - write access to exchange 'closed' in vhost '/' refused for user 'bob'"},
		{bob, "nope", bad, late, "ACCESS_REFUSED - write access to exchange 'nope' in vhost '/' refused for user 'bob'"},
		{bob, "", bad, late, "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'bob'"},
		{bob, "may-not-be-there", bad, late, "NOT_FOUND - no exchange 'may-not-be-there' in vhost '/'"},
		{bob, "may-internal", bad, late, "ACCESS_REFUSED - cannot publish to internal exchange 'may-internal' in vhost '/'"},
		{bob, "may", bad, late, "PRECONDITION_FAILED - the fault"},
		{bob, "may", bad, nil, `PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}`},
		{bob, "may", alice, nil, "PRECONDITION_FAILED - user_id property set to 'alice' but authenticated user was 'bob'"},
		{bob, "may", wire.Properties{Present: wire.HasUserID, UserID: "bob"}, nil, ""},
		{bob, "may", wire.Properties{Present: wire.HasUserID}, nil, "PRECONDITION_FAILED - user_id property set to '' but authenticated user was 'bob'"},
		{carol, "may", alice, nil, ""},
	} {
		m := &mq.Publish{Content: mq.NewContent(c.exchange, "k", wire.AppendProperties(nil, c.p), 0), ExpirationMs: -1, Fault: c.fault}
		for range 2 { // with and without a cached route
			_, err := c.s.Publish(t.Context(), m)
			for what, err := range map[string]error{"publish": err, "check": c.s.Check(t.Context(), m)} {
				var e *mq.Error
				switch {
				case c.want == "" && err != nil, c.want != "" && (!errors.As(err, &e) || e.Error() != c.want):
					t.Errorf("%s to %q: got %v, want %q", what, c.exchange, err, c.want)
				}
			}
			if _, err := (post{exchange: "may"}).publish(t, bob, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
}
