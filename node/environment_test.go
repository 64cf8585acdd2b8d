package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"warren/management"
)

func TestTheEnvironmentShowsNoSecret(t *testing.T) {
	c := Default()
	c.Secret, c.DefaultPass = []byte("0123456789abcdef"), "hunter2"
	all := c.environment()
	for _, want := range []management.Setting{{Key: "cluster.secret", Value: masked}, {Key: "default_pass", Value: masked}} {
		if !slices.Contains(all, want) {
			t.Errorf("the environment lacks %v: %v", want, all)
		}
	}
	if s := fmt.Sprint(all); strings.Contains(s, "0123456789abcdef") || strings.Contains(s, "hunter2") {
		t.Errorf("a secret is in the environment: %s", s)
	}
	if len(masked) >= secretBytesMin {
		t.Errorf("%s would do for a secret", masked)
	}
}

func TestTheEnvironmentShowsWhatOperatorsChanged(t *testing.T) {
	a := &alarm{free: func(string) (uint64, uint64, bool) { return 1 << 30, 10 << 30, true }}
	a.setMemory(0, 7<<20)
	var c Config
	c.MemoryHighWatermark, c.MemoryHighWatermarkBytes, c.DiskFreeLimitBytes = a.limits()
	all := c.environment()
	for _, want := range []management.Setting{
		{Key: "vm_memory_high_watermark.absolute", Value: "7340032"},
		{Key: "disk_free_limit.absolute", Value: "536870912"}, // the default: a twentieth of the disk
	} {
		if !slices.Contains(all, want) {
			t.Errorf("the environment lacks %v: %v", want, all)
		}
	}
}
