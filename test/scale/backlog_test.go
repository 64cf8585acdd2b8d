package scale

import (
	"fmt"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

const (
	backlogOrdinary = 20_000
	backlogBytes    = 1024
	drainPrefetch   = 2000
	drainAcks       = 500
	diskFor         = time.Minute
	diskEvery       = 5 * time.Second
)

func TestADeepQueueTakesBoundedMemoryAndComesOutInOrder(t *testing.T) {
	c := cluster(t)
	m := newMeter(t, c)
	m.watch()
	count := amount(messagesEnv, backlogOrdinary)
	m.say("%d messages of %d bytes; memory of empty nodes %s", count, backlogBytes, mib(m.memory()))

	first, last := m.publishBacklog(c.URLs()[0], count)
	m.say("published; memory %s, disk %s", mib(m.memory()), mib(m.disk()))
	m.goal("rate of the last tenth to the first's", fmt.Sprintf("%.2f", last/first), ">= 0.7", last >= 0.7*first)
	before := m.peak()
	ready := m.restart()
	m.goal("restart to ready", ready.Round(10*time.Millisecond).String(), "<= 5s", ready <= 5*time.Second)

	m.drainBacklog(c.URLs()[1], count)
	m.say("drained; memory %s, disk %s", mib(m.memory()), mib(m.disk()))
	m.goal("highest memory until the restart", fmt.Sprintf("%d MiB", before>>20), "<= 600 MB", before <= 600e6)
	after := m.peak()
	m.goal("highest memory in all", fmt.Sprintf("%d MiB", after>>20), "<= 600 MB", after <= 600e6)
	if count > backlogOrdinary {
		m.diskAfter()
	}
}

// publishBacklog publishes messages with confirms and tells how it goes. It
// returns the rates of the first and the last tenth.
func (m *meter) publishBacklog(url string, count int) (first, last float64) {
	p := newPublisher(m.t, url)
	if _, err := p.ch.QueueDeclare("deep", true, false, false, false, nil); err != nil {
		m.t.Fatal(err)
	}
	body := make([]byte, backlogBytes)
	tenth := count / 10
	used := m.processor()
	for part := range 10 {
		begin := time.Now()
		for i := range tenth {
			p.publish("", "deep", part*tenth+i, amqp091.Publishing{Body: body})
		}
		p.finish()
		rate := float64(tenth) / time.Since(begin).Seconds()
		now := m.processor()
		var each time.Duration
		for i := range nodes {
			each += (now[i] - used[i]) / time.Duration(tenth)
		}
		used = now
		m.say("tenth %2d: %6.0f msg/s, %v of all nodes' processors for each; memory %s", part+1, rate, each, mib(m.memory()))
		if part == 0 {
			first = rate
		}
		last = rate
	}
	for i := 10 * tenth; i < count; i++ {
		p.publish("", "deep", i, amqp091.Publishing{Body: body})
	}
	p.finish()
	return first, last
}

// drainBacklog takes all messages, which have to come in order.
func (m *meter) drainBacklog(url string, count int) {
	ch := channel(m.t, url)
	if err := ch.Qos(drainPrefetch, 0, false); err != nil {
		m.t.Fatal(err)
	}
	deliveries, err := ch.ConsumeWithContext(m.t.Context(), "deep", "", false, false, false, false, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	begin := time.Now()
	silence := time.NewTimer(readyPatience)
	for n := 0; n < count; n++ {
		select {
		case d, ok := <-deliveries:
			if !ok || number(d.Body) != n || len(d.Body) != backlogBytes {
				m.t.Fatalf("message %d came in the place of %d", number(d.Body), n)
			}
			if (n+1)%drainAcks == 0 || n == count-1 {
				if err := d.Ack(true); err != nil {
					m.t.Fatal(err)
				}
				silence.Reset(readyPatience)
			}
		case <-silence.C:
			m.t.Fatalf("message %d does not come", n)
		}
		if (n+1)%max(1, count/10) == 0 {
			m.say("took %d, %.0f msg/s; memory %s", n+1, float64(n+1)/time.Since(begin).Seconds(), mib(m.memory()))
		}
	}
	m.awaitEmpty(ch)
}

// awaitEmpty waits until the last acknowledgements count.
func (m *meter) awaitEmpty(ch *amqp091.Channel) {
	deadline := time.Now().Add(readyPatience)
	for {
		q, err := ch.QueueDeclarePassive("deep", true, false, false, false, nil)
		if err != nil || time.Now().After(deadline) {
			m.t.Fatalf("%d messages are left: %v", q.Messages, err)
		}
		if q.Messages == 0 {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
}

// diskAfter tells for a while what the drained nodes still have on disk.
func (m *meter) diskAfter() {
	begin := time.Now()
	const goal = 1 << 30
	for {
		used := m.disk()
		most := max(used[0], used[1], used[2])
		m.say("disk after %v: %s", time.Since(begin).Round(time.Second), mib(used))
		if most < goal || time.Since(begin) >= diskFor {
			m.goal("disk of a node, a minute after the drain", fmt.Sprintf("%d MiB", most>>20), "< 1 GiB", most < goal)
			return
		}
		<-time.After(diskEvery)
	}
}
