package scale

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// channel is a channel on a connection of its own, for as long as the test.
func channel(t *testing.T, url string) *amqp091.Channel {
	t.Helper()
	conn, err := amqp091.DialConfig(url, amqp091.Config{Heartbeat: time.Minute, Locale: "en_US"})
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatalf("open a channel: %v", err)
	}
	return ch
}

// number is what a body begins with.
func number(body []byte) int {
	if len(body) < 8 {
		return -1
	}
	return int(binary.BigEndian.Uint64(body))
}

// window is how many messages of a publisher wait for a confirm.
const window = 2000

// publisher publishes with confirms.
type publisher struct {
	t       *testing.T
	ch      *amqp091.Channel
	acks    chan amqp091.Confirmation
	sent    int
	settled int
}

func newPublisher(t *testing.T, url string) *publisher {
	p := &publisher{t: t, ch: channel(t, url)}
	if err := p.ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	p.acks = p.ch.NotifyPublish(make(chan amqp091.Confirmation, window))
	return p
}

// publish sends a message whose body is to begin with number, once there is
// room in the window.
func (p *publisher) publish(exchange, key string, number int, m amqp091.Publishing) {
	for p.sent-p.settled >= window {
		p.settle()
	}
	binary.BigEndian.PutUint64(m.Body, uint64(number))
	m.DeliveryMode = amqp091.Persistent
	if err := p.ch.PublishWithContext(context.Background(), exchange, key, false, false, m); err != nil {
		p.t.Fatalf("publish message %d: %v", number, err)
	}
	p.sent++
}

func (p *publisher) settle() {
	a, ok := <-p.acks
	if !ok || !a.Ack {
		p.t.Fatalf("message %d was not confirmed", a.DeliveryTag)
	}
	p.settled++
}

// finish waits until all is confirmed.
func (p *publisher) finish() {
	for p.settled < p.sent {
		p.settle()
	}
}
