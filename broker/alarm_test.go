package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"warren/internal/fields"
	"warren/mq"
)

// publishing starts a publish that is expected to wait. The channels hear why
// it waits, and when it is through.
func (s *Session) publishing(ctx context.Context, queue string) (waits chan string, through chan error) {
	waits, through = make(chan string, 1), make(chan error, 1)
	go func() {
		p := &mq.Publish{
			Content: mq.NewContent("", queue, []byte{0, 0}, 0), ExpirationMs: -1, Confirm: newConfirms(),
			Waits: func(reason string) { waits <- reason },
		}
		_, err := s.Publish(ctx, p)
		s.Flush()
		through <- err
	}()
	return waits, through
}

// alarmed waits until a node has heard of another's alarm, or of its end.
func (n *houseNode) alarmed(t *testing.T, of *houseNode, want string) {
	t.Helper()
	eventually(t, "an alarm to be heard", func() bool { got, _ := n.alarms.of(of.id); return got == want })
}

func TestAnAlarmHoldsBackWhoPublishesThereAndTo(t *testing.T) {
	h := newHouse(t, 3, 2)
	h.awaitLeaders(t)
	mine, other := h.nodes[0].open(t), h.nodes[1].open(t)
	mine.mustDeclare(t, mq.QueueDeclare{Name: "led here", Durable: true})
	other.mustDeclare(t, mq.QueueDeclare{Name: "led there", Durable: true})
	h.nodes[0].SetAlarm("low on disk")
	h.nodes[1].alarmed(t, h.nodes[0], "low on disk")

	here, hereThrough := mine.publishing(t.Context(), "led there")
	there, thereThrough := other.publishing(t.Context(), "led here")
	for _, waits := range []chan string{here, there} {
		if reason := <-waits; reason != "low on disk" {
			t.Errorf("waits because of %q", reason)
		}
	}
	free, through := h.nodes[1].open(t).publishing(t.Context(), "led there")
	if err := <-through; err != nil || len(free) > 0 {
		t.Errorf("a publish that has nothing to do with the alarm: %v, waited %d times", err, len(free))
	}

	h.nodes[0].SetAlarm("")
	for _, through := range []chan error{hereThrough, thereThrough} {
		if err := <-through; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "messages", func() bool { return mine.ready(t, "led here") == 1 && mine.ready(t, "led there") == 2 })
}

func TestAnAlarmLetsConsumersGoOn(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	s.publishTo(t, "", "q", "m", -1)
	h.nodes[0].SetAlarm("low on memory")
	s.settle(t, mq.Ack, s.mustGet(t, "q"))
	eventually(t, "the ack", func() bool {
		st, err := h.nodes[0].Stat(t.Context(), h.nodes[0].View().Queue("/", "q"))
		return err == nil && st.Ready+st.Unacked == 0
	})
}

func TestAPublishGoesOnWhenItsQueueIsLedElsewhere(t *testing.T) {
	h := newHouse(t, 3, 1)
	s := h.nodes[1].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	h.nodes[0].SetAlarm("low on disk")
	h.nodes[1].alarmed(t, h.nodes[0], "low on disk")
	waits, through := s.publishing(t.Context(), "q")
	<-waits
	h.lead(1, h.nodes[2])
	if err := <-through; err != nil {
		t.Error(err)
	}
}

func TestAnAlarmEndsWithItsNodeAndIsToldAgain(t *testing.T) {
	h := newHouse(t, 2, 1)
	h.nodes[0].SetAlarm("low on disk")
	h.nodes[1].alarmed(t, h.nodes[0], "low on disk")
	h.cut(h.nodes[0], h.nodes[1])
	h.nodes[1].alarmed(t, h.nodes[0], "")
	h.mend(h.nodes[0], h.nodes[1])
	h.nodes[1].alarmed(t, h.nodes[0], "low on disk")
}

func TestAPublishThatWaitsEndsWithItsConnection(t *testing.T) {
	h := newHouse(t, 1, 1)
	s := h.nodes[0].open(t)
	s.mustDeclare(t, mq.QueueDeclare{Name: "q", Durable: true})
	h.nodes[0].SetAlarm("low on memory")
	ctx, end := context.WithCancel(t.Context())
	waits, through := s.publishing(ctx, "q")
	<-waits
	end()
	if err := <-through; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Too much that waits on the lane of a node to itself cuts it, which a node
// that is short of memory may well come to.
func TestANodeKeepsItsAlarmWhenItsLaneToItselfIsCut(t *testing.T) {
	n := newHouse(t, 1, 1).nodes[0]
	n.SetAlarm("low on memory")
	n.PeerDown(n.id)
	n.PeerUp(n.id)
	if reason, _ := n.alarms.of(n.id); reason != "low on memory" {
		t.Errorf("its alarm is %q", reason)
	}
}

// interruptedLane sends its first frame when something else has had the time to
// send one.
type interruptedLane struct {
	recordedLane
	begun  atomic.Bool
	inside func()

	mu     sync.Mutex
	frames [][]byte // guarded by mu
}

func (l *interruptedLane) Peers() []mq.NodeID { return []mq.NodeID{"peer"} }

func (l *interruptedLane) Send(_ mq.NodeID, frame []byte) bool {
	if l.begun.CompareAndSwap(false, true) {
		l.inside()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, frame)
	return true
}

func TestAPeerHearsTheNewestAlarmLast(t *testing.T) {
	l := &interruptedLane{}
	b := New(l, Options{Log: slog.New(slog.DiscardHandler)})
	raised := make(chan struct{})
	l.inside = func() {
		go func() {
			defer close(raised)
			b.SetAlarm("low on disk")
		}()
		select {
		case <-raised:
		case <-time.After(50 * time.Millisecond): // it waits, as it should
		}
	}
	b.PeerUp("peer")
	<-raised
	want := fields.AppendString([]byte{frameAlarm}, "low on disk")
	if got := l.frames[len(l.frames)-1]; !bytes.Equal(got, want) {
		t.Errorf("the last that it hears is %q, want %q", got, want)
	}
}
