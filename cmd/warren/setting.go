package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"warren/management"
	"warren/node"
)

// setting is one thing that a node can be told. The same row serves the
// configuration file, the environment and the command line.
type setting struct {
	key  string   // in the file: RabbitMQ's where the meaning is the same
	env  []string // the later one wins
	flag string   // "" if there is none
	help string   // of the flag
	set  func(c *node.Config, value string) error
}

// loopbackUsersPrefix begins the keys that name one user each:
// loopback_users.guest = false.
const loopbackUsersPrefix = "loopback_users."

// settings is the table of them all, in the order of the help.
func settings() []setting {
	return []setting{
		{"data_dir", []string{"WARREN_DATA_DIR"}, "data-dir", "`folder` of all that the node must not forget", text(func(c *node.Config) *string { return &c.DataDir })},
		{"node_name", []string{"WARREN_NAME"}, "name", "`name` of the node for people", text(func(c *node.Config) *string { return &c.Name })},
		{"cluster_name", []string{"WARREN_CLUSTER_NAME"}, "", "", text(func(c *node.Config) *string { return &c.ClusterName })},
		{"listeners.tcp.default", []string{"WARREN_AMQP_LISTEN"}, "amqp-listen", "`address` for AMQP clients", address(func(c *node.Config) *string { return &c.AMQPListen })},
		{"management.tcp.listen", []string{"WARREN_HTTP_LISTEN"}, "http-listen", "`address` for health checks and metrics; none serves none", address(func(c *node.Config) *string { return &c.HTTPListen })},
		{"management.tcp.port", nil, "", "", part(func(c *node.Config) *string { return &c.HTTPListen }, true)},
		{"management.tcp.ip", nil, "", "", part(func(c *node.Config) *string { return &c.HTTPListen }, false)},
		{"cluster.listen", []string{"WARREN_CLUSTER_LISTEN"}, "cluster-listen", "`address` for other nodes, TCP and UDP", address(func(c *node.Config) *string { return &c.ClusterListen })},
		{"cluster.advertise", []string{"WARREN_CLUSTER_ADVERTISE"}, "cluster-advertise", "`host:port` that other nodes reach --cluster-listen at", text(func(c *node.Config) *string { return &c.ClusterAdvertise })},
		{"cluster.join", []string{"WARREN_JOIN"}, "join", "cluster addresses of nodes to look for, as `host:port,...`", setJoin},
		{"cluster.bootstrap_expect", []string{"WARREN_BOOTSTRAP_EXPECT"}, "bootstrap-expect", "how many fresh nodes (`N`) form a new cluster together; 0 never forms one (default 1, with --join 0)", whole(func(c *node.Config, n uint64) { c.BootstrapExpect = int(n) }, 31)},
		{"cluster.groups", []string{"WARREN_GROUPS"}, "", "", whole(func(c *node.Config, n uint64) { c.Groups = int(n) }, 31)},
		{"raft.log_store", []string{"WARREN_RAFT_LOG_STORE"}, "raft-log-store", "where the log of durable queues is: `wal`, shared by a node's groups, or boltdb", text(func(c *node.Config) *string { return &c.LogStore })},
		{"cluster.secret", []string{"WARREN_SECRET"}, "", "", func(c *node.Config, v string) error { c.Secret = []byte(v); return nil }},
		{"cluster.secret_file", []string{"WARREN_SECRET_FILE"}, "secret-file", "`file` with the secret that the nodes of the cluster share", setSecretFile},
		{"frame_max", []string{"WARREN_FRAME_MAX"}, "", "", whole(func(c *node.Config, n uint64) { c.FrameMax = uint32(n) }, 32)},
		{"channel_max", []string{"WARREN_CHANNEL_MAX"}, "", "", whole(func(c *node.Config, n uint64) { c.ChannelMax = uint16(n) }, 16)},
		{"heartbeat", []string{"WARREN_HEARTBEAT"}, "", "", whole(func(c *node.Config, n uint64) { c.HeartbeatSeconds = uint16(n) }, 16)},
		{"max_message_size", []string{"WARREN_MAX_MESSAGE_SIZE"}, "", "", whole(func(c *node.Config, n uint64) { c.MaxMessageBytes = n }, 63)},
		{"vm_memory_high_watermark.relative", []string{"WARREN_VM_MEMORY_HIGH_WATERMARK"}, "", "", setMemoryShare},
		{"vm_memory_high_watermark.absolute", nil, "", "", size(func(c *node.Config) *uint64 { return &c.MemoryHighWatermarkBytes })},
		{"disk_free_limit.absolute", []string{"WARREN_DISK_FREE_LIMIT"}, "", "", size(func(c *node.Config) *uint64 { return &c.DiskFreeLimitBytes })},
		{"body_memory", []string{"WARREN_BODY_MEMORY"}, "body-memory", "`size` of the messages of durable queues in memory, the rest is on disk (default a quarter of the memory)", size(func(c *node.Config) *uint64 { return &c.BodyMemoryBytes })},
		{"default_user", []string{"RABBITMQ_DEFAULT_USER", "WARREN_DEFAULT_USER"}, "", "", text(func(c *node.Config) *string { return &c.DefaultUser })},
		{"default_pass", []string{"RABBITMQ_DEFAULT_PASS", "WARREN_DEFAULT_PASS"}, "", "", text(func(c *node.Config) *string { return &c.DefaultPass })},
		{"default_vhost", []string{"RABBITMQ_DEFAULT_VHOST", "WARREN_DEFAULT_VHOST"}, "", "", text(func(c *node.Config) *string { return &c.DefaultVHost })},
		{"loopback_users", []string{"WARREN_LOOPBACK_USERS"}, "", "", setLoopbackUsers},
		{"pprof.listen", []string{"WARREN_PPROF_LISTEN"}, "pprof-listen", "`address` for Go's profiles; none serves none", address(func(c *node.Config) *string { return &c.PprofListen })},
		{"log.console.level", []string{"WARREN_LOG_LEVEL"}, "log-level", "least severe `level` to log: debug, info, warning, error, none", setLogLevel},
	}
}

// settingFor finds the row of a key in the file.
func settingFor(key string) (setting, bool) {
	for _, s := range settings() {
		if s.key == key {
			return s, true
		}
	}
	if name, ok := strings.CutPrefix(key, loopbackUsersPrefix); ok && name != "" {
		return setting{key: key, set: func(c *node.Config, v string) error { return setLoopbackUser(c, name, v) }}, true
	}
	return setting{}, false
}

func text(field func(*node.Config) *string) func(*node.Config, string) error {
	return func(c *node.Config, v string) error { *field(c) = v; return nil }
}

// address takes host:port, a port alone as RabbitMQ's files have it, or none.
func address(field func(*node.Config) *string) func(*node.Config, string) error {
	return func(c *node.Config, v string) error {
		switch _, err := strconv.ParseUint(v, 10, 16); {
		case err == nil:
			*field(c) = ":" + v
		case v == "none":
			*field(c) = ""
		default:
			*field(c) = v
		}
		return nil
	}
}

// part changes the port or the host of an address.
func part(field func(*node.Config) *string, isPort bool) func(*node.Config, string) error {
	return func(c *node.Config, v string) error {
		host, port, err := net.SplitHostPort(*field(c))
		if err != nil {
			host, port = "", "15672"
		}
		if isPort {
			port = v
		} else {
			host = v
		}
		*field(c) = net.JoinHostPort(host, port)
		return nil
	}
}

func whole(set func(*node.Config, uint64), bits int) func(*node.Config, string) error {
	return func(c *node.Config, v string) error {
		n, err := strconv.ParseUint(v, 10, bits)
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0 to %d", v, uint64(1)<<bits-1)
		}
		set(c, n)
		return nil
	}
}

func size(field func(*node.Config) *uint64) func(*node.Config, string) error {
	return func(c *node.Config, v string) error {
		n, err := management.ParseSize(v)
		*field(c) = n
		return err
	}
}

func setMemoryShare(c *node.Config, v string) error {
	share, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return fmt.Errorf("%q is not a number from 0 to 1", v)
	}
	c.MemoryHighWatermark, c.MemoryHighWatermarkBytes = share, 0
	return nil
}

func setJoin(c *node.Config, v string) error {
	c.Join = list(v)
	return nil
}

// list splits at commas and forgets what is empty.
func list(v string) []string {
	var out []string
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// secretFileBytesMax bounds what is read of a secret file.
const secretFileBytesMax = 64 << 10

func setSecretFile(c *node.Config, v string) error {
	b, err := readFile(v, secretFileBytesMax)
	if err != nil {
		return err
	}
	c.Secret = []byte(strings.TrimSpace(string(b)))
	if len(c.Secret) == 0 {
		return fmt.Errorf("%s holds no secret", v)
	}
	return nil
}

func setLoopbackUsers(c *node.Config, v string) error {
	c.LoopbackUsers = nil
	if v != "none" {
		c.LoopbackUsers = list(v)
	}
	return nil
}

func setLoopbackUser(c *node.Config, name, v string) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	users := slices.DeleteFunc(slices.Clone(c.LoopbackUsers), func(u string) bool { return u == name })
	if on {
		users = append(users, name)
	}
	c.LoopbackUsers = users
	return nil
}

// levelNone is above every level that is logged.
const levelNone = slog.Level(1000)

func setLogLevel(c *node.Config, v string) error {
	switch v {
	case "debug":
		c.LogLevel = slog.LevelDebug
	case "info":
		c.LogLevel = slog.LevelInfo
	case "warning", "warn":
		c.LogLevel = slog.LevelWarn
	case "error", "critical":
		c.LogLevel = slog.LevelError
	case "none":
		c.LogLevel = levelNone
	default:
		return fmt.Errorf("%q is not one of debug, info, warning, error, none", v)
	}
	return nil
}

// readFile reads a whole file of at most bytesMax.
func readFile(path string, bytesMax int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > bytesMax {
		return nil, fmt.Errorf("%s: %d bytes long, the limit is %d", path, info.Size(), bytesMax)
	}
	return os.ReadFile(path)
}
