package amqp

import (
	"crypto/tls"
	"time"
)

// Config is what a Server may be told. A zero field means its default.
type Config struct {
	Product string // "Warren"; shown in the server properties
	Version string
	// ClusterName is shown there too. It is called for each connection, as the
	// name may change; nil for none.
	ClusterName func() string
	// Platform and Information are shown in the server properties.
	Platform, Information string

	FrameMax         uint32        // bytes of a whole frame; 131072, at least 8192
	ChannelMax       uint16        // channels of one connection; 2047
	Heartbeat        time.Duration // proposed to clients, whole seconds; 60 s. Negative: none
	HandshakeTimeout time.Duration // from accept to connection.open; 10 s
	MaxMessageBytes  int64         // largest body; 16 MiB
	// SlowTimeout is how long a declare, a consume, a commit … may take before
	// its channel is closed with 541; 15 s.
	SlowTimeout time.Duration
	// CloseTimeout is how long a client may take to answer connection.close; 1 s.
	CloseTimeout time.Duration
	// RefusalDelay is how long a client that failed to authenticate and could
	// not be told so waits for the end of its socket; 3 s.
	RefusalDelay time.Duration
	// TLS, if set, is spoken on every connection.
	TLS *tls.Config
}

// frameMin is the smallest frame_max that may be agreed on, and what holds
// until it is (RabbitMQ 4: FRAME_MIN_SIZE).
const frameMin = 8192

func (c Config) withDefaults() Config {
	def(&c.Product, "Warren")
	def(&c.Version, "0.0.0")
	if c.ClusterName == nil {
		c.ClusterName = func() string { return "" }
	}
	def(&c.Platform, "Go")
	def(&c.Information, "AMQP 0-9-1, replicated by Raft")
	def(&c.FrameMax, 131072)
	c.FrameMax = max(c.FrameMax, frameMin)
	def(&c.ChannelMax, 2047)
	def(&c.Heartbeat, 60*time.Second)
	c.Heartbeat = max(c.Heartbeat, 0)
	def(&c.HandshakeTimeout, 10*time.Second)
	def(&c.MaxMessageBytes, 16<<20)
	def(&c.SlowTimeout, 15*time.Second)
	def(&c.CloseTimeout, time.Second)
	def(&c.RefusalDelay, 3*time.Second)
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
