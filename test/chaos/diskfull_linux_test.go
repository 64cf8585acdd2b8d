package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

const (
	smallDiskMiB = 300 // room for the log's files, and little more
	fillerFile   = "filler"
	logFile      = "warren.log" // of a node
	fillPatience = 4 * time.Minute
	// bigBody makes a log's files full within seconds.
	bigBody = 256 << 10
)

// smallDisk is a disk of its own for a folder, until the end of the test.
type smallDisk struct {
	t   testing.TB
	dir string
}

// mountSmall puts a small disk under a folder, which only root can do.
func mountSmall(t testing.TB, dir string) *smallDisk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", smallDiskMiB)); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil { // a node may still be about to end
			t.Error(err)
		}
	})
	return &smallDisk{t, dir}
}

// fill takes all the room that there is.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, fillerFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		n, err := f.Write(block)
		switch {
		case errors.Is(err, syscall.ENOSPC) && n == 0:
			block = block[:len(block)/2]
		case err != nil && !errors.Is(err, syscall.ENOSPC):
			d.t.Fatal(err)
		}
	}
}

// free gives that room back.
func (d *smallDisk) free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, fillerFile)); err != nil {
		d.t.Fatal(err)
	}
}

// fullAt keeps a disk full until a node says so: its log has room for some
// messages yet.
func (d *smallDisk) fullAt(n *harness.Node) {
	d.t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(fillPatience)
	for {
		d.fill() // also what the node has let go of
		b, err := os.ReadFile(filepath.Join(n.Dir(), logFile))
		if err == nil && bytes.Contains(b, []byte(`msg="disk is full"`)) {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			d.t.Fatalf("%s has not met its full disk in %v", n.Name(), fillPatience)
		}
	}
}

// logElsewhere has a node log to a disk that is not full.
func logElsewhere(t testing.TB, n *harness.Node) {
	t.Helper()
	if err := os.Symlink(filepath.Join(t.TempDir(), n.Name()), filepath.Join(n.Dir(), logFile)); err != nil {
		t.Fatal(err)
	}
}

// The disk of the logs is full on one node, then on all of them, and has room
// again. Nobody's alarm helps here: appends are refused.
func TestAFullLogDiskLosesNothingAndHeals(t *testing.T) {
	t.Run("wal", func(t *testing.T) {
		fullLogDisk(t, harness.New(t, 3), func(n *harness.Node) *smallDisk { return mountSmall(t, filepath.Join(n.Dir(), "wal")) })
	})
	if *roundsFlag < manyRounds {
		return
	}
	t.Run("boltdb", func(t *testing.T) {
		t.Setenv("WARREN_DISK_FREE_LIMIT", "1")
		fullLogDisk(t, harness.New(t, 3, "--raft-log-store", "boltdb"), func(n *harness.Node) *smallDisk {
			d := mountSmall(t, n.Dir())
			logElsewhere(t, n)
			return d
		})
	})
}

func fullLogDisk(t *testing.T, c *harness.Cluster, diskOf func(*harness.Node) *smallDisk) {
	const queue = "chaos.full-log"
	var disks []*smallDisk
	for i := range 3 {
		disks = append(disks, diskOf(c.Node(i+1)))
	}
	for i := range 3 {
		c.Node(i + 1).Start()
	}
	c.WaitReady()
	urls := c.URLs()
	declare(t, urls[0], queue)
	leader := c.Leader(1, queue)
	home := leader%3 + 1
	p := newPublisher(t, 1, queue, []string{urls[home-1]}, random(t).Uint64())
	p.padding = bigBody
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	defer func() { stop(); <-done }()
	p.awaitMore(t, 100, "before the disk is full")

	disks[leader-1].fullAt(c.Node(leader))
	p.awaitMore(t, 2*window+1, "one disk is full")
	for i, d := range disks {
		if i != leader-1 {
			d.fill()
		}
	}
	disks[home-1].fullAt(c.Node(home))
	for _, d := range disks {
		d.free()
	}
	p.awaitMore(t, 1, "all disks have room again")
	p.awaitMore(t, 2*window, "all disks have room again")
	c.WaitReady()
	stop()
	<-done
	check(t, []*publisher{p}, drain(t, urls[leader-1], queue))
}

// The disk of one node is full. Its alarm keeps publishers waiting, and
// consumers go on, until there is room again.
func TestAFullDiskBlocksPublishersOnly(t *testing.T) {
	const queue, backlog = "chaos.full", 300
	c := harness.New(t, 3)
	disk := mountSmall(t, c.Node(1).Dir())
	for i := range 3 {
		c.Node(i + 1).Start()
	}
	c.WaitReady()
	urls := c.URLs()
	declare(t, urls[0], queue)
	p := newPublisher(t, 1, queue, []string{urls[0]}, random(t).Uint64())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	defer func() { stop(); <-done }()
	p.awaitMore(t, backlog, "before the disk is full")

	watcher := connection(t, urls[0])
	blocked := watcher.NotifyBlocked(make(chan amqp091.Blocking, 8))
	ballast := filepath.Join(c.Node(1).Dir(), "ballast")
	if _, err := os.Stat(ballast); err != nil {
		t.Error(err)
	}
	disk.fill()
	publishing, err := watcher.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := publishing.Publish("", "nowhere", false, false, amqp091.Publishing{}); err != nil {
		t.Fatal(err)
	}
	if b := <-blocked; !b.Active {
		t.Fatal("the first word is that nothing blocks")
	}
	harness.Await(t, "the ballast is let go of", func() bool { _, err := os.Stat(ballast); return err != nil }, nil)
	disk.fill() // what that has left, too
	consumer := channel(t, urls[0])
	deliveries, err := consumer.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t, deliveries)
	r.awaitMore(t, backlog, "the disk is full")

	disk.free()
	if b := <-blocked; b.Active {
		t.Fatal("blocked twice")
	}
	p.awaitMore(t, 2*window+1, "there is room again")
	stop()
	<-done
	r.awaitAll(t, p)
	r.checkRepeats(t)
	harness.Await(t, "the ballast is there again", func() bool { _, err := os.Stat(ballast); return err == nil }, nil)
}
