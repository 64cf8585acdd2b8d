package meta

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"warren/mq"
)

// log applies entries one after the other, all in term 1 unless told.
type log struct {
	t     *testing.T
	state *State
	index uint64
}

func newLog(t *testing.T) *log {
	t.Helper()
	l := &log{t: t, state: New()}
	l.must(ClusterInit{
		ClusterID: "c1", Groups: [][]mq.NodeID{{"n1", "n2"}, {"n2", "n1"}},
		DefaultUser: "guest", DefaultPass: HashPassword([4]byte{1, 2, 3, 4}, "guest"), DefaultVHost: "/",
	})
	l.must(NodePut{ID: "n1", Name: "one"})
	l.must(NodePut{ID: "n2", Name: "two"})
	return l
}

func (l *log) apply(ops ...Op) ([]Result, []Change) {
	l.t.Helper()
	l.index++
	results, changes, err := l.state.Apply(l.index, 1, AppendEntry(nil, 1, int64(l.index), ops...))
	if err != nil {
		l.t.Fatal(err)
	}
	return results, changes
}

func (l *log) do(op Op) Result {
	l.t.Helper()
	results, _ := l.apply(op)
	return results[0]
}

func (l *log) must(op Op) Result {
	l.t.Helper()
	r := l.do(op)
	if err := r.Error(); err != nil {
		l.t.Fatalf("%T: %v", op, err)
	}
	return r
}

func (l *log) session(node mq.NodeID) mq.SessionID {
	l.t.Helper()
	return l.must(SessionOpen{Node: node}).Value.(mq.SessionID)
}

func durable(name string) QueueDeclare {
	return QueueDeclare{VHost: "/", Name: name, Durable: true, Group: 1}
}

func exclusive(name string, s mq.SessionID, conn uint64) QueueDeclare {
	return QueueDeclare{VHost: "/", Name: name, Exclusive: true, Group: mq.LocalGroup(s), Owner: s, OwnerConn: conn}
}

func fanout(name string) ExchangeDeclare {
	return ExchangeDeclare{VHost: "/", Name: name, Type: "fanout", Durable: true}
}

func toQueue(source, queue string) Binding {
	return Binding{VHost: "/", Source: source, Destination: queue}
}

func toExchange(source, exchange string) Binding {
	return Binding{VHost: "/", Source: source, Destination: exchange, ToExchange: true}
}

func wantErr(t *testing.T, r Result, code mq.Code, text string) {
	t.Helper()
	if r.Err == nil || r.Err.Code != code || r.Err.Text != text {
		t.Errorf("got %v, want %v %s", r.Err, code, text)
	}
}

func TestFirstClusterInitCountsAndOnlyThat(t *testing.T) {
	l := newLog(t)
	if r := l.must(ClusterInit{ClusterID: "other", DefaultVHost: "x"}); r.Value != false {
		t.Errorf("a second init answered %v", r.Value)
	}
	v := l.state.View()
	if !v.Initialized() || v.ClusterID() != "c1" || v.VHost("x") != nil || v.VHost("/") == nil {
		t.Errorf("cluster %q, vhosts %v", v.ClusterID(), slices.Collect(v.VHosts()))
	}
	var names []string
	for x := range v.EachExchange("/") {
		names = append(names, x.Name+":"+x.Type)
	}
	want := []string{":direct", "amq.direct:direct", "amq.fanout:fanout", "amq.headers:headers",
		"amq.match:headers", "amq.rabbitmq.trace:topic", "amq.topic:topic"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if g := v.User("guest"); g == nil || !g.CheckPassword("guest") || g.CheckPassword("Guest") {
		t.Errorf("guest is %+v", g)
	}
	if p := v.Permission("guest", "/"); p == nil || p.Read != ".*" {
		t.Errorf("guest may %+v", p)
	}
	if g := v.Groups(); len(g) != 2 || g[1].ID != 2 || g[1].Replicas[0] != "n2" {
		t.Errorf("groups are %+v", g)
	}
}

// The hash is the example of RabbitMQ's documentation on passwords.
func TestPasswordHashIsRabbitMQs(t *testing.T) {
	salt := [4]byte{0x90, 0x8D, 0xC6, 0x0A}
	const want = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
	if got := HashPassword(salt, "test12"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEntryOfAnotherTermChangesNothing(t *testing.T) {
	l := newLog(t)
	before := l.state.View().QueueCount()
	l.index++
	results, changes, err := l.state.Apply(l.index, 7, AppendEntry(nil, 6, 99, durable("q"), durable("r")))
	if err != nil || len(changes) != 0 {
		t.Fatalf("got changes %v, error %v", changes, err)
	}
	for _, r := range results {
		if !errors.Is(r.Error(), ErrStale) {
			t.Errorf("got %v, want ErrStale", r.Error())
		}
	}
	if v := l.state.View(); v.QueueCount() != before || v.Index() != l.index || v.NowMs() == 99 {
		t.Errorf("%d queues at %d, time %d", v.QueueCount(), v.Index(), v.NowMs())
	}
}

func TestForeignBytesAreAnErrorAndChangeNothing(t *testing.T) {
	good := AppendEntry(nil, 1, 5, durable("q"), Bind{toQueue("amq.fanout", "q")})
	l := newLog(t)
	hash := l.state.Hash()
	for n := range good {
		if _, _, err := l.state.Apply(100, 1, good[:n]); err == nil {
			// A cut between two operations is a shorter entry, not a broken one.
			if _, _, ops, _ := parseEntry(good[:n]); len(ops) == 2 {
				t.Errorf("%d of %d bytes applied", n, len(good))
			}
			l = newLog(t)
		}
	}
	for _, bad := range [][]byte{
		{0xB7, 1, 1, 0}, {entryMagic, 9, 1, 0},
		{entryMagic, entryVersion, 1, 0, 250, 0},                  // unknown code
		{entryMagic, entryVersion, 1, 0, byte(opVHostPut), 0},     // no payload
		append(slices.Clone(good), byte(opUserDelete), 3, 1, 'x'), // too short
		append(slices.Clone(good), byte(opUserDelete), 3, 1, 'x', 'y'),
	} {
		if _, _, err := l.state.Apply(101, 1, bad); err == nil {
			t.Errorf("% x applied", bad)
		}
	}
	if l.state.Hash() != hash {
		t.Error("a refused entry changed something")
	}
	if _, _, err := l.state.Apply(l.index, 1, good); err == nil {
		t.Error("an entry applied twice")
	}
}

func TestQueueIDSaysEntryAndOperation(t *testing.T) {
	l := newLog(t)
	results, changes := l.apply(durable("a"), durable("b"), durable("a"))
	a, b, again := results[0].Value.(Declared), results[1].Value.(Declared), results[2].Value.(Declared)
	if a.Queue.ID != mq.QueueID(l.index<<12) || b.Queue.ID != mq.QueueID(l.index<<12|1) {
		t.Errorf("ids are %d and %d in entry %d", a.Queue.ID, b.Queue.ID, l.index)
	}
	if !a.Created || again.Created || again.Queue != a.Queue {
		t.Errorf("declared %+v, then %+v", a, again)
	}
	if len(changes) != 2 {
		t.Errorf("changes are %v", changes)
	}
	if v := l.state.View(); v.QueueByID(a.Queue.ID) != v.Queue("/", "a") {
		t.Error("id and name lead to different queues")
	}
}

func TestCleanupNeverDeletesASuccessor(t *testing.T) {
	l := newLog(t)
	old := l.must(durable("q")).Value.(Declared).Queue
	l.must(QueueDelete{VHost: "/", Name: "q"})
	l.must(durable("q"))
	if r := l.must(QueueDelete{VHost: "/", Name: "q", IfID: old.ID}); r.Value != false {
		t.Errorf("got %v", r.Value)
	}
	if l.state.View().Queue("/", "q") == nil {
		t.Error("the successor is gone")
	}
}

func TestSessionEndTakesItsQueuesAndTheirBindings(t *testing.T) {
	l := newLog(t)
	s1 := l.session("n1")
	s2 := l.session("n2")
	l.must(exclusive("x1", s1, 7))
	l.must(exclusive("x2", s2, 7))
	l.must(durable("d"))
	l.must(fanout("f"))
	for _, q := range []string{"x1", "x2", "d"} {
		l.must(Bind{toQueue("f", q)})
	}
	version := l.state.View().Exchange("/", "f").Version

	results, changes := l.apply(SessionOpen{Node: "n1"})
	next := results[0].Value.(mq.SessionID)
	v := l.state.View()
	if v.Queue("/", "x1") != nil || v.Queue("/", "x2") == nil || v.Queue("/", "d") == nil {
		t.Error("the wrong queues are left")
	}
	if n := v.BindingCount(); n != 2 {
		t.Errorf("%d bindings left", n)
	}
	if v.Exchange("/", "f").Version == version {
		t.Error("the source exchange looks unchanged")
	}
	if len(changes) != 3 {
		t.Fatalf("changes are %v", changes)
	}
	if _, ok := changes[0].(QueueDeleted); !ok {
		t.Errorf("first change is %T", changes[0])
	}
	if changes[1] != (SessionEnded{"n1", s1}) || changes[2] != (SessionOpened{"n1", next}) {
		t.Errorf("changes are %v", changes)
	}
	if _, ok := v.SessionNode(s1); ok || next <= s2 {
		t.Errorf("session %d lives on next to %d", s1, next)
	}
	// A declare that was on its way when the session ended finds no home.
	if r := l.do(exclusive("late", s1, 7)); r.Err == nil || !r.Err.ChannelOnly || r.Err.Code != mq.InternalError {
		t.Errorf("a dead session's declare answered %+v", r)
	}
}

func TestOneEntryOpensOneSession(t *testing.T) {
	l := newLog(t)
	results, _ := l.apply(SessionOpen{Node: "n1"}, SessionOpen{Node: "n2"})
	if results[0].Error() != nil || !results[1].Stale {
		t.Errorf("got %+v", results)
	}
}

func TestNodeNumbersAreNeverReused(t *testing.T) {
	l := newLog(t)
	l.session("n2")
	l.must(NodeRemove{ID: "n2"})
	if _, ok := l.state.View().Session("n2"); ok {
		t.Error("a removed node has a session")
	}
	if r := l.must(NodePut{ID: "n2", Name: "two"}); r.Value != uint32(3) {
		t.Errorf("got %v, want 3", r.Value)
	}
	if r := l.must(NodePut{ID: "n1", Name: "uno", Addr: "a:1"}); r.Value != uint32(1) {
		t.Errorf("got %v, want 1", r.Value)
	}
	if n := l.state.View().Nodes(); len(n) != 2 || n[0].Name != "uno" || n[1].Number != 3 {
		t.Errorf("nodes are %+v", n)
	}
}

func TestAutoDeleteExchangesGoWithTheirLastBindingAsSource(t *testing.T) {
	l := newLog(t)
	for _, name := range []string{"a", "b", "c", "unbound"} {
		x := fanout(name)
		x.AutoDelete = true
		l.must(x)
	}
	l.must(durable("q"))
	l.must(Bind{toExchange("a", "b")})
	l.must(Bind{toExchange("b", "c")})
	l.must(Bind{toExchange("c", "a")}) // a cycle is legal
	l.must(Bind{toQueue("c", "q")})
	l.must(Unbind{toExchange("c", "a")})
	if l.state.View().Exchange("/", "c") == nil {
		t.Fatal("c went with a binding left")
	}
	l.must(QueueDelete{VHost: "/", Name: "q"})
	v := l.state.View()
	for _, name := range []string{"a", "b", "c"} {
		if v.Exchange("/", name) != nil {
			t.Errorf("exchange %s is still there", name)
		}
	}
	if v.Exchange("/", "unbound") == nil || v.BindingCount() != 0 {
		t.Errorf("%d bindings left", v.BindingCount())
	}
}

func TestIfUnusedLooksAtBindingsFrom(t *testing.T) {
	l := newLog(t)
	l.must(fanout("a"))
	l.must(fanout("b"))
	l.must(Bind{toExchange("a", "b")})
	wantErr(t, l.do(ExchangeDelete{VHost: "/", Name: "a", IfUnused: true}),
		mq.PreconditionFailed, "exchange 'a' in vhost '/' in use")
	l.must(ExchangeDelete{VHost: "/", Name: "b", IfUnused: true})
	if n := l.state.View().BindingCount(); n != 0 {
		t.Errorf("%d bindings left", n)
	}
	l.must(ExchangeDelete{VHost: "/", Name: "a", IfUnused: true})
	if r := l.must(ExchangeDelete{VHost: "/", Name: "a"}); r.Value != false {
		t.Errorf("a missing exchange answered %v", r.Value)
	}
}

func TestBindingIdentityIsSourceDestinationKeyAndArgs(t *testing.T) {
	l := newLog(t)
	l.must(durable("q"))
	b := toQueue("amq.headers", "q")
	b.Args = mq.Table{{Key: "b", Value: int32(1)}, {Key: "a", Value: "x"}}
	same := b
	same.Args = mq.Table{{Key: "a", Value: "x"}, {Key: "b", Value: int32(1)}}
	other := b
	other.Key = "k"
	for i, c := range []struct {
		op   Op
		want bool
	}{
		{Bind{b}, true}, {Bind{same}, false}, {Bind{other}, true}, {Unbind{toQueue("amq.headers", "q")}, false},
		{Unbind{same}, true}, {Unbind{same}, false},
	} {
		if r := l.must(c.op); r.Value != c.want {
			t.Errorf("step %d: got %v", i, r.Value)
		}
	}
	wantErr(t, l.do(Bind{toQueue("nope", "neither")}), mq.NotFound, "no exchange 'nope' in vhost '/'")
	wantErr(t, l.do(Bind{toQueue("amq.fanout", "nope")}), mq.NotFound, "no queue 'nope' in vhost '/'")
	wantErr(t, l.do(Bind{toExchange("amq.fanout", "nope")}), mq.NotFound, "no exchange 'nope' in vhost '/'")
}

func TestVersionChangesWithTheBindingsOfAnExchangeOnly(t *testing.T) {
	l := newLog(t)
	l.must(durable("q"))
	version := func(name string) uint64 { return l.state.View().Exchange("/", name).Version }
	direct, fan := version("amq.direct"), version("amq.fanout")
	l.must(Bind{toQueue("amq.direct", "q")})
	if version("amq.direct") == direct || version("amq.fanout") != fan {
		t.Error("bind touched the wrong exchange")
	}
	direct = version("amq.direct")
	l.must(Bind{toQueue("amq.direct", "q")})
	if version("amq.direct") != direct {
		t.Error("a repeated bind made a new version")
	}
	l.must(Unbind{toQueue("amq.direct", "q")})
	if version("amq.direct") == direct {
		t.Error("unbind made no new version")
	}
}

func TestVHostDeleteTakesAllThatIsInIt(t *testing.T) {
	l := newLog(t)
	l.must(VHostPut{Name: "v"})
	l.must(UserPut{Name: "u"})
	l.must(PermissionSet{User: "u", VHost: "v", Read: ".*"})
	l.must(PermissionSet{User: "u", VHost: "/", Read: ".*"})
	q := durable("q")
	q.VHost = "v"
	l.must(q)
	l.must(Bind{Binding{VHost: "v", Source: "amq.fanout", Destination: "q"}})
	before := l.state.View()
	l.must(VHostDelete{Name: "v"})
	v := l.state.View()
	if v.VHost("v") != nil || v.Queue("v", "q") != nil || v.Exchange("v", "") != nil || v.BindingCount() != 0 ||
		v.Permission("u", "v") != nil || v.Permission("u", "/") == nil {
		t.Error("something of the vhost is left, or too much went")
	}
	if before.Queue("v", "q") == nil || before.BindingCount() != 1 {
		t.Error("an old view changed")
	}
	l.must(UserDelete{Name: "u"})
	if l.state.View().Permission("u", "/") != nil {
		t.Error("a deleted user has a permission")
	}
}

func TestViewsCostNothingHoweverManyQueues(t *testing.T) {
	l := newLog(t)
	const queues = 50_000
	for i := 0; i < queues; i += 1000 {
		ops := make([]Op, 0, 1000)
		for j := range 1000 {
			ops = append(ops, durable(fmt.Sprintf("queue-%d", i+j)))
		}
		l.apply(ops...)
	}
	allocated := testing.AllocsPerRun(100, func() {
		l.do(Bind{toQueue("amq.fanout", "queue-1")})
		l.do(Unbind{toQueue("amq.fanout", "queue-1")})
		l.state.View()
	})
	if allocated > 1000 {
		t.Errorf("%.0f allocations for two changes and a view of %d queues", allocated, queues)
	}
	b := l.state.AppendTo(nil)
	next := New()
	if err := next.Restore(b); err != nil {
		t.Fatal(err)
	}
	if next.Hash() != l.state.Hash() || next.View().QueueCount() != queues {
		t.Error("restored state differs")
	}
}

func TestResultsTravel(t *testing.T) {
	q := &Queue{ID: 5, VHost: "/", Name: "q", Durable: true, Group: 1, Args: mq.Table{{Key: "x", Value: int64(1)}}}
	want := []Result{
		{}, {Stale: true}, {Err: &mq.Error{Code: mq.NotFound, Text: "no", ChannelOnly: true}},
		{Value: Declared{Queue: q, Created: true}}, {Value: mq.SessionID(9)}, {Value: uint32(3)}, {Value: true},
	}
	got, err := ParseResults(AppendResults(nil, want))
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for i := range want {
		g, w := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want[i])
		if i == 3 {
			g, w = fmt.Sprintf("%+v", *got[i].Value.(Declared).Queue), fmt.Sprintf("%+v", *q)
		}
		if i != 2 && g != w || i == 2 && *got[i].Err != *want[i].Err {
			t.Errorf("got %s, want %s", g, w)
		}
	}
	if _, err := ParseResults([]byte{2, 0}); err == nil {
		t.Error("cut results parsed")
	}
}
