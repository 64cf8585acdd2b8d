package node

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// A client that waits is not told again, as in RabbitMQ: it waits all the same.
func TestAnAlarmSaysWhatIsShortNow(t *testing.T) {
	var used, free atomic.Uint64
	free.Store(100 << 30)
	n := startWith(t, alone(t, "one"), func(n *Node) {
		n.alarm.total, n.alarm.memoryShare, n.alarm.diskFreeBytes = 1000<<20, 0.6, 2<<30
		n.alarm.used = func() (uint64, bool) { return used.Load(), true }
		n.alarm.free = func(string) (uint64, uint64, bool) { return free.Load(), 1 << 40, true }
	}).awaitReady()
	// told publishes anew until a publisher hears of that reason.
	told := func(want string) (blocked chan amqp091.Blocking) {
		t.Helper()
		n.lookNow()
		await(t, want, func() bool {
			conn := n.dial("publisher")
			blocked = conn.NotifyBlocked(make(chan amqp091.Blocking, 8))
			ch, err := conn.Channel()
			if err == nil {
				err = ch.Publish("", "nowhere", false, false, amqp091.Publishing{})
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case b := <-blocked:
				return b.Reason == want
			case <-time.After(alarmEvery): // there is no alarm yet
				return false
			}
		})
		return blocked
	}
	const memory, disk = "low on memory: 700 of 600 MiB are used", "low on disk: 1024 of 2048 MiB are free"
	used.Store(700 << 20)
	waiting := []chan amqp091.Blocking{told(memory)}
	free.Store(1 << 30)
	waiting = append(waiting, told(memory+"; "+disk))
	used.Store(0)
	waiting = append(waiting, told(disk))
	free.Store(100 << 30)
	n.lookNow()
	for _, blocked := range waiting {
		if b := <-blocked; b.Active {
			t.Errorf("one that waits was told %q as well", b.Reason)
		}
	}
}

func TestFiguresThatChangeAreNoNews(t *testing.T) {
	used := uint64(700)
	a := &alarm{
		total: 1000, memoryShare: 0.6,
		used: func() (uint64, bool) { return used, true },
		free: func(string) (uint64, uint64, bool) { return 1 << 40, 1 << 40, true },
	}
	for _, c := range []struct {
		used uint64
		want bool
	}{{700, true}, {710, false}, {900, false}, {100, true}, {200, false}} {
		used = c.used
		if _, news := a.news(); news != c.want {
			t.Errorf("with %d used: news %v, want %v", c.used, news, c.want)
		}
	}
}

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
		if got := seen(a); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("with %d MiB used and %d MiB free: %q, want %q", c.usedMiB, c.freeMiB, got, c.want)
		}
	}
}

func TestASmallDiskKeepsAShareFree(t *testing.T) {
	a := &alarm{
		used: func() (uint64, bool) { return 0, true },
		free: func(string) (uint64, uint64, bool) { return 1 << 30, 10 << 30, true },
	}
	if got := seen(a); got != "" {
		t.Errorf("with 1 of 10 GiB free: %s", got)
	}
	a.setDiskFree(2 << 30)
	if got := seen(a); got == "" {
		t.Error("no alarm under a limit that was set")
	}
}

func TestWhatNobodyKnowsRaisesNoAlarm(t *testing.T) {
	a := &alarm{
		memoryBytes: 1, diskFreeBytes: 1 << 40,
		used: func() (uint64, bool) { return 0, false },
		free: func(string) (uint64, uint64, bool) { return 0, 0, false },
	}
	if got := seen(a); got != "" {
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

// seen is what an alarm sees.
func seen(a *alarm) string {
	reason, _ := a.news()
	return reason
}
