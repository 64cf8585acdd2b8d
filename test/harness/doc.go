// Package harness runs real Warren nodes for tests: it builds the binary,
// starts processes on ports of loopback, and kills, stops, pauses and restarts
// them. It knows a node's flags and its HTTP side, and nothing inside it.
package harness
