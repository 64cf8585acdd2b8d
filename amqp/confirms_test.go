package amqp

import (
	"math/rand/v2"
	"testing"

	"warren/amqp/wire"
	"warren/mq"
)

// However outcomes come in and whenever the writer looks, every tag is told
// exactly once, as it was decided.
func TestEveryTagIsConfirmedOnce(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var n counters
		c := newConfirms(newOutbox(), &channel{number: 1})
		const tags = 3000
		want, told := [tags + 1]mq.Outcome{}, [tags + 1]mq.Outcome{}
		var waiting []uint64
		var buf []byte
		for next := 1; next <= tags || len(waiting) > 0; {
			if next <= tags && rnd.IntN(2) == 0 {
				waiting = append(waiting, c.next())
				next++
			} else if len(waiting) > 0 {
				at := rnd.IntN(min(len(waiting), 1+rnd.IntN(20)))
				tag := waiting[at]
				waiting = append(waiting[:at], waiting[at+1:]...)
				want[tag] = mq.Confirmed
				if rnd.IntN(5) == 0 {
					want[tag] = mq.Rejected
				}
				c.decide(tag, want[tag])
			}
			if rnd.IntN(10) == 0 {
				buf, _ = c.collect(buf[:0], &n)
				if rnd.IntN(3) == 0 {
					buf = c.collectLoose(buf, &n)
				}
				hear(t, buf, told[:])
			}
		}
		buf, _ = c.collect(buf[:0], &n)
		hear(t, buf, told[:])
		for tag := 1; tag <= tags; tag++ {
			if told[tag] != want[tag] {
				t.Fatalf("seed %d: tag %d: told %d want %d", seed, tag, told[tag], want[tag])
			}
		}
		if got := n.confirmed.Load() + n.rejected.Load(); got != tags {
			t.Fatalf("seed %d: counted %d", seed, got)
		}
	}
}

// The list of channels that is made for operators may have one in it that
// closes meanwhile.
func TestAClosedChannelHasNothingUnconfirmed(t *testing.T) {
	var n counters
	c := newConfirms(newOutbox(), &channel{number: 1})
	c.next()
	c.next()
	c.decide(1, mq.Confirmed)
	c.collect(nil, &n)
	if got := c.unanswered(); got != 1 {
		t.Errorf("%d unconfirmed, want 1", got)
	}
	c.silence()
	if got := c.unanswered(); got != 0 {
		t.Errorf("%d unconfirmed after the end", got)
	}
}

// hear notes in told what frames say, as a client does: multiple means all
// that is outstanding up to the tag.
func hear(t *testing.T, frames []byte, told []mq.Outcome) {
	for len(frames) > 0 {
		size := 7 + int(frames[5])<<8 + int(frames[6]) + 1
		m, err := wire.ParseMethod(frames[7 : size-1])
		if err != nil {
			t.Fatal(err)
		}
		frames = frames[size:]
		tag, multiple, o := uint64(0), false, mq.Confirmed
		switch m := m.(type) {
		case *wire.BasicAck:
			tag, multiple = m.DeliveryTag, m.Multiple
		case *wire.BasicNack:
			tag, multiple, o = m.DeliveryTag, m.Multiple, mq.Rejected
		}
		if told[tag] != mq.Pending {
			t.Fatalf("tag %d is told twice", tag)
		}
		told[tag] = o
		oldest := uint64(1)
		for told[oldest] != mq.Pending && oldest < tag {
			oldest++
		}
		for k := oldest; multiple && k < tag; k++ { // amqp091-go takes it to be about all of these
			if told[k] != mq.Pending && told[k] != o {
				t.Fatalf("multiple of %d covers %d, which was told otherwise", tag, k)
			}
		}
		for k := tag - 1; multiple && k > 0; k-- {
			if told[k] == mq.Pending {
				told[k] = o
			}
		}
	}
}
