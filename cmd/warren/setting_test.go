package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"warren/node"
)

func TestFileSetsWhatItsKeysSay(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := node.Default()
	err := applyLines(&got, "warren.conf", "\ufeff# a comment\r\n"+`
listeners.tcp.default = 5772
management.tcp.port = 15772
management.tcp.ip = 127.0.0.1   # not for everyone
cluster.listen = 10.0.0.1:25772
cluster.advertise=10.0.0.9:25772
cluster.join = a:1, b:2,
cluster.bootstrap_expect = 2
cluster.groups = 8
raft.log_store = boltdb
cluster.secret_file = `+secret+`
data_dir = '/var/lib/war # ren' # quoted
node_name = rabbit@here
cluster_name = prod
default_user = bob
default_pass = pa#ss
default_vhost = main
heartbeat = 0
frame_max = 8192
channel_max = 64
max_message_size = 1024
vm_memory_high_watermark.relative = 0.5
disk_free_limit.absolute = 1GiB
body_memory = 64MiB
loopback_users.guest = false
loopback_users.bob = true
pprof.listen = none
log.console.level = warning
`)
	if err != nil {
		t.Fatal(err)
	}
	want := node.Config{
		DataDir: "/var/lib/war # ren", Name: "rabbit@here", AMQPListen: ":5772", HTTPListen: "127.0.0.1:15772",
		ClusterListen: "10.0.0.1:25772", ClusterAdvertise: "10.0.0.9:25772", ClusterName: "prod",
		Join: []string{"a:1", "b:2"}, BootstrapExpect: 2, Groups: 8, LogStore: "boltdb", Secret: []byte("0123456789abcdef"),
		FrameMax: 8192, ChannelMax: 64, HeartbeatSeconds: 0, MaxMessageBytes: 1024, MemoryHighWatermark: 0.5, DiskFreeLimitBytes: 1 << 30, BodyMemoryBytes: 64 << 20,
		DefaultUser: "bob", DefaultPass: "pa#ss", DefaultVHost: "main", LoopbackUsers: []string{"bob"},
		LogLevel: slog.LevelWarn,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFileErrorsSayWhere(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"heartbeat = 60\nlisteners.tcp.defualt = 5672\n", `f:2: unknown key "listeners.tcp.defualt"; the nearest known one is "listeners.tcp.default"`},
		{"cluster.nodes_expected = 3", `f:1: unknown key "cluster.nodes_expected"; the nearest known one is "cluster.bootstrap_expect"`},
		{strings.Repeat("x", 100000) + " = 1", "f:1: unknown key"},
		{"\n\nheartbeat 60", `f:3: "heartbeat 60" is not of the form key = value`},
		{"= 60", "not of the form"},
		{"heartbeat = many", `f:1: heartbeat: "many" is not a whole number from 0 to 65535`},
		{"heartbeat = 65536", "not a whole number from 0 to 65535"},
		{"log.console.level = loud", `"loud" is not one of debug`},
		{"loopback_users.guest = perhaps", "neither true nor false"},
		{"loopback_users. = true", "unknown key"},
		{"default_pass = 'open", "the quote of default_pass"},
		{"cluster.secret_file = /no/such/file", "no such file"},
	} {
		c := node.Default()
		err := applyLines(&c, "f", tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: got error %v, want %q in it", tt.text, err, tt.want)
		}
	}
}

func TestEditsCountInsertDeleteReplace(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// config reads a configuration as `warren server` would.
func config(t *testing.T, env map[string]string, args ...string) (node.Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	addServerFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return serverConfig(flags, func(name string) string { return env[name] })
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warren.conf")
	if err := os.WriteFile(path, []byte("node_name = file\nlisteners.tcp.default = 1\nmanagement.tcp.port = 2\ndefault_user = file\ndefault_vhost = file"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"WARREN_CONFIG": path, "WARREN_NAME": "env", "WARREN_AMQP_LISTEN": "3",
		"RABBITMQ_DEFAULT_USER": "rabbit", "RABBITMQ_DEFAULT_VHOST": "rabbit", "WARREN_DEFAULT_VHOST": "warren",
		"WARREN_PORT": "tcp://10.0.0.1:80", // as Kubernetes sets for a service called warren
	}
	c, err := config(t, env, "--name", "flag")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, got, want string }{
		{"name", c.Name, "flag"},
		{"AMQP listen", c.AMQPListen, ":3"},
		{"HTTP listen", c.HTTPListen, ":2"},
		{"cluster listen", c.ClusterListen, ":25672"},
		{"default user", c.DefaultUser, "rabbit"},
		{"default vhost", c.DefaultVHost, "warren"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

func TestNodeThatIsToldWhomToJoinFormsNoCluster(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{nil, 1},
		{[]string{"--join", "a:1"}, 0},
		{[]string{"--join", "a:1", "--bootstrap-expect", "3"}, 3},
		{[]string{"--join", "a:1", "--bootstrap-expect", "1"}, 1},
	} {
		c, err := config(t, nil, tt.args...)
		if err != nil || c.BootstrapExpect != tt.want {
			t.Errorf("%q: expects %d (%v), want %d", tt.args, c.BootstrapExpect, err, tt.want)
		}
	}
}

func TestConfigurationErrorsNameTheirSource(t *testing.T) {
	if _, err := config(t, nil, "--bootstrap-expect", "x"); err == nil || !strings.Contains(err.Error(), "--bootstrap-expect") {
		t.Errorf("a bad flag: %v", err)
	}
	if _, err := config(t, map[string]string{"WARREN_HEARTBEAT": "x"}); err == nil || !strings.Contains(err.Error(), "WARREN_HEARTBEAT") {
		t.Errorf("a bad variable: %v", err)
	}
	if _, err := config(t, nil, "--config", "/no/such/file"); err == nil || !strings.Contains(err.Error(), "read configuration") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := config(t, nil, "--amqp-listen", "nowhere"); err == nil || !strings.Contains(err.Error(), "AMQP listen address") {
		t.Errorf("a bad address: %v", err)
	}
}

func TestEverySettingHasAKeyAndAnEnvOrIsAPart(t *testing.T) {
	keys, flags := map[string]bool{}, map[string]bool{}
	for _, s := range settings() {
		if s.key == "" || keys[s.key] || s.set == nil {
			t.Errorf("%+v: no key, a key seen before, or no setter", s)
		}
		keys[s.key] = true
		if s.flag != "" && (flags[s.flag] || s.help == "" || len(s.env) == 0) {
			t.Errorf("--%s: seen before, without help or without a variable", s.flag)
		}
		flags[s.flag] = true
	}
}
