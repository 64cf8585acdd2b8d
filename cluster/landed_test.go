package cluster

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"warren/storage/snapshot"
)

// lagged is a cluster whose leader's log begins long after what a node has that
// is down: it gets a snapshot as soon as it is opened.
func lagged(t *testing.T) (c *memCluster, leader, late *memNode) {
	t.Helper()
	c, leader = runningCluster(t, 3, 3, false)
	late = c.others(leader)[0]
	c.mustProposeMany(leader, "first-", laggedHas)
	c.converged(leader)
	must(t, late.group.Snapshot(t.Context()))
	c.close(late)
	for i := range 2 { // more than the log keeps
		c.mustProposeMany(leader, fmt.Sprintf("%d-", i), 200)
		must(t, leader.group.Snapshot(t.Context()))
	}
	return c, leader, late
}

// laggedHas is how many entries the late node has.
const laggedHas = 20

// picky is a journal that does as it is told with snapshots that leaders send.
type picky struct {
	*journal
	mu   sync.Mutex
	sent func(r io.Reader) error // before it reads one; an error refuses it
}

func (p *picky) set(sent func(r io.Reader) error) {
	p.mu.Lock()
	p.sent = sent
	p.mu.Unlock()
}

func (p *picky) Restore(r io.Reader) error {
	p.mu.Lock()
	sent := p.sent
	p.mu.Unlock()
	if sent != nil && r.(*snapshot.Reader).Meta().Index > 2*laggedHas { // else it is its own
		if err := sent(r); err != nil {
			return err
		}
	}
	return p.journal.Restore(r)
}

// openPicky opens the late node of a lagged cluster.
func openPicky(t *testing.T, c *memCluster, late *memNode, sent func(io.Reader) error) (m *picky) {
	t.Helper()
	c.dress = func(n *memNode) Machine {
		m = &picky{journal: n.machine, sent: sent}
		return m
	}
	must(t, c.open(late))
	return m
}

// wantAsItWas checks that a replica has what it had before a leader sent it a
// snapshot.
func wantAsItWas(t *testing.T, late *memNode) {
	t.Helper()
	if got, _ := late.machine.read(); len(got) > laggedHas {
		t.Errorf("its machine has %d entries, and had %d", len(got), laggedHas)
	}
	newest, err := late.group.stores.snapshots.Newest()
	if err != nil || newest > late.group.LastIndex() {
		t.Errorf("a snapshot up to %d stays, and the log ends at %d; %v", newest, late.group.LastIndex(), err)
	}
	if err := late.group.Damaged(); err != nil || len(late.fatal) > 0 {
		t.Fatalf("damaged: %v, %d reasons to end the process", err, len(late.fatal))
	}
}

func TestASnapshotThatCannotBeRestoredLeavesTheReplicaAsItWas(t *testing.T) {
	t.Parallel() // it waits for disks most of its time
	for _, why := range []error{syscall.ENOSPC, errTest} {
		t.Run(why.Error(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, leader, late := lagged(t)
				for range 2 { // the next process finds it as it was, too
					openPicky(t, c, late, func(io.Reader) error { return why })
					c.eventually("it was tried more than once", func() bool { return late.group.Stats().SnapshotErrors >= 3 })
					wantAsItWas(t, late)
					c.close(late)
				}
				m := openPicky(t, c, late, func(io.Reader) error { return why })
				c.mustPropose(leader, "meanwhile")
				c.eventually("it was tried", func() bool { return late.group.Stats().SnapshotErrors >= 1 })
				m.set(nil) // there is room
				c.converged(leader)
				if restarts := late.group.Stats().Restarts; restarts > 0 || len(late.fatal) > 0 {
					t.Errorf("%d restarts, and %d reasons to end the process", restarts, len(late.fatal))
				}
			})
		})
	}
}

func TestASnapshotThatIsDamagedBeforeItIsRestoredIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, leader, late := lagged(t)
		var once sync.Once
		openPicky(t, c, late, func(io.Reader) error {
			once.Do(func() { damage(t, late) })
			return nil
		})
		c.converged(leader)
		if failed := late.group.Stats().SnapshotErrors; failed != 1 || len(late.fatal) > 0 {
			t.Errorf("%d snapshots could not be restored, and %d reasons to end the process", failed, len(late.fatal))
		}
		if left, err := filepath.Glob(filepath.Join(late.dir, "*", "snapshots", "*.damaged")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	})
}

// A Raft that is restarted in place takes its newest snapshot for what the
// Machine has. One that a leader has sent may be on disk by then, while the
// Machine has not come to it yet.
func TestARestartInPlaceTakesNoSnapshotForAppliedThatWasNotRestored(t *testing.T) {
	t.Parallel()  // it waits for disks most of its time
	for range 3 { // whether it comes to it after all is a matter of luck
		bubble(t, func(t *testing.T) {
			c, leader := settled(t)
			t.Cleanup(c.stop)
			late := c.others(leader)[0]
			c.close(late)
			c.stuck = make(chan struct{})
			must(t, c.open(late))
			c.mustPropose(leader, "that it is stuck with")
			pause(time.Second)
			c.net.isolate(late.id, true)
			for i := range 2 { // more than the log keeps
				c.mustProposeMany(leader, fmt.Sprintf("%d-", i), 200)
				must(t, leader.group.Snapshot(t.Context()))
			}
			c.net.isolate(late.id, false)
			c.eventually("the leader's snapshot is here", func() bool {
				newest, err := late.group.stores.snapshots.Newest()
				return err == nil && newest > 400
			})
			c.net.isolate(late.id, true)
			late.group.leaders.requestRestart(restartReason{why: "a test"})
			pause(time.Second)
			close(c.stuck)
			next := c.others(leader)[1] // a new leader goes on where a follower says that it is
			must(t, leader.group.TransferTo(within(t, 10*time.Second), next.id))
			c.net.isolate(late.id, false)
			c.eventually("somebody leads", func() bool {
				next = c.leader()
				_, err := propose(next.group, "more")
				return err == nil
			})
			c.converged(next)
		})
	}
}
