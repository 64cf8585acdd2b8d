package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listeners are opened before anything else: a port that is taken ends the
// start at once, with nothing changed.
type listeners struct{ amqp, http, pprof net.Listener }

func (l *listeners) close() {
	for _, ln := range []net.Listener{l.amqp, l.http, l.pprof} {
		if ln != nil {
			ln.Close()
		}
	}
}

// listen opens the ports of cfg. The one for clients refuses them until admit:
// a node may wait for its cluster for a long time, and who tries several nodes
// must not hang on this one meanwhile.
func listen(cfg *Config) (*listeners, error) {
	l := &listeners{}
	for _, o := range []struct {
		to         *net.Listener
		what, addr string
	}{
		{&l.amqp, "AMQP", cfg.AMQPListen}, {&l.http, "HTTP", cfg.HTTPListen}, {&l.pprof, "profiles", cfg.PprofListen},
	} {
		if o.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", o.addr)
		if err == nil {
			*o.to = ln
			continue
		}
		l.close()
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("cannot listen for %s on %s: %w (is another node or broker running? choose another port)", o.what, o.addr, err)
		}
		return nil, fmt.Errorf("cannot listen for %s on %s: %w", o.what, o.addr, err)
	}
	if _, port, _ := net.SplitHostPort(cfg.AMQPListen); port == "0" {
		return l, nil // a port that the system chose is lost when its socket does not listen
	}
	if err := refuse(l.amqp); err != nil {
		l.close()
		return nil, fmt.Errorf("hold the AMQP port %s: %w", cfg.AMQPListen, err)
	}
	return l, nil
}

// backlog is how many clients may wait to be accepted; the kernel takes the
// lower of this and net.core.somaxconn.
const backlog = 4096

// refuse makes a listener refuse connections and keep its port. Linux ends the
// listening of a socket that is shut down for reading, and leaves it bound.
func refuse(ln net.Listener) error {
	return onSocket(ln, func(fd int) error {
		// Without SO_REUSEADDR nobody else can bind the port meanwhile.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err != nil {
			return err
		}
		return unix.Shutdown(fd, unix.SHUT_RD)
	})
}

// admit takes refuse back. A listener that listens goes on.
func admit(ln net.Listener) error {
	return onSocket(ln, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		return unix.Listen(fd, backlog)
	})
}

func onSocket(ln net.Listener, do func(fd int) error) error {
	t, ok := ln.(*net.TCPListener)
	if !ok {
		return errors.New("not a TCP listener")
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
