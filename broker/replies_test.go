package broker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"warren/mq"
)

func (s *Session) mustReplies(t *testing.T, to mq.Sink) (mq.ConsumerID, string) {
	t.Helper()
	id, name, err := s.Replies(to)
	if err != nil {
		t.Fatal(err)
	}
	return id, name
}

// reply publishes to a reply-to name.
func (s *Session) reply(t *testing.T, name, body string, mandatory bool) mq.Outcome {
	t.Helper()
	o, err := s.Publish(t.Context(), &mq.Publish{
		Content: append(mq.NewContent("", name, []byte{0, 0}, len(body)), body...), ExpirationMs: -1, Mandatory: mandatory,
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantCode(t *testing.T, err error, code mq.Code, text string) {
	t.Helper()
	var e *mq.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Text, text) {
		t.Errorf("got %v, want %d %s", err, code, text)
	}
}

func TestRepliesReachTheRequesterFromEveryNode(t *testing.T) {
	h := newHouse(t, 3, 1)
	in := newInbox()
	_, name := h.nodes[1].open(t).mustReplies(t, in)
	for _, n := range h.nodes {
		if o := n.open(t).reply(t, name, string(n.id), true); o != mq.Confirmed {
			t.Fatalf("got %v from %s", o, n.id)
		}
	}
	eventually(t, "replies", func() bool { return len(in.all()) == 3 })
	for _, d := range in.all() {
		if d.Redelivered || string(d.Content.RoutingKey()) != name || len(d.Content.Exchange()) > 0 {
			t.Errorf("got %+v", d)
		}
	}
	if n := len(h.groups[1].entries); n > 0 {
		t.Errorf("%d entries in a log", n)
	}
}

func TestDeclaringAReplyNameTellsWhetherItsRequesterLives(t *testing.T) {
	h := newHouse(t, 2, 1)
	req := h.nodes[0].open(t)
	id, name := req.mustReplies(t, newInbox())
	for _, n := range h.nodes {
		for _, passive := range []bool{true, false} {
			r, err := n.open(t).Change(t.Context(), mq.QueueDeclare{Name: name, Passive: passive})
			if want := (mq.Reply{Queue: name, Consumers: 1}); err != nil || r != want {
				t.Errorf("got %+v, %v on %s", r, err, n.id)
			}
		}
	}
	if err := req.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, n := range h.nodes {
		_, err := n.open(t).Change(t.Context(), mq.QueueDeclare{Name: name, Passive: true})
		wantCode(t, err, mq.NotFound, "no queue '"+name+"' in vhost '/'")
	}
	r, err := req.Change(t.Context(), mq.QueueDeclare{Name: "amq.rabbitmq.reply-to"})
	if err != nil || r.Consumers != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestRepliesEndWithTheRequester(t *testing.T) {
	h := newHouse(t, 2, 1)
	for what, end := range map[string]func(*Session, mq.ConsumerID) error{
		"cancel": func(s *Session, id mq.ConsumerID) error { return s.Cancel(t.Context(), id) },
		"close":  func(s *Session, _ mq.ConsumerID) error { return s.Close() },
	} {
		req, in := h.nodes[0].open(t), newInbox()
		id, name := req.mustReplies(t, in)
		if err := end(req, id); err != nil {
			t.Fatal(err)
		}
		for _, n := range h.nodes {
			if o := n.open(t).reply(t, name, "late", true); o != mq.Confirmed { // its node is there
				t.Errorf("%s: got %v", what, o)
			}
		}
		h.nodes[1].caughtUp()
		h.nodes[0].caughtUp()
		if got := in.all(); len(got) > 0 {
			t.Errorf("%s: got %d replies", what, len(got))
		}
	}
	if n := len(h.nodes[0].requesters.byID); n > 0 {
		t.Errorf("%d are left", n)
	}
}

func TestReplyNeedsTheWholeNameAndTheVHost(t *testing.T) {
	h := newHouse(t, 1, 1)
	s, in := h.nodes[0].open(t), newInbox()
	id, name := s.mustReplies(t, in)
	a, _ := parseReplyAddress(name)
	a.key[0]++
	s.reply(t, a.String(), "guessed", false)
	a.key[0]--
	if h.nodes[0].requesters.find("other", id, a.key[:]) != nil {
		t.Error("found in another vhost")
	}
	if got := in.all(); len(got) > 0 {
		t.Errorf("got %d", len(got))
	}
	a.node = 77
	for _, nowhere := range []string{replyPrefix + "x", name + "x", name[:len(name)-1], a.String(), strings.Repeat("\n", 3) + name[:len(name)-3]} {
		p := &mq.Publish{Content: mq.NewContent("", nowhere, []byte{0, 0}, 0), ExpirationMs: -1}
		if o, err := s.Publish(t.Context(), p); err != nil || o != mq.Unroutable {
			t.Errorf("%q: got %v, %v", nowhere, o, err)
		}
	}
}

func TestReplyNamesAreNoQueues(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	_, name := s.mustReplies(t, newInbox())
	ctx := t.Context()
	_, err := s.Change(ctx, mq.QueueBind{Queue: name, Exchange: "amq.direct"})
	wantCode(t, err, mq.AccessRefused, "cannot bind or unbind to a volatile (direct reply-to) queue")
	_, err = s.Change(ctx, mq.QueueUnbind{Queue: name, Exchange: "amq.direct"})
	wantCode(t, err, mq.AccessRefused, "cannot bind or unbind to a volatile (direct reply-to) queue")
	_, err = s.Change(ctx, mq.QueueBind{Queue: "amq.rabbitmq.reply-to", Exchange: "amq.direct"})
	wantCode(t, err, mq.NotFound, "no queue 'amq.rabbitmq.reply-to' in vhost '/'")
	_, err = s.Consume(ctx, mq.ConsumeSpec{Queue: name, NoAck: true}, newInbox())
	wantCode(t, err, mq.PreconditionFailed, "only creator channel may consume from queue '"+name+"' in vhost '/'")
	_, err = s.Consume(ctx, mq.ConsumeSpec{Queue: replyPrefix + "x", NoAck: true}, newInbox())
	wantCode(t, err, mq.NotFound, "no queue")
	_, _, err = s.Get(ctx, name, true)
	wantCode(t, err, mq.NotImplemented, "basic.get not supported by volatile queue")
	if r, err := s.Change(ctx, mq.QueuePurge{Name: name}); err != nil || r.Messages != 0 {
		t.Errorf("purge: got %+v, %v", r, err)
	}
	if r, err := s.Change(ctx, mq.QueueDelete{Name: name}); err != nil || r.Messages != 0 {
		t.Errorf("delete: got %+v, %v", r, err)
	}
	if _, err := s.Change(ctx, mq.QueueDeclare{Name: name}); err != nil {
		t.Errorf("the requester did not survive its deletion: %v", err)
	}
}

func TestRequesterThatDoesNotReadGetsSoMuchAndNoMore(t *testing.T) {
	h := newHouse(t, 1, 1)
	s, in := h.nodes[0].open(t), newInbox()
	id, name := s.mustReplies(t, in)
	for range repliesMax + 10 {
		s.reply(t, name, "x", false)
	}
	if n := len(in.all()); n != repliesMax {
		t.Fatalf("got %d", n)
	}
	s.Drained(id, 5, 0)
	for range 10 {
		s.reply(t, name, "x", false)
	}
	if n := len(in.all()); n != repliesMax+5 {
		t.Errorf("got %d after the socket took 5", n)
	}
	in = newInbox()
	_, name = s.mustReplies(t, in)
	big := strings.Repeat("x", 1<<20)
	for range replyBytesMax>>20 + 2 {
		s.reply(t, name, big, false)
	}
	if n := len(in.all()); n != replyBytesMax>>20 {
		t.Errorf("got %d of 1 MiB", n)
	}
}

func TestRepliesToASlowNodeMakeThePublisherWait(t *testing.T) {
	h := newHouse(t, 2, 1)
	s, in := h.nodes[0].open(t), newInbox()
	id, name := h.nodes[1].open(t).mustReplies(t, in)
	resume := h.nodes[1].pause()
	defer resume()
	big := strings.Repeat("x", 1<<20)
	for range replyLinkBytes >> 20 {
		s.reply(t, name, big, false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Publish(ctx, &mq.Publish{Content: append(mq.NewContent("", name, []byte{0, 0}, 1), 'y'), ExpirationMs: -1})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	done := make(chan struct{})
	go func() { s.reply(t, name, "last", false); close(done) }()
	resume()
	<-done
	eventually(t, "replies", func() bool {
		h.nodes[1].Broker.requesters.get(id).drained(len(in.all()), 0)
		return len(in.all()) > 0
	})
	h.nodes[1].caughtUp()
	h.cut(h.nodes[0], h.nodes[1])
	l := h.nodes[0].replyLinks
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.owed["node2"]; n > 0 {
		t.Errorf("%d bytes owed by a lost connection", n)
	}
}

func TestMalformedRepliesDisturbNobody(t *testing.T) {
	h := newHouse(t, 2, 1)
	in := newInbox()
	_, name := h.nodes[1].open(t).mustReplies(t, in)
	a, _ := parseReplyAddress(name)
	whole := appendReply("/", &a, append(mq.NewContent("", name, []byte{0, 0}, 1), 'x'))
	for n := range whole[:len(whole)-1] {
		h.nodes[1].Frame("node1", whole[:n:n])
	}
	h.nodes[1].Frame("node1", []byte{frameDirectTaken, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	h.nodes[1].Frame("node1", []byte{frameDirectTaken})
	if got := in.all(); len(got) > 0 {
		t.Fatalf("got %q", got[0].Content)
	}
	h.nodes[1].Frame("node1", whole)
	if got := in.all(); len(got) != 1 {
		t.Errorf("got %d", len(got))
	}
}

func FuzzReplyNameIsReadAsItWasWritten(f *testing.F) {
	f.Add(replyPrefix + strings.Repeat("A", 38))
	f.Add(replyPrefix)
	f.Fuzz(func(t *testing.T, name string) {
		if a, ok := parseReplyAddress(name); ok {
			if again, ok := parseReplyAddress(a.String()); !ok || again != a {
				t.Errorf("%q: %+v and %+v", name, a, again)
			}
		}
	})
}

func TestPublishToAQueueAllocatesNoMoreForReplies(t *testing.T) {
	c := mq.NewContent("", "some-queue-with-a-name-of-some-length", []byte{0, 0}, 0)
	if n := testing.AllocsPerRun(100, func() { hasReplyKey(c, nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReplyNamesCountAmongCarbonCopies(t *testing.T) {
	h := newHouse(t, 2, 1)
	one, two := newInbox(), newInbox()
	_, first := h.nodes[0].open(t).mustReplies(t, one)
	_, second := h.nodes[0].open(t).mustReplies(t, two)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, durable)
	copies := headed("CC", keyList(second, first, second, replyPrefix+"nobody"))
	if o := (post{key: "nowhere", properties: copies}).must(t, s, "a"); o != mq.Confirmed {
		t.Errorf("got %v", o)
	}
	if o := (post{key: first, properties: copies}).must(t, s, "b"); o != mq.Confirmed {
		t.Errorf("got %v", o)
	}
	if o := (post{key: "q", properties: copies}).must(t, s, "c"); o != mq.Pending { // and kept by the queue
		t.Errorf("got %v", o)
	}
	if o := (post{exchange: "amq.direct", key: first}).must(t, s, "d"); o != mq.Unroutable {
		t.Errorf("got %v", o)
	}
	eventually(t, "replies", func() bool { return len(one.all()) == 3 && len(two.all()) == 3 })
	if n := s.ready(t, "q"); n != 1 {
		t.Errorf("%d messages in the queue", n)
	}
}
