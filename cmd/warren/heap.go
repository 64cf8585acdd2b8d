package main

import "runtime"

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
