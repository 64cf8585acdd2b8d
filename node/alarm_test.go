package node

import (
	"strings"
	"testing"
)

func TestAlarmsBeginAtTheirLimitAndEndWellBelowIt(t *testing.T) {
	var used, free uint64
	a := &alarm{
		total: 1000 << 20, memoryShare: 0.6,
		used: func() (uint64, bool) { return used, true },
		free: func(string) (uint64, uint64, bool) { return free, 100 << 30, true },
	}
	for _, c := range []struct {
		usedMiB, freeMiB uint64
		want             string
	}{
		{100, 5000, ""},
		{601, 5000, "memory"},
		{580, 5000, "memory"},
		{560, 5000, ""},
		{590, 5000, ""},
		{100, 2000, "disk"},
		{700, 2100, "memory: 700 of 600 MiB are used; low on disk"},
		{100, 2100, "disk"},
		{100, 2200, ""},
	} {
		used, free = c.usedMiB<<20, c.freeMiB<<20
		if got := a.look(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("with %d MiB used and %d MiB free: %q, want %q", c.usedMiB, c.freeMiB, got, c.want)
		}
	}
}

func TestASmallDiskKeepsAShareFree(t *testing.T) {
	a := &alarm{
		used: func() (uint64, bool) { return 0, true },
		free: func(string) (uint64, uint64, bool) { return 1 << 30, 10 << 30, true },
	}
	if got := a.look(); got != "" {
		t.Errorf("with 1 of 10 GiB free: %s", got)
	}
	a.setDiskFree(2 << 30)
	if got := a.look(); got == "" {
		t.Error("no alarm under a limit that was set")
	}
}

func TestWhatNobodyKnowsRaisesNoAlarm(t *testing.T) {
	a := &alarm{
		memoryBytes: 1, diskFreeBytes: 1 << 40,
		used: func() (uint64, bool) { return 0, false },
		free: func(string) (uint64, uint64, bool) { return 0, 0, false },
	}
	if got := a.look(); got != "" {
		t.Error(got)
	}
}

func TestThisSystemKnowsItsMemoryAndDisk(t *testing.T) {
	if memoryTotal() < 64<<20 {
		t.Errorf("memory: %d", memoryTotal())
	}
	if used, ok := memoryUsed(); !ok || used < 1<<20 {
		t.Errorf("used: %d, %v", used, ok)
	}
	if free, size, ok := diskFree(t.TempDir()); !ok || free == 0 || free > size {
		t.Errorf("free: %d of %d, %v", free, size, ok)
	}
}

func TestGarbageIsHeldBelowTheLimitOfMemory(t *testing.T) {
	held := uint64(1)
	a := &alarm{total: 2000 << 20, hold: func(bytes uint64) { held = bytes }}
	for _, c := range []struct {
		share   float64
		bytes   uint64
		wantMiB uint64
	}{
		{0.6, 0, 1020},
		{0.6, 1000 << 20, 850},
		{0, 0, 0},
		{0.6, 100 << 20, 0},
	} {
		if a.setMemory(c.share, c.bytes); held>>20 != c.wantMiB {
			t.Errorf("with a limit of %v or %d bytes it is held below %d MiB, want %d", c.share, c.bytes, held>>20, c.wantMiB)
		}
	}
}
