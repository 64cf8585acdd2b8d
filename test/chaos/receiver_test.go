package chaos

import (
	"fmt"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// receiver takes and acknowledges what a consumer is sent, for as long as the
// consumer lives.
type receiver struct {
	mu      sync.Mutex
	order   []receipt
	fault   error
	changed chan struct{} // has an item when there is something new
}

func newReceiver(t testing.TB, deliveries <-chan amqp091.Delivery) *receiver {
	r := &receiver{changed: make(chan struct{}, 1)}
	go func() {
		for d := range deliveries {
			got := read(t, d)
			err := d.Ack(false)
			r.mu.Lock()
			r.order = append(r.order, got)
			if err != nil && r.fault == nil {
				r.fault = fmt.Errorf("ack of %+v: %w", got, err)
			}
			r.mu.Unlock()
			r.tell()
		}
		r.mu.Lock()
		if r.fault == nil {
			r.fault = fmt.Errorf("the consumer ended")
		}
		r.mu.Unlock()
		r.tell()
	}()
	return r
}

func (r *receiver) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *receiver) count() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.order), r.fault
}

// awaitMore waits for n more deliveries.
func (r *receiver) awaitMore(t testing.TB, n int, when string) {
	t.Helper()
	begin, _ := r.count()
	r.await(t, when, func(got []receipt) bool { return len(got) >= begin+n })
}

// awaitAll waits until everything that p has confirmed was delivered.
func (r *receiver) awaitAll(t testing.TB, p *publisher) {
	t.Helper()
	r.await(t, "at the end, for all that was confirmed", func(got []receipt) bool {
		there := make([]bool, len(p.fates))
		for _, g := range got {
			there[g.number] = true
		}
		for number, f := range p.fates {
			if f == confirmed && !there[number] {
				return false
			}
		}
		return true
	})
}

func (r *receiver) await(t testing.TB, when string, enough func([]receipt) bool) {
	t.Helper()
	deadline := time.After(harness.Patience)
	for {
		r.mu.Lock()
		done, fault, n := enough(r.order), r.fault, len(r.order)
		r.mu.Unlock()
		switch {
		case fault != nil:
			t.Fatalf("%s: %v", when, fault)
		case done:
			return
		}
		select {
		case <-r.changed:
		case <-deadline:
			t.Fatalf("%s: not enough deliveries in %v, %d in all", when, harness.Patience, n)
		}
	}
}

// checkRepeats checks that what came twice was marked as redelivered, and that
// first deliveries came in order.
func (r *receiver) checkRepeats(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[uint32]bool)
	last, repeats := -1, 0
	for _, g := range r.order {
		if seen[g.number] {
			repeats++
			if !g.redelivered {
				t.Errorf("number %d was handed out before and not marked as redelivered", g.number)
			}
			continue
		}
		seen[g.number] = true
		if int(g.number) < last && !g.redelivered {
			t.Errorf("number %d came for the first time after number %d", g.number, last)
		}
		last = max(last, int(g.number))
	}
	t.Logf("%d deliveries, %d of them repeated", len(r.order), repeats)
}
