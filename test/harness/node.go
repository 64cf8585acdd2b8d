package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Node is one node of a Cluster: the same data folder and addresses through
// any number of processes.
type Node struct {
	t       testing.TB
	exe     string
	launch  *launcher
	args    []string
	name    string
	dir     string
	amqp    string // host:port, like the next two
	http    string
	cluster string

	cmd      *exec.Cmd     // of the last process; nil before the first
	exited   chan struct{} // closed when that process has ended
	err      error         // of its Wait, once exited is closed
	expected chan struct{} // closed when it is all right that it ends
}

// URL is the node's AMQP address.
func (n *Node) URL() string { return "amqp://guest:guest@" + n.amqp + "/" }

// AMQP is the host:port of the node's AMQP listener.
func (n *Node) AMQP() string { return n.amqp }

// HTTP is the address of the node's HTTP side.
func (n *Node) HTTP() string { return "http://" + n.http }

// Name is the node's name.
func (n *Node) Name() string { return n.name }

// Dir is the node's data folder.
func (n *Node) Dir() string { return n.dir }

// PID is the last process's.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Start starts a process. If that ends before the test ends it, the test fails.
func (n *Node) Start() {
	n.t.Helper()
	if n.running() {
		n.t.Fatalf("%s runs already", n.name)
	}
	if err := os.MkdirAll(n.dir, 0o750); err != nil {
		n.t.Fatal(err)
	}
	log, err := os.OpenFile(n.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close() // the process has its own
	fmt.Fprintf(log, "--- %s started by the test\n", time.Now().Format(time.StampMilli))
	cmd := exec.Command(n.exe, n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = processAttributes()
	if err := n.launch.start(cmd); err != nil {
		n.t.Fatalf("start %s: %v", n.name, err)
	}
	n.cmd, n.err = cmd, nil
	n.exited, n.expected = make(chan struct{}), make(chan struct{})
	go n.await(cmd, n.exited, n.expected)
}

// await notices the end of a process.
func (n *Node) await(cmd *exec.Cmd, exited, expected chan struct{}) {
	err := cmd.Wait()
	select {
	case <-expected:
	default:
		n.t.Errorf("%s ended by itself: %v", n.name, err)
	}
	n.err = err
	close(exited)
}

// Kill ends the process at once, as kill -9 does, and waits for that.
func (n *Node) Kill() {
	n.t.Helper()
	n.signalLast(syscall.SIGKILL)
	<-n.exited
}

// Stop asks the process to stop and waits until it has, without an error.
func (n *Node) Stop() {
	n.t.Helper()
	n.signalLast(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(Patience):
		n.t.Fatalf("%s has not stopped %v after SIGTERM", n.name, Patience)
	}
	if n.err != nil {
		n.t.Errorf("%s stopped with %v", n.name, n.err)
	}
}

// MayEnd says that the process may end by itself from now on: a test waits for
// that with AwaitEnd, and does not stop it.
func (n *Node) MayEnd() { close(n.expected) }

// AwaitEnd waits for a process that ends by itself, and returns its exit code.
func (n *Node) AwaitEnd() int {
	n.t.Helper()
	select {
	case <-n.exited:
		return n.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		n.t.Fatalf("%s has not ended by itself within %v", n.name, Patience)
		return 0
	}
}

// Log is all that the node's processes have logged.
func (n *Node) Log() string {
	n.t.Helper()
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// Pause freezes the process; its sockets stay open and say nothing.
func (n *Node) Pause() { n.t.Helper(); n.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (n *Node) Resume() { n.t.Helper(); n.signal(syscall.SIGCONT) }

// signalLast sends the last signal that the process is to get.
func (n *Node) signalLast(s syscall.Signal) {
	n.t.Helper()
	if !n.running() {
		n.t.Fatalf("%s does not run", n.name)
	}
	close(n.expected)
	n.signal(s)
}

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("send %v to %s: %v", s, n.name, err)
	}
}

func (n *Node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// end kills what runs, at the end of the test.
func (n *Node) end() {
	if n.running() {
		select {
		case <-n.expected:
		default:
			close(n.expected)
		}
		_ = n.cmd.Process.Kill() // it may have ended just now
		<-n.exited
	}
}

func (n *Node) logPath() string { return filepath.Join(n.dir, "warren.log") }

// logTailBytes is how much of a log a failed test shows.
const logTailBytes = 16 << 10

func (n *Node) showLog() {
	b, err := os.ReadFile(n.logPath())
	if err != nil {
		n.t.Logf("log of %s: %v", n.name, err)
		return
	}
	if len(b) > logTailBytes {
		b = b[len(b)-logTailBytes:]
		if at := bytes.IndexByte(b, '\n'); at >= 0 {
			b = b[at+1:]
		}
	}
	n.t.Logf("end of the log of %s:\n%s", n.name, b)
}

// launcher starts processes from one thread that lives until the test is over:
// Linux kills the nodes with the thread that started them, which is how none
// outlives a test process that dies.
type launcher struct {
	jobs chan launchJob
}

type launchJob struct {
	cmd  *exec.Cmd
	done chan error
}

func newLauncher() *launcher {
	l := &launcher{jobs: make(chan launchJob)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for j := range l.jobs {
			j.done <- j.cmd.Start()
		}
	}()
	return l
}

func (l *launcher) start(cmd *exec.Cmd) error {
	j := launchJob{cmd, make(chan error, 1)}
	l.jobs <- j
	return <-j.done
}

func (l *launcher) close() { close(l.jobs) }
