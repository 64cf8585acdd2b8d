package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestMemoryIsGivenBackAtRestOnlyAndIfThereIsMuch(t *testing.T) {
	before := heapFigures{allocated: 1 << 30}
	for _, tt := range []struct {
		what string
		now  heapFigures
		want bool
	}{
		{"at rest, much spare", heapFigures{before.allocated + 1<<20, 200 << 20}, true},
		{"at rest, little spare", heapFigures{before.allocated + 1<<20, 20 << 20}, false},
		{"at work", heapFigures{before.allocated + 100<<20, 200 << 20}, false},
	} {
		if got := tt.now.worthTrimming(before); got != tt.want {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}

func TestTheLimitOfMemoryLeavesTheFloorOut(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	for limit, want := range map[uint64]int64{
		0: math.MaxInt64, 1 << 30: 1<<30 + heapFloorBytes, math.MaxUint64: math.MaxInt64,
	} {
		if holdMemory(limit); debug.SetMemoryLimit(-1) != want {
			t.Errorf("%d became %d, want %d", limit, debug.SetMemoryLimit(-1), want)
		}
	}
}

func TestTheHeapsFiguresCountWhatIsAllocated(t *testing.T) {
	before := readHeap()
	garbage := make([]byte, 64<<20)
	runtime.KeepAlive(garbage)
	if now := readHeap(); now.allocated-before.allocated < 64<<20 {
		t.Errorf("before %+v, now %+v", before, now)
	}
}
