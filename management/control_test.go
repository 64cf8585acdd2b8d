package management

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

func (n *node) ControlSecret() string { return n.secret }

// states makes the metadata of a cluster with the user guest and vhost "/".
func (n *node) states() *meta.State {
	if n.state == nil {
		n.state = meta.New()
		n.apply(meta.ClusterInit{ClusterID: "c1", Groups: [][]mq.NodeID{{"a1"}}, DefaultUser: "guest", DefaultVHost: "/"})
		n.apply(meta.NodePut{ID: "a1", Name: "node1"})
	}
	return n.state
}

func (n *node) apply(op meta.Op) meta.Result {
	n.index++
	results, _, err := n.state.Apply(n.index, 1, meta.AppendEntry(nil, 1, 0, op))
	if err != nil {
		panic(err)
	}
	return results[0]
}

func (n *node) View() *meta.View { return n.states().View() }

func (n *node) Administer(_ context.Context, op meta.Op) (bool, error) {
	n.states()
	r := n.apply(op)
	changed, _ := r.Value.(bool)
	return changed, r.Error()
}

func (n *node) Declare(_ context.Context, operator, vhost string, op mq.Op) error {
	n.deeds = append(n.deeds, fmt.Sprintf("%s declares in %s %+v", operator, vhost, op))
	return n.err
}

func (n *node) DeleteQueue(_ context.Context, operator string, q *meta.Queue, ifUnused, ifEmpty bool) (uint32, error) {
	if ifUnused {
		return 0, mq.Errorf(mq.PreconditionFailed, "queue '%s' in vhost '%s' in use", q.Name, q.VHost)
	}
	n.deeds = append(n.deeds, fmt.Sprint(operator, " deletes ", q.Name, ifEmpty))
	return 7, nil
}

func (n *node) SetLogLevel(level slog.Level) error {
	n.deeds = append(n.deeds, "log "+level.String())
	return n.err
}

func (n *node) Stop() { n.deeds = append(n.deeds, "stop") }

func (n *node) Environment() []Setting { return []Setting{{"node_name", "node1"}, {"heartbeat", "60"}} }

func (n *node) SetMemoryHighWatermark(share float64, bytes uint64) error {
	n.deeds = append(n.deeds, fmt.Sprint("memory ", share, bytes))
	return nil
}

func (n *node) SetDiskFreeLimit(bytes uint64) { n.deeds = append(n.deeds, fmt.Sprint("disk ", bytes)) }

func (n *node) PurgeQueue(_ context.Context, q *meta.Queue) (uint32, error) {
	n.deeds = append(n.deeds, "purge "+q.Name)
	return 7, n.err
}

func (n *node) QueueStatus(ctx context.Context, q *meta.Queue) Queue {
	if n.asking != nil {
		n.asking(q)
	}
	if q.Name == "hung" {
		<-ctx.Done()
	}
	if strings.HasPrefix(q.Name, "lost") || q.Name == "hung" {
		return Queue{Ready: -1, Unacked: -1, Consumers: -1}
	}
	return Queue{Leader: "a1", Ready: 5, Unacked: 2, Consumers: 1}
}

// ask sends a command that shows secret, and returns the status and the body.
func (n *node) ask(t *testing.T, secret string, req any) (int, string) {
	t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", ControlPath, strings.NewReader(string(b)))
	r.RemoteAddr = here
	r.Header.Set("Authorization", secret)
	w := httptest.NewRecorder()
	NewServer(n, "0.1.0", slog.New(slog.DiscardHandler)).handler.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// do carries a command out that must succeed, in vhost "/" unless an argument
// begins with "-p ", with options "--name=value".
func (n *node) do(t *testing.T, verb string, args ...string) ControlReply {
	t.Helper()
	code, body := n.ask(t, "Bearer s", commandOf(verb, args...))
	var r ControlReply
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != 200 {
		t.Fatalf("%s %q: %d %s", verb, args, code, body)
	}
	return r
}

func commandOf(verb string, args ...string) ControlRequest {
	c := ControlRequest{Verb: verb, VHost: "/", Options: map[string]string{}}
	for _, a := range args {
		if option, ok := strings.CutPrefix(a, "--"); ok {
			name, value, _ := strings.Cut(option, "=")
			c.Options[name] = value
		} else if vhost, ok := strings.CutPrefix(a, "-p "); ok {
			c.VHost = vhost
		} else {
			c.Args = append(c.Args, a)
		}
	}
	return c
}

func TestOnlyTheSecretOrAnAdministratorCommands(t *testing.T) {
	n := &node{secret: "s", tags: map[string][]string{"root": {"administrator"}, "watch": {"monitoring"}, "app": nil}}
	basic := func(user string) string {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.SetBasicAuth(user, user)
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		authorization string
		want          int
	}{
		{"", 401}, {"Bearer ", 401}, {"Bearer x", 401}, {"Bearer s", 200}, {"s", 401},
		{basic("root"), 200}, {basic("watch"), 401}, {basic("app"), 401}, {basic("nobody"), 401},
	} {
		if code, body := n.ask(t, c.authorization, commandOf("list_users")); code != c.want {
			t.Errorf("%q: %d %s, want %d", c.authorization, code, body, c.want)
		}
	}
	n.secret = ""
	if code, _ := n.ask(t, "Bearer ", commandOf("list_users")); code != 401 {
		t.Errorf("a node without a secret answers %d to an empty one", code)
	}
}

func TestUsersVHostsAndPermissionsAreKeptAndListed(t *testing.T) {
	n := &node{secret: "s", tags: map[string][]string{"bob": nil}}
	n.do(t, "add_user", "bob", "secret")
	if u := n.View().User("bob"); !u.CheckPassword("secret") {
		t.Error("bob's password is not secret")
	}
	n.do(t, "change_password", "bob", "other")
	if u := n.View().User("bob"); !u.CheckPassword("other") {
		t.Error("bob's password is not other")
	}
	n.do(t, "clear_password", "bob")
	if u := n.View().User("bob"); u.CheckPassword("") || u.CheckPassword("other") {
		t.Error("bob needs no password")
	}
	n.do(t, "add_user", "eve", meta.HashPassword([4]byte{1}, "x"), "--pre-hashed-password=true")
	if !n.View().User("eve").CheckPassword("x") {
		t.Error("a hash was hashed")
	}
	n.do(t, "set_user_tags", "bob", "management", "policymaker")
	n.do(t, "add_vhost", "v", "--description=d", "--tags=a, b", "--default-queue-type=quorum")
	n.do(t, "add_vhost", "v", "--description=again")
	n.do(t, "set_permissions", "-p v", "bob", ".*", "^a", "")
	n.do(t, "set_topic_permissions", "-p v", "bob", "amq.topic", "^w", "^r")
	if m := n.do(t, "trace_on", "-p v").Message; m != "Trace enabled for vhost v" {
		t.Errorf("got %q", m)
	}
	if m := n.do(t, "authenticate_user", "bob", "bob").Message; m != "Success" {
		t.Errorf("got %q", m)
	}
	for _, c := range []struct {
		verb string
		args []string
		want string
	}{
		{"list_users", nil, `[{"tags":["management","policymaker"],"user":"bob"},{"tags":[],"user":"eve"},{"tags":["administrator"],"user":"guest"}]`},
		{"list_vhosts", []string{"name"}, `[{"default_queue_type":"","description":"","name":"/","tags":[],"tracing":false},{"default_queue_type":"quorum","description":"d","name":"v","tags":["a","b"],"tracing":true}]`},
		{"list_permissions", []string{"-p v"}, `[{"configure":".*","read":"","user":"bob","vhost":"v","write":"^a"}]`},
		{"list_user_permissions", []string{"bob"}, `[{"configure":".*","read":"","user":"bob","vhost":"v","write":"^a"}]`},
		{"list_topic_permissions", []string{"-p v"}, `[{"exchange":"amq.topic","read":"^r","user":"bob","vhost":"v","write":"^w"}]`},
		{"list_user_topic_permissions", []string{"bob"}, `[{"exchange":"amq.topic","read":"^r","user":"bob","vhost":"v","write":"^w"}]`},
	} {
		got, err := json.Marshal(n.do(t, c.verb, c.args...).Rows)
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.verb, got, c.want)
		}
	}
	n.do(t, "clear_topic_permissions", "-p v", "bob")
	n.do(t, "clear_permissions", "-p v", "bob")
	n.do(t, "trace_off", "-p v")
	n.do(t, "delete_vhost", "v")
	n.do(t, "delete_user", "bob")
	n.do(t, "delete_user", "bob") // as RabbitMQ has it
	if v := n.View(); v.User("bob") != nil || v.VHost("v") != nil {
		t.Error("bob or v is there")
	}
}

func TestRefusalsHaveRabbitMQsWordsAndExitCodes(t *testing.T) {
	n := &node{secret: "s"}
	n.states()
	n.apply(meta.QueueDeclare{VHost: "/", Name: "q", Durable: true, Group: 1})
	for _, c := range []struct {
		verb string
		args []string
		exit int
		want string
	}{
		{"add_user", []string{"guest", "x"}, ExitSoftware, `User "guest" already exists`},
		{"change_password", []string{"eve", "x"}, ExitNoUser, `User "eve" does not exist`},
		{"set_user_tags", []string{"eve", "x"}, ExitNoUser, `User "eve" does not exist`},
		{"authenticate_user", []string{"guest", "x"}, ExitData, "Error: failed to authenticate user \"guest\"\nuser 'guest' - invalid credentials"},
		{"delete_vhost", []string{"v"}, ExitData, "Virtual host 'v' does not exist"},
		{"add_vhost", []string{"v", "--default-queue-type=stream"}, ExitUsage, "Unsupported queue type: stream"},
		{"trace_on", []string{"-p v"}, ExitData, "Virtual host 'v' does not exist"},
		{"set_permissions", []string{"-p v", "guest", "", "", ""}, ExitData, "Virtual host 'v' does not exist"},
		{"set_permissions", []string{"eve", "", "", ""}, ExitNoUser, `User "eve" does not exist`},
		{"list_permissions", []string{"-p v"}, ExitData, "Virtual host 'v' does not exist"},
		{"set_policy", []string{"-p v", "p", "q", "{}"}, ExitData, "Virtual host 'v' does not exist"},
		{"set_policy", []string{"p", "q", "nojson"}, ExitUnavailable, "Could not parse JSON document: not a JSON object: nojson"},
		{"set_policy", []string{"p", "q", "{}{}"}, ExitUnavailable, "Could not parse JSON document: more than one JSON object: {}{}"},
		{"set_policy", []string{"p", "q", `{"a":`}, ExitUnavailable, "Could not parse JSON document: EOF"},
		{"set_policy", []string{"p", "q", "{}", "--priority=x"}, ExitUsage, "x priority must be a number"},
		{"clear_policy", []string{"p"}, ExitUnavailable, "Parameter does not exist"},
		{"delete_queue", []string{"z"}, ExitUsage, "No such queue was found"},
		{"delete_queue", []string{"q", "--if-unused=true"}, ExitUnavailable, "queue 'q' in vhost '/' in use"},
		{"purge_queue", []string{"z"}, ExitData, "Object (queue, stream, exchange, etc) was not found"},
		{"close_connection", []string{"z", "x"}, ExitUnavailable, `there is no connection "z"`},
		{"close_all_connections", []string{"x", "--limit=-1"}, ExitUsage, "--limit must be a whole number"},
		{"no_such_command", nil, ExitUsage, "Command 'no_such_command' not found."},
		{"add_user", []string{"bob"}, ExitUsage, "add_user does not take 1 arguments"},
	} {
		code, body := n.ask(t, "Bearer s", commandOf(c.verb, c.args...))
		var e ControlError
		if err := json.Unmarshal([]byte(body), &e); err != nil || code < 400 || code > 404 || e.Exit != c.exit || e.Reason != c.want {
			t.Errorf("%s %q: %d %s, want %d %s", c.verb, c.args, code, body, c.exit, c.want)
		}
	}
	if code, _ := n.ask(t, "Bearer s", "text"); code != 400 {
		t.Errorf("a command that is none is answered %d", code)
	}
	n.err = mq.Errorf(mq.InternalError, "no answer from the leader")
	if code, body := n.ask(t, "Bearer s", commandOf("purge_queue", "q")); code != 503 || !strings.Contains(body, `"exit":69`) {
		t.Errorf("without a leader: %d %s", code, body)
	}
}

func TestPoliciesAreReadWithTheirTypesAndListedByPriority(t *testing.T) {
	n := &node{secret: "s"}
	n.states()
	n.do(t, "set_policy", "a", "^q", `{"max-length":10,"dead-letter-exchange":"x"}`, "--priority=3", "--apply-to=queues")
	n.do(t, "set_policy", "b", "^q", `{"max-length":5}`)
	n.do(t, "set_operator_policy", "o", "^q", `{"max-length":4}`)
	if d := n.View().Policy("/", "a").Definition; fmt.Sprint(d) != "[{dead-letter-exchange x} {max-length 10}]" || d[1].Value != int64(10) {
		t.Errorf("the definition is %#v", d)
	}
	got, _ := json.Marshal(n.do(t, "list_policies").Rows)
	const want = `[{"apply-to":"all","definition":"{\"max-length\":5}","name":"b","pattern":"^q","priority":0,"vhost":"/"},` +
		`{"apply-to":"queues","definition":"{\"dead-letter-exchange\":\"x\",\"max-length\":10}","name":"a","pattern":"^q","priority":3,"vhost":"/"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	n.apply(meta.QueueDeclare{VHost: "/", Name: "q", Durable: true, Group: 1, Args: mq.Table{{Key: "x-max-length", Value: int32(8)}}})
	n.apply(meta.QueueDeclare{VHost: "/", Name: "lost", Durable: true, Group: 1})
	rows := n.do(t, "list_queues", "name", "messages").Rows
	lost, q := rows[0], rows[1]
	for column, want := range map[string]any{
		"name": "q", "messages": 7.0, "messages_ready": 5.0, "messages_unacknowledged": 2.0, "consumers": 1.0, "leader": "node1",
		"state": "running", "type": "classic", "policy": "a", "operator_policy": "o",
		"effective_policy_definition": `{"dead-letter-exchange":"x","max-length":4}`,
	} {
		if q[column] != want {
			t.Errorf("%s is %v, want %v", column, q[column], want)
		}
	}
	if a := fmt.Sprint(q["arguments"]); a != "[[x-max-length signedint 8]]" {
		t.Errorf("arguments are %s", a)
	}
	if _, known := lost["messages"]; known || lost["state"] != "down" {
		t.Errorf("a queue whose leader does not answer is %v", lost)
	}
	n.do(t, "clear_operator_policy", "o")
	n.do(t, "delete_queue", "q", "--if-empty=true")
	n.do(t, "purge_queue", "q")
	if want := []string{"warren-ctl deletes qtrue", "purge q"}; !slices.Equal(n.deeds, want) {
		t.Errorf("did %q, want %q", n.deeds, want)
	}
}

func TestConnectionsAreListedAndClosedWhereverTheyAre(t *testing.T) {
	n := burrow()
	n.secret = "s"
	n.states()
	rows := n.do(t, "list_connections").Rows
	if len(rows) != len(n.connections) || rows[0]["pid"] != rows[0]["name"] || rows[0]["user"] == nil {
		t.Fatalf("got %v", rows)
	}
	first := n.connections[0]
	n.do(t, "close_connection", first.Name, "bye")
	if want := first.Name + " on " + first.NodeID + ": bye"; !slices.Equal(n.closed, []string{want}) {
		t.Errorf("closed %q, want %q", n.closed, want)
	}
	n.closed = nil
	inVHost, open := 0, 0
	for _, c := range n.connections {
		if c.VHost == "/" {
			inVHost++
		}
		if c.VHost == "/" && c.State != "gone" {
			open++
		}
	}
	if m := n.do(t, "close_all_connections", "all go").Message; m != fmt.Sprintf("Closed %d connections", open) || len(n.closed) != inVHost {
		t.Errorf("%s of %d", m, inVHost)
	}
	n.closed = nil
	if n.do(t, "close_all_connections", "bye", "--global=true", "--limit=1"); len(n.closed) != 1 {
		t.Errorf("closed %q, the limit was 1", n.closed)
	}
}

func TestTopologyIsListed(t *testing.T) {
	n := &node{secret: "s"}
	n.states()
	n.apply(meta.QueueDeclare{VHost: "/", Name: "q", Durable: true, Group: 1})
	n.apply(meta.Bind{Binding: meta.Binding{VHost: "/", Source: "amq.topic", Destination: "q", Key: "k"}})
	n.apply(meta.Bind{Binding: meta.Binding{VHost: "/", Source: "amq.topic", Destination: "amq.fanout", ToExchange: true}})
	if rows := n.do(t, "list_exchanges").Rows; len(rows) != 7 || rows[1]["name"] != "amq.direct" || rows[1]["type"] != "direct" {
		t.Errorf("exchanges are %v", rows)
	}
	var got []string
	for _, r := range n.do(t, "list_bindings").Rows {
		got = append(got, fmt.Sprint(r["source_name"], ">", r["destination_kind"], r["destination_name"], r["routing_key"]))
	}
	if want := []string{">queueqq", "amq.topic>queueqk", "amq.topic>exchangeamq.fanout"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	n.status = Status{Cluster: "c", Node: "node1", Version: "1", Members: []Member{{Name: "node1", Alive: true}, {Name: "node2"}}}
	row := n.do(t, "cluster_status").Rows[0]
	if fmt.Sprint(row["disk_nodes"], row["running_nodes"]) != "[node1 node2] [node1]" {
		t.Errorf("got %v", row)
	}
}
