package scale

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

const (
	messagesEnv    = "MESSAGES"
	delaysOrdinary = 2000
	// The first message is due when all have been published and the nodes are
	// back, if that goes at leadRate and takes leadMin; the last one is due after
	// as long again as it takes at fireRate.
	leadRate, leadMin = 8000, 45 * time.Second
	fireRate, fireMin = 5000, 10 * time.Second
	leadOrdinary      = 10 * time.Second
	spreadOrdinary    = 3 * time.Second
	delayedBytes      = 100
)

// firing is when messages are due.
type firing struct{ lead, spread time.Duration }

func firingOf(count int) firing {
	if count <= delaysOrdinary {
		return firing{leadOrdinary, spreadOrdinary}
	}
	return firing{leadMin + time.Duration(count)*time.Second/leadRate, max(fireMin, time.Duration(count)*time.Second/fireRate)}
}

func TestDelayedMessagesSurviveARestartAndComeInTime(t *testing.T) {
	c := cluster(t)
	m := newMeter(t, c)
	m.watch()
	count := amount(messagesEnv, delaysOrdinary)
	f := firingOf(count)
	m.say("%d messages, due from %v to %v from now", count, f.lead.Round(time.Second), (f.lead + f.spread).Round(time.Second))
	begin := time.Now()
	publishDelayed(t, c.URLs()[0], count, begin, f)
	m.say("published in %v; memory %s", time.Since(begin).Round(time.Millisecond), mib(m.memory()))
	ready := m.restart()
	m.say("restarted, and ready after %v; memory %s", ready.Round(time.Millisecond), mib(m.memory()))
	if left := f.lead - time.Since(begin); left < 0 {
		m.say("the first were due %v before that", -left)
	}

	before := m.processor()
	late := m.takeDelayed(c.URLs()[1], count, begin.Add(f.lead+f.spread))
	after := m.processor()
	slices.Sort(late)
	at := func(p float64) time.Duration { return late[min(len(late)-1, int(p*float64(len(late))))] }
	m.say("late by p50 %v, p99 %v, p99.9 %v, max %v; early by at most %v", at(0.5), at(0.99), at(0.999), at(1), max(0, -late[0]))
	m.goal("p99 late", at(0.99).String(), "<= 50ms", at(0.99) <= 50*time.Millisecond)
	m.goal("max late", at(1).String(), "<= 50ms", at(1) <= 50*time.Millisecond)
	m.say("processor time of the nodes for all that fired: %v / %v / %v", after[0]-before[0], after[1]-before[1], after[2]-before[2])
	m.say("highest memory of a node %d MiB", m.peak()>>20)
	if late[0] < -2*time.Millisecond { // its clock is the same as ours, in whole milliseconds
		t.Errorf("a message came %v before its time", -late[0])
	}
}

// publishDelayed publishes messages that are due at random moments. The body
// says which and when.
func publishDelayed(t *testing.T, url string, count int, begin time.Time, f firing) {
	p := newPublisher(t, url)
	if err := p.ch.ExchangeDeclare("delayed", "x-delayed-message", true, false, false, false, amqp091.Table{"x-delayed-type": "direct"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ch.QueueDeclare("fired", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.ch.QueueBind("fired", "fire", "delayed", false, nil); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		due := begin.Add(f.lead + time.Duration(rnd.Int64N(int64(f.spread)))).Truncate(time.Millisecond)
		body := make([]byte, delayedBytes)
		binary.BigEndian.PutUint64(body[8:], uint64(due.UnixMilli()))
		delay := max(1, time.Until(due).Milliseconds())
		p.publish("delayed", "fire", i, amqp091.Publishing{Body: body, Headers: amqp091.Table{"x-delay": delay}})
	}
	p.finish()
}

// takeDelayed takes all messages, each of which has to come, and returns by how
// much each was late.
func (m *meter) takeDelayed(url string, count int, last time.Time) (late []time.Duration) {
	ch := channel(m.t, url)
	if err := ch.Qos(5000, 0, false); err != nil {
		m.t.Fatal(err)
	}
	deliveries, err := ch.ConsumeWithContext(m.t.Context(), "fired", "", false, false, false, false, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	came := make([]bool, count)
	patience := time.NewTimer(time.Until(last) + readyPatience)
	for told := time.Now(); len(late) < count; {
		select {
		case d := <-deliveries:
			n := number(d.Body)
			if n < 0 || n >= count || came[n] {
				m.t.Fatalf("message %d came twice, or is nobody's", n)
			}
			came[n] = true
			late = append(late, time.Since(time.UnixMilli(int64(binary.BigEndian.Uint64(d.Body[8:])))))
			if len(late)%100 == 0 || len(late) == count {
				if err := d.Ack(true); err != nil {
					m.t.Fatal(err)
				}
			}
		case <-patience.C:
			m.t.Fatalf("only %d of %d messages came", len(late), count)
		}
		if time.Since(told) > 15*time.Second {
			told = time.Now()
			m.say("%d came; the last was late by %v; memory %s", len(late), late[len(late)-1], mib(m.memory()))
		}
	}
	return late
}
