package main

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// tally counts what was sent, confirmed and consumed, and remembers which of
// each publisher's messages came out, at a bit each.
type tally struct {
	begin         time.Time // the run's clock counts from here
	published     atomic.Uint64
	confirms      atomic.Uint64
	nacked        atomic.Uint64
	consumed      atomic.Uint64
	duplicates    atomic.Uint64
	perPublisher  []publisherTally
	withoutSender atomic.Uint64 // deliveries that no publisher of this run sent
}

type publisherTally struct {
	mu       sync.Mutex
	sent     uint64
	out      bitset // by number
	kept     bitset // confirmed, by number
	confirms bool   // the publisher uses them: only what was confirmed can be lost
}

func newTally(publishers int) *tally {
	return &tally{begin: time.Now(), perPublisher: make([]publisherTally, publishers)}
}

func (t *tally) sinceStart() time.Duration { return time.Since(t.begin) }

func (t *tally) sent(publisher int) {
	t.published.Add(1)
	p := &t.perPublisher[publisher]
	p.mu.Lock()
	p.sent++
	p.mu.Unlock()
}

func (t *tally) confirmed(publisher int, number uint64, ack bool) {
	p := &t.perPublisher[publisher]
	p.mu.Lock()
	p.confirms = true
	if ack {
		p.kept.set(number)
	}
	p.mu.Unlock()
	if !ack {
		t.nacked.Add(1)
		return
	}
	t.confirms.Add(1)
}

// numberMax bounds the bitsets against a body that somebody else wrote.
const numberMax = 1 << 34

func (t *tally) seen(publisher int, number uint64) {
	if publisher >= len(t.perPublisher) || number > numberMax {
		t.withoutSender.Add(1)
		return
	}
	p := &t.perPublisher[publisher]
	p.mu.Lock()
	again := p.out.set(number)
	p.mu.Unlock()
	if again {
		t.duplicates.Add(1)
	}
	t.consumed.Add(1)
}

// lost is how many messages were confirmed, or sent by a publisher without
// confirms, and have not come out.
func (t *tally) lost() uint64 {
	var n uint64
	for i := range t.perPublisher {
		p := &t.perPublisher[i]
		p.mu.Lock()
		if p.confirms {
			n += p.kept.without(&p.out)
		} else {
			n += p.sent - min(p.sent, p.out.count)
		}
		p.mu.Unlock()
	}
	return n
}

// bitset is a set of small numbers that are mostly dense.
type bitset struct {
	words []uint64
	count uint64
}

// set adds n and reports whether it was there.
func (b *bitset) set(n uint64) (was bool) {
	word, bit := n/64, uint64(1)<<(n%64)
	for uint64(len(b.words)) <= word {
		b.words = append(b.words, 0)
	}
	was = b.words[word]&bit != 0
	if !was {
		b.words[word] |= bit
		b.count++
	}
	return was
}

// without counts what is in b and not in other.
func (b *bitset) without(other *bitset) (n uint64) {
	for i, w := range b.words {
		if i < len(other.words) {
			w &^= other.words[i]
		}
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// histogram counts durations in buckets that are at most 1/32 wide of their
// value. Any number of goroutines may add.
type histogram struct {
	buckets [histogramBuckets]atomic.Uint64
	highest atomic.Int64 // ns
}

const (
	histogramFine    = 5                                           // bits below the highest that tell buckets apart
	histogramBuckets = (64 - histogramFine + 1) << (histogramFine) // for all of int64 in ns
)

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[bucketOf(uint64(d))].Add(1)
	for {
		old := h.highest.Load()
		if int64(d) <= old || h.highest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func bucketOf(v uint64) int {
	exponent := bits.Len64(v >> histogramFine) // 0 while every value has its bucket
	if exponent == 0 {
		return int(v)
	}
	return exponent<<histogramFine + int(v>>(exponent-1))&(1<<histogramFine-1)
}

// bucketTop is the highest value of a bucket.
func bucketTop(i int) uint64 {
	exponent, fine := i>>histogramFine, uint64(i&(1<<histogramFine-1))
	if exponent == 0 {
		return fine
	}
	return (1<<histogramFine+fine+1)<<(exponent-1) - 1
}

// percentiles are the values that these shares (ascending, 0 to 1) of all are
// not above; all 0 if there is nothing.
func (h *histogram) percentiles(shares ...float64) []time.Duration {
	var counts [histogramBuckets]uint64
	var all uint64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		all += counts[i]
	}
	out := make([]time.Duration, len(shares))
	var below uint64
	next := 0
	for i := 0; i < len(counts) && next < len(shares) && all > 0; i++ {
		below += counts[i]
		for next < len(shares) && float64(below) >= shares[next]*float64(all) {
			out[next] = min(time.Duration(bucketTop(i)), time.Duration(h.highest.Load()))
			next++
		}
	}
	return out
}
