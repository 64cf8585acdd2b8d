package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeNode makes this test's binary stand in for a node: "ready" serves
// /readyz and stops on SIGTERM, "broken" ends at once with a word in its log.
const fakeNode = "WARREN_TEST_FAKE_NODE"

func TestMain(m *testing.M) {
	switch os.Getenv(fakeNode) {
	case "":
		os.Exit(m.Run())
	case "broken":
		fmt.Fprintln(os.Stderr, "the disk is on fire")
		os.Exit(3)
	case "ready":
		runFakeNode(os.Args)
	}
}

func runFakeNode(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var addr string
	for i, a := range args {
		if a == "--http-listen" {
			addr = args[i+1]
		}
	}
	srv := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.NotFoundHandler()}
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	srv.Handler = mux
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// screen is what `up` prints, for a test that waits for words on it.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // has an item when something was printed
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) await(t *testing.T, words string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.String(), words) {
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("%q was not printed; this was:\n%s", words, s)
		}
	}
}

// freeBasePort is a base port for n nodes, free a moment ago.
func freeBasePort(t *testing.T, n int) int {
	t.Helper()
	for base := 7000 + os.Getpid()%2000; base < 12000; base += n {
		plan, err := planNodes(upOptions{nodes: n, basePort: base, dataDir: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if checkPorts(plan) == nil {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// startUp runs `up` over fake nodes.
func startUp(t *testing.T, o upOptions) (out *screen, stop func(), result <-chan error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out = newScreen()
	done := make(chan error, 1)
	go func() { done <- up(ctx, o, exe, out) }()
	return out, cancel, done
}

func TestUpPrintsItsNodesAndStopsThemAll(t *testing.T) {
	t.Setenv(fakeNode, "ready")
	o := upOptions{nodes: 3, dataDir: t.TempDir(), basePort: freeBasePort(t, 3)}
	out, stop, result := startUp(t, o)
	out.await(t, "The cluster is ready")
	for i := range 3 {
		for _, want := range []string{
			fmt.Sprintf("node%d", i+1),
			fmt.Sprintf("amqp://127.0.0.1:%d ", o.basePort+i),
			fmt.Sprintf("http://127.0.0.1:%d ", o.basePort+10000+i),
			filepath.Join(o.dataDir, fmt.Sprintf("node%d", i+1)),
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the table lacks %q:\n%s", want, out)
			}
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("up = %v, want nil", err)
	}
	if got := strings.Count(out.String(), ") stopped\n"); got != 3 {
		t.Errorf("%d nodes stopped, want 3:\n%s", got, out)
	}
	if plan, _ := planNodes(o); checkPorts(plan) != nil {
		t.Error("a port is still in use")
	}
}

func TestUpTellsOfANodeThatEnds(t *testing.T) {
	t.Setenv(fakeNode, "ready")
	o := upOptions{nodes: 2, dataDir: t.TempDir(), basePort: freeBasePort(t, 2)}
	out, stop, result := startUp(t, o)
	out.await(t, "The cluster is ready")
	if err := syscall.Kill(pidOf(t, out.String(), "node2"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	out.await(t, "ended: signal: killed")
	out.await(t, "start it again with:\n")
	out.await(t, "server --name node2 --data-dir "+filepath.Join(o.dataDir, "node2"))
	stop()
	if err := <-result; err != nil {
		t.Errorf("up = %v, want nil", err)
	}
}

// pidOf reads a node's pid from the table.
func pidOf(t *testing.T, table, name string) int {
	t.Helper()
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == name {
			pid, err := strconv.Atoi(f[3])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("%s is not in the table:\n%s", name, table)
	return 0
}

func TestUpShowsWhyANodeDidNotStart(t *testing.T) {
	t.Setenv(fakeNode, "broken")
	_, _, result := startUp(t, upOptions{nodes: 1, dataDir: t.TempDir(), basePort: freeBasePort(t, 1)})
	err := <-result
	if err == nil || !strings.Contains(err.Error(), "the disk is on fire") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("up = %v, want the exit status and the log's end", err)
	}
}

func TestUpNamesThePortThatIsInUse(t *testing.T) {
	base := freeBasePort(t, 2)
	for _, tt := range []struct {
		port int
		want string
	}{
		{base + 1, "AMQP of node2"},
		{base + 10000, "HTTP of node1"},
		{base + 20001, "cluster of node2"},
	} {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", tt.port))
		if err != nil {
			t.Fatal(err)
		}
		err = up(t.Context(), upOptions{nodes: 2, dataDir: t.TempDir(), basePort: base}, "/none", newScreen())
		ln.Close()
		want := fmt.Sprintf("port %d (%s) is in use", tt.port, tt.want)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("up = %v, want %q", err, want)
		}
	}
}

func TestUpRefusesWhatCannotBe(t *testing.T) {
	for _, o := range []upOptions{{nodes: 0, basePort: 5672}, {nodes: 33, basePort: 5672}, {nodes: 3, basePort: 0}, {nodes: 3, basePort: 45534}} {
		if _, err := planNodes(o); err == nil {
			t.Errorf("planNodes(%+v) gave no error", o)
		}
	}
	if _, err := planNodes(upOptions{nodes: 3, basePort: 45533}); err != nil {
		t.Errorf("the highest base port: %v", err)
	}
}

func TestCommandLineCanBeTypedIntoAShell(t *testing.T) {
	n, err := startNode(nodePlan{name: "n", dataDir: t.TempDir(), args: []string{"it's", "plain", "$HOME x"}}, "true", make(chan *nodeProcess, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := n.commandLine(), `true 'it'\''s' plain '$HOME x'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
