package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// process is one that ends when it is told to.
type process struct {
	pid   int
	end   func()
	ended <-chan struct{}
}

// stand runs a process that stands for a node.
func stand(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	p := &process{cmd.Process.Pid, func() { in.Close() }, ended}
	t.Cleanup(func() {
		p.end()
		<-ended
	})
	return p
}

// stoppable is a node that answers that it is p, and then calls stop.
func stoppable(t *testing.T, dir, name string, pid int, stop func()) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, fmt.Sprintf(`{"rows":[{"node":%q,"pid":%d}]}`, name, pid))
		stop()
	}))
	t.Cleanup(srv.Close)
	leave(t, filepath.Join(dir, name), name, srv.URL, "s")
	return srv.URL
}

func TestShutdownWaitsForTheProcess(t *testing.T) {
	dir, p := t.TempDir(), stand(t)
	stoppable(t, dir, "node1", p.pid, p.end)
	out, exit, said := ctlOf(t, "", "--data-dir", dir, "shutdown")
	want := fmt.Sprintf("Shutting down Warren node node1 running at PID %d\nWaiting for PID %d to terminate\nWarren node node1 running at PID %d successfully shut down\n", p.pid, p.pid, p.pid)
	if exit != 0 || out != want {
		t.Errorf("exit %d: %s%s, want\n%s", exit, out, said, want)
	}
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Error("the process is still there")
	}
}

func TestAProcessThatDoesNotEndIsNotWaitedForForEver(t *testing.T) {
	p := stand(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	c := &ctlCall{ctx: over}
	if err := c.awaitEnd(p.pid); err == nil || !strings.Contains(err.Error(), "was asked to end and has not") {
		t.Errorf("the wait for a process that runs ends with %v", err)
	}
	p.end()
	<-p.ended
	if err := c.awaitEnd(p.pid); err != nil {
		t.Errorf("the wait for a process that has gone ends with %v", err)
	}
}

func TestStopWaitsForTheProcessInThePidFile(t *testing.T) {
	dir, p := t.TempDir(), stand(t)
	stoppable(t, dir, "node1", os.Getpid(), p.end)
	pidfile := filepath.Join(dir, "pid")
	if err := os.WriteFile(pidfile, fmt.Appendf(nil, "%d\n", p.pid), 0o600); err != nil {
		t.Fatal(err)
	}
	out, exit, said := ctlOf(t, "", "--data-dir", dir, "stop", pidfile)
	if want := "Stopping and halting node the local node (will monitor pid file " + pidfile + ") ...\n"; exit != 0 || out != want {
		t.Errorf("exit %d: %s%s, want %s", exit, out, said, want)
	}
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Error("the process is still there")
	}
}

func TestAProcessElsewhereIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	url := stoppable(t, dir, "node1", os.Getpid(), func() {})
	for _, args := range [][]string{{"shutdown", "--no-wait"}, {"stop"}, {"stop", "--data-dir", t.TempDir(), "--node", url, "--user", "u"}} {
		if _, exit, said := ctlOf(t, "", append([]string{"--data-dir", dir}, args...)...); exit != 0 {
			t.Errorf("%q: exit %d, %s", args, exit, said)
		}
	}
	if _, exit, said := ctlOf(t, "", "--data-dir", t.TempDir(), "--node", url, "--user", "u", "shutdown"); exit != 64 || !strings.Contains(said, "Pass --no-wait") {
		t.Errorf("a process elsewhere is waited for: exit %d, %s", exit, said)
	}
}

func TestStopSaysWhatIsWrongWithAPidFile(t *testing.T) {
	dir, p := t.TempDir(), stand(t)
	asked := 0
	stoppable(t, dir, "node1", p.pid, func() { asked++ })
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{odd: ". File contents: none", odd + "er": ". Error: stat "} {
		_, exit, said := ctlOf(t, "", "--data-dir", dir, "stop", path)
		if exit != 69 || !strings.HasPrefix(said, "Error:\ncould not read pid from file "+path+want) {
			t.Errorf("exit %d, %s", exit, said)
		}
	}
	if asked != 2 {
		t.Errorf("the node was asked to stop %d times, want 2: as in RabbitMQ it stops all the same", asked)
	}
}

func TestOfSeveralNodesOneHasToBeNamedBeforeItIsStopped(t *testing.T) {
	dir, p := t.TempDir(), stand(t)
	var stopped []string
	for _, name := range []string{"node1", "node2"} {
		stoppable(t, dir, name, p.pid, func() { stopped = append(stopped, name) })
	}
	_, exit, said := ctlOf(t, "", "--data-dir", dir, "stop")
	if exit != 64 || !strings.Contains(said, "say with --node which of node1, node2 is to end") || len(stopped) > 0 {
		t.Errorf("exit %d, %s; stopped %q", exit, said, stopped)
	}
	if _, exit, said := ctlOf(t, "", "--data-dir", dir, "stop", "-n", "node2"); exit != 0 || len(stopped) != 1 || stopped[0] != "node2" {
		t.Errorf("exit %d, %s; stopped %q", exit, said, stopped)
	}
}

func TestAnIdempotentStopOfNoNodeIsDone(t *testing.T) {
	stale := t.TempDir()
	leave(t, filepath.Join(stale, "a"), "node1", "http://127.0.0.1:1", "s")
	for _, args := range [][]string{{"-n", "node1"}, {}, {"-n", "node7"}} {
		if _, exit, said := ctlOf(t, "", append(args, "--data-dir", stale, "stop")...); exit != 69 {
			t.Errorf("%q: exit %d, %s", args, exit, said)
		}
		out, exit, said := ctlOf(t, "", append(args, "--data-dir", stale, "stop", "--idempotent", "-q")...)
		if exit != 0 || !strings.HasSuffix(out, " is no longer running\n") {
			t.Errorf("%q: exit %d, %s%s", args, exit, out, said)
		}
	}
}
