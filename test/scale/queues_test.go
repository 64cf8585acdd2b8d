package scale

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

const (
	queuesEnv      = "QUEUES"
	queuesOrdinary = 200
	declarers      = 8  // connections
	perQueue       = 10 // messages
	settleFor      = 10 * time.Second
	idleFor        = 20 * time.Second
)

func queueName(i int) string { return fmt.Sprintf("many-%d", i) }

// share has every one of a few connections do its part of count.
func share(count int, do func(client, i int)) {
	var all sync.WaitGroup
	for client := range declarers {
		all.Go(func() {
			for i := client; i < count; i += declarers {
				do(client, i)
			}
		})
	}
	all.Wait()
}

func TestManyQueuesAreDeclaredFilledAndComeBack(t *testing.T) {
	c := cluster(t)
	m := newMeter(t, c)
	m.watch()
	count := amount(queuesEnv, queuesOrdinary)
	measured := count > queuesOrdinary
	m.say("%d queues; memory of empty nodes %s", count, mib(m.memory()))

	var chs []*amqp091.Channel
	for i := range declarers {
		chs = append(chs, channel(t, c.URLs()[i%nodes]))
	}
	before, begin := m.processor(), time.Now()
	share(count, func(client, i int) {
		if _, err := chs[client].QueueDeclare(queueName(i), true, false, false, false, nil); err != nil {
			t.Errorf("declare %s: %v", queueName(i), err)
		}
	})
	if t.Failed() {
		return
	}
	took := time.Since(begin)
	after := m.processor()
	m.say("declared in %v; each cost %v / %v / %v of processor time", took.Round(time.Millisecond),
		(after[0]-before[0])/time.Duration(count), (after[1]-before[1])/time.Duration(count), (after[2]-before[2])/time.Duration(count))
	rate := float64(count) / took.Seconds()
	m.goal("declares a second", fmt.Sprintf("%.0f", rate), ">= 2000", rate >= 2000)
	if measured {
		m.quiet("empty")
	}

	fill(t, c.URLs(), count)
	m.say("%d messages in each; memory %s", perQueue, mib(m.memory()))
	if measured {
		m.quiet("filled")
	}
	ready := m.restart()
	m.goal("restart to ready", ready.Round(10*time.Millisecond).String(), "<= 10s", ready <= 10*time.Second)
	if measured {
		m.quiet("restarted")
	}
	wantFull(t, channel(t, c.URLs()[0]), count)
	m.say("highest memory of a node %d MiB, disk %s", m.peak()>>20, mib(m.disk()))
}

// quiet measures what nodes take that nobody asks anything.
func (m *meter) quiet(state string) {
	<-time.After(settleFor)
	shares, memory := m.idle(idleFor), m.memory()
	for i := range nodes {
		m.goal(fmt.Sprintf("memory of node %d, %s and idle", i+1, state), fmt.Sprintf("%d MiB", memory[i]>>20), "<= 300 MB", memory[i] <= 300e6)
	}
	for i := range nodes {
		m.goal(fmt.Sprintf("processor of node %d, %s and idle", i+1, state), fmt.Sprintf("%.1f %%", 100*shares[i]), "<= 3 %", shares[i] <= 0.03)
	}
}

// fill puts some messages into every queue.
func fill(t *testing.T, urls []string, count int) {
	var ps []*publisher
	for i := range declarers {
		ps = append(ps, newPublisher(t, urls[i%nodes]))
	}
	share(count, func(client, i int) {
		for n := range perQueue {
			ps[client].publish("", queueName(i), n, amqp091.Publishing{Body: make([]byte, 100)})
		}
	})
	for _, p := range ps {
		p.finish()
	}
}

// wantFull looks into some of the queues.
func wantFull(t *testing.T, ch *amqp091.Channel, count int) {
	for i := 0; i < count; i += max(1, count/100) {
		q, err := ch.QueueDeclarePassive(queueName(i), true, false, false, false, nil)
		if err != nil || q.Messages != perQueue {
			t.Fatalf("%s has %d messages: %v", queueName(i), q.Messages, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	deliveries, err := ch.ConsumeWithContext(ctx, queueName(count-1), "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range perQueue {
		if d, ok := <-deliveries; !ok || number(d.Body) != n {
			t.Fatalf("message %d does not come, or another in its place", n)
		}
	}
}
