package node

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"regexp"
	"strconv"
	"strings"

	"warren/cluster"
	"warren/fsm/meta"
)

// Config is everything that a node can be told. Default fills it in, the
// command line, the environment and a file change it, Validate checks it once,
// and from then on values are handed down.
type Config struct {
	// DataDir is the folder that holds all that the node must not forget; it is
	// made if it is missing. Default: warren-data/server.
	DataDir string
	// Name is what people call the node: letters, digits and @ . _ -. It may
	// change between starts. Default: warren@ and the host's short name, set by
	// the command line.
	Name string

	// AMQPListen is where clients connect, as host:port or :port. Default: :5672.
	AMQPListen string
	// HTTPListen is where health checks, metrics and the HTTP API are served.
	// Empty serves none. Default: :15672.
	HTTPListen string
	// ClusterListen is the one port, TCP and UDP, for all that nodes say to each
	// other. Default: :25672.
	ClusterListen string
	// ClusterAdvertise is the address that other nodes reach ClusterListen at.
	// Default: ClusterListen, with the host's own address in place of an empty host.
	ClusterAdvertise string
	// PprofListen serves Go's profiles, to whoever can reach it. Default: empty, none.
	PprofListen string

	// ClusterName is shown to clients and in metrics until an operator gives the
	// cluster another name. Default: warren.
	ClusterName string
	// Join lists cluster addresses of nodes to look for, as host:port; the node's
	// own may be among them. Default: none.
	Join []string
	// BootstrapExpect is how many fresh nodes must see each other before they form
	// a new cluster. A node with state never forms one, and 0 means: join, never
	// form. Default: 1, a cluster of one that others can join.
	BootstrapExpect int
	// Secret is what the nodes of one cluster share; with it their traffic is
	// encrypted and mutually authenticated. At least 16 bytes. Default: none.
	Secret []byte
	// Groups is how many Raft groups a new cluster spreads its durable queues
	// over. Default: 0, which is twice BootstrapExpect and at least 2.
	Groups int
	// LogStore is where the log of durable queues is: wal, one for all of a
	// node's groups, or boltdb, a file for each. It cannot change while there are
	// any. Default: wal.
	LogStore string

	// FrameMax is the largest AMQP frame in bytes, as RabbitMQ counts it: all of
	// the frame. Default: 131072.
	FrameMax uint32
	// ChannelMax is the highest channel number that a connection may use.
	// Default: 2047.
	ChannelMax uint16
	// HeartbeatSeconds is the heartbeat interval that clients are offered; 0
	// offers none. Default: 60.
	HeartbeatSeconds uint16
	// MaxMessageBytes is the largest message body in bytes, at most 134217728.
	// Default: 16777216.
	MaxMessageBytes uint64

	// MemoryHighWatermark is the share of this machine's memory (or of what its
	// control group may use) above which publishers wait. Default: 0.6.
	MemoryHighWatermark float64
	// MemoryHighWatermarkBytes says the same in bytes, and counts unless it is 0.
	// Default: 0.
	MemoryHighWatermarkBytes uint64
	// DiskFreeLimitBytes is how much has to stay free on the disk of DataDir:
	// publishers wait while less is. Default: 0, which stands for 2 GiB or a
	// twentieth of the disk, whichever is less.
	DiskFreeLimitBytes uint64

	// BodyMemoryBytes is how much memory the bodies of messages in durable queues
	// may take; of more, the oldest are paged out to DataDir. Default: 0, which
	// stands for a quarter of this machine's memory, or of what its control group
	// may use.
	BodyMemoryBytes uint64

	// DefaultUser is the user that a new cluster starts with. Default: guest.
	DefaultUser string
	// DefaultPass is DefaultUser's password in a new cluster. Default: guest.
	DefaultPass string
	// DefaultVHost is the virtual host that a new cluster starts with. Default: /.
	DefaultVHost string
	// LoopbackUsers may log in from this machine only. Default: guest.
	LoopbackUsers []string

	// LogLevel is the least severe level that is logged. Default: info.
	LogLevel slog.Level
	// LogLevelVar is what the logger that Run is given goes by, for a command to
	// change. Default: nil, with which none can.
	LogLevelVar *slog.LevelVar
	// HoldMemory has the process's memory stay below so many bytes, as far as it
	// is garbage that goes beyond; 0: it may be what it likes. Called at the start
	// and whenever the limit of the memory alarm changes. Default: nil.
	HoldMemory func(bytes uint64)
}

// Bounds of the fields. What RabbitMQ bounds has RabbitMQ's bounds.
const (
	frameMaxFloor   = 8192      // AMQP clients may rely on RabbitMQ's floor
	frameMaxCeiling = 16 << 20  // one frame is one read buffer
	messageBytesMax = 128 << 20 // what the log of a queue takes: queue.BodyBytesMax
	bodyMemoryFloor = 1 << 20
	bodyMemoryShare = 4 // of the memory that there is
	// bodyMemoryMostShare is what bodies may come to when none can be written.
	bodyMemoryMostShare = 0.75
	bodyMemoryUnknown   = 512 << 20 // if nobody knows how much there is
	bootstrapExpectMax  = 64
	groupsMax           = 1024
	joinMax             = 256
	secretBytesMin      = 16
	nameBytesMax        = 128
)

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@._-]*$`)

// Default is the Config of a single node that nobody configured.
func Default() Config {
	return Config{
		DataDir:             "warren-data/server",
		Name:                "warren",
		AMQPListen:          ":5672",
		HTTPListen:          ":15672",
		ClusterListen:       ":25672",
		ClusterName:         "warren",
		BootstrapExpect:     1,
		LogStore:            cluster.LogStoreWAL,
		FrameMax:            131072,
		ChannelMax:          2047,
		HeartbeatSeconds:    60,
		MaxMessageBytes:     16 << 20,
		MemoryHighWatermark: 0.6,
		DefaultUser:         "guest",
		DefaultPass:         "guest",
		DefaultVHost:        "/",
		LoopbackUsers:       []string{"guest"},
		LogLevel:            slog.LevelInfo,
	}
}

// GroupCount is Groups, or what its default works out to.
func (c *Config) GroupCount() int {
	if c.Groups > 0 {
		return c.Groups
	}
	return max(2, 2*c.BootstrapExpect)
}

// bodyMemoryMost is what bodies may take while none can be written to disk:
// more than where the memory alarm stops publishers, and less than what the
// process may have.
func (c *Config) bodyMemoryMost() int64 {
	return int64(bodyMemoryMostShare * float64(memoryTotal())) // with nothing known, a little more than BodyMemory
}

// BodyMemory is BodyMemoryBytes, or what its default works out to.
func (c *Config) BodyMemory() int64 {
	if c.BodyMemoryBytes > 0 {
		return int64(c.BodyMemoryBytes)
	}
	if total := memoryTotal(); total > 0 {
		return max(bodyMemoryFloor, int64(total/bodyMemoryShare))
	}
	return bodyMemoryUnknown
}

// Validate reports everything that is wrong with c, each in words of its own.
func (c *Config) Validate() error {
	errs := append(c.identityErrors(), c.addressErrors()...)
	errs = append(errs, c.clusterErrors()...)
	return errors.Join(append(errs, c.clientErrors()...)...)
}

func (c *Config) identityErrors() (errs []error) {
	if c.DataDir == "" {
		errs = append(errs, errors.New("data directory: must not be empty"))
	}
	if len(c.Name) > nameBytesMax || !nodeName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q: must be 1 to %d letters, digits or @ . _ - and begin with a letter or digit", c.Name, nameBytesMax))
	}
	if c.ClusterName == "" || len(c.ClusterName) > meta.ClusterNameBytesMax {
		errs = append(errs, fmt.Errorf("cluster name: must be 1 to %d bytes", meta.ClusterNameBytesMax))
	}
	return errs
}

func (c *Config) addressErrors() (errs []error) {
	listens := []struct {
		what, addr string
		optional   bool
	}{
		{"AMQP listen address", c.AMQPListen, false},
		{"HTTP listen address", c.HTTPListen, true},
		{"cluster listen address", c.ClusterListen, false},
		{"pprof listen address", c.PprofListen, true},
	}
	taken := make(map[string]string)
	for _, l := range listens {
		if l.addr == "" && l.optional {
			continue
		}
		if err := checkAddress(l.addr, false); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.what, err))
			continue
		}
		if other, ok := taken[l.addr]; ok && !strings.HasSuffix(l.addr, ":0") {
			errs = append(errs, fmt.Errorf("%s: %s is the %s too", l.what, l.addr, other))
		}
		taken[l.addr] = l.what
	}
	if c.ClusterAdvertise != "" {
		if err := checkAddress(c.ClusterAdvertise, true); err != nil {
			errs = append(errs, fmt.Errorf("cluster advertise address: %w", err))
		}
	}
	return errs
}

func (c *Config) clusterErrors() (errs []error) {
	if len(c.Join) > joinMax {
		errs = append(errs, fmt.Errorf("join: %d addresses, the limit is %d", len(c.Join), joinMax))
	}
	for _, j := range c.Join {
		if err := checkAddress(j, true); err != nil {
			errs = append(errs, fmt.Errorf("join: %w", err))
		}
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > bootstrapExpectMax {
		errs = append(errs, fmt.Errorf("bootstrap expect %d: must be 0 to %d", c.BootstrapExpect, bootstrapExpectMax))
	}
	if c.BootstrapExpect != 1 && len(c.Join) == 0 {
		errs = append(errs, fmt.Errorf("bootstrap expect %d: needs join addresses to find the other nodes by", c.BootstrapExpect))
	}
	if c.Groups < 0 || c.Groups > groupsMax {
		errs = append(errs, fmt.Errorf("groups %d: must be 0 to %d", c.Groups, groupsMax))
	}
	if c.LogStore != cluster.LogStoreWAL && c.LogStore != cluster.LogStoreBolt {
		errs = append(errs, fmt.Errorf("raft log store %q: must be %s or %s", c.LogStore, cluster.LogStoreWAL, cluster.LogStoreBolt))
	}
	if n := len(c.Secret); n > 0 && n < secretBytesMin {
		errs = append(errs, fmt.Errorf("cluster secret: %d bytes long, the least is %d", n, secretBytesMin))
	}
	return errs
}

func (c *Config) clientErrors() (errs []error) {
	if c.FrameMax < frameMaxFloor || c.FrameMax > frameMaxCeiling {
		errs = append(errs, fmt.Errorf("frame max %d: must be %d to %d bytes", c.FrameMax, frameMaxFloor, frameMaxCeiling))
	}
	if c.ChannelMax == 0 {
		errs = append(errs, errors.New("channel max 0: must be 1 to 65535"))
	}
	if c.MaxMessageBytes == 0 || c.MaxMessageBytes > messageBytesMax {
		errs = append(errs, fmt.Errorf("max message size %d: must be 1 to %d bytes", c.MaxMessageBytes, messageBytesMax))
	}
	if c.DefaultUser == "" || len(c.DefaultUser) > 255 {
		errs = append(errs, errors.New("default user: must be 1 to 255 bytes"))
	}
	if c.DefaultVHost == "" || len(c.DefaultVHost) > 255 {
		errs = append(errs, errors.New("default vhost: must be 1 to 255 bytes"))
	}
	if c.BodyMemoryBytes != 0 && c.BodyMemoryBytes < bodyMemoryFloor || c.BodyMemoryBytes > math.MaxInt64/2 {
		errs = append(errs, fmt.Errorf("body memory %d: must be 0 or at least %d bytes", c.BodyMemoryBytes, bodyMemoryFloor))
	}
	if !(c.MemoryHighWatermark >= 0 && c.MemoryHighWatermark <= 1) {
		errs = append(errs, fmt.Errorf("memory high watermark %v: must be 0 to 1", c.MemoryHighWatermark))
	}
	return errs
}

// checkAddress checks host:port. A remote address needs a host and a port; a
// local one may do without a host, and port 0 asks the system for one.
func checkAddress(addr string, remote bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%q: port must be a number up to 65535", addr)
	}
	if remote && (host == "" || n == 0) {
		return fmt.Errorf("%q: needs a host and a port that others can reach", addr)
	}
	return nil
}
