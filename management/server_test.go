package management

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"warren/fsm/meta"
	"warren/mq"
)

// node is a Source that says what a test puts into it.
type node struct {
	ready  error
	stats  Stats
	status Status
	err    error
	asked  int // queues, by the last Status

	loginErr    error
	tags        map[string][]string // of users, whose passwords are their names
	connections []Connection
	channels    []Channel
	consumers   []Consumer
	closed      []string // names and reasons of connections, as they were closed

	secret string
	state  *meta.State // of View; made at its first use
	index  uint64
	deeds  []string          // what was done to queues
	asking func(*meta.Queue) // called by QueueStatus, if set
}

func (n *node) Login(_ context.Context, user, password string, here bool) ([]string, error) {
	tags, ok := n.tags[user]
	if n.loginErr == nil && (!ok || user != password || user == "guest" && !here) {
		return nil, mq.Errorf(mq.AccessRefused, "Login was refused")
	}
	return tags, n.loginErr
}

func (n *node) Connections(_ context.Context, name string) (out []Connection) {
	for _, c := range n.connections {
		if name == "" || name == c.Name {
			out = append(out, c)
		}
	}
	return out
}

func (n *node) Channels(context.Context) []Channel           { return n.channels }
func (n *node) Consumers(context.Context, string) []Consumer { return n.consumers }

func (n *node) CloseConnection(_ context.Context, c Connection, reason string) bool {
	n.closed = append(n.closed, c.Name+" on "+c.NodeID+": "+reason)
	return c.State != "gone"
}

func (n *node) Ready() error { return n.ready }
func (n *node) Stats() Stats { return n.stats }
func (n *node) Status(_ context.Context, maxQueues int) (Status, error) {
	n.asked = maxQueues
	return n.status, n.err
}

func get(t *testing.T, n *node, path, from string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	NewServer(n, "0.1.0", slog.New(slog.DiscardHandler)).handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const here, elsewhere = "127.0.0.1:4000", "192.0.2.1:4000"

func TestAliveIsNotReady(t *testing.T) {
	n := &node{ready: errors.New("group 3 has no leader")}
	if code, _ := get(t, n, "/healthz", elsewhere); code != 200 {
		t.Errorf("/healthz = %d, want 200", code)
	}
	code, body := get(t, n, "/readyz", elsewhere)
	if code != 503 || !strings.Contains(body, "group 3 has no leader") {
		t.Errorf("/readyz = %d %s, want 503 and the reason", code, body)
	}
	n.ready = nil
	if code, _ := get(t, n, "/readyz", elsewhere); code != 200 {
		t.Errorf("/readyz when ready = %d, want 200", code)
	}
}

func TestStatusGoesThroughJSONUnchanged(t *testing.T) {
	n := &node{status: Status{
		Node: "node1", NodeID: "00000000000000a1", QueuesTotal: 7,
		Members: []Member{{ID: "00000000000000a1", Name: "node1", Address: "127.0.0.1:25672", Alive: true}},
		Groups:  []Group{{ID: 1, Leader: "00000000000000a1", Term: 4, Replicas: []string{"00000000000000a1"}}},
		Queues:  []Queue{{VHost: "/", Name: "q", Durable: true, Group: 1, Ready: 3, Unacked: -1}},
	}}
	code, body := get(t, n, "/api/warren/status", here)
	if code != 200 {
		t.Fatalf("status = %d %s", code, body)
	}
	var got Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(got)
	want, _ := json.Marshal(n.status)
	if string(again) != string(want) {
		t.Errorf("got %s\nwant %s", again, want)
	}
}

func TestStatusIsBoundedAndForThisMachine(t *testing.T) {
	for _, tt := range []struct {
		path, from string
		code, asks int
	}{
		{"/api/warren/status", here, 200, queuesShown},
		{"/api/warren/status", "[::1]:9", 200, queuesShown},
		{"/api/warren/status?queues=5", here, 200, 5},
		{"/api/warren/status?queues=0", here, 200, 0},
		{"/api/warren/status?queues=-1", here, 400, -1},
		{"/api/warren/status?queues=100001", here, 400, -1},
		{"/api/warren/status?queues=x", here, 400, -1},
		{"/api/warren/status", elsewhere, 403, -1},
	} {
		n := &node{asked: -1}
		code, _ := get(t, n, tt.path, tt.from)
		if code != tt.code || n.asked != tt.asks {
			t.Errorf("%s from %s = %d asking for %d queues, want %d and %d", tt.path, tt.from, code, n.asked, tt.code, tt.asks)
		}
	}
	if code, body := get(t, &node{err: errors.New("no metadata yet")}, "/api/warren/status", here); code != 503 || !strings.Contains(body, "no metadata yet") {
		t.Errorf("status that fails = %d %s, want 503 and why", code, body)
	}
}

func TestMetricsHaveRabbitMQsNamesAndTheNodesFigures(t *testing.T) {
	n := &node{stats: Stats{
		Node: "node1", Cluster: "warren", ClusterID: "c1", Started: time.Now(),
		Connections: 3, Received: 10, DeliveredAutoAck: 1, DeliveredManualAck: 2, GotAutoAck: 3, GotManualAck: 4,
		QueueMessagesReady: 5, QueueMessagesUnacked: 6,
		Groups:          []GroupStats{{Group: 0, Term: 2, Leader: true}, {Group: 1, Term: 9, CommitIndex: 77, ComparedIndex: 3000}},
		StateMismatches: 2,
	}}
	code, body := get(t, n, "/metrics", elsewhere)
	if code != 200 {
		t.Fatalf("/metrics = %d %s", code, body)
	}
	for _, want := range []string{
		`rabbitmq_identity_info{rabbitmq_cluster="warren",rabbitmq_cluster_permanent_id="c1",rabbitmq_node="node1"} 1`,
		`rabbitmq_build_info{`,
		"\nrabbitmq_connections 3\n",
		`rabbitmq_global_messages_received_total{protocol="amqp091"} 10`,
		`rabbitmq_global_messages_delivered_total{protocol="amqp091",queue_type="rabbit_quorum_queue"} 10`,
		"\nrabbitmq_queue_messages 11\n",
		`rabbitmq_raft_term{group="1"} 9`,
		`rabbitmq_raft_commit_index{group="1"} 77`,
		`warren_raft_leader{group="0"} 1`,
		`warren_state_compared_index{group="1"} 3000`,
		"\nwarren_state_hash_mismatches_total 2\n",
		"\nprocess_open_fds ",
		"\nrabbitmq_process_resident_memory_bytes ",
		"\nrabbitmq_process_max_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestEveryMetricSaysWhatItIs(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range nodeMetrics {
		if m.help == "" || m.value == nil || seen[m.name] {
			t.Errorf("%s: help %q, seen before %v", m.name, m.help, seen[m.name])
		}
		if total := strings.HasSuffix(m.name, "_total"); total != (m.kind == counter) {
			t.Errorf("%s: only counters, and all of them, end in _total", m.name)
		}
		seen[m.name] = true
	}
}

func TestServerEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewServer(&node{}, "0.1.0", slog.New(slog.DiscardHandler)).Run(ctx, ln)
	}()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("the address still accepts after Run has returned")
	}
}

func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBoundedListener(ln, 1)
	for range 2 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		second <- err
	}()
	select {
	case <-second:
		t.Fatal("the second connection was accepted while the first was open")
	default:
	}
	first.Close()
	first.Close() // closing twice gives one place back
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v, want net.ErrClosed", err)
	}
}
