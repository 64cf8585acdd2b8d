package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/management"
)

func TestAConfirmedMessageOutlivesTheNode(t *testing.T) {
	cfg := alone(t, "one")
	n := start(t, cfg).awaitReady()
	ch := n.channel()
	declare(t, ch, "kept")
	publish(t, ch, "kept", "first")
	publish(t, ch, "kept", "second")
	if got := get(t, ch, "kept"); got != "first" {
		t.Errorf("got %q", got)
	}
	n.stop()

	again := start(t, cfg).awaitReady()
	if got := again.cluster.ID(); got != n.cluster.ID() {
		t.Errorf("id %s, was %s", got, n.cluster.ID())
	}
	ch = again.channel()
	declare(t, ch, "kept")
	d, ok, err := ch.Get("kept", true)
	if ok && string(d.Body) == "first" && d.Redelivered { // that it was taken may not have been kept
		d, ok, err = ch.Get("kept", true)
	}
	if err != nil || !ok || string(d.Body) != "second" {
		t.Errorf("got %q (%v) after the restart, want the second message", d.Body, err)
	}
	if d, ok, err := ch.Get("kept", true); ok || err != nil {
		t.Errorf("%q is left, want nothing: %v", d.Body, err)
	}
}

func TestAllGoroutinesEndWithTheContext(t *testing.T) {
	before := runtime.NumGoroutine()
	n := start(t, alone(t, "one")).awaitReady()
	client := n.dial("left open")
	ch, err := client.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("", false, true, true, false, nil); err != nil { // exclusive
		t.Fatal(err)
	}
	n.stop()
	for _, addr := range []string{n.amqp, strings.TrimPrefix(n.http, "http://")} {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s still accepts", addr)
		}
	}
	client.Close()
	goroutinesBackTo(t, before)
}

func TestTheStartCanBeCalledOffAtAnyMoment(t *testing.T) {
	before := runtime.NumGoroutine()
	fresh := alone(t, "one")
	waiting := alone(t, "two")
	waiting.BootstrapExpect, waiting.Join = 3, []string{"127.0.0.1:1"}
	for _, after := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
		for _, cfg := range []Config{fresh, waiting} {
			log := newLog(t)
			ctx, cancel := context.WithTimeout(t.Context(), after)
			from := time.Now()
			err := Run(ctx, cfg, log)
			cancel()
			if err != nil {
				t.Errorf("%s called off after %v: %v, want nil", cfg.Name, after, err)
			}
			if took := time.Since(from); took > after+patience {
				t.Errorf("%s called off after %v took %v", cfg.Name, after, took)
			}
		}
	}
	start(t, fresh).awaitReady().stop() // none of it did any harm
	goroutinesBackTo(t, before)
}

func TestATakenPortEndsTheStart(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, tt := range []struct {
		what string
		take func(*Config, string)
	}{
		{"AMQP", func(c *Config, addr string) { c.AMQPListen = addr }},
		{"HTTP", func(c *Config, addr string) { c.HTTPListen = addr }},
		{"profiles", func(c *Config, addr string) { c.PprofListen = addr }},
		{"cluster", func(c *Config, addr string) { c.ClusterListen = addr }},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := alone(t, "one")
		log := newLog(t)
		good := cfg
		tt.take(&cfg, ln.Addr().String())
		err = Run(t.Context(), cfg, log)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), tt.what) || !strings.Contains(err.Error(), ln.Addr().String()) {
			t.Errorf("%s port taken: %v", tt.what, err)
		}
		if files, _ := os.ReadDir(cfg.DataDir); tt.what != "cluster" && len(files) > 0 {
			t.Errorf("%s port taken, and still the data directory was written to: %v", tt.what, files)
		}
		ln.Close()
		start(t, good).awaitReady().stop() // the data directory is not locked any more
	}
	goroutinesBackTo(t, before)
}

func TestADataDirectoryInUseEndsTheStart(t *testing.T) {
	cfg := alone(t, "one")
	start(t, cfg)
	log := newLog(t)
	if err := Run(t.Context(), cfg, log); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("Run = %v", err)
	}
}

func TestClientsAreRefusedUntilTheNodeServes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := alone(t, "one")
	cfg.AMQPListen = ln.Addr().String()
	ln.Close()
	cfg.BootstrapExpect, cfg.Join = 2, []string{"127.0.0.1:1"}
	n := start(t, cfg)
	if _, err := net.Dial("tcp", n.amqp); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling a node that waits for its cluster: %v, want refused", err)
	}
	if _, err := net.Listen("tcp", n.amqp); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taking its port: %v, want in use", err)
	}
	await(t, "the HTTP side", func() bool { return health(n.http+"/healthz") == 200 })
	if code := health(n.http + "/readyz"); code != 503 {
		t.Errorf("/readyz = %d, want 503", code)
	}
	if got := n.status().NotReady; !strings.Contains(got, "not formed yet") {
		t.Errorf("not ready because %q", got)
	}
	n.stop()
	cfg.BootstrapExpect, cfg.Join, cfg.AMQPListen = 1, nil, "127.0.0.1:0" // the old port may be somebody's by now
	n = start(t, cfg).awaitReady()
	declare(t, n.channel(), "q")
}

func health(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode
}

func TestStatusTellsTheTruth(t *testing.T) {
	cfg := alone(t, "one")
	cfg.Groups = 3
	n := start(t, cfg).awaitReady()
	ch := n.channel()
	declare(t, ch, "q")
	publish(t, ch, "q", "a")
	publish(t, ch, "q", "b")
	id := n.cluster.ID()
	await(t, "all that is committed to be applied", func() bool {
		return !slices.ContainsFunc(n.status().Groups, func(g management.Group) bool { return g.AppliedIndex != g.CommitIndex })
	})
	s := n.status()
	if s.Node != "one" || s.NodeID != id || s.NotReady != "" || s.ClusterID == "" || s.QueuesTotal != 1 {
		t.Errorf("got %+v", s)
	}
	if len(s.Members) != 1 || !s.Members[0].Alive || s.Members[0].Name != "one" {
		t.Errorf("members %+v", s.Members)
	}
	if len(s.Groups) != 4 {
		t.Fatalf("groups %+v, want the metadata's and three", s.Groups)
	}
	for _, g := range s.Groups {
		if g.Leader != id || fmt.Sprint(g.Replicas) != "["+id+"]" || g.Term == 0 || g.AppliedIndex == 0 {
			t.Errorf("group %+v", g)
		}
	}
	want := management.Queue{VHost: "/", Name: "q", Durable: true, Group: s.Queues[0].Group, Leader: id, Ready: 2}
	if len(s.Queues) != 1 || s.Queues[0] != want || want.Group == 0 {
		t.Errorf("queues %+v, want %+v", s.Queues, want)
	}
	st := n.Stats()
	if st.Received != 2 || st.ReceivedConfirm != 2 || st.Confirmed != 2 || st.QueuesDeclared != 1 || st.Connections != 1 || st.QueueMessagesReady != 2 {
		t.Errorf("stats %+v", st)
	}
	n.stop()
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("ready after the end: %v", err)
	}
}

func TestAGroupThatCannotBeOpenedIsToldAndTriedAgain(t *testing.T) {
	cfg := alone(t, "one")
	cfg.Groups = 3
	n := start(t, cfg).awaitReady()
	n.stop()
	dir := cfg.DataDir + "/groups/00000002"
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file is no folder
		t.Fatal(err)
	}
	n = start(t, cfg)
	await(t, "the fault to be told", func() bool {
		err := n.Ready()
		return err != nil && strings.Contains(err.Error(), "group 2 cannot be opened")
	})
	await(t, "the other groups to open", func() bool { return n.groups.get(1) != nil && n.groups.get(3) != nil })
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	n.awaitReady()
}

func TestHeartbeatZeroMeansNone(t *testing.T) {
	if got := heartbeat(0); got >= 0 {
		t.Errorf("heartbeat(0) = %v, want less than 0", got)
	}
	if got := heartbeat(7); got != 7*time.Second {
		t.Errorf("heartbeat(7) = %v", got)
	}
}
