package node

import (
	"strings"
	"testing"
)

func TestDefaultConfigIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatalf("Default().Validate() = %v, want nil", err)
	}
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no data directory", func(c *Config) { c.DataDir = "" }, "data directory"},
		{"name with a space", func(c *Config) { c.Name = "a b" }, `name "a b"`},
		{"name too long", func(c *Config) { c.Name = strings.Repeat("a", 129) }, "1 to 128"},
		{"no cluster name", func(c *Config) { c.ClusterName = "" }, "cluster name"},
		{"address without port", func(c *Config) { c.AMQPListen = "localhost" }, "AMQP listen address"},
		{"port too high", func(c *Config) { c.HTTPListen = ":70000" }, "HTTP listen address"},
		{"the same address twice", func(c *Config) { c.ClusterListen = c.AMQPListen }, "is the AMQP listen address too"},
		{"advertise without host", func(c *Config) { c.ClusterAdvertise = ":25672" }, "cluster advertise"},
		{"join without port", func(c *Config) { c.Join = []string{"other"} }, "join"},
		{"expect without join", func(c *Config) { c.BootstrapExpect = 3 }, "needs join"},
		{"expect too many", func(c *Config) { c.BootstrapExpect = 65; c.Join = []string{"a:1"} }, "0 to 64"},
		{"too many groups", func(c *Config) { c.Groups = 1025 }, "groups 1025"},
		{"short secret", func(c *Config) { c.Secret = []byte("short") }, "cluster secret"},
		{"unknown log store", func(c *Config) { c.LogStore = "paper" }, "raft log store \"paper\""},
		{"small frames", func(c *Config) { c.FrameMax = 4096 }, "frame max 4096"},
		{"no channels", func(c *Config) { c.ChannelMax = 0 }, "channel max"},
		{"huge messages", func(c *Config) { c.MaxMessageBytes = 1 << 40 }, "max message size"},
		{"little body memory", func(c *Config) { c.BodyMemoryBytes = 1000 }, "body memory 1000: must be 0 or at least 1048576"},
		{"no user", func(c *Config) { c.DefaultUser = "" }, "default user"},
		{"no vhost", func(c *Config) { c.DefaultVHost = "" }, "default vhost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			tt.change(&c)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestValidateReportsAllErrorsAtOnce(t *testing.T) {
	c := Default()
	c.DataDir, c.ChannelMax = "", 0
	err := c.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("Validate() = %v, want two lines", err)
	}
}

func TestGroupsAreTwiceTheBootstrapSizeAndAtLeastTwo(t *testing.T) {
	for _, tt := range []struct{ groups, expect, want int }{{0, 0, 2}, {0, 1, 2}, {0, 3, 6}, {5, 3, 5}} {
		c := Config{Groups: tt.groups, BootstrapExpect: tt.expect}
		if got := c.GroupCount(); got != tt.want {
			t.Errorf("GroupCount() of groups %d, expect %d = %d, want %d", tt.groups, tt.expect, got, tt.want)
		}
	}
}
