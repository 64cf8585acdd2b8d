package node

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// alarmEvery is how often the node looks at its memory and its disk.
	alarmEvery = time.Second
	// alarmOver is how far below its limit memory has to fall, and disk above,
	// for an alarm to end: else it would come and go.
	alarmOver = 0.95
	// diskFreeDefault and diskFreeShare are what has to stay free on the disk
	// unless the configuration says otherwise: the smaller of the two.
	diskFreeDefault = 2 << 30
	diskFreeShare   = 0.05
	// garbageShare of the limit of memory is where the collector begins to hurry.
	// One that waits until the heap has doubled takes twice what lives, and where
	// bodies live in a quarter of the memory that raises the alarm by garbage.
	garbageShare = 0.85
	// garbageMin is the least such share for which it hurries: a limit below that
	// is set to have publishers wait.
	garbageMin = 256 << 20
)

// alarm watches what this node must not run out of.
type alarm struct {
	dir   string // on the disk that counts
	slog  *slog.Logger
	total uint64 // memory that this process may use, in bytes; 0 if that is unknown

	mu            sync.Mutex
	memoryShare   float64 // of total
	memoryBytes   uint64  // instead of memoryShare, unless 0
	diskFreeBytes uint64  // 0 stands for the default
	shortages             // raised
	told          shortages
	ballast       ballast
	unmade        time.Time // when the ballast could not be made, which was logged
	hold          func(bytes uint64)

	// used, and free and size of the disk, in bytes; false if nobody knows.
	used func() (uint64, bool)
	free func(dir string) (free, size uint64, ok bool)
}

// shortages are what alarms are raised for.
type shortages struct{ memory, disk bool }

func newAlarm(c *Config, log *slog.Logger) *alarm {
	a := &alarm{
		dir: c.DataDir, slog: log, ballast: newBallast(c.DataDir, c.BodyMemory()), total: memoryTotal(),
		diskFreeBytes: c.DiskFreeLimitBytes, used: memoryUsed, free: diskFree, hold: c.HoldMemory,
	}
	a.setMemory(c.MemoryHighWatermark, c.MemoryHighWatermarkBytes)
	return a
}

// memoryLimit is how much memory may be used before publishers wait, if that
// is known. Runs with mu held.
func (a *alarm) memoryLimit() (bytes uint64, known bool) {
	if a.memoryBytes > 0 {
		return a.memoryBytes, true
	}
	return uint64(a.memoryShare * float64(a.total)), a.total > 0
}

// news looks, and answers why publishers have to wait, "" if they need not. It
// is news if it is for another reason than at the last call; figures that have
// changed are not.
func (a *alarm) news() (reason string, news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reason = a.look()
	news, a.told = a.shortages != a.told, a.shortages
	return reason, news
}

// look answers why publishers have to wait, "" if they need not. Runs with mu
// held.
func (a *alarm) look() string {
	var reasons []string
	used, ok := a.used()
	if limit, known := a.memoryLimit(); a.raised(&a.memory, ok && known, float64(used), float64(limit)) {
		reasons = append(reasons, fmt.Sprintf("low on memory: %d of %d MiB are used", used>>20, limit>>20))
	}
	free, size, ok := a.free(a.dir)
	limit := a.diskLimit(size)
	// The less is free the worse, so both are turned round.
	if a.raised(&a.disk, ok && limit > 0, float64(limit), float64(free)) {
		reasons = append(reasons, fmt.Sprintf("low on disk: %d of %d MiB are free", free>>20, limit>>20))
	}
	return strings.Join(reasons, "; ")
}

// diskLimit is how much of a disk has to stay free. Runs with mu held.
func (a *alarm) diskLimit(size uint64) uint64 {
	if a.diskFreeBytes > 0 {
		return a.diskFreeBytes
	}
	return min(diskFreeDefault, uint64(diskFreeShare*float64(size)))
}

// release lets go of the ballast if the disk is as good as full.
func (a *alarm) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	free, size, ok := a.free(a.dir)
	if !ok || !a.ballast.short(free, size) {
		return
	}
	bytes := a.ballast.held
	if err := a.ballast.drop(); err != nil {
		a.slog.Error("disk is full", "err", err)
		return
	}
	a.slog.Warn("disk is nearly full, the ballast is let go of", "free_mib", free>>20, "ballast_mib", bytes>>20)
}

// refill makes the ballast what it is to be, when there is room for it.
func (a *alarm) refill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	free, size, ok := a.free(a.dir)
	if !ok || time.Since(a.unmade) < ballastRetry {
		return
	}
	if err := a.ballast.shrink(size); err != nil {
		a.unmade = time.Now()
		a.slog.Warn("the ballast is larger than it need be", "err", err, "retry", ballastRetry)
		return
	}
	if !a.ballast.due(free, size, a.diskLimit(size)) {
		return
	}
	if err := a.ballast.make(a.ballast.bytes(size)); err != nil {
		a.unmade = time.Now()
		a.slog.Warn("no room is kept for a full disk", "err", err, "retry", ballastRetry)
		return
	}
	a.slog.Info("ballast is kept for a full disk", "free_mib", free>>20, "ballast_mib", a.ballast.held>>20)
}

// raised keeps one alarm: it is raised above the limit and ends below
// alarmOver of it.
func (a *alarm) raised(on *bool, known bool, used, limit float64) bool {
	switch {
	case !known:
		*on = false
	case *on:
		*on = used > alarmOver*limit
	default:
		*on = used > limit
	}
	return *on
}

// setMemory changes the limit of memory, until the node ends.
func (a *alarm) setMemory(share float64, bytes uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.memoryShare, a.memoryBytes = share, bytes
	if a.hold == nil {
		return
	}
	limit, _ := a.memoryLimit()
	if limit = uint64(garbageShare * float64(limit)); limit < garbageMin {
		limit = 0
	}
	a.hold(limit)
}

// setDiskFree changes how much of the disk has to stay free, until the node ends.
func (a *alarm) setDiskFree(bytes uint64) {
	a.mu.Lock()
	a.diskFreeBytes = bytes
	a.mu.Unlock()
}

// limits are what SetMemoryHighWatermark and SetDiskFreeLimit set, or the
// configuration; the disk's default is worked out.
func (a *alarm) limits() (memoryShare float64, memoryBytes, diskFreeBytes uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, size, _ := a.free(a.dir)
	return a.memoryShare, a.memoryBytes, a.diskLimit(size)
}

// watchAlarms raises and ends this node's alarm until ctx ends.
func (n *Node) watchAlarms(ctx context.Context) {
	every := time.NewTicker(alarmEvery)
	defer every.Stop()
	for {
		n.alarm.release()
		n.alarm.refill()
		n.soundAlarm()
		select {
		case <-every.C:
		case <-n.lookAtAlarms:
		case <-ctx.Done():
			return
		}
	}
}

// soundAlarm tells clients, the broker and with it the other nodes when the
// alarm begins, ends, or is for another reason. A client that waits already
// hears of the end only, as in RabbitMQ; the others hear the new reason.
func (n *Node) soundAlarm() {
	reason, news := n.alarm.news()
	if !news {
		return
	}
	n.broker.SetAlarm(reason)
	if reason == "" {
		n.slog.Info("publishers go on")
		n.amqp.Unblock()
		return
	}
	n.slog.Warn("publishers wait", "reason", reason)
	n.amqp.Block(reason)
}

// SetMemoryHighWatermark changes, until the node ends, how much memory it may
// use before publishers wait: a share of what there is, or with bytes other
// than 0 so many bytes.
func (n *Node) SetMemoryHighWatermark(share float64, bytes uint64) error {
	if bytes == 0 && (share < 0 || share > 1 || math.IsNaN(share)) {
		return fmt.Errorf("memory high watermark %v: must be 0 to 1", share)
	}
	n.alarm.setMemory(share, bytes)
	n.lookNow()
	return nil
}

// SetDiskFreeLimit changes, until the node ends, how many bytes have to stay
// free on the disk; 0 stands for the default.
func (n *Node) SetDiskFreeLimit(bytes uint64) {
	n.alarm.setDiskFree(bytes)
	n.lookNow()
}

func (n *Node) lookNow() {
	select {
	case n.lookAtAlarms <- struct{}{}:
	default:
	}
}

// memoryTotal is what this process may use: the limit of its control group or
// the memory of the machine, whichever is less; 0 if neither is known.
func memoryTotal() uint64 {
	total, _ := kilobytes("/proc/meminfo", "MemTotal:")
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// memoryUsed is the memory of this process that no file can give back.
func memoryUsed() (uint64, bool) { return kilobytes("/proc/self/status", "RssAnon:") }

// kilobytes reads a line of the form "name 123 kB", as bytes.
func kilobytes(file, name string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		if f := strings.Fields(rest); len(f) > 0 {
			n, err := strconv.ParseUint(f[0], 10, 54)
			return n << 10, err == nil
		}
	}
	return 0, false
}
