package amqp

import (
	"net"
	"syscall"
)

// quickAck is what makes the kernel send the acknowledgement that it owes.
func quickAck(nc net.Conn) func() {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	set := func(fd uintptr) { // it can only fail on a socket that is gone; reading says so
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}
	return func() { _ = raw.Control(set) }
}
