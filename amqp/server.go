package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"warren/mq"
)

// Server serves AMQP 0-9-1 on any number of listeners.
type Server struct {
	broker Broker
	config Config
	log    *slog.Logger
	count  counters
	nextID atomic.Uint64
	// blocked is the reason that publishers are told to wait for, if any.
	blocked atomic.Pointer[string]
	// buffers holds write buffers (*[]byte), so that idle connections have none.
	buffers sync.Pool

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
}

// New returns a Server that asks b. It starts nothing.
func New(b Broker, c Config, log *slog.Logger) *Server {
	s := &Server{broker: b, config: c.withDefaults(), log: log, conns: map[*conn]struct{}{}}
	s.buffers.New = func() any {
		b := make([]byte, 0, writeBytes+4096)
		return &b
	}
	return s
}

// Serve accepts connections from ln until ctx ends. Then it closes ln, tells
// every client (320) and returns when the last of their connections has ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait() // every connection ends before Serve does
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for delay := time.Duration(0); ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
			conns.Go(func() { s.ServeConn(ctx, nc) })
		case ctx.Err() != nil:
			return nil // asked to stop
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		default: // out of file descriptors, most likely: they come back
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("accept", "err", err, "retry", delay)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
		}
	}
}

// ServeConn speaks AMQP on one socket until it ends, or until ctx does, and
// closes it. A panic ends this connection only.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	tune(nc)
	if s.config.TLS != nil {
		nc = tls.Server(nc, s.config.TLS)
	}
	c := newConn(ctx, s, nc)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.count.connectionsOpened.Add(1)
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.count.connectionsClosed.Add(1)
	}()
	defer context.AfterFunc(ctx, func() {
		c.force(mq.Errorf(mq.ConnectionForced, "broker forced connection closure with reason 'shutdown'"))
	})()
	c.serve()
}

// tune sets what a socket of ours has: no delay for small writes, and an end
// for peers that vanished.
func tune(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		// Both can only fail on a socket that is gone already; reading says so.
		_ = t.SetNoDelay(true)
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
}
