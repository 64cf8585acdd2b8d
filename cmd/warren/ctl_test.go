package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"warren/management"
)

// run runs the command line and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := rootCommand()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestStatusShowsNodesByName(t *testing.T) {
	st := management.Status{
		Node: "node1", Cluster: "warren", ClusterID: "c1", Version: "0.1.0", UptimeMs: 61500, QueuesTotal: 3,
		Members: []management.Member{{ID: "a1", Name: "node1", Address: "127.0.0.1:25672", Alive: true}, {ID: "b2", Name: "node2", Address: "127.0.0.1:25673"}},
		Groups:  []management.Group{{ID: 0, Leader: "a1", Term: 3, CommitIndex: 42, AppliedIndex: 41, Replicas: []string{"a1", "b2"}}, {ID: 1, Leader: "", Replicas: []string{"zz"}}},
		Queues: []management.Queue{
			{VHost: "/", Name: "orders", Durable: true, Group: 1, Leader: "b2", Ready: 5, Unacked: 2, Consumers: 1},
			{VHost: "/", Name: "bad\x1b[2J", Exclusive: true, Leader: "a1", Ready: -1, Unacked: -1, Consumers: -1},
		},
	}
	var out bytes.Buffer
	if err := printStatus(&out, st); err != nil {
		t.Fatal(err)
	}
	squeezed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"cluster warren (c1), as node1 sees it; warren 0.1.0, up 1m2s",
		"node2 b2 127.0.0.1:25673 down",
		"0 (metadata) node1 3 42 41 node1 node2",
		"1 - 0 0 0 zz",
		"/ orders durable 1 node2 5 2 1",
		`/ "bad\x1b[2J" exclusive - node1 ? ? ?`,
		"... and 1 more queues",
	} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("the tables lack %q:\n%s", want, out.String())
		}
	}
}

func TestStatusAsksTheNodeItIsTold(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/warren/status" || r.URL.Query().Get("queues") != "7" {
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		w.Write([]byte(`{"node":"here"}` + "\n"))
	}))
	defer srv.Close()
	got, err := run(t, "ctl", "status", "--json", "--queues", "7", "--node", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil || got != `{"node":"here"}`+"\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := run(t, "ctl", "status", "--queues", "7", "--node", srv.URL+"/"); err != nil || !strings.Contains(got, "as here sees it") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := run(t, "ctl", "status", "--node", srv.URL); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("an answer that is no status gives %v, want its code", err)
	}
}

func TestVersionAndHelpAreThere(t *testing.T) {
	if got, err := run(t, "version"); err != nil || !strings.HasPrefix(got, "warren 0.") {
		t.Errorf("version = %q, %v", got, err)
	}
	for _, args := range [][]string{{"--help"}, {"server", "--help"}, {"up", "--help"}, {"ctl", "--help"}, {"bench", "--help"}} {
		if got, err := run(t, args...); err != nil || !strings.Contains(got, "Usage:") {
			t.Errorf("%q = %q, %v", args, got, err)
		}
	}
	if _, err := run(t, "serve"); err == nil || !strings.Contains(err.Error(), "server") {
		t.Errorf("a slip gives %v, want the command that was meant", err)
	}
}

func TestCellsShowArgumentsAsRabbitmqctlDoes(t *testing.T) {
	for want, v := range map[string]any{
		"": nil, "a\tb": "a\tb", "3": 3.0, "true": true, "[]": []any{}, "[a, b]": []any{"a", "b"}, `{"k":"v"}`: map[string]any{"k": "v"},
		`[{"x-max-length",7},{"x-queue-type","quorum"}]`: []any{[]any{"x-max-length", "signedint", 7.0}, []any{"x-queue-type", "longstr", "quorum"}},
	} {
		if want == "a\tb" {
			want = `"a\tb"` // a name may not look like two columns
		}
		if got := cell(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
