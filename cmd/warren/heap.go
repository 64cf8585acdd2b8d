package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapFloorBytes is memory that is asked for and never touched: it costs
// address space only. The garbage collector runs when the heap has doubled,
// and on a node whose queues are short the heap is so small that this would
// be many times a second; with the floor it is some times less, while a node
// with a large backlog still collects at twice its size and not at more.
const heapFloorBytes = 48 << 20

// holdHeapFloor asks for the floor, which stands until release.
func holdHeapFloor() (release func()) {
	floor := make([]byte, heapFloorBytes)
	return func() { runtime.KeepAlive(floor) }
}

// holdMemory has the garbage collector run as often as it takes, up to half of
// the processor's time, for the process not to take more memory than limit; with
// 0 it runs when the heap has doubled. The floor takes none of it.
func holdMemory(limit uint64) {
	if limit == 0 {
		debug.SetMemoryLimit(math.MaxInt64)
		return
	}
	debug.SetMemoryLimit(int64(min(limit, math.MaxInt64-heapFloorBytes)) + heapFloorBytes)
}

const (
	// trimEvery is how often a node looks whether it is at rest.
	trimEvery = 5 * time.Second
	// trimRestBytes is how much a node at rest allocates in that time at most.
	trimRestBytes = 8 << 20
	// trimWorthBytes is what there must be to give back. At rest that much takes
	// a minute or more to gather, so that looking for it costs next to nothing.
	trimWorthBytes = 48 << 20
)

// heapFigures are what the decision to trim rests on.
type heapFigures struct {
	allocated uint64 // bytes since the start
	spare     uint64 // bytes that the process holds and nothing lives in
}

// trimHeap gives memory back to the operating system whenever the node has
// come to rest: the collector keeps as much again as lives, to be filled before
// it runs next, and a node that does nothing never fills it. Returns when ctx
// ends.
func trimHeap(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	before := readHeap()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := readHeap()
		if now.worthTrimming(before) {
			debug.FreeOSMemory()
		}
		before = now
	}
}

func (h heapFigures) worthTrimming(before heapFigures) bool {
	return h.allocated-before.allocated <= trimRestBytes && h.spare >= trimWorthBytes
}

func readHeap() heapFigures {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	n := func(i int) uint64 { return s[i].Value.Uint64() }
	held := n(2) + n(3)
	return heapFigures{allocated: n(0), spare: held - min(held, n(1))}
}
