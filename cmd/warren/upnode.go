package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Where the ports of a node are, above its AMQP port: as with RabbitMQ's 5672,
// 15672 and 25672.
const (
	httpPortOffset    = 10000
	clusterPortOffset = 20000
)

// nodePlan is a node of `up` before it runs.
type nodePlan struct {
	name    string
	dataDir string
	amqp    string // host:port, like the next two
	http    string
	cluster string
	args    []string // of the binary
}

// planNodes lays the nodes out over ports and folders.
func planNodes(o upOptions) ([]nodePlan, error) {
	if o.nodes < 1 || o.nodes > upNodesMax {
		return nil, fmt.Errorf("--nodes %d: must be 1 to %d", o.nodes, upNodesMax)
	}
	if highest := 65535 - clusterPortOffset - (o.nodes - 1); o.basePort < 1 || o.basePort > highest {
		return nil, fmt.Errorf("--base-port %d: must be 1 to %d, so that the cluster ports, %d above it, exist", o.basePort, highest, clusterPortOffset)
	}
	plan := make([]nodePlan, o.nodes)
	var join []string
	for i := range plan {
		at := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.basePort+offset+i)) }
		name := fmt.Sprintf("node%d", i+1)
		plan[i] = nodePlan{
			name:    name,
			dataDir: filepath.Join(o.dataDir, name),
			amqp:    at(0),
			http:    at(httpPortOffset),
			cluster: at(clusterPortOffset),
		}
		join = append(join, plan[i].cluster)
	}
	for i := range plan {
		p := &plan[i]
		p.args = []string{
			"server", "--name", p.name, "--data-dir", p.dataDir,
			"--amqp-listen", p.amqp, "--http-listen", p.http,
			"--cluster-listen", p.cluster, "--cluster-advertise", p.cluster,
			"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(o.nodes),
			"--log-level", o.logLevel,
		}
	}
	return plan, nil
}

// checkPorts finds out that a port is taken before anything has started.
func checkPorts(plan []nodePlan) error {
	for _, p := range plan {
		for _, l := range []struct{ what, addr string }{{"AMQP", p.amqp}, {"HTTP", p.http}, {"cluster", p.cluster}} {
			ln, err := net.Listen("tcp", l.addr)
			if err != nil {
				return portError(l.what, p.name, l.addr, err)
			}
			ln.Close()
		}
		udp, err := net.ListenPacket("udp", p.cluster)
		if err != nil {
			return portError("cluster", p.name, p.cluster, err)
		}
		udp.Close()
	}
	return nil
}

func portError(what, name, addr string, err error) error {
	_, port, _ := net.SplitHostPort(addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %s (%s of %s) is in use: stop what has it, or give another --base-port", port, what, name)
	}
	return fmt.Errorf("port %s (%s of %s): %w", port, what, name, err)
}

// nodeProcess is a node of `up` that was started.
type nodeProcess struct {
	nodePlan
	cmd     *exec.Cmd
	logPath string
	err     error // of Wait; set before the process is sent to ended
	gone    bool  // for the receiver of ended
}

// startNode starts a node. When its process ends, for whatever reason, it is
// sent to ended, which has room for every node.
func startNode(p nodePlan, exe string, ended chan<- *nodeProcess) (*nodeProcess, error) {
	if err := os.MkdirAll(p.dataDir, 0o750); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	n := &nodeProcess{nodePlan: p, logPath: filepath.Join(p.dataDir, "warren.log")}
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close() // the process has its own
	fmt.Fprintf(log, "--- %s started by warren up\n", time.Now().Format(time.RFC3339))
	n.cmd = exec.Command(exe, p.args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = nodeAttributes()
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		n.err = n.cmd.Wait()
		ended <- n
	}()
	return n, nil
}

func (n *nodeProcess) pid() int { return n.cmd.Process.Pid }

func (n *nodeProcess) httpURL() string { return "http://" + n.http }

// signal sends s; a process that has just ended does not mind.
func (n *nodeProcess) signal(s syscall.Signal) { _ = n.cmd.Process.Signal(s) }

// how says how the process ended.
func (n *nodeProcess) how() string {
	if n.err == nil {
		return fmt.Sprintf("(pid %d) stopped", n.pid())
	}
	return fmt.Sprintf("(pid %d) ended: %v", n.pid(), n.err)
}

// commandLine is what to type into a shell to start the node again.
func (n *nodeProcess) commandLine() string {
	words := make([]string, len(n.cmd.Args))
	for i, w := range n.cmd.Args {
		words[i] = w
		if strings.ContainsAny(w, " \t'\"\\$&;|<>()*?") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// logTail is the end of the node's log.
func (n *nodeProcess) logTail() string {
	f, err := os.Open(n.logPath)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, logTailBytes))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
