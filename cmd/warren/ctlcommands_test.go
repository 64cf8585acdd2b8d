package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/management"
	"warren/node"
)

// ctlOf runs a command line of rabbitmqctl and returns what it prints and
// exits with.
func ctlOf(t *testing.T, in string, args ...string) (out string, exit int, said string) {
	t.Helper()
	var b bytes.Buffer
	c := commandFor("/usr/local/bin/rabbitmqctl")
	c.SetOut(&b)
	c.SetIn(strings.NewReader(in))
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	var x *exitError
	switch {
	case errors.As(err, &x):
		return b.String(), x.code, x.text
	case err != nil:
		return b.String(), 1, err.Error()
	}
	return b.String(), 0, ""
}

// startNode runs a node until the end of the test, and returns its data
// directory and its AMQP address.
func startOne(t *testing.T, dir string) (amqp string) {
	t.Helper()
	cfg := node.Default()
	cfg.DataDir, cfg.Name = filepath.Join(dir, "node1"), "node1"
	plan, err := planNodes(upOptions{nodes: 1, dataDir: dir, basePort: freeBasePort(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.AMQPListen, cfg.HTTPListen, cfg.ClusterListen = plan[0].amqp, plan[0].http, plan[0].cluster
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var log bytes.Buffer
	cfg.LogLevelVar = new(slog.LevelVar)
	go func() {
		ended <- node.Run(ctx, cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: cfg.LogLevelVar})))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
		if _, err := os.Stat(filepath.Join(cfg.DataDir, management.ControlFileName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the secret outlives the node: %v", err)
		}
	})
	// Without the file a command would ask whoever is on RabbitMQ's port.
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, management.ControlFileName)); err == nil {
			break
		}
		if len(ended) > 0 || t.Context().Err() != nil {
			t.Fatalf("the node left no file for commands: %s", log.String())
		}
	}
	return cfg.AMQPListen
}

// step is a command line and what comes of it. Output stands for itself, or
// with a trailing "..." for its beginning.
type step struct {
	args string // words; a word in quotes may have blanks
	exit int
	want string
}

// words splits at blanks outside of single quotes.
func words(line string) (out []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

func (s *step) check(t *testing.T, dir string) {
	t.Helper()
	out, exit, said := ctlOf(t, "", append([]string{"--data-dir", dir}, words(s.args)...)...)
	if exit != s.exit {
		t.Errorf("%s: exit %d, want %d: %s%s", s.args, exit, s.exit, out, said)
	}
	got := strings.TrimSuffix(out+said, "\n")
	if beginning, ok := strings.CutSuffix(s.want, "..."); ok && !strings.HasSuffix(s.want, " ...") {
		if !strings.HasPrefix(got, beginning) {
			t.Errorf("%s:\ngot  %s\nwant %s", s.args, got, s.want)
		}
	} else if got != s.want {
		t.Errorf("%s:\ngot  %s\nwant %s", s.args, got, s.want)
	}
}

// What the commands print and exit with was taken from RabbitMQ 4.3's, but for
// the words of Go's regular expressions.
func TestCommandsDoAndPrintWhatRabbitmqctlDoes(t *testing.T) {
	dir := t.TempDir()
	amqp := startOne(t, dir)
	for _, s := range []step{
		{"await_startup", 0, ""},
		{"ping", 0, "Ping succeeded"},
		{"version", 0, node.Version},
		{"add_vhost v", 0, `Adding vhost "v" ...`},
		{"add_vhost v -q", 0, ""},
		{"add_user bob secret", 0, "Adding user \"bob\" ...\nDone. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to learn more."},
		{"-q add_user bob secret", 70, "Error:\nUser \"bob\" already exists"},
		{"-q add_user ''  x", 69, "Error:\nuser cannot be an empty string"},
		{"set_user_tags bob management policymaker", 0, `Setting tags for user "bob" to [management, policymaker] ...`},
		{"list_users", 0, "Listing users ...\nuser\ttags\nbob\t[management, policymaker]\nguest\t[administrator]"},
		{"list_users -s", 0, "bob\t[management, policymaker]\nguest\t[administrator]"},
		{"list_users -q --no-table-headers", 0, "bob\t[management, policymaker]\nguest\t[administrator]"},
		{"--formatter json list_users", 0, "[\n{\"user\":\"bob\",\"tags\":[\"management\",\"policymaker\"]}\n,{\"user\":\"guest\",\"tags\":[\"administrator\"]}\n]"},
		{"list_users --formatter csv", 0, "user,tags\nbob,\"[management, policymaker]\"\nguest,[administrator]"},
		{"list_users -q --formatter pretty_table", 0, "┌───────┬───────────────────────────┐\n│ user  │ tags                      │\n├───────┼───────────────────────────┤\n│ bob   │ [management, policymaker] │\n├───────┼───────────────────────────┤\n│ guest │ [administrator]           │\n└───────┴───────────────────────────┘"},
		{"authenticate_user bob nope", 65, "Authenticating user \"bob\" ...\nError:\nError: failed to authenticate user \"bob\"\nuser 'bob' - invalid credentials"},
		{"authenticate_user bob secret", 0, "Authenticating user \"bob\" ...\nSuccess"},
		{"set_permissions -p v bob '.*' '^a' ''", 0, `Setting permissions for user "bob" in vhost "v" ...`},
		{"list_permissions -p v", 0, "Listing permissions for vhost \"v\" ...\nuser\tconfigure\twrite\tread\nbob\t.*\t^a\t"},
		{"list_user_permissions bob -q", 0, "vhost\tconfigure\twrite\tread\nv\t.*\t^a\t"},
		{"set_topic_permissions -p v bob amq.topic '^w' '^r'", 0, `Setting topic permissions on "amq.topic" for user "bob" in vhost "v" ...`},
		{"list_topic_permissions -p v -q", 0, "user\texchange\twrite\tread\nbob\tamq.topic\t^w\t^r"},
		{"list_user_topic_permissions bob -s", 0, "v\tamq.topic\t^w\t^r"},
		{"clear_topic_permissions -p v bob amq.topic", 0, `Clearing topic permissions on "amq.topic" for user "bob" in vhost "v" ...`},
		{"clear_topic_permissions -p v bob", 0, `Clearing topic permissions for user "bob" in vhost "v" ...`},
		{"list_vhosts", 0, "Listing vhosts ...\nname\n/\nv"},
		{"trace_on -p v", 0, "Starting tracing for vhost \"v\" ...\nTrace enabled for vhost v"},
		{"list_vhosts -q name tracing", 0, "name\ttracing\n/\tfalse\nv\ttrue"},
		{"trace_off -p v", 0, "Stopping tracing for vhost \"v\" ...\nTrace disabled for vhost v"},
		{`set_policy -p v p1 '^q' '{"max-length":10}' --apply-to queues --priority 3`, 0, `Setting policy "p1" for pattern "^q" to "{"max-length":10}" with priority "3" for vhost "v" ...`},
		{"list_policies -p v", 0, "Listing policies for vhost \"v\" ...\nvhost\tname\tpattern\tapply-to\tdefinition\tpriority\nv\tp1\t^q\tqueues\t{\"max-length\":10}\t3"},
		{"list_policies -p v --formatter json", 0, "[\n{\"vhost\":\"v\",\"name\":\"p1\",\"pattern\":\"^q\",\"apply-to\":\"queues\",\"definition\":\"{\\\"max-length\\\":10}\",\"priority\":3}\n]"},
		{`set_policy -q -p v p2 '^q' '{"nope":1}'`, 69, "Error:\nValidation failed\n\n[{<<\"nope\">>,1}] are not recognised policy settings"},
		{`set_policy -q -p v p2 '^q' '{"max-length":10}' --priority x`, 64, "Error (argument validation): Invalid options for this command:\n--priority : x..."},
		{`set_policy -q -p nope p2 '^q' '{"max-length":10}'`, 65, "Error:\nVirtual host 'nope' does not exist"},
		{`set_operator_policy -q -p v op '^q' '{"max-length":5}' --apply-to queues`, 0, ""},
		{"list_operator_policies -p v -s", 0, "v\top\t^q\tqueues\t{\"max-length\":5}\t0"},
		{"clear_operator_policy -p v op", 0, `Clearing operator policy "op" on vhost "v" ...`},
		{"clear_operator_policy -q -p v op", 69, "Error:\nParameter does not exist"},
		{"clear_policy -q -p v p1", 0, ""},
		{"set_permissions -q -p v nope a b c", 67, "Error:\nUser \"nope\" does not exist"},
		{"set_permissions -q -p v bob ( b c", 69, "Error:\ninvalid regular expression '(': error parsing regexp: missing closing ): `(`"},
		{"set_permissions -p v bob a b", 64, "Error (argument validation): not enough arguments...."},
		{"change_password nope x", 67, "Changing password for user \"nope\" ...\nError:\nUser \"nope\" does not exist"},
		{"change_password bob x", 0, `Changing password for user "bob" ...`},
		{"delete_user nope", 0, `Deleting user "nope" ...`},
		{"delete_vhost nope -q", 65, "Error:\nVirtual host 'nope' does not exist"},
		{"list_queues nosuchkey", 64, "Error (argument validation): Info key(s) nosuchkey are not supported..."},
		{"list_queues --if-empty", 64, "Error (argument validation): Invalid options for this command:\n--if-empty..."},
		{"list_queues --no-such-option", 64, "Error (argument validation): unknown flag: --no-such-option..."},
		{"list_queues -p v", 0, "Listing queues for vhost v ..."},
		{"list_queues -q --formatter json name messages", 0, "[\n]"},
		{"list_exchanges -q name type", 0, "name\ttype\n\tdirect\namq.direct\tdirect\namq.fanout\tfanout\namq.headers\theaders\namq.match\theaders\namq.rabbitmq.trace\ttopic\namq.topic\ttopic"},
		{"purge_queue -q nope", 65, "Error:\nObject (queue, stream, exchange, etc) was not found"},
		{"delete_queue -q nope", 64, "Error:\nNo such queue was found"},
		{"list_connections", 0, "Listing connections ..."},
		{"close_all_connections -p v --limit 0 --per-connection-delay 0 bye", 0, "Closing all connections in vhost v, reason: bye...\nClosed 0 connections"},
		{"set_vm_memory_high_watermark 0.4", 0, "Setting memory threshold on the local node to 0.4 ..."},
		{"set_vm_memory_high_watermark absolute 2GB", 0, "Setting memory threshold on the local node to absolute 2GB ..."},
		{"-q set_vm_memory_high_watermark much", 64, "Error:\nThe threshold should be an integer or a float between 0 and 1..."},
		{"-q set_vm_memory_high_watermark absolute x", 65, "Error:\n'x' is not a size in bytes..."},
		{"set_disk_free_limit 1GB", 0, "Setting disk free limit on the local node to 1GB bytes ..."},
		{"-q set_disk_free_limit -1", 64, "Error (argument validation)..."},
		{"list_unresponsive_queues", 0, "Listing unresponsive queues for vhost / ..."},
		{"list_unresponsive_queues -q leader", 64, "Error (argument validation): Info key(s) leader are not supported..."},
		{"rotate_logs", 69, "Error:\nCommand 'rotate_logs' is not implemented in this version."},
		{"list_channels", 0, "Listing channels ..."},
		{"list_consumers -p v", 0, "Listing consumers in vhost v ..."},
		{`set_vhost_limits -p v '{"max-connections": 2, "max-queues": 3}'`, 0, `Setting vhost limits to "{"max-connections": 2, "max-queues": 3}" for vhost "v" ...`},
		{`-q set_vhost_limits -p v '{"max-exchanges": 2}'`, 69, "Error:\nValidation failed\n\nUnrecognised terms [{<<\"max-exchanges\">>,2}] in limits"},
		{`-q set_vhost_limits -p v '{"max-queues": "x"}'`, 69, "Error:\nValidation failed\n\n<<\"max-queues\">> should be a number, actually was x"},
		{`-q set_vhost_limits -p nope '{}'`, 65, "Error:\nVirtual host 'nope' does not exist"},
		{"list_vhost_limits -p v", 0, "Listing limits for vhost \"v\" ...\n{\"max-connections\":2,\"max-queues\":3}"},
		{"list_vhost_limits --global", 0, "Listing limits for all vhosts ...\nvhost\tlimits\nv\t{\"max-connections\":2,\"max-queues\":3}"},
		{"list_parameters -p v -q", 0, "component\tname\tvalue\nvhost-limits\tlimits\t{\"max-connections\":2,\"max-queues\":3}"},
		{"clear_vhost_limits -p v", 0, `Clearing vhost "v" limits ...`},
		{"-q clear_vhost_limits -p v", 69, "Error:\nParameter does not exist"},
		{`set_user_limits bob '{"max-connections": 2}' -q`, 0, ""},
		{`set_user_limits bob '{"max-channels": 5}' -q`, 0, ""},
		{"list_user_limits --user bob", 0, "Listing limits for user \"bob\" ...\n{\"max-channels\":5,\"max-connections\":2}"},
		{"clear_user_limits bob max-channels", 0, `Clearing "max-channels" limit for user "bob" ...`},
		{"list_user_limits", 0, "Listing limits for all users ...\nuser\tlimits\nbob\t{\"max-connections\":2}"},
		{"clear_user_limits bob all", 0, `Clearing all limits for user "bob" ...`},
		{"list_user_limits -q", 0, ""},
		{"set_parameter -p v shovel my '{}'", 69, "Setting runtime parameter \"my\" for component \"shovel\" to \"{}\" in vhost \"v\" ...\nError:\nValidation failed\n\ncomponent shovel not found"},
		{`set_parameter -q -p v vhost-limits limits '{"max-queues":1}'`, 0, ""},
		{"clear_parameter -p v vhost-limits limits", 0, `Clearing runtime parameter "limits" for component "vhost-limits" on vhost "v" ...`},
		{"clear_parameter -q -p v vhost-limits limits", 69, "Error:\nParameter does not exist"},
		{`set_global_parameter colour '"blue"'`, 0, `Setting global runtime parameter "colour" to ""blue"" ...`},
		{"list_global_parameters -q", 0, "name\tvalue\ncolour\t\"blue\""},
		{"clear_global_parameter -q colour", 0, ""},
		{"clear_global_parameter -q colour", 69, "Error:\nParameter does not exist"},
		{"no_such_command", 64, "Command 'no_such_command' not found...."},
		{"-n node1 cluster_status", 0, "Basics\n\nCluster name: warren\n..."},
		{"set_cluster_name 'the burrow'", 0, "Setting cluster name to the burrow ..."},
		{"-q set_cluster_name ''", 65, "Error:\nthe name of a cluster must be 1 to 128 bytes"},
		{"list_global_parameters -s", 0, "cluster_name\t\"the burrow\""},
		{"-n node1 cluster_status", 0, "Basics\n\nCluster name: the burrow\n..."},
		{"status", 0, "cluster the burrow (..."},
		{"set_log_level debug", 0, `Setting log level to "debug" ...`},
		{"-q set_log_level loud", 64, "Error:\nlevel loud is not supported. Try one of debug, info, warning, error, none"},
		{"-q -n node7 list_users", 69, "Error:\nno node named node7 has its data in " + dir + "; there is node1...."},
	} {
		s.check(t, dir)
	}
	info, err := os.Stat(filepath.Join(dir, "node1", management.ControlFileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file is %v, %v: it is for its owner alone", info, err)
	}
	checkEnvironment(t, dir, amqp)
	watchObjects(t, dir, amqp)
}

// checkEnvironment reads what a node goes by as the file that it looks like.
func checkEnvironment(t *testing.T, dir, amqp string) {
	t.Helper()
	out, exit, said := ctlOf(t, "", "--data-dir", dir, "environment")
	text, ok := strings.CutPrefix(out, "Application environment of node the local node ...\n")
	if exit != 0 || !ok {
		t.Fatalf("exit %d: %s%s", exit, out, said)
	}
	var got node.Config
	if err := applyLines(&got, "environment", text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if got.Name != "node1" || got.DataDir != filepath.Join(dir, "node1") || got.AMQPListen != amqp || got.DefaultPass == "guest" || got.LogLevel != slog.LevelDebug || got.DiskFreeLimitBytes != 1e9 || got.MemoryHighWatermarkBytes != 2e9 {
		t.Errorf("the environment is not this node's:\n%s", text)
	}
	// The rest says what one of these says, or is not set on this node.
	elsewhere := []string{"management.tcp.port", "management.tcp.ip", "vm_memory_high_watermark.relative", "cluster.secret", "cluster.secret_file"}
	for _, s := range settings() {
		if !strings.Contains("\n"+text, "\n"+s.key+" = ") && !slices.Contains(elsewhere, s.key) {
			t.Errorf("the environment lacks %s:\n%s", s.key, text)
		}
	}
	var all map[string]string
	if out, _, _ := ctlOf(t, "", "--data-dir", dir, "--formatter", "json", "environment"); json.Unmarshal([]byte(out), &all) != nil || all["node_name"] != "node1" {
		t.Errorf("as JSON it is %s", out)
	}
}

func TestTheEnvironmentQuotesWhatAFileWouldCutOff(t *testing.T) {
	for _, value := range []string{"/var/lib/war # ren", " x", "pa#ss", "plain", "", "it's"} {
		if _, got, err := parseLine("k = " + quoted(value)); err != nil || got != value {
			t.Errorf("%q is read back as %q, %v", value, got, err)
		}
	}
}

// watchObjects has a client make something for the commands to see.
func watchObjects(t *testing.T, dir, amqp string) {
	t.Helper()
	p := amqp091.NewConnectionProperties()
	p.SetClientConnectionName("c1")
	conn, err := amqp091.DialConfig("amqp://guest:guest@"+amqp, amqp091.Config{Properties: p})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if name := conn.Properties["cluster_name"]; name != "the burrow" {
		t.Errorf("clients are told that the cluster is named %v", name)
	}
	closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	args := amqp091.Table{"x-queue-type": "quorum"} // one: the client sends several in any order
	if _, err := ch.QueueDeclare("q", true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("q", "r.x", "amq.topic", false, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the policy below drops one of them
		if err := ch.Publish("", "q", false, false, amqp091.Publishing{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if q, err := ch.QueueDeclarePassive("q", true, false, false, false, nil); err != nil || q.Messages != 3 {
		t.Fatalf("%+v, %v", q, err)
	}
	for _, s := range []step{
		{"list_queues -q name messages,messages_ready type policy leader durable", 0, "name\tmessages\tmessages_ready\ttype\tpolicy\tleader\tdurable\nq\t3\t3\tquorum\t\tnode1\ttrue"},
		{"list_queues -s arguments", 0, `[{"x-queue-type","quorum"}]`},
		{"list_queues arguments --formatter json", 0, "[\n{\"arguments\":[[\"x-queue-type\",\"longstr\",\"quorum\"]]}\n]"},
		{`set_policy -q p '^q$' '{"max-length":2}'`, 0, ""},
		{"list_queues -s name policy effective_policy_definition", 0, "q\tp\t{\"max-length\":2}"},
		{"list_bindings -q", 0, "source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments\n\texchange\tq\tqueue\tq\t[]\namq.topic\texchange\tq\tqueue\tr.x\t[]"},
		{"list_connections -s user user_provided_name state channels", 0, "guest\tc1\trunning\t1"},
		{"purge_queue q", 0, "Purging queue 'q' in vhost '/' ..."},
		{"list_queues -s", 0, "q\t0"},
		{"delete_queue q --if-empty", 0, "Deleting queue 'q' on vhost '/' ..."},
	} {
		s.check(t, dir)
	}
	watchConsumer(t, dir, ch)
	for _, s := range []step{
		{"close_all_connections over", 0, "Closing all connections in vhost /, reason: over...\nClosed 1 connections"},
	} {
		s.check(t, dir)
	}
	select {
	case e := <-closed:
		if e == nil || e.Code != 320 || e.Reason != "CONNECTION_FORCED - over" {
			t.Errorf("the client hears %v", e)
		}
	case <-time.After(time.Minute):
		t.Error("the client is not told that its connection was closed")
	}
}

func TestPasswordsMayComeFromStandardInput(t *testing.T) {
	var got management.ControlRequest
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewDecoder(r.Body).Decode(&got)
		_, _ = io.WriteString(w, "{}\n")
	}))
	defer srv.Close()
	dir := t.TempDir()
	leave(t, filepath.Join(dir, "a"), "gone", "http://127.0.0.1:1", "s1")
	leave(t, filepath.Join(dir, "b"), "killed", srv.URL, "s2") // another node has its address now
	leave(t, filepath.Join(dir, "c"), "here", srv.URL, "s3")
	if out, exit, said := ctlOf(t, "top secret\n", "--data-dir", dir, "add_user", "bob"); exit != 0 {
		t.Fatalf("exit %d: %s%s", exit, out, said)
	}
	if want := []string{"bob", "top secret"}; got.Verb != "add_user" || !slices.Equal(got.Args, want) {
		t.Errorf("the node was asked %+v, want %q", got, want)
	}
	if _, exit, said := ctlOf(t, "", "--data-dir", dir, "add_user", "bob"); exit != 65 || said != "Error:\nPassword is not provided via argument or stdin" {
		t.Errorf("without a password: %d %s", exit, said)
	}
}

func leave(t *testing.T, dir, name, url, secret string) {
	t.Helper()
	b, err := json.Marshal(management.ControlFile{Node: name, URL: url, Secret: secret})
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, management.ControlFileName), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestErrorsSayWhichNodeWasMeantAndWhatToDo(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"not_authorized","reason":"Login failed"}`)
	}))
	defer refusing.Close()
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hanging.Close()
	odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer odd.Close()
	empty, broken, stale := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, management.ControlFileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	leave(t, stale, "gone", "http://127.0.0.1:1", "s")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--data-dir", stale, "list_users"}, "no node at http://127.0.0.1:1: is it running? (connect: connection refused)"},
		{[]string{"--data-dir", stale, "status"}, "no node at http://127.0.0.1:1: is it running? (connect: connection refused)"},
		{[]string{"--data-dir", empty, "--node", "http://127.0.0.1:1", "list_users"}, "no data directory of a node at http://127.0.0.1:1 was found in " + empty},
		{[]string{"--data-dir", empty, "list_users"}, "no data directory of a node at http://127.0.0.1:15672 was found in " + empty},
		{[]string{"--data-dir", empty, "-n", "rabbit@x", "list_users"}, "no node named rabbit@x has its data in " + empty + "; there is none."},
		{[]string{"--data-dir", broken, "list_users"}, filepath.Join(broken, management.ControlFileName) + " is not what a node leaves there"},
		{[]string{"--data-dir", empty, "--node", refusing.URL, "--user", "u", "--password", "p", "list_users"}, refusing.URL + " does not let this command in (not let in: Login failed)"},
		{[]string{"--data-dir", empty, "--node", hanging.URL, "--user", "u", "--timeout", "1", "list_users"}, hanging.URL + " did not answer in time (--timeout)"},
		{[]string{"--data-dir", empty, "--node", hanging.URL, "--timeout", "1", "await_startup"}, "the node was not ready in time: "},
		{[]string{"--data-dir", empty, "--node", odd.URL, "--user", "u", "list_users"}, "the node's answer is malformed: "},
	} {
		_, exit, said := ctlOf(t, "", append(c.args, "-q")...)
		if exit < 64 || !strings.HasPrefix(said, "Error:\n"+c.want) {
			t.Errorf("%q: exit %d, %s\nwant %s", c.args, exit, said, c.want)
		}
	}
}

func TestHelpKnowsEveryVerb(t *testing.T) {
	all, exit, _ := ctlOf(t, "", "help")
	if exit != 0 {
		t.Fatalf("exit %d", exit)
	}
	for _, v := range verbs() {
		if !strings.Contains(all, "  "+v.name+" ") {
			t.Errorf("the list lacks %s", v.name)
		}
		if one, exit, _ := ctlOf(t, "", "help", v.name); exit != 0 || !strings.Contains(one, "rabbitmqctl [options] "+v.name) {
			t.Errorf("help of %s: %d %s", v.name, exit, one)
		}
	}
	if out, err := run(t, "ctl", "add_user", "--help"); err != nil || !strings.Contains(out, "warren ctl [options] add_user <username>") {
		t.Errorf("got %q, %v", out, err)
	}
}

// watchConsumer looks at a channel and its consumer, and takes their queue
// through a definitions file.
func watchConsumer(t *testing.T, dir string, ch *amqp091.Channel) {
	t.Helper()
	if _, err := ch.QueueDeclare("c", true, false, false, false, amqp091.Table{"x-single-active-consumer": true}); err != nil {
		t.Fatal(err)
	}
	if err := ch.Qos(5, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"t1", "t2"} {
		if _, err := ch.Consume("c", tag, false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "definitions.json")
	for _, s := range []step{
		{"list_channels -s user number confirm transactional consumer_count prefetch_count messages_unconfirmed", 0, "guest\t1\ttrue\tfalse\t2\t5\t0"},
		{"list_consumers -q queue_name consumer_tag ack_required prefetch_count active arguments", 0,
			"queue_name\tconsumer_tag\tack_required\tprefetch_count\tactive\targuments\nc\tt1\ttrue\t5\ttrue\t[]\nc\tt2\ttrue\t5\tfalse\t[]"},
		{"export_definitions " + file, 0, "Exporting definitions in JSON to a file at \"" + file + "\" ..."},
		{"delete_queue -q c", 0, ""},
		{"list_queues -s", 0, ""},
		{"import_definitions " + file, 0, "Importing definitions in JSON from a file at \"" + file + "\" ..."},
		{"list_queues -s name arguments", 0, "c\t[{\"x-single-active-consumer\",true}]"},
		{"import_definitions -q " + file, 0, ""},
		{"import_definitions -q " + file + ".not", 65, "Error:\nFile " + file + ".not does not exist or cannot be read:..."},
	} {
		s.check(t, dir)
	}
	out, exit, said := ctlOf(t, "", "hash_password", "secret")
	if exit != 0 || len(out) != len("aGFzaA==")*6+1 {
		t.Errorf("hash_password: %d %s%s", exit, out, said)
	}
}
