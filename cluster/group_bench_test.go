package cluster

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discard is a Machine that keeps nothing.
type discard struct{ journal }

func (*discard) Apply(batch []Entry) []any { return make([]any, len(batch)) }

// BenchmarkPropose is a group of three in one process, without sockets: what
// Raft, its log and the completer cost together on all three.
func BenchmarkPropose(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB, 2 in flight", size>>10), func(b *testing.B) {
			c := newMemCluster(b, 3, 3, false)
			for _, n := range c.nodes {
				if err := c.open(n); err != nil {
					b.Fatal(err)
				}
				n.group.apply.machine = &discard{}
			}
			l := c.leader()
			var wg sync.WaitGroup
			room := make(chan struct{}, 2)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for range b.N {
				room <- struct{}{}
				wg.Add(1)
				l.group.Propose(make([]byte, size), func(_ any, err error) {
					if err != nil {
						b.Error(err)
					}
					<-room
					wg.Done()
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
			s := l.group.stores.log.Stats()
			b.ReportMetric(float64(s.StoreNanos)/1e3/float64(max(s.Stores, 1)), "store-µs")
			b.ReportMetric(100*float64(s.CacheHits)/float64(max(s.CacheHits+s.CacheMisses, 1)), "cache-%")
			for _, n := range c.nodes {
				c.close(n)
			}
		})
	}
}
