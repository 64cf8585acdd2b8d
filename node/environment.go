package node

import (
	"log/slog"
	"strconv"
	"strings"

	"warren/management"
)

// masked stands for a secret that is set. It is too short to be one, so that a
// node that gets it for its own does not start.
const masked = "********"

// Environment is what this node goes by now, under the keys of the
// configuration file, which is where people know them from.
func (n *Node) Environment() []management.Setting {
	c := n.cfg
	c.ClusterName = n.clusterName()
	c.ClusterAdvertise = n.cluster.Advertised()
	c.Groups, c.BodyMemoryBytes = c.GroupCount(), uint64(c.BodyMemory())
	c.MemoryHighWatermark, c.MemoryHighWatermarkBytes, c.DiskFreeLimitBytes = n.alarm.limits()
	if c.LogLevelVar != nil {
		c.LogLevel = c.LogLevelVar.Level()
	}
	return c.environment()
}

// environment shows a Config without its secrets.
func (c *Config) environment() []management.Setting {
	memory := management.Setting{Key: "vm_memory_high_watermark.relative", Value: strconv.FormatFloat(c.MemoryHighWatermark, 'g', -1, 64)}
	if c.MemoryHighWatermarkBytes > 0 {
		memory = management.Setting{Key: "vm_memory_high_watermark.absolute", Value: whole(c.MemoryHighWatermarkBytes)}
	}
	out := []management.Setting{
		{Key: "data_dir", Value: c.DataDir},
		{Key: "node_name", Value: c.Name},
		{Key: "cluster_name", Value: c.ClusterName},
		{Key: "listeners.tcp.default", Value: c.AMQPListen},
		{Key: "management.tcp.listen", Value: orNone(c.HTTPListen)},
		{Key: "cluster.listen", Value: c.ClusterListen},
		{Key: "cluster.advertise", Value: c.ClusterAdvertise},
		{Key: "cluster.join", Value: strings.Join(c.Join, ",")},
		{Key: "cluster.bootstrap_expect", Value: strconv.Itoa(c.BootstrapExpect)},
		{Key: "cluster.groups", Value: strconv.Itoa(c.Groups)},
		{Key: "raft.log_store", Value: c.LogStore},
		{Key: "frame_max", Value: whole(uint64(c.FrameMax))},
		{Key: "channel_max", Value: whole(uint64(c.ChannelMax))},
		{Key: "heartbeat", Value: whole(uint64(c.HeartbeatSeconds))},
		{Key: "max_message_size", Value: whole(c.MaxMessageBytes)},
		memory,
		{Key: "disk_free_limit.absolute", Value: whole(c.DiskFreeLimitBytes)},
		{Key: "body_memory", Value: whole(c.BodyMemoryBytes)},
		{Key: "default_user", Value: c.DefaultUser},
		{Key: "default_pass", Value: masked},
		{Key: "default_vhost", Value: c.DefaultVHost},
		{Key: "loopback_users", Value: orNone(strings.Join(c.LoopbackUsers, ","))},
		{Key: "pprof.listen", Value: orNone(c.PprofListen)},
		{Key: "log.console.level", Value: levelName(c.LogLevel)},
	}
	if len(c.Secret) > 0 {
		out = append(out, management.Setting{Key: "cluster.secret", Value: masked})
	}
	return out
}

func whole(n uint64) string { return strconv.FormatUint(n, 10) }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// levelName is a level as the configuration has it.
func levelName(l slog.Level) string {
	switch {
	case l <= slog.LevelDebug:
		return "debug"
	case l <= slog.LevelInfo:
		return "info"
	case l <= slog.LevelWarn:
		return "warning"
	case l <= slog.LevelError:
		return "error"
	}
	return "none"
}
