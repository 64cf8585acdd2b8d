package node

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/management"
)

// patience is how long a test waits for anything.
const patience = time.Minute

// await waits for a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// logged is a log that a failed test shows.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func newLog(t *testing.T) *slog.Logger {
	l := &logged{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.text.String())
		}
	})
	return slog.New(slog.NewTextHandler(l, nil))
}

// alone is the configuration of a node with any free ports and no data.
func alone(t *testing.T, name string) Config {
	c := Default()
	c.DataDir, c.Name = t.TempDir(), name
	c.AMQPListen, c.HTTPListen, c.ClusterListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return c
}

// running is a node that runs.
type running struct {
	*Node
	t      *testing.T
	amqp   string
	http   string
	cancel context.CancelFunc
	ended  chan error
}

// start runs a node until stop, or the end of the test.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	return startWith(t, cfg, func(*Node) {})
}

// startWith is start of a node that something was done to.
func startWith(t *testing.T, cfg Config, change func(*Node)) *running {
	t.Helper()
	log := newLog(t)
	l, err := listen(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	n, err := build(cfg, log)
	if err != nil {
		l.close()
		t.Fatal(err)
	}
	change(n)
	r := &running{Node: n, t: t, amqp: l.amqp.Addr().String(), http: "http://" + l.http.Addr().String(), ended: make(chan error, 1)}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer l.close()
		r.ended <- n.run(ctx, l)
	}()
	t.Cleanup(r.stop)
	return r
}

// stop ends the node and waits for that; a second time it does nothing.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case err, first := <-r.ended:
		if first {
			close(r.ended)
		}
		if err != nil {
			r.t.Errorf("%s ended with %v", r.cfg.Name, err)
		}
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		r.t.Fatalf("%s does not stop:\n%s", r.cfg.Name, buf[:runtime.Stack(buf, true)])
	}
}

func (r *running) awaitReady() *running {
	r.t.Helper()
	var last error
	defer func() {
		if last != nil {
			r.t.Logf("%s: %v", r.cfg.Name, last)
		}
	}()
	await(r.t, r.cfg.Name+" to be ready", func() bool { last = r.Ready(); return last == nil })
	return r
}

func (r *running) status() management.Status {
	r.t.Helper()
	s, err := r.Status(r.t.Context(), 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// address is where other nodes find this one.
func (r *running) address() string {
	r.t.Helper()
	for _, m := range r.status().Members {
		if m.ID == r.cluster.ID() {
			return m.Address
		}
	}
	r.t.Fatalf("%s is not among its own members", r.cfg.Name)
	return ""
}

func (r *running) dial(name string) *amqp091.Connection {
	r.t.Helper()
	p := amqp091.NewConnectionProperties()
	p.SetClientConnectionName(name)
	c, err := amqp091.DialConfig("amqp://guest:guest@"+r.amqp, amqp091.Config{Properties: p})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *running) channel() *amqp091.Channel {
	r.t.Helper()
	ch, err := r.dial(r.t.Name()).Channel()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		r.t.Fatal(err)
	}
	return ch
}

func declare(t *testing.T, ch *amqp091.Channel, queue string) {
	t.Helper()
	if _, err := ch.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

// publish sends a message and waits for its confirm.
func publish(t *testing.T, ch *amqp091.Channel, queue, body string) {
	t.Helper()
	d, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if ok, err := d.WaitContext(ctx); err != nil || !ok {
		t.Fatalf("%q is not confirmed: %v", body, err)
	}
}

func get(t *testing.T, ch *amqp091.Channel, queue string) string {
	t.Helper()
	d, ok, err := ch.Get(queue, true)
	if err != nil || !ok {
		t.Fatalf("nothing in %s: %v", queue, err)
	}
	return string(d.Body)
}

// goroutinesBackTo waits until no more goroutines run than before.
func goroutinesBackTo(t *testing.T, before int) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; runtime.NumGoroutine() > before; <-tick.C {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before it were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
