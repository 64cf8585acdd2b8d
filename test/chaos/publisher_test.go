package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// fate is what a publisher knows of one of its messages.
type fate uint8

const (
	unknown   fate = iota // sent, and never heard of again: it may be there, once
	confirmed             // it must be there, once
	rejected              // it was nacked: it may be there, once
)

// numberBytes is the head of a body: u32 publisher | u32 number.
const numberBytes = 8

// Limits of a publisher: enough to have messages in flight at every kill, few
// enough that draining them takes no time.
const (
	window       = 64                   // messages that wait for a confirm
	publishPause = 2 * time.Millisecond // between two
	redialPause  = 20 * time.Millisecond
	dialTimeout  = 5 * time.Second
	paddingMax   = 2048 // bytes of a body after its number, unless a publisher has others
)

// publisher publishes with confirms until it is stopped. When its connection
// ends it goes on with the next number on another node; it never repeats one.
type publisher struct {
	t     testing.TB
	id    uint32
	queue string
	urls  []string // in the order of preference
	rnd   *rand.Rand
	// padding is up to how many bytes a body has after its number.
	padding int

	mu        sync.Mutex
	fates     []fate
	confirmed int
	changed   chan struct{} // has an item when confirmed went up
	heard     time.Time     // when the last confirm came
	silence   time.Duration // the longest time between two, see longestSilence
}

// newPublisher makes one that prefers the first of urls.
func newPublisher(t testing.TB, id uint32, queue string, urls []string, seed uint64) *publisher {
	return &publisher{
		t: t, id: id, queue: queue, urls: urls,
		rnd:     rand.New(rand.NewPCG(seed, uint64(id))),
		padding: paddingMax,
		changed: make(chan struct{}, 1),
	}
}

// run publishes until ctx ends, and then waits for what is in flight.
func (p *publisher) run(ctx context.Context) {
	refused := make(map[string]int) // a node that is down says the same fifty times a second
	for at := 0; ctx.Err() == nil; at++ {
		err := p.session(ctx, p.urls[at%len(p.urls)])
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			refused[p.urls[at%len(p.urls)]]++
		case err != nil:
			p.t.Logf("publisher %d: %v", p.id, err)
		}
		if err != nil {
			pause(ctx, redialPause)
		}
	}
	if len(refused) > 0 {
		p.t.Logf("publisher %d: connections refused by nodes that were down: %v", p.id, refused)
	}
}

// session is one connection.
func (p *publisher) session(ctx context.Context, url string) error {
	conn, err := amqp091.DialConfig(url, amqp091.Config{Locale: "en_US", Heartbeat: 10 * time.Second, Dial: amqp091.DefaultDial(dialTimeout)})
	if err != nil {
		return fmt.Errorf("dial %s: %w", url, err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel on %s: %w", url, err)
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("select confirms on %s: %w", url, err)
	}
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	confirms := ch.NotifyPublish(make(chan amqp091.Confirmation, 2*window))
	places := make(chan struct{}, window)
	first := p.next()
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for c := range confirms {
			p.settle(first+int(c.DeliveryTag)-1, c.Ack)
			<-places
		}
	})
	defer hearing.Wait()
	defer conn.Close() // ends the confirms
	for {
		select {
		case <-ctx.Done():
			p.awaitConfirms(places, closed)
			return nil
		case err := <-closed:
			return fmt.Errorf("%s closed: %w", url, orGone(err))
		case places <- struct{}{}:
		}
		if err := p.publish(ch); err != nil {
			return fmt.Errorf("publish on %s: %w", url, err)
		}
		pause(ctx, publishPause)
	}
}

// awaitConfirms waits until no place is taken any more.
func (p *publisher) awaitConfirms(places chan struct{}, closed <-chan *amqp091.Error) {
	deadline := time.After(harness.Patience)
	for range cap(places) {
		select {
		case places <- struct{}{}:
		case <-closed:
			return
		case <-deadline:
			p.t.Errorf("publisher %d: %d messages were not confirmed in %v of calm", p.id, len(places), harness.Patience)
			return
		}
	}
}

// publish sends the next number. It counts as sent whatever publishing says.
func (p *publisher) publish(ch *amqp091.Channel) error {
	p.mu.Lock()
	number := len(p.fates)
	p.fates = append(p.fates, unknown)
	p.mu.Unlock()
	body := make([]byte, numberBytes+p.rnd.IntN(p.padding))
	binary.BigEndian.PutUint32(body, p.id)
	binary.BigEndian.PutUint32(body[4:], uint32(number))
	// The context is only looked at before the frames are written.
	return ch.PublishWithContext(context.Background(), "", p.queue, true, false,
		amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body})
}

func (p *publisher) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.fates)
}

func (p *publisher) settle(number int, ack bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates[number] = rejected
	if !ack {
		return
	}
	p.fates[number] = confirmed
	p.confirmed++
	now := time.Now()
	if !p.heard.IsZero() {
		p.silence = max(p.silence, now.Sub(p.heard))
	}
	p.heard = now
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// confirms is how many messages were confirmed so far.
func (p *publisher) confirms() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.confirmed
}

// longestSilence is the longest time between two confirms since it was last
// asked for.
func (p *publisher) longestSilence() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := p.silence
	p.silence = 0
	return longest
}

// awaitMore waits until n more messages are confirmed.
func (p *publisher) awaitMore(t testing.TB, n int, when string) {
	t.Helper()
	want := p.confirms() + n
	deadline := time.After(harness.Patience)
	for p.confirms() < want {
		select {
		case <-p.changed:
		case <-deadline:
			t.Fatalf("publisher %d: %s, %d of %d more messages were confirmed in %v", p.id, when, n-(want-p.confirms()), n, harness.Patience)
		}
	}
}

// pause waits; it is for the pace of a load, never for a condition.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func orGone(err *amqp091.Error) error {
	if err == nil {
		return fmt.Errorf("without a word")
	}
	return err
}
