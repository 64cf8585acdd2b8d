package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestLostIsWhatWasConfirmedAndNeverCameOut(t *testing.T) {
	tl := newTally(2)
	for n := range uint64(200) {
		tl.sent(0)
		tl.confirmed(0, n, n != 50) // 50 was rejected
	}
	if got := tl.lost(); got != 199 {
		t.Errorf("nothing out: lost %d, want 199", got)
	}
	for n := range uint64(199) {
		tl.seen(0, n)
	}
	if got := tl.lost(); got != 1 { // 199
		t.Errorf("all but one out: lost %d, want 1", got)
	}
	tl.seen(0, 199)
	tl.seen(0, 7)
	tl.sent(1) // without confirms: lost until it comes out
	if got := tl.lost(); got != 1 {
		t.Errorf("unconfirmed one: lost %d, want 1", got)
	}
	tl.seen(1, 0)
	tl.seen(2, 0)
	tl.seen(0, math.MaxUint64)
	if tl.lost() != 0 || tl.duplicates.Load() != 1 || tl.withoutSender.Load() != 2 {
		t.Errorf("lost %d, duplicates %d, without sender %d; want 0, 1, 2", tl.lost(), tl.duplicates.Load(), tl.withoutSender.Load())
	}
}

func TestHistogramIsWithinAThirtySecond(t *testing.T) {
	var h histogram
	for _, v := range []uint64{0, 1, 31, 32, 33, 63, 64, 1000, 123456789, math.MaxInt64} {
		i := bucketOf(v)
		if i >= histogramBuckets {
			t.Fatalf("%d: bucket %d of %d", v, i, histogramBuckets)
		}
		top := bucketTop(i)
		if top < v || float64(top-v) > float64(v)/32 {
			t.Errorf("%d is in the bucket up to %d", v, top)
		}
		if i > 0 && bucketTop(i-1) >= v {
			t.Errorf("%d is in bucket %d, but %d reaches to %d", v, i, i-1, bucketTop(i-1))
		}
	}
	if got := h.percentiles(0.5); got[0] != 0 {
		t.Errorf("an empty histogram says %v", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	h.add(-time.Second) // a clock that jumped
	got := h.percentiles(0.5, 0.99, 1)
	for i, want := range []time.Duration{500 * time.Millisecond, 990 * time.Millisecond, time.Second} {
		if got[i] < want-want/16 || got[i] > want+want/16 {
			t.Errorf("percentile %d = %v, want about %v", i, got[i], want)
		}
	}
	if got[2] != time.Second {
		t.Errorf("the highest is %v, want 1s exactly", got[2])
	}
}

func TestBenchRefusesWhatMeansNothing(t *testing.T) {
	for _, tt := range [][]string{
		{"--url", ","}, {"--publishers", "0", "--consumers", "0"}, {"--queues", "0"}, {"--size", "19"},
		{"--confirm-window", "-1"}, {"--prefetch", "65536"}, {"--time", "0s"}, {"--rate", "-1"},
	} {
		if _, err := run(t, append([]string{"bench"}, tt...)...); err == nil || !strings.Contains(err.Error(), tt[0]) {
			t.Errorf("bench %q: error %v, want one about %s", tt, err, tt[0])
		}
	}
}

func TestBarShowsHowFar(t *testing.T) {
	for _, tt := range []struct {
		done time.Duration
		want string
	}{{0, "[....................]"}, {5 * time.Second, "[##########..........]"}, {time.Minute, "[####################]"}} {
		if got := bar(tt.done, 10*time.Second); got != tt.want {
			t.Errorf("bar(%v) = %s, want %s", tt.done, got, tt.want)
		}
	}
}
