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

// take waits until n bytes may be moved. At most bucketBurst of what nobody
// took in the past counts.
func (b *bucket) take(ctx context.Context, n int) error {
	now := time.Now()
	b.mu.Lock()
	if least := now.Add(-bucketBurst); b.paid.Before(least) {
		b.paid = least
	}
	b.paid = b.paid.Add(time.Duration(n) * time.Second / time.Duration(b.bytesPerSecond))
	wait := b.paid.Sub(now)
	b.mu.Unlock()
	if wait > 0 && !rest(ctx, wait) {
		return ctx.Err()
	}
	return nil
}

// bucketBurst is for how long a bucket gathers what nobody takes.
const bucketBurst = 50 * time.Millisecond
