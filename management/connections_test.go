package management

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"warren/mq"
)

const first, second = "127.0.0.1:46202 -> 127.0.0.1:5672", "[::1]:1 -> [::1]:5673"

func burrow() *node {
	return &node{
		tags: map[string][]string{
			"guest": {"administrator"}, "watch": {"monitoring"}, "mole": {"management"}, "plain": nil, "poet": {"impersonator"},
		},
		connections: []Connection{
			{
				Name: second, User: "mole", NodeID: "b", Node: "node2",
				ClientProperties: Properties(mq.Table{{Key: "connection_name", Value: "dig"}}), UserProvidedName: "dig",
			},
			{Name: first, User: "guest", VHost: "/", NodeID: "a", Node: "node1", State: "running", Channels: 2, PeerHost: "127.0.0.1", PeerPort: 46202, ClientProperties: Properties(nil)},
		},
	}
}

// ask sends a request from this machine with an HTTP Basic login.
func ask(t *testing.T, n *node, method, path, user string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.RemoteAddr = here
	if user != "" {
		r.SetBasicAuth(user, user)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	NewServer(n, "0.1.0", slog.New(slog.DiscardHandler)).handler.ServeHTTP(w, r)
	return w
}

func namesIn(t *testing.T, w *httptest.ResponseRecorder) (names []string) {
	t.Helper()
	if w.Code != 200 {
		t.Fatalf("%d %s, want 200", w.Code, w.Body)
	}
	var list []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		names = append(names, c["name"].(string))
	}
	return names
}

func TestOnlyUsersWithATagAreLetIn(t *testing.T) {
	for _, tt := range []struct {
		user, from string
		code       int
	}{
		{"", here, 401}, {"guest", here, 200}, {"guest", elsewhere, 401}, {"watch", elsewhere, 200}, {"mole", here, 200},
		{"plain", here, 401}, {"poet", here, 401}, {"nobody", here, 401},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/connections", nil)
		r.RemoteAddr = tt.from
		if tt.user != "" {
			r.SetBasicAuth(tt.user, tt.user)
		}
		w := httptest.NewRecorder()
		NewServer(burrow(), "0.1.0", slog.New(slog.DiscardHandler)).handler.ServeHTTP(w, r)
		if w.Code != tt.code {
			t.Errorf("%q from %s: %d, want %d", tt.user, tt.from, w.Code, tt.code)
		}
		if challenged := strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic "); challenged != (tt.code == 401) {
			t.Errorf("%q from %s: WWW-Authenticate %q with %d", tt.user, tt.from, w.Header().Get("WWW-Authenticate"), w.Code)
		}
	}
	n := burrow()
	n.loginErr = errors.New("no metadata leader")
	if w := ask(t, n, "GET", "/api/connections", "guest"); w.Code != 503 {
		t.Errorf("a login that nobody can decide: %d, want 503", w.Code)
	}
}

func TestConnectionsAreListedUnderRabbitMQsNames(t *testing.T) {
	for _, path := range []string{"/api/connections", "/api/connections/"} {
		if got := namesIn(t, ask(t, burrow(), "GET", path, "guest")); strings.Join(got, ", ") != first+", "+second {
			t.Errorf("%s: %q", path, got)
		}
	}
	var got map[string]any
	w := ask(t, burrow(), "GET", "/api/connections/"+url.PathEscape(first), "guest")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatal(w.Code, w.Body, err)
	}
	for key, want := range map[string]any{
		"name": first, "user": "guest", "vhost": "/", "node": "node1", "state": "running", "channels": 2.0,
		"peer_host": "127.0.0.1", "peer_port": 46202.0, "type": "network", "protocol": "AMQP 0-9-1", "user_who_performed_action": "guest", "ssl": false,
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
	if body := ask(t, &node{tags: burrow().tags}, "GET", "/api/connections", "guest").Body.String(); body != "[]\n" {
		t.Errorf("no connections: %q, want an empty list", body)
	}
	body := ask(t, burrow(), "GET", "/api/connections/"+url.PathEscape(second), "guest").Body.String()
	if !strings.Contains(body, `"user_provided_name":"dig"`) || !strings.Contains(body, `"client_properties":{"connection_name":"dig"}`) {
		t.Errorf("the name that the client gave itself is missing: %s", body)
	}
}

func TestUsersSeeTheirOwnConnectionsAndAdministratorsCloseThoseOfOthers(t *testing.T) {
	for _, tt := range []struct {
		user         string
		sees         int
		get, deletes int // of guest's
	}{{"guest", 2, 200, 204}, {"watch", 2, 200, 401}, {"mole", 1, 401, 401}} {
		n := burrow()
		if got := namesIn(t, ask(t, n, "GET", "/api/connections", tt.user)); len(got) != tt.sees {
			t.Errorf("%s sees %q, want %d", tt.user, got, tt.sees)
		}
		if w := ask(t, n, "GET", "/api/connections/"+url.PathEscape(first), tt.user); w.Code != tt.get {
			t.Errorf("%s gets %d, want %d", tt.user, w.Code, tt.get)
		}
		if w := ask(t, n, "DELETE", "/api/connections/"+url.PathEscape(first), tt.user); w.Code != tt.deletes || (len(n.closed) == 1) != (w.Code == 204) {
			t.Errorf("%s deletes: %d and closed %q, want %d", tt.user, w.Code, n.closed, tt.deletes)
		}
	}
	n := burrow()
	if w := ask(t, n, "DELETE", "/api/connections/"+url.PathEscape(second), "mole"); w.Code != 204 {
		t.Errorf("a user's own: %d, want 204", w.Code)
	}
}

func TestAClosedConnectionHearsTheReason(t *testing.T) {
	long := strings.Repeat("é", 300)
	for _, tt := range []struct{ header, want string }{
		{"", "Closed via management plugin"},
		{"moving house", "moving house"},
		{"two\x01\tlines\xff", "twolines"},
		{long, long[:reasonBytesMax]},
	} {
		n := burrow()
		w := ask(t, n, "DELETE", "/api/connections/"+url.PathEscape(first), "guest", "X-Reason", tt.header)
		if want := first + " on a: " + tt.want; w.Code != 204 || len(n.closed) != 1 || n.closed[0] != want {
			t.Errorf("%.20q: %d and closed %q, want %q", tt.header, w.Code, n.closed, want)
		}
	}
}

func TestAConnectionThatIsNotThereIs404(t *testing.T) {
	n := burrow()
	n.connections[1].State = "gone"
	for _, tt := range []struct{ method, name string }{{"GET", "nobody"}, {"DELETE", "nobody"}, {"DELETE", url.PathEscape(first)}} {
		w := ask(t, n, tt.method, "/api/connections/"+tt.name, "guest")
		if w.Code != 404 || !strings.Contains(w.Body.String(), `"error":"Object Not Found"`) {
			t.Errorf("%s %s: %d %s, want 404", tt.method, tt.name, w.Code, w.Body)
		}
	}
}

func TestRequestsAboutConnectionsAreBounded(t *testing.T) {
	s := NewServer(burrow(), "0.1.0", slog.New(slog.DiscardHandler))
	for range connectionRequestsMax {
		s.connections <- struct{}{}
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/connections", nil)
	r.RemoteAddr = here
	r.SetBasicAuth("guest", "guest")
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d, want 503", w.Code)
	}
}

func TestEveryClientPropertyBecomesJSON(t *testing.T) {
	got := string(Properties(mq.Table{
		{Key: "nil", Value: nil}, {Key: "yes", Value: true}, {Key: "big", Value: uint64(math.MaxUint64)},
		{Key: "nan", Value: math.NaN()}, {Key: "inf", Value: float32(math.Inf(-1))}, {Key: "bytes", Value: []byte("a\xff")},
		{Key: "time", Value: time.Unix(17, 0)}, {Key: "price", Value: mq.Decimal{Scale: 2, Value: 1999}},
		{Key: "list", Value: []any{int8(1), mq.Table{{Key: "a", Value: "b"}}}}, {Key: "yes", Value: "again"}, {Key: "bad\xffkey", Value: "bad\xfftext"},
	}))
	want := `{"bad\ufffdkey":"bad\ufffdtext","big":18446744073709551615,"bytes":"a\ufffd","inf":"-Inf","list":[1,{"a":"b"}],"nan":"NaN","nil":null,"price":19.99,"time":17,"yes":true}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(Properties(nil)); got != "{}" {
		t.Errorf("no properties: %s", got)
	}
}
