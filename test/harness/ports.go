package harness

import (
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Ports are taken from below what Linux gives to outgoing connections (32768
// and up), so that a node that is down for a moment gets its ports back.
const (
	portFirst = 20000
	portEnd   = 32000
)

// allocator hands out ports of loopback that were free a moment ago.
type allocator struct {
	mu   sync.Mutex
	next int
}

// ports are this process's, so that clusters that are made at the same time get
// different ones. They begin at a place that differs from process to process.
var ports = &allocator{next: portFirst + os.Getpid()*61%(portEnd-portFirst)}

// address is a free host:port, for TCP and UDP.
func (a *allocator) address(t testing.TB) string {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for range portEnd - portFirst {
		port := a.next
		if a.next++; a.next == portEnd {
			a.next = portFirst
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if free(addr) {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func free(addr string) bool {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	udp.Close()
	return true
}
