package management

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// As RabbitMQ writes it, with what it has and Warren leaves alone.
const fromRabbitMQ = `{"rabbit_version":"4.3.0","rabbitmq_definition_format":"cluster",
"users":[{"hashing_algorithm":"rabbit_password_hashing_sha256","limits":{"max-channels":7},"name":"bob","password_hash":"aGFzaA==","tags":["management"]},
{"hashing_algorithm":"rabbit_password_hashing_sha512","limits":[],"name":"old","password_hash":"","tags":"a, b"}],
"vhosts":[{"description":"d","limits":[],"metadata":{"description":"d","tags":["t"]},"name":"v","tags":["t"],"default_queue_type":"quorum"}],
"permissions":[{"configure":".*","read":"r","user":"bob","vhost":"v","write":"w"}],
"topic_permissions":[{"user":"bob","vhost":"v","exchange":"amq.topic","write":"^a","read":"^b"}],
"parameters":[{"component":"vhost-limits","name":"limits","value":{"max-queues":9},"vhost":"v"},
{"component":"operator_policy","name":"op","value":{"apply-to":"queues","definition":{"max-length":5},"pattern":"^q","priority":1},"vhost":"v"}],
"global_parameters":[{"name":"cluster_tags","value":["x"]}],
"policies":[{"apply-to":"queues","definition":{"max-length":10},"name":"p","pattern":"^q","priority":2,"vhost":"v"}],
"queues":[{"arguments":{"x-max-length":3,"x-queue-type":"quorum"},"auto_delete":false,"durable":true,"name":"q","type":"quorum","vhost":"v"}],
"exchanges":[{"arguments":{},"auto_delete":false,"durable":true,"internal":false,"name":"x","type":"topic","vhost":"v"}],
"bindings":[{"arguments":{},"destination":"q","destination_type":"queue","routing_key":"#","source":"x","vhost":"v"}]}`

func control(t *testing.T, n *node, req ControlRequest) (int, ControlReply, string) {
	t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	n.secret = "s"
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ControlPath, strings.NewReader(string(b)))
	r.Header.Set("Authorization", "Bearer s")
	w := httptest.NewRecorder()
	NewServer(n, "0.1.0", slog.New(slog.DiscardHandler)).handler.ServeHTTP(w, r)
	var reply ControlReply
	_ = json.Unmarshal(w.Body.Bytes(), &reply)
	return w.Code, reply, w.Body.String()
}

func TestDefinitionsOfRabbitMQAreImportedAndExportedTheSame(t *testing.T) {
	n := &node{}
	if code, _, body := control(t, n, ControlRequest{Verb: "import_definitions", Args: []string{fromRabbitMQ}}); code != 200 {
		t.Fatal(code, body)
	}
	want := []string{
		"warren-ctl declares in v {Name:q Passive:false Durable:true Exclusive:false AutoDelete:false IfUnused:false",
		"warren-ctl declares in v {Name:x Type:topic",
		"warren-ctl declares in v {Queue:q Exchange:x RoutingKey:#",
	}
	if len(n.deeds) != len(want) {
		t.Fatalf("%d things declared: %q", len(n.deeds), n.deeds)
	}
	for i := range want {
		if !strings.HasPrefix(n.deeds[i], want[i][:38]) {
			t.Errorf("got %s, want %s", n.deeds[i], want[i])
		}
	}
	code, reply, body := control(t, n, ControlRequest{Verb: "export_definitions"})
	if code != 200 {
		t.Fatal(code, body)
	}
	var got, read Definitions
	if err := json.Unmarshal([]byte(reply.Message), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(fromRabbitMQ), &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Permissions[:1], read.Permissions) || !reflect.DeepEqual(got.TopicPermissions, read.TopicPermissions) ||
		!reflect.DeepEqual(got.GlobalParameters, read.GlobalParameters) || !reflect.DeepEqual(got.Policies, read.Policies) ||
		!reflect.DeepEqual(got.VHosts[len(got.VHosts)-1], read.VHosts[0]) {
		t.Errorf("got  %+v\nwant %+v", got, read)
	}
	if len(got.Parameters) != 2 || string(got.Parameters[0].Value) != `{"max-queues":9}` || got.Parameters[1].Component != operatorPolicies {
		t.Errorf("parameters: %s", reply.Message)
	}
	for _, u := range got.Users {
		if u.Name == "bob" && (string(u.Limits) != `{"max-channels":7}` || u.PasswordHash != "aGFzaA==") || u.Name == "old" && len(u.Tags) != 2 {
			t.Errorf("user %+v", u)
		}
	}
}

func TestWhatIsWrongWithDefinitionsIsSaid(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{`, "Failed to parse the definitions: "},
		{`{"parameters":[{"component":"shovel","name":"s","value":{},"vhost":"/"}]}`, "parameter 's' of component 'shovel': component shovel not found"},
		{`{"global_parameters":[{"name":"g"}]}`, "global parameter 'g': no value given"},
		{`{"queues":[{"name":"q","vhost":"/","arguments":"x"}]}`, "queue 'q' in vhost '/': not a JSON object"},
	} {
		code, _, body := control(t, &node{}, ControlRequest{Verb: "import_definitions", Args: []string{c.text}})
		var e ControlError
		if err := json.Unmarshal([]byte(body), &e); err != nil || code == 200 || e.Exit != ExitData || !strings.HasPrefix(e.Reason, c.want) {
			t.Errorf("%s: %d %s", c.text, code, body)
		}
	}
}
