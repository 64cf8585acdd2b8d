package dispatch

import (
	"slices"
	"testing"

	"warren/mq"
)

func TestFirstIsWhatComesNextAndStaysReady(t *testing.T) {
	q, l := New(false), messages(3)
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 2})
	for range 2 {
		if seq, ok := q.First(l); seq != 1 || !ok {
			t.Fatalf("got %d, %v; want 1", seq, ok)
		}
	}
	drain(q, l, everything)
	if seq, ok := q.First(l); seq != 3 || !ok {
		t.Fatalf("got %d, %v; want 3: the others are checked out", seq, ok)
	}
	q.Return(key(1, 1), []mq.Seq{2})
	if seq, ok := q.First(l); seq != 2 || !ok {
		t.Fatalf("got %d, %v; want 2: it came back", seq, ok)
	}
	l.settle(q, 1, 2, 3)
	if seq, ok := q.First(l); ok {
		t.Fatalf("got %d of an empty queue", seq)
	}
}

func TestWithdrawnGoesToNobody(t *testing.T) {
	q, l := New(false), messages(4)
	q.Withdraw(1) // fresh
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 2})
	drain(q, l, everything) // 2 and 3
	q.Return(key(1, 1), []mq.Seq{2})
	q.Withdraw(2) // returned
	var held []mq.Seq
	q.WithdrawFrom(key(1, 1), []mq.Seq{2, 3, 4}, func(seq mq.Seq) { held = append(held, seq) })
	if !slices.Equal(held, []mq.Seq{3}) || q.Withdrawn() != 3 || q.Unacked() != 3 {
		t.Fatalf("withdrew %v of the consumer's, %d in all of %d checked out", held, q.Withdrawn(), q.Unacked())
	}
	q.DropSession(1)
	q.Claim(key(2, 1), []mq.Seq{1, 2, 3}, l)
	attach(t, q, Consumer{Key: key(2, 1)})
	if got := drain(q, l, everything); len(got) != 1 || got[0].seq != 4 {
		t.Fatalf("handed out %v, want 4 alone", got)
	}
	l.settle(q, 1, 2, 3)
	if q.Withdrawn() != 0 || q.Unacked() != 1 {
		t.Fatalf("%d withdrawn of %d", q.Withdrawn(), q.Unacked())
	}
}

func TestWithdrawingFreesPrefetch(t *testing.T) {
	q, l := New(false), messages(3)
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 1})
	drain(q, l, everything)
	if q.Able() {
		t.Fatal("able beyond its prefetch")
	}
	q.Withdraw(1)
	if !q.Able() {
		t.Fatal("not able, though it holds nothing")
	}
	if got := drain(q, l, everything); len(got) != 1 || got[0].seq != 2 {
		t.Fatalf("got %v, want 2", got)
	}
}

func TestSingleActiveConsumerDoesNotWaitForWhatIsWithdrawn(t *testing.T) {
	q, l := New(true), messages(3)
	attach(t, q, Consumer{Key: key(1, 1)})
	q.Withdraw(1)
	if got := drain(q, l, everything); len(got) != 2 {
		t.Fatalf("got %v, want 2 and 3", got)
	}
}

func TestRestoredIsReadyAtItsPlaceAgain(t *testing.T) {
	q, l := New(false), messages(4)
	attach(t, q, Consumer{Key: key(1, 1), Prefetch: 3})
	drain(q, l, everything) // 1 to 3
	q.Settling(2)
	var back []mq.Seq
	q.WithdrawAll(key(1, 1), func(seq mq.Seq) { back = append(back, seq) })
	q.WithdrawAll(key(9, 9), func(mq.Seq) { t.Error("nobody holds anything") })
	if !slices.Equal(back, []mq.Seq{1, 3}) || q.Withdrawn() != 2 {
		t.Fatalf("withdrew %v: 2 is settled already", back)
	}
	for _, seq := range []mq.Seq{3, 1, 1, 2, 4} {
		q.Restore(seq)
	}
	if seq, ok := q.First(l); seq != 1 || !ok || q.Withdrawn() != 0 || !q.Held(2) {
		t.Fatalf("%d comes first, %d are withdrawn", seq, q.Withdrawn())
	}
	if got := drain(q, l, everything); len(got) != 3 || got[0].seq != 1 || !got[0].redelivered || got[1].seq != 3 {
		t.Errorf("got %v", got)
	}
}

func TestCreditIsWhatConsumersWouldTakeAtOnce(t *testing.T) {
	for _, single := range []bool{false, true} {
		q, l := New(single), messages(1000)
		if got := q.Credit(); got != 0 {
			t.Errorf("nobody takes %d", got)
		}
		attach(t, q, Consumer{Key: key(1, 1), Prefetch: 5}, Consumer{Key: key(1, 2), Prefetch: 9, Priority: -1}, Consumer{Key: key(2, 3), Prefetch: 3})
		q.Suspend(2, true)
		q.Link(key(1, 1), -10, 0) // a peer cannot take any away
		for got := q.Credit(); ; got = q.Credit() {
			if _, _, _, _, ok := q.Next(l, everything); !ok {
				if got != 0 {
					t.Errorf("single=%v: they do not take %d", single, got)
				}
				break
			}
			if now := q.Credit(); now != got-1 {
				t.Errorf("single=%v: after one of %d there is credit for %d", single, got, now)
			}
		}
	}
	q := New(false)
	attach(t, q, Consumer{Key: key(1, 1), NoAck: true, Prefetch: 1})
	if got := q.Credit(); got != LinkMessages {
		t.Errorf("without ack it takes %d, want %d", got, LinkMessages)
	}
}

func TestDeferredIsNeitherReadyNorCheckedOut(t *testing.T) {
	q, l := New(false), messages(3)
	attach(t, q, Consumer{Key: key(1, 1)})
	q.Defer(1)
	if got := drain(q, l, everything); len(got) != 2 || got[0].seq != 2 || got[1].seq != 3 {
		t.Fatalf("handed out %v, want 2 and 3", got)
	}
	if held := q.HeldSeqs(); !slices.Equal(held, []mq.Seq{2, 3}) || q.Unacked() != 2 || q.Deferred() != 1 || q.Held(1) {
		t.Fatalf("%v of %d checked out, %d deferred", held, q.Unacked(), q.Deferred())
	}
	if seq, ok := q.First(l); ok {
		t.Fatalf("%d is at the head", seq)
	}
	q.DropSession(1)
	q.Restore(1)
	attach(t, q, Consumer{Key: key(2, 1)})
	if got := drain(q, l, everything); len(got) != 3 || got[0].seq != 1 || !got[0].redelivered || q.Deferred() != 0 {
		t.Fatalf("handed out %v, want 1 again, at its place", got)
	}
}

func TestWhatSomebodyHoldsIsNotDeferred(t *testing.T) {
	q, l := New(false), messages(2)
	attach(t, q, Consumer{Key: key(1, 1)})
	drain(q, l, everything)
	q.Withdraw(2)
	q.Defer(1)
	q.Defer(2)
	if q.IsDeferred(1) || !q.IsDeferred(2) || q.Unacked() != 1 || q.Withdrawn() != 0 {
		t.Fatalf("%d deferred, %d checked out, %d to the leader", q.Deferred(), q.Unacked(), q.Withdrawn())
	}
	if q.Claim(key(1, 1), []mq.Seq{2}, l) != 1 || q.Deferred() != 0 {
		t.Fatal("a claim is not heard")
	}
	l.settle(q, 1, 2)
	if q.Unacked()+q.Deferred() != 0 {
		t.Fatal("something is left")
	}
}
