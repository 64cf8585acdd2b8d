package chaos

import (
	"encoding/binary"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// receipt is one message as it came out of a queue.
type receipt struct {
	publisher, number uint32
	redelivered       bool
}

// drain takes everything out of a queue, in its order, over the node at url.
// The queue must have no other consumer.
func drain(t testing.TB, url, queue string) []receipt {
	t.Helper()
	ch := channel(t, url)
	if err := ch.Qos(500, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "drain", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []receipt
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(5 * time.Minute)
	quiet := 0 // looks in a row that found the queue empty and nothing delivered
	for quiet < 3 {
		select {
		case d, ok := <-deliveries:
			if !ok {
				t.Fatalf("the consumer ended after %d messages", len(out))
			}
			out = append(out, read(t, d))
			if err := d.Ack(false); err != nil {
				t.Fatal(err)
			}
			quiet = 0
		case <-look.C:
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if quiet++; q.Messages != 0 {
				quiet = 0
			}
		case <-deadline:
			t.Fatalf("the queue is not empty 5 minutes and %d messages after draining began", len(out))
		}
	}
	return out
}

func read(t testing.TB, d amqp091.Delivery) receipt {
	t.Helper()
	if len(d.Body) < numberBytes {
		t.Fatalf("a message of %d bytes, which nobody sent", len(d.Body))
	}
	return receipt{binary.BigEndian.Uint32(d.Body), binary.BigEndian.Uint32(d.Body[4:]), d.Redelivered}
}

// check compares what came out with what publishers know: every confirmed
// message exactly once and in the order of its publisher, every other at most
// once.
func check(t testing.TB, publishers []*publisher, out []receipt) {
	t.Helper()
	for _, p := range publishers {
		times := make([]int, len(p.fates))
		last, lastAt := -1, -1
		for at, r := range out {
			if r.publisher != p.id {
				continue
			}
			if int(r.number) >= len(p.fates) {
				t.Errorf("publisher %d never sent number %d", p.id, r.number)
				continue
			}
			times[r.number]++
			if p.fates[r.number] != confirmed || times[r.number] > 1 {
				continue
			}
			if int(r.number) < last {
				t.Errorf("publisher %d: number %d came out at %d, after number %d at %d", p.id, r.number, at, last, lastAt)
			}
			last, lastAt = int(r.number), at
		}
		report(t, p, times)
	}
}

// faultsShown is how many lost or doubled messages a failed check lists.
const faultsShown = 20

func report(t testing.TB, p *publisher, times []int) {
	t.Helper()
	var lost, doubled, kept, extra int
	for number, n := range times {
		switch {
		case n == 0 && p.fates[number] == confirmed:
			if lost++; lost <= faultsShown {
				t.Errorf("publisher %d: number %d was confirmed and is lost", p.id, number)
			}
		case n > 1:
			if doubled++; doubled <= faultsShown {
				t.Errorf("publisher %d: number %d (fate %d) is there %d times", p.id, number, p.fates[number], n)
			}
		case n == 1 && p.fates[number] == confirmed:
			kept++
		case n == 1:
			extra++
		}
	}
	t.Logf("publisher %d: %d sent, %d confirmed, %d of them there once, %d lost, %d doubled; %d unconfirmed ones there too",
		p.id, len(times), p.confirmed, kept, lost, doubled, extra)
}

// channel opens a channel that ends with the test.
func channel(t testing.TB, url string) *amqp091.Channel {
	t.Helper()
	ch, err := connection(t, url).Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func connection(t testing.TB, url string) *amqp091.Connection {
	t.Helper()
	conn, err := amqp091.DialConfig(url, amqp091.Config{Locale: "en_US", Heartbeat: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func declare(t testing.TB, url, queue string) {
	t.Helper()
	if _, err := channel(t, url).QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}
