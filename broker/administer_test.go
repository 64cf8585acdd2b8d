package broker

import (
	"sync"
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

func TestTopicPermissionsAreAboutRoutingKeysOfTopicExchanges(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.administer(meta.UserAdd{Name: "b.b"})
	h.administer(meta.PermissionSet{User: "b.b", VHost: "/", Configure: ".*", Write: ".*", Read: ".*"})
	s, err := h.nodes[1].Open(t.Context(), "b.b", "/", func(*mq.Error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	publish := func(exchange, key string) error {
		_, err := s.Publish(t.Context(), &mq.Publish{Content: mq.NewContent(exchange, key, []byte{0, 0}, 0), ExpirationMs: -1})
		return err
	}
	do := func(op mq.Op) error {
		_, err := s.Change(t.Context(), op)
		return err
	}
	if err := publish("amq.topic", "w.1"); err != nil {
		t.Errorf("without a topic permission: %v", err)
	}
	h.administer(meta.TopicPermissionSet{User: "b.b", VHost: "/", Exchange: "amq.topic", Write: `^{username}\.`, Read: "^r"})
	if err := publish("amq.topic", "b.b.1"); err != nil {
		t.Error(err)
	}
	if err := publish("amq.direct", "w.1"); err != nil {
		t.Errorf("to no topic exchange: %v", err)
	}
	const refused = " access to topic 'w.1' in exchange 'amq.topic' in vhost '/' refused for user 'b.b'"
	wantText(t, publish("amq.topic", "w.1"), "ACCESS_REFUSED - write"+refused)
	if publish("amq.topic", "bxb.1") == nil {
		t.Error("a dot in a user's name stands for any character")
	}
	if err := do(mq.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "r.1"}); err != nil {
		t.Error(err)
	}
	wantText(t, do(mq.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "w.1"}), "ACCESS_REFUSED - read"+refused)
	wantText(t, do(mq.QueueUnbind{Queue: "q", Exchange: "amq.topic", RoutingKey: "w.1"}), "ACCESS_REFUSED - read"+refused)
	wantText(t, do(mq.ExchangeBind{Destination: "amq.fanout", Source: "amq.topic", RoutingKey: "w.1"}), "ACCESS_REFUSED - read"+refused)
	h.administer(meta.TopicPermissionClear{User: "b.b", VHost: "/", All: true})
	if err := publish("amq.topic", "w.1"); err != nil {
		t.Errorf("after the topic permission was cleared: %v", err)
	}
}

// forcedOut is a client that notes why its connection was closed.
type forcedOut struct {
	mu  sync.Mutex
	why []string
}

func (f *forcedOut) force(err *mq.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = append(f.why, err.Error())
}

func (f *forcedOut) is(want string) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.why) == 1 && f.why[0] == want
	}
}

func TestConnectionsEndWithTheirUserAndVHost(t *testing.T) {
	h := newHouse(t, 3, 1)
	h.administer(meta.VHostPut{Name: "v"})
	h.administer(meta.UserAdd{Name: "bob"})
	h.administer(meta.PermissionSet{User: "bob", VHost: "v", Configure: ".*"})
	h.administer(meta.PermissionSet{User: "bob", VHost: "/"})
	h.administer(meta.PermissionSet{User: "guest", VHost: "v"})
	open := func(n int, user, vhost string) *forcedOut {
		f := &forcedOut{}
		s, err := h.nodes[n].Open(t.Context(), user, vhost, f.force)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return f
	}
	inVHost, both, stays, ofUser := open(0, "guest", "v"), open(1, "bob", "v"), open(2, "guest", "/"), open(2, "bob", "/")
	h.administer(meta.PermissionClear{User: "bob", VHost: "v"}) // refuses from now on, and closes nothing
	h.administer(meta.VHostDelete{Name: "v"})
	h.administer(meta.UserDelete{Name: "bob"})
	eventually(t, "guest in v to be closed", inVHost.is("CONNECTION_FORCED - vhost 'v' is down"))
	eventually(t, "bob in v to be closed once", both.is("CONNECTION_FORCED - vhost 'v' is down"))
	eventually(t, "bob to be closed", ofUser.is("CONNECTION_FORCED - user 'bob' is deleted"))
	if stays.mu.Lock(); len(stays.why) > 0 {
		t.Errorf("guest in / was closed: %q", stays.why)
	}
	stays.mu.Unlock()
	_, err := h.nodes[0].Open(t.Context(), "guest", "v", func(*mq.Error) {})
	wantText(t, err, "NOT_ALLOWED - vhost v not found")
}

func TestOperatorsChangesAreChecked(t *testing.T) {
	h := newHouse(t, 1, 1)
	for _, c := range []struct {
		op   meta.Op
		want string
	}{
		{meta.UserAdd{}, "PRECONDITION_FAILED - user cannot be an empty string"},
		{meta.UserAdd{Name: "guest"}, `PRECONDITION_FAILED - User "guest" already exists`},
		{meta.UserTags{Name: "guest", Tags: []string{""}}, "PRECONDITION_FAILED - a tag has 0 bytes, it must have 1 to 255"},
		{meta.VHostPut{}, "PRECONDITION_FAILED - vhost cannot be an empty string"},
		{meta.PermissionSet{User: "guest", VHost: "/", Write: "("}, "PRECONDITION_FAILED - invalid regular expression '(': error parsing regexp: missing closing ): `(`"},
		{meta.TopicPermissionSet{User: "guest", VHost: "/", Read: "(?=a)"}, "PRECONDITION_FAILED - invalid regular expression '(?=a)': error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
		{meta.UserPassword{Name: "eve"}, `NOT_FOUND - User "eve" does not exist`},
	} {
		_, err := h.nodes[0].Administer(t.Context(), c.op)
		wantText(t, err, c.want)
	}
	changed, err := h.nodes[0].Administer(t.Context(), meta.UserDelete{Name: "eve"})
	if changed || err != nil {
		t.Errorf("deleting nobody: %v, %v", changed, err)
	}
}

func TestOperatorDeletesAQueueThatIsInNobodysUse(t *testing.T) {
	h := newHouse(t, 2, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	s.publishTo(t, "", "q", "x", -1)
	q := h.nodes[0].View().Queue("/", "q")
	_, err := h.nodes[0].DeleteQueueAs(t.Context(), "admin", q, false, true)
	wantText(t, err, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty")
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 1}, newInbox())
	_, err = h.nodes[0].DeleteQueueAs(t.Context(), "admin", q, true, false)
	wantText(t, err, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use")
	if err := s.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := h.nodes[0].DeleteQueueAs(t.Context(), "admin", q, false, false); err != nil {
		t.Fatal(err)
	}
	if h.nodes[1].View().Queue("/", "q") != nil {
		t.Error("the queue is still there")
	}
}
