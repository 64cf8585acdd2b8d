package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

// straightCatalog is a cluster of one node whose log commits at once. While
// behind is set, the node has not heard of anything later.
type straightCatalog struct {
	state          *meta.State
	index          uint64
	behind         *meta.View
	stale          int // so many proposals are decided in another term
	reads, entries int
}

func (c *straightCatalog) View() *meta.View {
	if c.behind != nil {
		return c.behind
	}
	return c.state.View()
}

func (c *straightCatalog) ReadIndex(context.Context) error {
	c.reads++
	c.behind = nil
	return nil
}

func (c *straightCatalog) Propose(_ context.Context, ops ...meta.Op) ([]meta.Result, error) {
	c.index++
	c.entries++
	term := uint64(1)
	if c.stale > 0 {
		c.stale--
		term = 2
	}
	results, _, err := c.state.Apply(c.index, term, meta.AppendEntry(nil, 1, 0, ops...))
	return results, err
}

// fixedQueues are as full as their names say in the map.
type fixedQueues struct {
	stat map[string]QueueStat
	err  error
	meta Catalog
}

func (f *fixedQueues) Stat(_ context.Context, q *meta.Queue) (QueueStat, error) {
	return f.stat[q.Name], f.err
}

func (f *fixedQueues) Declared(ctx context.Context, q *meta.Queue) (QueueStat, error) {
	return f.Stat(ctx, q)
}

func (f *fixedQueues) DeleteIf(ctx context.Context, q *meta.Queue, unused, empty bool) (uint64, error) {
	s, err := f.Stat(ctx, q)
	switch {
	case err != nil:
		return 0, err
	case unused && s.Consumers > 0:
		return 0, inUse(q)
	case empty && s.Ready > 0:
		return 0, notEmpty(q)
	}
	_, err = f.meta.Propose(ctx, meta.QueueDelete{IfID: q.ID})
	return s.Ready, err
}

func (f *fixedQueues) Purge(_ context.Context, q *meta.Queue) (uint32, error) {
	return uint32(f.stat[q.Name].Ready), f.err
}

type firstGroup struct{}

func (firstGroup) GroupFor(string, string, mq.Table) mq.GroupID { return 1 }

// topo is the fixture: guest may do everything in vhost "/", user bob
// configures conf-, writes write- and reads read- and conf-read-.
type topo struct {
	*Topology
	t       *testing.T
	catalog *straightCatalog
	queues  *fixedQueues
	session mq.SessionID
}

func newTopo(t *testing.T) *topo {
	t.Helper()
	c := &straightCatalog{state: meta.New()}
	results, err := c.Propose(t.Context(),
		meta.ClusterInit{
			ClusterID: "c", Groups: [][]mq.NodeID{{"n1"}}, DefaultVHost: "/",
			DefaultUser: "guest", DefaultPass: meta.HashPassword([4]byte{1}, "guest"),
		},
		meta.NodePut{ID: "n1"}, meta.SessionOpen{Node: "n1"},
		meta.UserPut{Name: "bob", PasswordHash: meta.HashPassword([4]byte{2}, "secret")},
		meta.PermissionSet{User: "bob", VHost: "/", Configure: "^conf-", Write: "^write-", Read: "^(conf-)?read-"},
		meta.VHostPut{Name: "other"},
	)
	if err != nil {
		t.Fatal(err)
	}
	f := &topo{t: t, catalog: c, queues: &fixedQueues{stat: map[string]QueueStat{}, meta: c}, session: results[2].Value.(mq.SessionID)}
	f.Topology = f.as("guest", 1)
	c.reads, c.entries = 0, 0
	return f
}

func (f *topo) as(user string, conn uint64) *Topology {
	who := Identity{User: user, VHost: "/", Session: func() mq.SessionID { return f.session }, Conn: conn}
	return NewTopology(f.catalog, f.queues, firstGroup{}, who)
}

func (f *topo) must(op mq.Op) mq.Reply {
	f.t.Helper()
	r, err := f.Change(f.t.Context(), op)
	if err != nil {
		f.t.Fatalf("%T: %v", op, err)
	}
	return r
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	var e *mq.Error
	if !errors.As(err, &e) || e.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

const lockedX = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'x' in vhost '/'. It could be originally " +
	"declared on another connection or the exclusive property value does not match that of the original declaration."

// fill declares what the table below is about.
func (f *topo) fill() {
	f.must(mq.QueueDeclare{Name: "q", Durable: true})
	f.must(mq.QueueDeclare{Name: "busy", Durable: true})
	f.must(mq.QueueDeclare{Name: "x", Exclusive: true})
	f.must(mq.ExchangeDeclare{Name: "e", Type: "topic", Durable: true})
	f.must(mq.ExchangeDeclare{Name: "h", Type: "headers", Durable: true})
	f.must(mq.QueueBind{Queue: "q", Exchange: "e", RoutingKey: "k"})
	f.queues.stat["busy"] = QueueStat{Ready: 7, Unacked: 2, Consumers: 3}
}

func TestRefusalsAreRabbitMQs(t *testing.T) {
	const (
		reservedQueue = "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'"
		noDefault     = "ACCESS_REFUSED - operation not permitted on the default exchange"
	)
	arg := func(k string, v any) mq.Table { return mq.Table{{Key: k, Value: v}} }
	for _, c := range []struct {
		user string // guest
		conn uint64 // 1
		op   mq.Op
		want string
	}{
		{op: mq.QueueDeclare{Name: "amq.q"}, want: reservedQueue},
		{op: mq.QueueDeclare{Name: "amq.q", Passive: true}, want: "NOT_FOUND - no queue 'amq.q' in vhost '/'"},
		{op: mq.QueueDeclare{Name: "nope", Passive: true}, want: "NOT_FOUND - no queue 'nope' in vhost '/'"},
		{op: mq.QueueDeclare{Name: "q"}, want: "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'"},
		{op: mq.QueueDeclare{Name: "q", Durable: true, Args: arg("x-max-length", int64(5))},
			want: "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'long' but current is none"},
		{conn: 2, op: mq.QueueDeclare{Name: "x", Exclusive: true}, want: lockedX},
		{conn: 2, op: mq.QueueDeclare{Name: "x", Passive: true}, want: lockedX},
		{conn: 2, op: mq.QueueDelete{Name: "x"}, want: lockedX},
		{conn: 2, op: mq.QueuePurge{Name: "x"}, want: lockedX},
		{conn: 2, op: mq.QueueBind{Queue: "x", Exchange: "e"}, want: lockedX},
		{op: mq.QueuePurge{Name: "nope"}, want: "NOT_FOUND - no queue 'nope' in vhost '/'"},
		{op: mq.QueueDelete{Name: "busy", IfUnused: true}, want: "PRECONDITION_FAILED - queue 'busy' in vhost '/' in use"},
		{op: mq.QueueDelete{Name: "busy", IfEmpty: true}, want: "PRECONDITION_FAILED - queue 'busy' in vhost '/' not empty"},

		{op: mq.ExchangeDeclare{Name: "amq.e", Type: "direct"}, want: "ACCESS_REFUSED - exchange name 'amq.e' contains reserved prefix 'amq.*'"},
		{op: mq.ExchangeDeclare{Name: "e", Type: ""}, want: "PRECONDITION_FAILED - invalid exchange type ''"},
		{op: mq.ExchangeDeclare{Name: "new", Type: "x-recent-history", Args: arg("x-recent-history-length", "many")},
			want: `PRECONDITION_FAILED - Invalid argument <<"many">>, 'x-recent-history-length' must be a positive integer`},
		{op: mq.ExchangeDeclare{Name: "new", Type: "x-recent-history", Args: arg("x-recent-history-length", int8(0))},
			want: "PRECONDITION_FAILED - Invalid argument 0, 'x-recent-history-length' must be a positive integer"},
		{op: mq.ExchangeDeclare{Name: "e", Type: "x-odd"}, want: "PRECONDITION_FAILED - unknown exchange type 'x-odd'"},
		{op: mq.ExchangeDeclare{Name: "e", Type: "direct", Durable: true},
			want: "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but current is 'topic'"},
		{op: mq.ExchangeDeclare{Type: "direct"}, want: noDefault},
		{op: mq.ExchangeDeclare{Passive: true}, want: noDefault},
		{op: mq.ExchangeDelete{}, want: noDefault},
		{op: mq.ExchangeDeclare{Name: "nope", Passive: true}, want: "NOT_FOUND - no exchange 'nope' in vhost '/'"},
		{op: mq.ExchangeDeclare{Name: "new", Type: "fanout", Args: arg("alternate-exchange", int32(1))},
			want: "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'new' in vhost '/'"},
		{op: mq.ExchangeDelete{Name: "amq.topic"}, want: "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed"},
		{op: mq.ExchangeDelete{Name: "e", IfUnused: true}, want: "PRECONDITION_FAILED - exchange 'e' in vhost '/' in use"},

		{op: mq.QueueBind{Queue: "q"}, want: noDefault},
		{op: mq.QueueUnbind{Queue: "q"}, want: noDefault},
		{op: mq.ExchangeBind{Source: "e"}, want: noDefault},
		{op: mq.ExchangeBind{Destination: "e"}, want: noDefault},
		{op: mq.QueueBind{Queue: "nope", Exchange: "nope"}, want: "NOT_FOUND - no exchange 'nope' in vhost '/'"},
		{op: mq.QueueBind{Queue: "nope", Exchange: "e"}, want: "NOT_FOUND - no queue 'nope' in vhost '/'"},
		{op: mq.ExchangeBind{Destination: "nope", Source: "e"}, want: "NOT_FOUND - no exchange 'nope' in vhost '/'"},
		{op: mq.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "#.a.#.b.#"},
			want: "PRECONDITION_FAILED - Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"},
		{op: mq.QueueBind{Queue: "q", Exchange: "h", Args: arg("x-match", "bogus")},
			want: `PRECONDITION_FAILED - Invalid x-match field value <<"bogus">>; expected all, any, all-with-x, or any-with-x`},
		{op: mq.QueueBind{Queue: "q", Exchange: "h", Args: arg("x-match", int8(1))},
			want: "PRECONDITION_FAILED - Invalid x-match field type byte (value 1); expected longstr"},

		{user: "bob", op: mq.QueueDeclare{Name: "q"}, want: refusedBob("configure", "queue", "q")},
		{user: "bob", op: mq.QueueDeclare{Name: "q", Passive: true}, want: refusedBob("configure", "queue", "q")},
		{user: "bob", op: mq.QueueDelete{Name: "q"}, want: refusedBob("configure", "queue", "q")},
		{user: "bob", op: mq.QueuePurge{Name: "write-q"}, want: refusedBob("read", "queue", "write-q")},
		{user: "bob", op: mq.QueueBind{Queue: "read-q", Exchange: "read-e"}, want: refusedBob("write", "queue", "read-q")},
		{user: "bob", op: mq.QueueBind{Queue: "write-q", Exchange: "e"}, want: refusedBob("read", "exchange", "e")},
		{user: "bob", op: mq.QueueUnbind{Queue: "write-q", Exchange: "e"}, want: refusedBob("read", "exchange", "e")},
		{user: "bob", op: mq.ExchangeDeclare{Name: "e", Type: "topic"}, want: refusedBob("configure", "exchange", "e")},
		{user: "bob", op: mq.ExchangeDelete{Name: "e"}, want: refusedBob("configure", "exchange", "e")},
		{user: "bob", op: mq.ExchangeBind{Destination: "e", Source: "read-e"}, want: refusedBob("write", "exchange", "e")},
		{user: "bob", op: mq.ExchangeBind{Source: "read-e"}, want: refusedBob("write", "exchange", "amq.default")},
		{user: "bob", op: mq.ExchangeDeclare{Name: "conf-e", Type: "topic", Args: arg("alternate-exchange", "write-x")},
			want: refusedBob("read", "exchange", "conf-e")},
		{user: "bob", op: mq.QueueDeclare{Name: "conf-q", Durable: true, Args: arg("x-dead-letter-exchange", "write-x")},
			want: refusedBob("read", "queue", "conf-q")},
		{user: "bob", op: mq.QueueDeclare{Name: "conf-read-q", Durable: true, Args: arg("x-dead-letter-exchange", "x")},
			want: refusedBob("write", "exchange", "x")},
	} {
		f := newTopo(t)
		f.fill()
		before := f.size()
		_, err := f.as(cmp.Or(c.user, "guest"), cmp.Or(c.conn, 1)).Change(t.Context(), c.op)
		t.Run(fmt.Sprintf("%T", c.op), func(t *testing.T) { wantText(t, err, c.want) })
		if f.size() != before {
			t.Errorf("%+v was refused and changed something", c.op)
		}
	}
}

// size counts what is declared.
func (f *topo) size() [3]int {
	v := f.catalog.state.View()
	return [3]int{v.QueueCount(), v.ExchangeCount(), v.BindingCount()}
}

func refusedBob(permission, kind, name string) string {
	return fmt.Sprintf("ACCESS_REFUSED - %s access to %s '%s' in vhost '/' refused for user 'bob'", permission, kind, name)
}

func TestQueueArgumentsAreCheckedNotIgnored(t *testing.T) {
	const invalid = "PRECONDITION_FAILED - invalid arg '%s' for queue 'new' in vhost '/': %s"
	for _, c := range []struct {
		key   string
		value any
		want  string // "" for accepted; a text with %s gets key
	}{
		{"x-queue-type", "classic", ""},
		{"x-queue-type", "quorum", ""},
		{"x-queue-type", "stream", "NOT_IMPLEMENTED - queue type 'stream' of queue 'new' in vhost '/' is not implemented in this version"},
		{"x-queue-type", "odd", fmt.Sprintf(invalid, "x-queue-type", `"unsupported queue type 'odd'"`)},
		{"x-queue-type", int32(1), fmt.Sprintf(invalid, "x-queue-type", "{unacceptable_type,signedint}")},
		{"x-single-active-consumer", true, ""},
		{"x-single-active-consumer", "yes", fmt.Sprintf(invalid, "x-single-active-consumer", "{unacceptable_type,longstr}")},
		{"x-queue-mode", "lazy", ""},
		{"x-queue-mode", "odd", ""},
		{"x-queue-leader-locator", "balanced", ""},
		{"x-queue-leader-locator", "odd", fmt.Sprintf(invalid, "x-queue-leader-locator", "invalid_queue_locator_arg")},
		{"x-quorum-initial-group-size", int32(0), fmt.Sprintf(invalid, "x-quorum-initial-group-size", "{value_zero,0}")},
		{"x-max-in-memory-length", int64(5), ""},
		{"x-nobody-knows", "this", ""},
		{"x-message-ttl", int32(-1), fmt.Sprintf(invalid, "x-message-ttl", "{value_negative,-1}")},
		{"x-message-ttl", "60", fmt.Sprintf(invalid, "x-message-ttl", `"expected integer, got longstr"`)},
		{"x-message-ttl", int64(1) << 40, fmt.Sprintf(invalid, "x-message-ttl", "{value_too_large,1099511627776}")},
		{"x-message-ttl", int32(60000), ""},
		{"x-message-ttl", int64(315_360_000_000), ""},
		{"x-message-ttl", int64(0), ""},
		{"x-expires", int32(0), fmt.Sprintf(invalid, "x-expires", "{value_zero,0}")},
		{"x-expires", int32(1), ""},
		{"x-max-priority", int32(256), fmt.Sprintf(invalid, "x-max-priority", "{max_value_exceeded,256}")},
		{"x-max-priority", int32(-1), fmt.Sprintf(invalid, "x-max-priority", "{value_negative,-1}")},
		{"x-max-priority", int32(10), ""},
		{"x-dead-letter-routing-key", "k", fmt.Sprintf(invalid, "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")},
		{"x-dead-letter-exchange", "dlx", ""},
		{"x-dead-letter-exchange", int32(1), "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'new' in vhost '/'"},
		{"x-max-length", int32(10), ""},
		{"x-max-length", int32(-1), fmt.Sprintf(invalid, "x-max-length", "{value_negative,-1}")},
		{"x-max-length-bytes", int64(1 << 40), ""},
		{"x-max-length-bytes", "1k", fmt.Sprintf(invalid, "x-max-length-bytes", `"expected integer, got longstr"`)},
		{"x-overflow", "drop-head", ""},
		{"x-overflow", "reject-publish", ""},
		{"x-overflow", "reject-publish-dlx", ""},
		{"x-overflow", "odd", fmt.Sprintf(invalid, "x-overflow", "invalid_overflow")},
		{"x-delivery-limit", int32(3), ""},
		{"x-delivery-limit", int32(-1), ""},
		{"x-delivery-limit", "3", fmt.Sprintf(invalid, "x-delivery-limit", "\"expected integer, got longstr\"")},
		{"x-consumer-timeout", int32(3), ""},
		{"x-consumer-timeout", "3", fmt.Sprintf(invalid, "x-consumer-timeout", `"expected integer, got longstr"`)},
		{"x-max-age", "1D", "PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'new' in vhost '/' of queue type rabbit_classic_queue"},
	} {
		f := newTopo(t)
		_, err := f.Change(t.Context(), mq.QueueDeclare{Name: "new", Durable: true, Args: mq.Table{{Key: c.key, Value: c.value}}})
		if c.want == "" {
			q := f.catalog.View().Queue("/", "new")
			if err != nil || q == nil || len(q.Args) != 1 {
				t.Errorf("%s=%v: %v, queue %+v", c.key, c.value, err, q)
			}
			continue
		}
		wantText(t, err, c.want)
		var e *mq.Error
		if errors.As(err, &e) && e.Hard() {
			t.Errorf("%s=%v ends the connection", c.key, c.value)
		}
	}
}

func TestDeclaredQueuesLiveWhereTheyShould(t *testing.T) {
	f := newTopo(t)
	f.must(mq.QueueDeclare{Name: "durable", Durable: true})
	f.must(mq.QueueDeclare{Name: "transient"})
	f.must(mq.QueueDeclare{Name: "exclusive", Durable: true, Exclusive: true})
	generated := f.must(mq.QueueDeclare{Exclusive: true}).Queue
	v := f.catalog.View()
	if q := v.Queue("/", "durable"); q.Group != 1 || q.Owner != 0 || !q.Durable {
		t.Errorf("durable is %+v", q)
	}
	local := mq.LocalGroup(f.session)
	if q := v.Queue("/", "transient"); q.Group != local || q.Owner != f.session || q.OwnerConn != 0 {
		t.Errorf("transient is %+v", q)
	}
	if q := v.Queue("/", "exclusive"); q.Group != local || q.OwnerConn != 1 || q.Durable {
		t.Errorf("exclusive is %+v", q)
	}
	if !strings.HasPrefix(generated, "amq.gen-") || v.Queue("/", generated) == nil {
		t.Errorf("the server named a queue %q", generated)
	}
	if again := f.must(mq.QueueDeclare{}).Queue; again == generated {
		t.Error("the server gave a name twice")
	}
	// Another node's client may use what is transient here.
	f.session++
	if _, err := f.as("guest", 9).Queue(t.Context(), "transient"); err != nil {
		t.Error(err)
	}
	if _, err := f.as("guest", 1).Queue(t.Context(), "exclusive"); err == nil {
		t.Error("a connection of the same number on another node uses an exclusive queue")
	}
}

func TestRedeclareCommitsNothingAndCounts(t *testing.T) {
	f := newTopo(t)
	f.fill()
	f.catalog.entries = 0
	for _, op := range []mq.Op{
		mq.QueueDeclare{Name: "busy", Durable: true},
		mq.QueueDeclare{Name: "busy", Durable: true, Args: mq.Table{{Key: "x-queue-type", Value: "quorum"}}},
		mq.QueueDeclare{Name: "busy", Passive: true},
		mq.QueueDeclare{Name: "bu\r\nsy", Passive: true},
	} {
		if r := f.must(op); r != (mq.Reply{Queue: "busy", Messages: 7, Consumers: 3}) {
			t.Errorf("%+v: got %+v", op, r)
		}
	}
	f.must(mq.ExchangeDeclare{Name: "e", Type: "topic", Durable: true})
	f.must(mq.ExchangeDeclare{Name: "amq.topic", Type: "topic", Durable: true})
	f.must(mq.QueueBind{Queue: "q", Exchange: "e", RoutingKey: "k"})
	f.must(mq.QueueUnbind{Queue: "q", Exchange: "e", RoutingKey: "other"})
	f.must(mq.QueueUnbind{Queue: "nope", Exchange: "nope"})
	if f.catalog.entries != 0 {
		t.Errorf("%d entries were committed", f.catalog.entries)
	}
}

func TestDeletesOfWhatIsNotThereSucceed(t *testing.T) {
	f := newTopo(t)
	f.fill()
	if r := f.must(mq.QueueDelete{Name: "nope", IfEmpty: true}); r.Messages != 0 {
		t.Errorf("got %+v", r)
	}
	f.must(mq.ExchangeDelete{Name: "nope", IfUnused: true})
	if r := f.must(mq.QueueDelete{Name: "busy"}); r.Messages != 7 {
		t.Errorf("got %+v", r)
	}
	if r := f.must(mq.QueuePurge{Name: "q"}); r.Messages != 0 {
		t.Errorf("got %+v", r)
	}
	f.queues.err = errors.New("no leader")
	f.must(mq.QueueDelete{Name: "q"})
	if v := f.catalog.View(); v.Queue("/", "q") != nil || v.BindingCount() != 0 {
		t.Error("a queue without a leader cannot be deleted")
	}
}

// What another node has acknowledged is found although this node has not
// applied it yet, and what it has deleted does not stand in the way.
func TestNotFoundIsConfirmed(t *testing.T) {
	for _, op := range []mq.Op{
		mq.QueueDeclare{Name: "late", Passive: true},
		mq.QueueDeclare{Name: "late", Durable: true},
		mq.QueuePurge{Name: "late"},
		mq.QueueBind{Queue: "late", Exchange: "amq.fanout"},
		mq.QueueBind{Queue: "late", Exchange: "lateX"},
		mq.ExchangeDeclare{Name: "lateX", Passive: true},
		mq.QueueDeclare{Name: "gone", AutoDelete: true},
	} {
		f := newTopo(t)
		f.must(mq.QueueDeclare{Name: "gone", Durable: true})
		f.catalog.behind = f.catalog.state.View()
		elsewhere := []meta.Op{
			meta.QueueDeclare{VHost: "/", Name: "late", Durable: true, Group: 1},
			meta.ExchangeDeclare{VHost: "/", Name: "lateX", Type: "fanout"},
			meta.QueueDelete{VHost: "/", Name: "gone"},
		}
		if _, err := f.catalog.Propose(t.Context(), elsewhere...); err != nil {
			t.Fatal(err)
		}
		f.must(op)
	}
	f := newTopo(t)
	_, err := f.Queue(t.Context(), "never")
	wantText(t, err, "NOT_FOUND - no queue 'never' in vhost '/'")
	if f.catalog.reads != 1 {
		t.Errorf("the leader was asked %d times", f.catalog.reads)
	}
}

func TestStaleProposalsAreMadeAgain(t *testing.T) {
	f := newTopo(t)
	f.catalog.stale = 3
	f.must(mq.QueueDeclare{Name: "q", Durable: true})
	if f.catalog.View().Queue("/", "q") == nil {
		t.Error("the queue is not there")
	}
	f.catalog.stale = 1 << 20
	_, err := f.Change(t.Context(), mq.QueueDeclare{Name: "r", Durable: true})
	var e *mq.Error
	if !errors.As(err, &e) || e.Code != mq.InternalError || e.Hard() {
		t.Errorf("got %v", err)
	}
}
