package amqptest

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"warren/amqp"
)

// Server is a running amqp.Server on a port of the loopback.
type Server struct {
	*amqp.Server
	Addr string
	Stop func() // ends it and waits until it has ended
}

// patient gives a busy machine all the time that a test has, where the test
// does not say how long something may take.
func patient(conf amqp.Config) amqp.Config {
	for _, limit := range []*time.Duration{&conf.HandshakeTimeout, &conf.SlowTimeout, &conf.CloseTimeout} {
		if *limit == 0 {
			*limit = patience
		}
	}
	return conf
}

// Serve runs a Server until the test ends. Zero fields of conf are defaults,
// but see patient.
func Serve(t testing.TB, b amqp.Broker, conf amqp.Config) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := amqp.New(b, patient(conf), slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	stop := func() {
		cancel()
		serving.Wait()
	}
	t.Cleanup(stop)
	return &Server{Server: s, Addr: ln.Addr().String(), Stop: stop}
}

// Dial connects a Client.
func (s *Server) Dial(t testing.TB) *Client {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(t, c)
}

// Pipe serves one connection over a net.Pipe.
func Pipe(t testing.TB, b amqp.Broker, conf amqp.Config) *Client {
	t.Helper()
	s := amqp.New(b, patient(conf), slog.New(slog.NewTextHandler(io.Discard, nil)))
	server, client := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { s.ServeConn(ctx, server) })
	t.Cleanup(func() {
		client.Close()
		cancel()
		serving.Wait()
	})
	return NewClient(t, client)
}
