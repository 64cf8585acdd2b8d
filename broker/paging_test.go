package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"warren/mq"
	"warren/storage/segment"
)

const tinyMemory = 64 << 10

// backlog publishes count messages of some 200 bytes to a queue, and waits
// until they are confirmed. The body begins with the message's number.
func (s *Session) backlog(t *testing.T, queue string, count int) {
	t.Helper()
	acks := newConfirms()
	pad := strings.Repeat("x", 200)
	for i := range count {
		p := &mq.Publish{Content: append(mq.NewContent("", queue, []byte{0, 0}, 210), fmt.Sprintf("%d %s", i, pad)...), ExpirationMs: -1, Confirm: acks, Tag: uint64(i + 1)}
		if o, err := s.Publish(t.Context(), p); err != nil || o != mq.Pending {
			t.Fatalf("publish: %v, %v", o, err)
		}
	}
	s.Flush()
	eventually(t, "confirms", func() bool { return acks.count() == count })
}

// numbers are those of deliveries.
func numbers(t *testing.T, ds []mq.Delivery) (out []int) {
	t.Helper()
	for i := range ds {
		first, _, _ := strings.Cut(string(ds[i].Content.Body()), " ")
		n, err := strconv.Atoi(first)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

func wantRange(t *testing.T, what string, got []int, first, last int) {
	t.Helper()
	if len(got) != last-first+1 {
		t.Fatalf("%s: %d messages, want %d", what, len(got), last-first+1)
	}
	for i, n := range got {
		if n != first+i {
			t.Fatalf("%s: message %d at place %d, want %d", what, n, i, first+i)
		}
	}
}

// pagedOut waits until a queue's messages are on every node's disk.
func (h *house) pagedOut(t *testing.T, g mq.GroupID) {
	t.Helper()
	for _, n := range h.nodes {
		eventually(t, "bodies to be paged out", func() bool {
			st := n.pager.Stats()
			return st.HotBytes <= st.BudgetBytes && st.ChunksOut > 0
		})
	}
}

// takeAll consumes a queue without acks until count messages have come, as a
// client that reads its socket does.
func (s *Session) takeAll(t *testing.T, queue string, count int) []mq.Delivery {
	t.Helper()
	in := newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: queue, NoAck: true}, in)
	drained := 0
	eventually(t, "all deliveries", func() bool {
		all := in.all()
		if n := len(all) - drained; n > 0 {
			s.Drained(id, n, n*300)
			drained += n
		}
		return drained >= count
	})
	return in.all()
}

func TestADeepQueueDeliversInOrderFromDisk(t *testing.T) {
	h := newPagedHouse(t, 3, 1, tinyMemory)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	const count = 10_000
	s.backlog(t, "q", count)
	h.pagedOut(t, 1)

	// Some are taken and go back, the leader changes, and all come in order.
	in := newInbox()
	id := s.mustConsume(t, mq.ConsumeSpec{Queue: "q", Prefetch: 300}, in)
	eventually(t, "deliveries", func() bool { return len(in.all()) == 300 })
	wantRange(t, "first", numbers(t, in.all()), 0, 299)
	if err := s.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.settle(t, mq.Requeue, in.all()...)
	h.lead(1, h.nodes[1])
	h.pagedOut(t, 1)
	all := s.takeAll(t, "q", count)
	wantRange(t, "again", numbers(t, all), 0, count-1)
	for i := range all {
		if i < 300 && !all[i].Redelivered {
			t.Fatalf("message %d was handed out before", i)
		}
	}
	eventually(t, "an empty queue", func() bool { return s.ready(t, "q") == 0 })
}

func TestGetAndPurgeReachWhatIsOnDisk(t *testing.T) {
	h := newPagedHouse(t, 3, 1, tinyMemory)
	s := h.nodes[2].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	s.backlog(t, "q", 5000)
	h.pagedOut(t, 1)
	var got []mq.Delivery
	for range 5 {
		got = append(got, s.mustGet(t, "q"))
	}
	wantRange(t, "got", numbers(t, got), 0, 4)
	purged, err := s.Change(t.Context(), mq.QueuePurge{Name: "q"})
	if err != nil || purged.Messages != 4995 {
		t.Fatalf("%d purged, %v", purged.Messages, err)
	}
	s.settle(t, mq.Requeue, got...)
	if n := s.ready(t, "q"); n != 5 {
		t.Errorf("%d are left", n)
	}
	if _, err := s.Change(t.Context(), mq.QueueDelete{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range h.nodes {
		eventually(t, "memory to be free", func() bool { return n.pager.Stats().HotBytes == 0 })
	}
}

func TestASnapshotHasWhatIsOnDisk(t *testing.T) {
	h := newPagedHouse(t, 3, 1, tinyMemory)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	const count = 10_000
	s.backlog(t, "q", count)
	h.pagedOut(t, 1)
	h.groups[1].mu.Lock() // the last entry is applied on every node
	snap, err := h.nodes[2].Shard(1).Snapshot()
	h.groups[1].mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	if err := h.nodes[1].Shard(1).Restore(&b); err != nil {
		t.Fatal(err)
	}
	h.pagedOut(t, 1)
	h.lead(1, h.nodes[1])
	wantRange(t, "delivered", numbers(t, s.takeAll(t, "q", count)), 0, count-1)
}

func TestLimitsHoldForWhatIsOnDisk(t *testing.T) {
	for _, a := range []mq.Table{args("x-max-length", int32(100)), args("x-max-length-bytes", int32(100*205))} {
		h := newPagedHouse(t, 3, 1, tinyMemory)
		s := h.nodes[1].open(t)
		s.mustDeclare(t, mq.QueueDeclare{Name: "free", Durable: true})
		s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: a})
		s.backlog(t, "q", 3000)
		s.backlog(t, "free", 3000) // drives the others to disk
		h.pagedOut(t, 1)
		h.lead(1, h.nodes[2])
		s.backlog(t, "q", 10)
		eventually(t, "the limit to be kept", func() bool { n := s.ready(t, "q"); return n >= 97 && n <= 101 })
	}
}

func TestALimitInBytesHoldsForAQueueThatHadAConsumerFirst(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-max-length-bytes", int32(1000))})
	if err := s.Cancel(t.Context(), s.mustConsume(t, mq.ConsumeSpec{Queue: "q"}, newInbox())); err != nil {
		t.Fatal(err)
	}
	s.backlog(t, "q", 100)
	eventually(t, "the limit to be kept", func() bool { return s.ready(t, "q") == 4 })
}

func TestWhatIsOnDiskExpiresAndIsDeadLettered(t *testing.T) {
	h := newPagedHouse(t, 3, 2, tinyMemory)
	h.awaitLeaders(t)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "dead", Durable: true})
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true, Args: args("x-message-ttl", int32(300), "x-dead-letter-exchange", "", "x-dead-letter-routing-key", "dead")})
	const count = 2000
	s.backlog(t, "q", count)
	h.pagedOut(t, 1)
	h.lead(1, h.nodes[2])
	eventually(t, "dead letters", func() bool { return s.ready(t, "dead") == count && s.ready(t, "q") == 0 })
}

func TestDelayedAndRecentMessagesComeBackFromDisk(t *testing.T) {
	h := newPagedHouse(t, 3, 2, tinyMemory)
	withDelays(t, h)
	s := h.nodes[0].open(t)
	s.mustChange(t, mq.ExchangeDeclare{Name: "news", Type: historyExchange, Durable: true, Args: args(historyLength, int32(300))})
	for i := range 300 {
		s.publishWith(t, "later", "k", strconv.Itoa(i), args(delayHeader, int32(3600_000+i)))
		s.publishWith(t, "news", "k", strconv.Itoa(i), nil)
	}
	s.publishWith(t, "later", "k", "soon", args(delayHeader, int32(1000)))
	s.mustDeclare(t, mq.QueueDeclare{Name: "free", Durable: true})
	s.mustDeclare(t, mq.QueueDeclare{Name: "free2", Durable: true})
	s.backlog(t, "free", 1000)
	s.backlog(t, "free2", 1000)
	h.pagedOut(t, 1)
	h.lead(1, h.nodes[2])
	h.lead(2, h.nodes[0])
	h.awaitLeaders(t)
	eventually(t, "what is due", func() bool { return s.ready(t, "q") == 1 })
	if d := s.mustGet(t, "q"); string(d.Content.Body()) != "soon" {
		t.Errorf("got %q", d.Content.Body())
	}
	if waiting := h.waiting(t); len(waiting) != 300 || waiting[7].BodyBytes != 1 || waiting[299].RoutingKey != "k" {
		t.Errorf("%d messages wait", len(waiting))
	}
	s.mustChange(t, mq.QueueDeclare{Name: "new", Durable: true}, mq.QueueBind{Queue: "new", Exchange: "news"})
	var want []string
	for i := range 300 {
		want = append(want, strconv.Itoa(i))
	}
	if got := s.bodies(t, "new"); !slices.Equal(got, want) {
		t.Errorf("a queue bound later has %d messages", len(got))
	}
}

func TestADamagedBodyIsNeverDelivered(t *testing.T) {
	h := newPagedHouse(t, 3, 1, tinyMemory)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	const count = linkFits
	s.backlog(t, "q", count)
	h.pagedOut(t, 1)
	leader := h.nodes[0]
	leader.spoil(t, 1)
	in := newInbox()
	s.mustConsume(t, mq.ConsumeSpec{Queue: "q", NoAck: true}, in)
	eventually(t, "the damage to be noticed", func() bool { return leader.Shard(1).Damaged() != nil })
	before := in.all() // more may come yet
	wantRange(t, "delivered before", numbers(t, before), 0, len(before)-1)
	h.lead(1, h.nodes[1]) // what the node does about it
	eventually(t, "the rest from a sound replica", func() bool { return len(in.all()) == count })
	wantRange(t, "delivered", numbers(t, in.all()), 0, count-1)
}

func TestWeightsAreThoseOfTheMessagesThatAreThere(t *testing.T) {
	w := &weights{blocks: map[uint64]*weightBlock{}}
	for seq := mq.Seq(1); seq <= 1000; seq++ {
		w.add(seq, int64(seq%3))
		w.add(seq, 99) // known
	}
	w.remove(100, 899)
	w.remove(100, 899)
	w.remove(5000, 1<<40)
	var want int64
	for seq := int64(1); seq <= 1000; seq++ {
		if seq < 100 || seq > 899 {
			want += seq % 3
		}
	}
	if w.total != want || w.of(99) != 0 || w.of(98) != 2 || w.of(500) != 0 || len(w.blocks) != 2 {
		t.Errorf("total %d, want %d; %d blocks", w.total, want, len(w.blocks))
	}
	w.remove(1, 1000)
	if w.total != 0 || len(w.blocks) != 0 {
		t.Errorf("%d bytes in %d blocks are left", w.total, len(w.blocks))
	}
}

var _ segment.Owner = pages{}
