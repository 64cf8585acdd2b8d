package dispatch

import (
	"slices"
	"testing"

	"warren/mq"
)

func TestWhatIsHeldTooLongIsTakenBack(t *testing.T) {
	q, l := New(false), messages(4)
	hasty, calm := key(1, 1), key(2, 1)
	attach(t, q, Consumer{Key: hasty, Patience: 10, Prefetch: 1}, Consumer{Key: calm, Prefetch: 2})
	q.Time(1)
	wantSeqs(t, "all that they may hold", drain(q, l, everything), 1, 2, 3)
	takeBack := func(now uint32) (taken []mq.Seq, next uint32) {
		q.Time(now)
		next, _ = q.TakeBack(func(k Key, seq mq.Seq) {
			if k != hasty {
				t.Errorf("%d was taken from %v", seq, k)
			}
			taken = append(taken, seq)
		})
		return taken, next
	}
	if taken, next := takeBack(11); taken != nil || next != 12 {
		t.Errorf("took %v back too early, next at %d", taken, next)
	}
	if taken, next := takeBack(12); !slices.Equal(taken, []mq.Seq{1}) || next != 0 {
		t.Errorf("took back %v, next at %d", taken, next)
	}
	again := drain(q, l, everything)
	wantSeqs(t, "again", again, 1)
	if !again[0].redelivered {
		t.Error("it is not called redelivered")
	}
	q.Settling(1)
	if taken, _ := takeBack(100); taken != nil {
		t.Errorf("took %v back, whose settlement is on its way", taken)
	}
}

func TestASuspendedSessionKeepsWhatIsOverdueUntilItIsBack(t *testing.T) {
	q, l := New(false), messages(1)
	attach(t, q, Consumer{Key: key(1, 1), Patience: 1})
	q.Time(1)
	drain(q, l, everything)
	q.Suspend(1, true)
	q.Time(50)
	if next, waits := q.TakeBack(func(Key, mq.Seq) { t.Error("taken back, and nobody can be told") }); !waits || next != 51 {
		t.Errorf("next at %d, %v", next, waits)
	}
	q.Suspend(1, false)
	n := 0
	q.TakeBack(func(Key, mq.Seq) { n++ })
	if n != 1 {
		t.Errorf("%d taken back, want 1", n)
	}
}

func TestNoTimeIsNotedUntilSomebodyAsks(t *testing.T) {
	q, l := New(false), messages(10)
	attach(t, q, Consumer{Key: key(1, 1)})
	drain(q, l, everything)
	if _, waits := q.TakeBack(func(Key, mq.Seq) { t.Error("taken back") }); waits || q.since != nil {
		t.Error("times are noted")
	}
}
