package meta

import (
	"fmt"
	"slices"
	"testing"

	"warren/mq"
)

func TestUserIsAddedOnceAndChangedOnePartAtATime(t *testing.T) {
	l := newLog(t)
	hash := func(p string) string { return HashPassword([4]byte{7}, p) }
	l.must(UserAdd{Name: "bob", PasswordHash: hash("a"), Tags: []string{"management"}})
	wantErr(t, l.do(UserAdd{Name: "bob", PasswordHash: hash("b")}), mq.PreconditionFailed, `User "bob" already exists`)
	l.must(UserPassword{Name: "bob", PasswordHash: hash("c")})
	l.must(UserTags{Name: "bob", Tags: []string{"administrator"}})
	u := l.state.View().User("bob")
	if !u.CheckPassword("c") || u.CheckPassword("a") || !slices.Equal(u.Tags, []string{"administrator"}) {
		t.Errorf("bob is %+v", u)
	}
	for _, op := range []Op{UserPassword{Name: "eve"}, UserTags{Name: "eve"}, PermissionSet{User: "eve", VHost: "/"},
		TopicPermissionSet{User: "eve", VHost: "/", Exchange: "amq.topic"}} {
		wantErr(t, l.do(op), mq.NotFound, `User "eve" does not exist`)
	}
}

func TestDeletedUserAndVHostTakeTheirTopicPermissionsAlong(t *testing.T) {
	l := newLog(t)
	set := func(user, vhost, exchange string) {
		l.must(TopicPermissionSet{User: user, VHost: vhost, Exchange: exchange, Write: "^w", Read: "^r"})
	}
	l.must(VHostPut{Name: "v"})
	l.must(UserAdd{Name: "bob"})
	set("bob", "/", "amq.topic")
	set("bob", "/", "other")
	set("bob", "v", "amq.topic")
	set("guest", "v", "amq.topic")
	if p := l.state.View().TopicPermission("bob", "/", "other"); p == nil || p.Write != "^w" || p.Read != "^r" {
		t.Errorf("got %+v", p)
	}
	left := func() (out []string) {
		for p := range l.state.View().TopicPermissions() {
			out = append(out, p.User+p.VHost+p.Exchange)
		}
		return out
	}
	l.must(TopicPermissionClear{User: "bob", VHost: "/", Exchange: "other"})
	if got, want := left(), []string{"bob/amq.topic", "bobvamq.topic", "guestvamq.topic"}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	l.must(VHostDelete{Name: "v"})
	if got, want := left(), []string{"bob/amq.topic"}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	set("bob", "/", "other")
	_, changes := l.apply(UserDelete{Name: "bob"})
	if len(left()) > 0 || !slices.Contains(changes, Change(UserDeleted{"bob"})) {
		t.Errorf("left %q, changes %v", left(), changes)
	}
	if r := l.must(TopicPermissionClear{User: "bob", VHost: "/", All: true}); r.Value != false {
		t.Errorf("clearing nothing answered %v", r.Value)
	}
}

func TestTracingIsOnUntilItIsTurnedOff(t *testing.T) {
	l := newLog(t)
	if r := l.must(TracingSet{VHost: "/", On: true}); r.Value != true || !l.state.View().Tracing("/") {
		t.Errorf("answered %v, tracing %v", r.Value, l.state.View().Tracing("/"))
	}
	if r := l.must(VHostPut{Name: "/", Description: "d"}); r.Value != false || !l.state.View().Tracing("/") {
		t.Error("another description turned tracing off")
	}
	l.must(TracingSet{VHost: "/"})
	if l.state.View().Tracing("/") {
		t.Error("still on")
	}
	l.must(VHostPut{Name: "v"})
	l.must(TracingSet{VHost: "v", On: true})
	l.must(VHostDelete{Name: "v"})
	l.must(VHostPut{Name: "v"})
	if l.state.View().Tracing("v") {
		t.Error("a new vhost is traced")
	}
	wantErr(t, l.do(TracingSet{VHost: "nope", On: true}), mq.NotFound, "Virtual host 'nope' does not exist")
}

func policy(name, pattern string, priority int64, definition ...any) PolicySet {
	p := Policy{VHost: "/", Name: name, Pattern: pattern, ApplyTo: ApplyToAll, Priority: priority}
	for i := 0; i < len(definition); i += 2 {
		p.Definition = append(p.Definition, mq.Field{Key: definition[i].(string), Value: definition[i+1]})
	}
	return PolicySet{p}
}

func operator(p PolicySet) PolicySet {
	p.Operator = true
	return p
}

func applyTo(what string, p PolicySet) PolicySet {
	p.ApplyTo = what
	return p
}

func TestPoliciesAndArgumentsComeTogetherAsInRabbitMQ(t *testing.T) {
	args := func(kv ...any) mq.Table { return policy("", "", 0, kv...).Definition }
	for _, c := range []struct {
		name string
		args mq.Table
		ops  []Op
		want mq.Table
	}{
		{"nothing", args("x-max-length", int32(5)), nil, args("x-max-length", int32(5))},
		{"added", nil, []Op{policy("p", "^q", 0, "max-length", int64(7))}, args("x-max-length", int64(7))},
		{"no match", nil, []Op{policy("p", "^z", 0, "max-length", int64(7))}, nil},
		{"the lower number, of the argument", args("x-max-length", int32(5)), []Op{policy("p", "", 0, "max-length", int64(7))}, args("x-max-length", int64(5))},
		{"the policy's type of retries", args("x-delayed-retry-type", "all"), []Op{policy("p", "", 0, "delayed-retry-type", "failed")}, args("x-delayed-retry-type", "failed")},
		{"the lower number, of the policy", args("x-max-length", int32(9)), []Op{policy("p", "", 0, "max-length", int64(7))}, args("x-max-length", int64(7))},
		{"an argument that is no number", args("x-overflow", "drop-head"), []Op{policy("p", "", 0, "overflow", "reject-publish")}, args("x-overflow", "drop-head")},
		{"no delivery limit is the highest", args("x-delivery-limit", int32(-1)), []Op{policy("p", "", 0, "delivery-limit", int64(3))}, args("x-delivery-limit", int64(3))},
		{"highest priority alone", nil,
			[]Op{policy("a", "", 1, "max-length", int64(1), "expires", int64(9)), policy("b", "", 2, "max-length", int64(2)), policy("c", "", 0, "message-ttl", int64(3))},
			args("x-max-length", int64(2))},
		{"equal priority: first by name", nil, []Op{policy("b", "", 1, "max-length", int64(2)), policy("a", "", 1, "max-length", int64(1))}, args("x-max-length", int64(1))},
		{"operator caps policy", nil,
			[]Op{policy("p", "", 9, "max-length", int64(7), "overflow", "drop-head"), operator(policy("p", "", 0, "max-length", int64(5), "expires", int64(4)))},
			args("x-max-length", int64(5), "x-overflow", "drop-head", "x-expires", int64(4))},
		{"operator holds retries back", nil,
			[]Op{policy("p", "", 9, "delayed-retry-max", int64(70), "delayed-retry-min", int64(7)), operator(policy("p", "", 0, "delayed-retry-max", int64(90), "delayed-retry-min", int64(9)))},
			args("x-delayed-retry-max", int64(70), "x-delayed-retry-min", int64(9))},
		{"operator caps argument", args("x-max-length", int32(6)), []Op{operator(policy("p", "", 0, "max-length", int64(5)))}, args("x-max-length", int64(5))},
		{"classic", nil, []Op{applyTo(ApplyToQuorum, policy("p", "", 1, "max-length", int64(1))), applyTo(ApplyToClassic, policy("o", "", 0, "max-length", int64(2)))}, args("x-max-length", int64(2))},
		{"quorum", args("x-queue-type", "quorum"), []Op{applyTo(ApplyToQuorum, policy("p", "", 0, "max-length", int64(1))), applyTo(ApplyToClassic, policy("o", "", 1, "max-length", int64(2)))},
			args("x-queue-type", "quorum", "x-max-length", int64(1))},
		{"queues", nil, []Op{applyTo(ApplyToQueues, policy("p", "", 0, "max-length", int64(1)))}, args("x-max-length", int64(1))},
		{"not exchanges", nil, []Op{applyTo(ApplyToExchanges, policy("p", "", 0, "max-length", int64(1)))}, nil},
		{"not streams", nil, []Op{applyTo(ApplyToStreams, policy("p", "", 0, "max-length", int64(1)))}, nil},
		{"cleared", nil, []Op{policy("p", "", 0, "max-length", int64(1)), PolicyClear{VHost: "/", Name: "p"}}, nil},
		{"replaced", nil, []Op{policy("p", "", 0, "max-length", int64(1)), policy("p", "", 0, "max-length", int64(2))}, args("x-max-length", int64(2))},
		{"broken pattern", nil, []Op{policy("p", "(", 0, "max-length", int64(1))}, nil},
	} {
		before, after := newLog(t), newLog(t)
		q := durable("q")
		q.Args = c.args
		before.must(q)
		for _, op := range c.ops {
			before.must(op)
			after.must(op)
		}
		after.must(q)
		restored := New()
		if err := restored.Restore(before.state.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		for when, v := range map[string]*View{"before": before.state.View(), "after": after.state.View(), "restored": restored.View()} {
			if got := v.Queue("/", "q").Effective(); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s, declared %s the policies: got %v, want %v", c.name, when, got, c.want)
			}
			if got := v.PolicyArgs("/", "q", c.args); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s, %s: PolicyArgs says %v, want %v", c.name, when, got, c.want)
			}
			if got := v.Queue("/", "q").Args; fmt.Sprint(got) != fmt.Sprint(c.args) {
				t.Errorf("%s: the declared arguments became %v", c.name, got)
			}
		}
	}
}

func TestPolicyChangesOnlyWhatItIsAbout(t *testing.T) {
	l := newLog(t)
	l.must(VHostPut{Name: "v"})
	for _, name := range []string{"a", "b"} {
		l.must(durable(name))
		elsewhere := durable(name)
		elsewhere.VHost = "v"
		l.must(elsewhere)
	}
	before := l.state.View()
	version := before.Exchange("/", "amq.direct").Version
	_, changes := l.apply(policy("p", "^a", 0, "max-length", int64(3), "alternate-exchange", "ae"))
	if len(changes) != 1 || changes[0].(QueueChanged).Queue.Name != "a" || changes[0].(QueueChanged).Queue.VHost != "/" {
		t.Errorf("changes are %v", changes)
	}
	v := l.state.View()
	if q := v.Queue("/", "a"); q.Policy().Name != "p" || v.QueueByID(q.ID) != q || !slices.Contains(slices.Collect(v.QueuesOf(1)), q) {
		t.Errorf("queue a is %+v", q)
	}
	x := v.Exchange("/", "amq.direct")
	if ae, _ := x.Effective().String("alternate-exchange"); ae != "ae" || x.Version != version {
		t.Errorf("amq.direct is %+v, its bindings have not changed", x)
	}
	if before.Queue("/", "a").Policy() != nil || v.Queue("/", "b").Policy() != nil || v.Queue("v", "a").Policy() != nil {
		t.Error("the policy counts where it should not")
	}
	l.must(Bind{toQueue("amq.direct", "a")}) // makes a new record of the exchange
	if ae, _ := l.state.View().Exchange("/", "amq.direct").Effective().String("alternate-exchange"); ae != "ae" {
		t.Error("a binding took the policy off its exchange")
	}
	if _, changes := l.apply(PolicyClear{VHost: "/", Name: "p", Operator: true}); len(changes) != 0 {
		t.Errorf("clearing the operator policy of that name, which is not there: %v", changes)
	}
	if _, changes := l.apply(PolicyClear{VHost: "/", Name: "p"}); len(changes) != 1 || l.state.View().Queue("/", "a").Policy() != nil {
		t.Errorf("changes are %v", changes)
	}
	p := policy("p", "", 0, "max-length", int64(3))
	p.VHost = "nope"
	wantErr(t, l.do(p), mq.NotFound, "Virtual host 'nope' does not exist")
	p.VHost = "v"
	l.must(p)
	l.must(VHostDelete{Name: "v"})
	l.must(VHostPut{Name: "v"})
	if l.state.View().Policy("v", "p") != nil {
		t.Error("a new vhost has the policies of an old one")
	}
}

// Without the sentence about version 1 in Restore no node could be updated.
func TestSnapshotOfVersionOneIsRead(t *testing.T) {
	l := newLog(t)
	l.must(durable("q"))
	now := l.state.AppendTo(nil)
	const added = "\x00\x00\x00" // no topic permissions, policies, tracing
	if string(now[len(now)-len(added):]) != added {
		t.Fatalf("the snapshot ends with % x", now[len(now)-len(added):])
	}
	old := slices.Clone(now[:len(now)-len(added)])
	old[1] = 1
	s := New()
	if err := s.Restore(old); err != nil {
		t.Fatal(err)
	}
	if s.Hash() != l.state.Hash() {
		t.Error("the state differs")
	}
	if err := New().Restore(now[:len(now)-len(added)]); err == nil {
		t.Error("a cut snapshot of version 2 is read")
	}
}
