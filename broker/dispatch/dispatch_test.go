package dispatch

import (
	"errors"
	"math"
	"slices"
	"testing"

	"warren/mq"
)

// liveSet is a queue's content for tests.
type liveSet struct {
	last mq.Seq
	gone map[mq.Seq]bool
}

func messages(n int) *liveSet { return &liveSet{last: mq.Seq(n), gone: map[mq.Seq]bool{}} }

func (l *liveSet) Next(from mq.Seq) (mq.Seq, bool) {
	for seq := max(from, 1); seq <= l.last; seq++ {
		if !l.gone[seq] {
			return seq, true
		}
	}
	return 0, false
}

// settle removes a message as a committed settlement does.
func (l *liveSet) settle(q *Queue, seqs ...mq.Seq) {
	for _, seq := range seqs {
		l.gone[seq] = true
		q.Settled(seq, seq)
	}
}

const everything = mq.Seq(math.MaxUint64)

func key(session, consumer int) Key { return Key{mq.SessionID(session), mq.ConsumerID(consumer)} }

// fataler is what *testing.T and *rapid.T share.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func attach(t fataler, q *Queue, c ...Consumer) {
	t.Helper()
	for _, c := range c {
		if err := q.Attach(c); err != nil {
			t.Fatal(err)
		}
	}
}

type got struct {
	seq         mq.Seq
	k           Key
	redelivered bool
}

// drain hands out until nobody gets anything.
func drain(q *Queue, l Live, limit mq.Seq) (all []got) {
	for {
		seq, k, _, redelivered, ok := q.Next(l, limit)
		if !ok {
			return all
		}
		all = append(all, got{seq, k, redelivered})
	}
}

func seqs(all []got) (s []mq.Seq) {
	for _, g := range all {
		s = append(s, g.seq)
	}
	return s
}

func wantSeqs(t *testing.T, claim string, all []got, want ...mq.Seq) {
	t.Helper()
	if got := seqs(all); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", claim, got, want)
	}
}

func TestConsumersTakeTurns(t *testing.T) {
	q, l := New(false), messages(7)
	attach(t, q, Consumer{Key: key(1, 1)}, Consumer{Key: key(1, 2)}, Consumer{Key: key(2, 1)})
	var order []Key
	for _, g := range drain(q, l, everything) {
		order = append(order, g.k)
	}
	a, b, c := key(1, 1), key(1, 2), key(2, 1)
	if want := []Key{a, b, c, a, b, c, a}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

func TestPrefetchIsGivenBackOnce(t *testing.T) {
	q, l := New(false), messages(20)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k, Prefetch: 3})
	wantSeqs(t, "up to prefetch", drain(q, l, everything), 1, 2, 3)
	q.Settling(2)
	q.Settling(2)
	wantSeqs(t, "one settling makes room for one", drain(q, l, everything), 4)
	l.settle(q, 2)
	wantSeqs(t, "committing it makes no more", drain(q, l, everything))
	l.settle(q, 1)
	wantSeqs(t, "committed without notice makes room", drain(q, l, everything), 5)
	q.Settling(3)
	q.Return(k, []mq.Seq{3})
	wantSeqs(t, "a settlement that came to nothing", drain(q, l, everything), 3)
	q.Settling(999)
	l.settle(q, 15, 16)
	wantSeqs(t, "what it does not hold is no credit", drain(q, l, everything))
	if q.Unacked() != 3 || !slices.Equal(q.HeldSeqs(), []mq.Seq{3, 4, 5}) {
		t.Errorf("holds %v", q.HeldSeqs())
	}
}

func TestAutoAckHasNoPrefetch(t *testing.T) {
	q, l := New(false), messages(5)
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 1, NoAck: true})
	wantSeqs(t, "all", drain(q, l, everything), 1, 2, 3, 4, 5)
	if q.Unacked() != 5 {
		t.Errorf("%d are checked out until the leader has settled them, want 5", q.Unacked())
	}
	q.Settled(1, 5)
	if q.Unacked() != 0 {
		t.Errorf("%d are left", q.Unacked())
	}
}

func TestReturnedGoFirstInTheirPlaceAndAreRedelivered(t *testing.T) {
	q, l := New(false), messages(10)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k, Prefetch: 5})
	for _, g := range drain(q, l, everything) {
		if g.redelivered {
			t.Errorf("%d is called redelivered", g.seq)
		}
	}
	q.Return(key(9, 9), []mq.Seq{1})
	q.Return(k, []mq.Seq{5, 2, 4, 77})
	l.settle(q, 4)
	l.gone[5] = true // gone, and nobody has said so yet
	again := drain(q, l, everything)
	wantSeqs(t, "returned and then fresh", again, 2, 6, 7)
	if !again[0].redelivered || again[1].redelivered {
		t.Errorf("got %v", again)
	}
}

func TestRequeueGivesBackAllThatAConsumerHolds(t *testing.T) {
	q, l := New(false), messages(6)
	a, b := key(1, 1), key(1, 2)
	attach(t, q, Consumer{Key: a, Prefetch: 2}, Consumer{Key: b, Prefetch: 2})
	drain(q, l, everything)
	if !q.Detach(a, false) || q.Detach(key(5, 5), true) {
		t.Error("who existed is told wrongly")
	}
	if !q.Held(1) || !q.Held(3) {
		t.Error("a cancelled consumer's messages must stay checked out")
	}
	l.settle(q, 1)
	if q.Detach(a, true) {
		t.Error("it existed only once")
	}
	if q.Held(3) {
		t.Error("3 must be ready again")
	}
	q.DropSession(1)
	if q.Unacked() != 0 || q.Consumers() != 0 || len(q.byKey) != 0 {
		t.Errorf("%d checked out, %d consumers, %d keys are left", q.Unacked(), q.Consumers(), len(q.byKey))
	}
	attach(t, q, Consumer{Key: key(2, 1)})
	wantSeqs(t, "all that is left", drain(q, l, everything), 2, 3, 4, 5, 6)
}

func TestNothingFreshAboveTheLimit(t *testing.T) {
	q, l := New(false), messages(10)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k})
	wantSeqs(t, "to the limit", drain(q, l, 4), 1, 2, 3, 4)
	q.Return(k, []mq.Seq{2})
	wantSeqs(t, "a returned one", drain(q, l, 4), 2)
	if _, _, ok := q.Take(l, 4, k, false); ok {
		t.Error("basic.get passes the limit")
	}
}

func TestReserveFollowsTheFirstFreshMessage(t *testing.T) {
	q, l := New(false), messages(100)
	for seq := range mq.Seq(90) {
		l.gone[seq] = true
	}
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 1000})
	drain(q, l, 0)
	if got := q.WantReserve(); got != 90+4000 {
		t.Errorf("got %d", got)
	}
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 10})
	if got := q.WantReserve(); got != 90+1024 {
		t.Errorf("with a small prefetch: got %d", got)
	}
	attach(t, q, Consumer{Key: key(1, 2), Prefetch: math.MaxUint32})
	if got := q.WantReserve(); got != 90+reserveMax {
		t.Errorf("with a huge prefetch: got %d", got)
	}
	q.DropSession(1)
	if got := q.WantReserve(); got != 90+1024 {
		t.Errorf("with nobody: got %d", got)
	}
}

func TestLinkCredit(t *testing.T) {
	q, l := New(false), messages(3*LinkMessages)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k})
	if n := len(drain(q, l, everything)); n != LinkMessages {
		t.Fatalf("got %d messages, want %d", n, LinkMessages)
	}
	q.Link(k, 2, 0)
	wantSeqs(t, "two more", drain(q, l, everything), LinkMessages+1, LinkMessages+2)
	q.Link(k, 5, 0)
	q.Sent(k, LinkBytes+100)
	wantSeqs(t, "no bytes left", drain(q, l, everything))
	q.Link(k, 0, 100)
	wantSeqs(t, "still none", drain(q, l, everything))
	q.Link(k, 0, 1)
	if n := len(drain(q, l, everything)); n != 5 {
		t.Errorf("got %d messages, want 5", n)
	}
	q.Link(k, math.MaxInt, math.MaxInt)
	q.Link(k, math.MinInt, math.MinInt)
	if n := len(drain(q, l, everything)); n != LinkMessages {
		t.Errorf("got %d messages, want never more than %d", n, LinkMessages)
	}
	attach(t, q, Consumer{Key: k})
	if n := len(drain(q, l, everything)); n != 3*LinkMessages-2*LinkMessages-7 {
		t.Errorf("got %d messages after a resume", n)
	}
	if _, _, ok := q.Take(messages(3*LinkMessages+1), everything, key(1, 0), false); !ok {
		t.Error("basic.get needs no credit")
	}
}

func TestPriorities(t *testing.T) {
	q, l := New(false), messages(6)
	low, high := key(1, 1), key(1, 2)
	attach(t, q, Consumer{Key: low, Priority: -1}, Consumer{Key: high, Priority: 10, Prefetch: 2})
	var order []Key
	for _, g := range drain(q, l, 3) {
		order = append(order, g.k)
	}
	if want := []Key{high, high, low}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
	l.settle(q, 1)
	if _, k, _, _, _ := q.Next(l, 4); k != high {
		t.Errorf("%v comes before the one that has credit again", k)
	}
	attach(t, q, Consumer{Key: low, Priority: 20})
	if _, k, _, _, _ := q.Next(l, 5); k != low {
		t.Errorf("%v comes before the one that was raised", k)
	}
}

func TestExclusive(t *testing.T) {
	q := New(false)
	a, b := Consumer{Key: key(1, 1), Exclusive: true}, Consumer{Key: key(1, 2)}
	attach(t, q, a, a)
	if err := q.Attach(b); !errors.Is(err, ErrExclusive) {
		t.Errorf("company for an exclusive one: %v", err)
	}
	q.Detach(a.Key, true)
	attach(t, q, b)
	if err := q.Attach(a); !errors.Is(err, ErrExclusive) {
		t.Errorf("exclusive with company: %v", err)
	}
	if q.Consumers() != 1 {
		t.Errorf("%d consumers", q.Consumers())
	}
}

func TestSuspendedSessionsGetNothing(t *testing.T) {
	q, l := New(false), messages(10)
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 2})
	wantSeqs(t, "before", drain(q, l, 1), 1)
	q.Suspend(1, true)
	q.Suspend(1, true)
	attach(t, q, Consumer{Key: key(1, 2)})
	wantSeqs(t, "suspended", drain(q, l, everything))
	if !q.Held(1) {
		t.Error("what it holds stays its own")
	}
	attach(t, q, Consumer{Key: key(2, 1), Prefetch: 1})
	wantSeqs(t, "others go on", drain(q, l, everything), 2)
	q.Suspend(1, false)
	if got := drain(q, l, everything); len(got) != 8 {
		t.Errorf("afterwards: %v", got)
	}
}

func TestSingleActiveConsumer(t *testing.T) {
	q, l := New(true), messages(20)
	a, b, c := key(1, 1), key(2, 1), key(2, 2)
	attach(t, q, Consumer{Key: a, Prefetch: 2}, Consumer{Key: b, Prefetch: 2}, Consumer{Key: c, Prefetch: 2})
	next := func(claim string, k Key, want ...mq.Seq) {
		t.Helper()
		all := drain(q, l, everything)
		wantSeqs(t, claim, all, want...)
		for _, g := range all {
			if g.k != k {
				t.Errorf("%s: %v got %d", claim, g.k, g.seq)
			}
		}
	}
	next("the oldest alone", a, 1, 2)
	q.Detach(a, false)
	next("the next does not wait for what a cancelled one holds", b, 3, 4)
	l.settle(q, 1)
	l.settle(q, 3)
	q.Return(a, []mq.Seq{2})
	next("what that one gives back comes first", b, 2)
	l.settle(q, 4)
	next("and then it goes on", b, 5)
	attach(t, q, Consumer{Key: key(3, 1), Prefetch: 1, Priority: 5})
	l.settle(q, 2)
	next("one of higher priority waits, and the old one gets no more", b)
	l.settle(q, 5)
	next("it takes over", key(3, 1), 6)
	q.DropSession(3)
	if k, _ := q.Active(); k != b {
		t.Errorf("active is %v, want the oldest that is left", k)
	}
	next("a dropped session's messages do not have to be waited for", b, 6, 7)
	q.DropSession(2)
	if _, ok := q.Active(); ok {
		t.Error("somebody is active in an empty room")
	}
}

func TestSingleActiveGoesOnIfAMoreUrgentOneLeavesBeforeItsTurn(t *testing.T) {
	q, l := New(true), messages(6)
	a, b := key(1, 1), key(2, 1)
	attach(t, q, Consumer{Key: a, Prefetch: 1})
	wantSeqs(t, "the only one", drain(q, l, everything), 1)
	attach(t, q, Consumer{Key: b, Priority: 1})
	if k, _ := q.Active(); k != b {
		t.Fatalf("active is %v, want the more urgent one", k)
	}
	l.settle(q, 1)
	q.Detach(b, true)
	for _, g := range drain(q, l, everything) {
		if g.k != a || g.seq != 2 {
			t.Errorf("%v got %d", g.k, g.seq)
		}
	}
}

func TestSingleActiveSurvivesANewLeader(t *testing.T) {
	q, l := New(true), messages(20)
	a, b := key(1, 1), key(2, 1)
	q.OpenAt(10)
	attach(t, q, Consumer{Key: b}, Consumer{Key: a}) // b's node was first to resume
	if n := q.Claim(a, []mq.Seq{1, 2}, l); n != 2 {
		t.Fatalf("claimed %d", n)
	}
	if k, _ := q.Active(); k != a {
		t.Fatalf("active is %v, want the one that was before", k)
	}
	if seq, k, _, redelivered, ok := q.Next(l, 10); !ok || seq != 3 || k != a || !redelivered {
		t.Errorf("got %d for %v", seq, k)
	}
}

func TestClaimKeepsWhatIsHeldCheckedOut(t *testing.T) {
	q, l := New(false), messages(20)
	l.gone[3] = true
	q.OpenAt(12)
	a, b := key(1, 1), key(2, 1)
	attach(t, q, Consumer{Key: a, Prefetch: 4})
	if n := q.Claim(a, []mq.Seq{5, 2, 3, 40}, l); n != 2 {
		t.Errorf("claimed %d, want 2", n)
	}
	if n := q.Claim(b, []mq.Seq{5, 6}, l); n != 1 {
		t.Errorf("the other claimed %d, want 1", n)
	}
	if n := q.Claim(a, []mq.Seq{5, 2}, l); n != 2 {
		t.Errorf("again: %d, want 2", n)
	}
	wantSeqs(t, "the rest of its prefetch", drain(q, l, 12), 1, 4)
	q.Return(b, []mq.Seq{6})
	q.Detach(a, true)
	attach(t, q, Consumer{Key: b})
	for _, g := range drain(q, l, everything) {
		if g.redelivered != (g.seq <= 12) {
			t.Errorf("%d: redelivered is %v", g.seq, g.redelivered)
		}
		if g.seq == 3 || g.k != b {
			t.Errorf("got %v", g)
		}
	}
	if q.Unacked() != 19 {
		t.Errorf("%d checked out, want 19", q.Unacked())
	}
}

func TestAClaimedMessageThatComesBackIsRedelivered(t *testing.T) {
	q, l := New(false), messages(5)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k, Prefetch: 9})
	q.Claim(k, []mq.Seq{4}, l)
	q.Return(k, []mq.Seq{4})
	all := drain(q, l, everything)
	wantSeqs(t, "each once, in its place", all, 1, 2, 3, 4, 5)
	for _, g := range all {
		if g.redelivered != (g.seq == 4) {
			t.Errorf("got %v", g)
		}
	}
}

func TestAnAckBeforeTheChannelClosesCounts(t *testing.T) {
	q, l := New(false), messages(3)
	attach(t, q, Consumer{Key: key(1, 1)})
	drain(q, l, everything)
	q.Settling(2)
	q.Detach(key(1, 1), true)
	attach(t, q, Consumer{Key: key(1, 2)})
	wantSeqs(t, "what was not acked", drain(q, l, everything), 1, 3)
	q.DropSession(1)
	attach(t, q, Consumer{Key: key(2, 1)})
	wantSeqs(t, "when its session ends the ack may be lost", drain(q, l, everything), 1, 2, 3)
}

func TestManyReturnsThatAreSettledLeaveTheHeap(t *testing.T) {
	q, l := New(false), messages(2000)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k})
	all := seqs(drain(q, l, everything))
	q.Return(k, all)
	q.Settled(1, 1990)
	for seq := range mq.Seq(1990) {
		l.gone[seq+1] = true
	}
	q.Claim(k, []mq.Seq{1995}, l)
	q.Return(k, []mq.Seq{1995})
	if len(q.returns) != 10 {
		t.Errorf("the heap has %d", len(q.returns))
	}
	q.Link(k, 100, 0)
	if got := len(drain(q, l, everything)); got != 10 {
		t.Errorf("got %d", got)
	}
}

func TestReconcileReturnsWhatTheNodeDoesNotHave(t *testing.T) {
	q, l := New(false), messages(6)
	k := key(1, 1)
	attach(t, q, Consumer{Key: k, Prefetch: 6})
	drain(q, l, everything)
	q.Settling(2)
	q.Reconcile(k, []mq.Seq{5, 3})
	if got := q.HeldSeqs(); !slices.Equal(got, []mq.Seq{2, 3, 5}) {
		t.Errorf("still checked out: %v", got)
	}
	wantSeqs(t, "the lost ones again", drain(q, l, everything), 1, 4, 6)
	q.Reconcile(k, nil)
	wantSeqs(t, "and all", drain(q, l, everything), 1, 3, 4, 5, 6)
}

func TestGetHoldsUnderItsKey(t *testing.T) {
	q, l := New(false), messages(3)
	k := key(1, 0)
	for want := mq.Seq(1); want <= 3; want++ {
		if seq, redelivered, ok := q.Take(l, everything, k, want == 2); !ok || seq != want || redelivered {
			t.Errorf("got %d %v %v", seq, redelivered, ok)
		}
	}
	if _, _, ok := q.Take(l, everything, k, false); ok || q.Consumers() != 0 || len(q.Keys(1)) != 1 {
		t.Error("an empty queue has something")
	}
	l.settle(q, 1, 2, 3)
	if len(q.Keys(1)) != 0 || len(q.byKey) != 0 {
		t.Error("the key is kept for nothing")
	}
}

func TestAStragglerDoesNotKeepTheTableLarge(t *testing.T) {
	q := New(false)
	n := 3 * slotsMax
	l := messages(n)
	k := key(1, 1)
	for seq := mq.Seq(1); seq <= mq.Seq(n); seq++ {
		q.cursor = seq // the cursor is there already, but the test's Next is slow
		if got, _, ok := q.Take(l, everything, k, false); !ok || got != seq {
			t.Fatalf("got %d, want %d", got, seq)
		}
		if seq > 3 {
			q.Settled(seq-1, seq-1)
		}
	}
	if len(q.out.ring) > slotsMax || len(q.out.old) > 64 {
		t.Errorf("ring %d, list %d", len(q.out.ring), len(q.out.old))
	}
	if got := q.HeldSeqs(); !slices.Equal(got, []mq.Seq{1, 2, mq.Seq(n)}) {
		t.Errorf("holds %v", got)
	}
	q.Settled(1, mq.Seq(n))
	if q.Unacked() != 0 || q.out.ring != nil {
		t.Errorf("%d checked out, ring %d", q.Unacked(), len(q.out.ring))
	}
}

// run is a live set that is all live, as a busy queue's is.
type run struct{ last mq.Seq }

func (r *run) Next(from mq.Seq) (mq.Seq, bool) { return from, from <= r.last }

func TestNextDoesNotAllocate(t *testing.T) {
	for _, consumers := range []int{1, 100} {
		q, settled := busy(consumers)
		step := func() { settled = turn(t, q, settled) }
		for range 5000 {
			step()
		}
		if got := testing.AllocsPerRun(10_000, step); got != 0 {
			t.Errorf("%d consumers: %v allocations", consumers, got)
		}
	}
}

func busy(consumers int) (*Queue, mq.Seq) {
	q := New(false)
	for i := range consumers {
		_ = q.Attach(Consumer{Key: key(i%3, i), Prefetch: 10})
	}
	return q, 0
}

var all = &run{math.MaxUint64}

// turn hands out what it can and settles one, a little out of order.
func turn(t testing.TB, q *Queue, settled mq.Seq) mq.Seq {
	for {
		_, k, _, _, ok := q.Next(all, everything)
		if !ok {
			break
		}
		q.Sent(k, 1000)
		q.Link(k, 1, 1000)
	}
	settled++
	seq := (settled - 1) ^ 1 + 1
	q.Settling(seq)
	q.Settled(seq, seq)
	return settled
}

func BenchmarkDeliverAndSettle(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"1consumer", 1}, {"1000consumers", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			q, settled := busy(c.n)
			b.ReportAllocs()
			for b.Loop() {
				settled = turn(b, q, settled)
			}
		})
	}
}

func BenchmarkNextWithoutCredit(b *testing.B) {
	q, _ := busy(10_000)
	for {
		if _, _, _, _, ok := q.Next(all, everything); !ok {
			break
		}
	}
	b.ResetTimer()
	for b.Loop() {
		q.Next(all, everything)
	}
}

func BenchmarkNext(b *testing.B) {
	q := New(false)
	k := key(1, 1)
	_ = q.Attach(Consumer{Key: k})
	i := mq.Seq(0)
	b.ReportAllocs()
	for b.Loop() {
		if i%LinkMessages == 0 {
			q.Link(k, LinkMessages, 0)
			q.Settled(1, i)
		}
		i++
		if _, _, _, _, ok := q.Next(all, everything); !ok {
			b.Fatal("nothing")
		}
	}
}
