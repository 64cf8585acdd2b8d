package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
	"warren/storage/snapshot"
	"warren/storage/vfs"
)

// pressure is a group on two nodes with little memory and bad disks: one log,
// which each applies at its own pace, takes snapshots of, gets from the other's
// snapshot, loses to a crash and reads again, while consumers read.
type pressure struct {
	t     *testing.T
	rand  *rand.Rand // the test's own goroutine's
	nodes [2]*pressedNode
	ids   mq.QueueID   // given to queues so far
	names []mq.QueueID // of those that are not deleted

	mu      sync.Mutex // what follows is read by consumers
	log     []Entry
	truth   *queue.State
	digests []uint64 // by index
	sent    map[place]queue.Enqueued
}

const (
	pressedBudget = 64 << 10
	pressedMost   = 4 * pressedBudget
)

// pressedNode is a node in one run after the other.
type pressedNode struct {
	*bareShard
	p       *pressure
	dir     string
	at      uint64 // applied
	stopped chan struct{}
	readers sync.WaitGroup
	saving  sync.WaitGroup

	mu      sync.Mutex // of what the disk goes by
	disk    *vfs.Mem
	rand    *rand.Rand
	fails   int    // one call in so many does; 0: none
	failed  bool   // one did, of this run
	full    bool   // nothing can be written
	until   int    // calls left before the crash; 0: none is due
	cut     uint64 // the log may be cut up to here: a snapshot stands for it
	crashed *vfs.Mem
	needs   uint64 // cut when it crashed
	reads   int    // messages that consumers had
}

var errPressed = errors.New("no")

// inject is what a node's disk does instead of what it was asked for.
func (n *pressedNode) inject(disk *vfs.Mem) func(op vfs.Op, name string) error {
	return func(op vfs.Op, _ string) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if disk != n.disk {
			return nil // of an earlier run
		}
		if n.until > 0 {
			if n.until--; n.until == 0 {
				n.crashed, n.needs = disk.CrashTorn(n.rand), n.cut
			}
		}
		switch op {
		case vfs.OpRead: // would be damage
			return nil
		case vfs.OpCreate, vfs.OpWrite, vfs.OpLink, vfs.OpMkdir:
			if n.full {
				return errPressed
			}
		}
		if n.fails > 0 && n.rand.IntN(n.fails) == 0 {
			n.failed = true
			return errPressed
		}
		return nil
	}
}

// open begins a run of a node, with what its disk has.
func (n *pressedNode) open(disk *vfs.Mem) {
	t, log := n.p.t, slog.New(slog.DiscardHandler)
	n.mu.Lock()
	n.disk, n.fails, n.full, n.until, n.failed, n.crashed = disk, 0, false, 0, false, nil
	n.mu.Unlock()
	for _, err := range []error{disk.MkdirAll(n.dir), disk.SyncDir(path.Dir(n.dir)), disk.SyncDir("/")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	snapshots, err := snapshot.Open(disk, path.Join(n.dir, "snapshots"), 2, log)
	if err != nil {
		t.Fatal(err)
	}
	snapshots.CheckFiles(segment.CheckFile)
	disk.Inject(n.inject(disk))
	pager := segment.NewPager(disk, pressedBudget, pressedMost, BodySense(), log)
	n.bareShard = &bareShard{fs: disk, dir: n.dir, pager: pager, snapshots: snapshots}
	n.begin()
}

// begin makes the node's shard anew, of the newest snapshot.
func (n *pressedNode) begin() {
	t := n.p.t
	folder, err := n.pager.Folder(path.Join(n.dir, "segments"))
	if err != nil {
		t.Fatal(err)
	}
	n.Shard = NewShard(1, nil, nil, func() int64 { return 0 }, folder, slog.New(slog.DiscardHandler))
	list, err := n.snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	if n.at = 0; len(list) > 0 {
		n.at = list[0].Index
		if err := n.restore(list[0].ID); err != nil {
			t.Fatalf("snapshot %s: %v", list[0].ID, err)
		}
	}
	n.mu.Lock()
	if n.at < n.needs {
		t.Errorf("the newest snapshot is of %d, and the log was cut up to %d", n.at, n.needs)
	}
	n.cut = n.at
	n.mu.Unlock()
	n.stopped = make(chan struct{})
	for i := range uint64(2) {
		s, stopped, r := n.Shard, n.stopped, rand.New(rand.NewPCG(n.p.rand.Uint64(), i))
		n.readers.Go(func() { n.consume(s, stopped, r) })
	}
}

// end ends the node's shard, as the end of its group does.
func (n *pressedNode) end() {
	n.saving.Wait()
	close(n.stopped)
	n.readers.Wait()
	n.close()
}

// restart is a crash and what follows it.
func (n *pressedNode) restart(disk *vfs.Mem) {
	n.mu.Lock()
	n.full = false // who waits for room may go
	n.mu.Unlock()
	n.end()
	n.pager.Close()
	n.open(disk)
}

// consume reads messages as a leader does, and sees that they are those that
// were published.
func (n *pressedNode) consume(s *Shard, stopped <-chan struct{}, r *rand.Rand) {
	for {
		select {
		case <-stopped:
			return
		case <-time.After(time.Duration(r.IntN(200)) * time.Millisecond):
		}
		s.mu.Lock()
		if ids := s.state.Queues(); len(ids) > 0 {
			id := ids[r.IntN(len(ids))]
			from := mq.Seq(1)
			if r.IntN(4) == 0 {
				from = mq.Seq(r.Uint64N(uint64(s.state.Queue(id).Last()) + 1))
			}
			switch r.IntN(6) {
			case 0:
				n.scanAll(s, id)
			case 1:
				n.fetchOne(s, id, from)
			default:
				n.readRun(s, id, from, 1+r.IntN(300))
			}
		}
		s.mu.Unlock()
	}
}

func (n *pressedNode) readRun(s *Shard, id mq.QueueID, from mq.Seq, count int) {
	st := s.state.Queue(id)
	for seq, ok := st.Next(from); ok && count > 0; seq, ok = st.Next(seq + 1) {
		if !s.bodies.Here(uint64(id), uint64(seq)) {
			return
		}
		rec, there := s.bodies.Get(uint64(id), uint64(seq))
		if !there {
			n.p.t.Errorf("message %d of queue %d is not there", seq, id)
			return
		}
		n.same(id, seq, rec)
		n.reads++ // with the shard's lock held
		count--
	}
}

func (n *pressedNode) fetchOne(s *Shard, id mq.QueueID, from mq.Seq) {
	seq, ok := s.state.Queue(id).Next(from)
	if _, away := s.bodies.Away(uint64(id), uint64(seq)); ok && away {
		s.bodies.Fetch(uint64(id), uint64(seq), func(r segment.Record) { n.same(id, seq, r) })
	}
}

func (n *pressedNode) same(id mq.QueueID, seq mq.Seq, r segment.Record) {
	n.p.mu.Lock()
	want := n.p.sent[place{id, seq}]
	n.p.mu.Unlock()
	if !bytes.Equal(r.Body, want.Content) || r.Flags != want.Flags || r.Priority != want.Priority || r.ExpiryMs != want.ExpiryMs {
		n.p.t.Errorf("message %d of queue %d is not what was published", seq, id)
	}
}

// scanAll sees that a scan visits in order what is there from its beginning to
// its end, each once.
func (n *pressedNode) scanAll(s *Shard, id mq.QueueID) {
	var before, visited []mq.Seq
	for seq, ok := s.state.Queue(id).Next(1); ok; seq, ok = s.state.Queue(id).Next(seq + 1) {
		before = append(before, seq)
	}
	s.bodies.Scan(uint64(id), func(seq uint64, _ segment.Record) { visited = append(visited, mq.Seq(seq)) }, func() {
		if !slices.IsSorted(visited) || len(slices.Compact(slices.Clone(visited))) != len(visited) {
			n.p.t.Errorf("a scan of queue %d is out of order", id)
		}
		st := s.state.Queue(id)
		for _, seq := range before {
			if _, found := slices.BinarySearch(visited, seq); !found && st != nil && st.Live(seq) {
				n.p.t.Errorf("a scan of queue %d passed %d over", id, seq)
				return
			}
		}
	})
}

// publish adds an entry to the log.
func (p *pressure) publish() {
	r := p.rand
	entry := queue.AppendEntry(nil, 1, 0)
	switch {
	case len(p.names) == 0 || len(p.names) < 4 && r.IntN(10) == 0:
		p.ids++
		p.names = append(p.names, p.ids)
		fallthrough
	case r.IntN(10) < 5:
		entry = queue.AppendBatch(entry, queue.Origin{Node: 1, Session: 1, Seq: uint64(len(p.log) + 1)}, p.messages())
	case len(p.names) > 1 && r.IntN(30) == 0:
		i := r.IntN(len(p.names))
		entry = queue.AppendDelete(entry, p.names[i])
		p.names = slices.Delete(p.names, i, i+1)
	default:
		id := p.names[r.IntN(len(p.names))]
		if st := p.truth.Queue(id); st != nil {
			first, _ := st.Next(1)
			if r.IntN(3) == 0 {
				first = mq.Seq(r.Uint64N(uint64(st.Last()) + 1))
			}
			entry = queue.AppendDrop(entry, id, first, first+mq.Seq([]int{0, 0, 3, 3, 50, 50, 200, 200, 200, 1500, 1 << 40}[r.IntN(11)]))
		}
	}
	p.commit(entry)
}

// messages are those of a batch: of some size, to some queues, a few of them big.
func (p *pressure) messages() (ops []byte) {
	r := p.rand
	sizes := [][]int{{0, 30, 200}, {200}, {3000}, {70 << 10}, {500 << 10}}[min(r.IntN(40)/9, r.IntN(5), 4)]
	left := 1 + r.IntN(128<<10)
	for n := 1 + r.IntN(700); n > 0 && left > 0; n-- {
		body := bytes.Repeat([]byte{byte(r.IntN(256))}, sizes[r.IntN(len(sizes))])
		left -= len(body)
		to := []mq.QueueID{p.names[r.IntN(len(p.names))]}
		if other := p.names[r.IntN(len(p.names))]; other != to[0] && r.IntN(3) == 0 {
			to = append(to, other)
		}
		content := stored(fmt.Sprintf("%d %d %s", len(p.log), n, body))
		ops = queue.AppendEnqueue(ops, to, uint8(r.IntN(2)), uint8(r.IntN(3)), int64(r.IntN(2)*n), content)
	}
	return ops
}

func (p *pressure) commit(entry []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fx queue.Effects
	if err := p.truth.Apply(1, entry, &fx); err != nil {
		p.t.Fatal(err)
	}
	for i := range fx.Enqueued {
		m := &fx.Enqueued[i]
		p.sent[place{m.Queue, m.Seq}] = *m
	}
	p.log = append(p.log, Entry{Index: uint64(len(p.log) + 1), Term: 1, Data: entry})
	p.digests = append(p.digests, p.truth.Digest())
}

// catchUp applies some of what a node has not applied, and looks at what it has.
func (n *pressedNode) catchUp(most int) {
	t, p := n.p.t, n.p
	for ; n.at < uint64(len(p.log)) && most > 0; most-- {
		n.Apply(p.log[n.at : n.at+1])
		n.at++
	}
	n.Shard.mu.Lock()
	defer n.Shard.mu.Unlock()
	if n.at > 0 && n.state.Digest() != p.digests[n.at] {
		t.Fatalf("the state at %d is not that of the log", n.at)
	}
	if err := sameMessages(n.state, n.bodies); err != nil {
		t.Fatalf("at %d: %v", n.at, err)
	}
	if n.damaged != nil {
		t.Fatalf("damaged: %v", n.damaged)
	}
}

// snapshot takes one, and writes it while all goes on.
func (n *pressedNode) snapshot() {
	if n.at == 0 {
		return
	}
	n.saving.Wait()
	snap, err := n.Snapshot()
	if err != nil {
		n.p.t.Fatal(err)
	}
	at, s := n.at, n.bareShard
	n.saving.Go(func() {
		defer snap.Release()
		k, err := s.snapshots.Create(1, at, 1, new(snapshot.Reader).Meta().Configuration, 0, nil)
		if err != nil {
			return
		}
		if _, err = snap.WriteTo(k); err != nil {
			k.Cancel() // fails as well, on this disk
			return
		}
		if k.Close() == nil {
			n.mayCut(at)
		}
	})
}

func (n *pressedNode) mayCut(at uint64) {
	n.mu.Lock()
	n.cut = max(n.cut, at)
	n.mu.Unlock()
}

// pull brings a node up by the other's newest snapshot.
func (n *pressedNode) pull(from *pressedNode) {
	list, err := from.snapshots.List()
	if err != nil || len(list) == 0 || list[0].Index <= n.at {
		return
	}
	src, err := from.snapshots.LocalOpen(list[0].ID)
	if err != nil {
		return
	}
	defer src.Close()
	a, err := n.snapshots.Arrive(src.Files(), func(int64) error { return nil })
	if err != nil {
		return
	}
	id, err := n.arrive(src, a)
	a.Close(err == nil) // what stays is for the next one
	if err != nil {
		return
	}
	at := src.Meta().Index
	n.mayCut(at)
	if err := n.restore(id); err != nil { // ends the process
		n.restart(n.disk.Crash(vfs.LoseNothing))
		return
	}
	n.at = at
}

// restore is bareShard.load on a disk that may fail.
func (n *pressedNode) restore(id string) error {
	in, err := n.snapshots.LocalOpen(id)
	if err != nil {
		return err
	}
	defer in.Close()
	return n.Restore(in)
}

func (n *pressedNode) arrive(src *snapshot.Reader, a *snapshot.Arrival) (id string, err error) {
	for _, l := range a.Lacks() {
		if err := n.bring(src, a, l); err != nil {
			return "", err
		}
	}
	m := src.Meta()
	if err := a.KeepState(src, m.Size); err != nil {
		return "", err
	}
	state, err := a.Offer(m.Index, m.Term)
	if err != nil {
		return "", err
	}
	k, err := n.snapshots.Create(1, m.Index, m.Term, new(snapshot.Reader).Meta().Configuration, 0, nil)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(k, state); err != nil {
		return "", errors.Join(err, k.Cancel())
	}
	return k.ID(), k.Close()
}

// bring sends a file that is lacking, or with luck less than all of it.
func (n *pressedNode) bring(src *snapshot.Reader, a *snapshot.Arrival, l snapshot.Lack) error {
	in, err := src.OpenFile(l.Index)
	if err != nil {
		return err
	}
	defer in.Close()
	b := make([]byte, 40<<10)
	for off := l.From; off < l.Bytes; {
		part := b[:min(int64(len(b)), l.Bytes-off)]
		if _, err := in.ReadAt(part, off); err != nil {
			return err
		}
		if err := a.WriteAt(l.Index, part, off); err != nil {
			return err
		}
		if off += int64(len(part)); n.p.rand.IntN(200) == 0 {
			return errPressed
		}
	}
	return a.Finish(l.Index)
}

// trouble is something that happens to a node's disk.
func (n *pressedNode) trouble() {
	r := n.p.rand
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r.IntN(6) {
	case 0, 1, 2:
		n.fails = []int{0, 0, 200, 50, 10}[r.IntN(5)]
	case 3:
		n.until = 1 + r.IntN(300)
	default:
		n.full = true
		disk := n.disk
		time.AfterFunc(time.Duration(1+r.IntN(10_000))*time.Millisecond, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.disk == disk {
				n.full = false
			}
		})
	}
}

// step is one thing that happens.
func (p *pressure) step() {
	i := p.rand.IntN(2)
	n, other := p.nodes[i], p.nodes[1-i]
	switch p.rand.IntN(15) {
	case 0, 1, 2, 3, 4:
		for range 1 + p.rand.IntN(5) {
			p.publish()
			n.catchUp(2)
		}
	case 5, 6:
		n.catchUp(20)
	case 7, 8:
		n.snapshot()
	case 9:
		n.lag(other)
	case 10, 14:
		n.trouble()
	case 11:
		<-time.After(time.Duration(p.rand.IntN(7000)) * time.Millisecond)
	case 12:
		if p.rand.IntN(3) == 0 && !n.hasTrouble() { // the group is closed and opened again, in one process
			n.end()
			n.begin()
		}
	case 13:
		if p.rand.IntN(3) == 0 {
			if err := n.snapshots.Trim(); err != nil && !n.hasTrouble() {
				p.t.Error(err)
			}
		}
	}
	if hot := n.pager.Stats().HotBytes; hot > pressedMost+2<<20 {
		p.t.Errorf("%d bytes of bodies are in memory", hot)
	}
	n.mu.Lock()
	crashed := n.crashed
	n.mu.Unlock()
	if crashed != nil {
		n.restart(crashed)
	}
}

// lag has a node fall behind the other one, and be brought up by its snapshots.
func (n *pressedNode) lag(other *pressedNode) {
	for range 1 + n.p.rand.IntN(3) {
		n.p.publish()
		other.catchUp(len(n.p.log))
		other.snapshot()
		if other.saving.Wait(); n.p.rand.IntN(2) == 0 {
			n.p.publish()
			other.catchUp(1) // there is more in its files than its snapshot has
		}
		n.pull(other)
	}
}

func (n *pressedNode) hasTrouble() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fails > 0 || n.full || n.until > 0
}

// finish lets a node's disk be, and sees that everything is there, that memory
// is within its budget, and that nothing is left when it is closed.
func (n *pressedNode) finish() {
	t := n.p.t
	n.mu.Lock()
	n.fails, n.full, n.until = 0, false, 0
	n.mu.Unlock()
	n.catchUp(len(n.p.log))
	for _, id := range n.state.Queues() {
		st := n.state.Queue(id)
		for seq, ok := st.Next(1); ok; seq, ok = st.Next(seq + 1) {
			eventually(t, "a message to be here", func() bool {
				n.Shard.mu.Lock()
				defer n.Shard.mu.Unlock()
				before := n.reads
				n.readRun(n.Shard, id, seq, 1)
				return n.reads > before || t.Failed()
			})
		}
	}
	n.saving.Wait()
	eventually(t, "memory to be within its budget", func() bool { return n.pager.Stats().HotBytes <= pressedBudget })
	n.end()
	segments := path.Join(n.dir, "segments")
	eventually(t, "the segments to be removed", func() bool {
		left, err := n.disk.List(segments)
		return err == nil && (n.failed || len(left) <= 2) // that are written to
	})
	if hot := n.pager.Stats().HotBytes; hot != 0 {
		t.Errorf("%d bytes are counted of a store that is closed", hot)
	}
	n.pager.Close()
}

func TestNothingIsLostUnderPressure(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { pressed(t, seed) })
		})
	}
}

func pressed(t *testing.T, seed uint64) {
	p := &pressure{t: t, rand: rand.New(rand.NewPCG(seed, 11)), truth: queue.New(), digests: []uint64{0}, sent: map[place]queue.Enqueued{}}
	for i := range p.nodes {
		n := &pressedNode{p: p, dir: fmt.Sprintf("/data/%d", i), rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		p.nodes[i] = n
		n.open(vfs.NewMem())
	}
	for range 120 {
		if t.Failed() {
			break
		}
		p.step()
	}
	for _, n := range p.nodes {
		n.finish()
	}
}
