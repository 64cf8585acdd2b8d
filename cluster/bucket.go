package cluster

import (
	"context"
	"sync"
	"time"
)

// bucket holds back what a node moves in bulk. Who takes more than there is
// waits for it; the order of those who wait is that of their takes.
type bucket struct {
	bytesPerSecond int64

	mu   sync.Mutex
	paid time.Time // by when all that was taken has flowed in
}

// take waits until n bytes may be moved.
func (b *bucket) take(ctx context.Context, n int) error {
	now := time.Now()
	b.mu.Lock()
	b.paid = b.after(now, n)
	wait := b.paid.Sub(now)
	b.mu.Unlock()
	if wait > 0 && !rest(ctx, wait) {
		return ctx.Err()
	}
	return nil
}

// tryTake takes n bytes if nobody has to wait for them.
func (b *bucket) tryTake(n int) bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	paid := b.after(now, n)
	if paid.After(now) {
		return false
	}
	b.paid = paid
	return true
}

// after is by when n more bytes have flowed in. At most bucketBurst of what
// nobody took in the past counts. The lock is held.
func (b *bucket) after(now time.Time, n int) time.Time {
	from := b.paid
	if least := now.Add(-bucketBurst); from.Before(least) {
		from = least
	}
	return from.Add(time.Duration(float64(n) / float64(b.bytesPerSecond) * float64(time.Second)))
}

// bucketBurst is for how long a bucket gathers what nobody takes.
const bucketBurst = 50 * time.Millisecond
