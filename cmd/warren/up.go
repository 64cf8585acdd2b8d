package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const upHelp = `Run a cluster of processes on this machine's loopback addresses until Ctrl-C.

Node i of --nodes gets the i-th port from --base-port for AMQP, and ports 10000
and 20000 above it for HTTP and for the cluster: 5672, 15672, 25672, then 5673,
15673, 25673, and so on. Its data and its log, warren.log, are in a folder of
its own below --data-dir and are kept, so that up again goes on with them.

Nothing is restarted by itself: when a node ends, up says so, and with which
command it can be started again. Ctrl-C or SIGTERM stops all nodes cleanly; a
second one kills them.`

type upOptions struct {
	nodes    int
	dataDir  string
	basePort int
	logLevel string
}

func upCommand() *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:     "up",
		Short:   "Run a cluster on this machine",
		Long:    upHelp,
		Example: "  warren up --nodes 3",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the own binary: %w", err)
			}
			return up(c.Context(), o, exe, c.OutOrStdout())
		},
	}
	c.Flags().SortFlags = false
	c.Flags().IntVar(&o.nodes, "nodes", 3, "how many nodes (`N`)")
	c.Flags().StringVar(&o.dataDir, "data-dir", "warren-data", "`folder` that the nodes' folders are in")
	c.Flags().IntVar(&o.basePort, "base-port", 5672, "AMQP `port` of the first node")
	c.Flags().StringVar(&o.logLevel, "log-level", "info", "least severe `level` in the nodes' logs")
	return c
}

const (
	stopPatience   = 30 * time.Second       // then the nodes that were asked to stop are killed
	readyPoll      = 50 * time.Millisecond  // between two questions for readiness
	readySilence   = 5 * time.Second        // then up says what it waits for, and again each time
	probeTimeout   = 1 * time.Second        // of one question
	probeBodyBytes = 4 << 10                // of an answer that are read
	logTailBytes   = 2 << 10                // of the log of a node that did not come up
	upNodesMax     = 32                     // more than one machine is good for
	secondSignalIn = 500 * time.Millisecond // a shell may send the first signal twice
)

// up runs the cluster until ctx ends or no node is left.
func up(ctx context.Context, o upOptions, exe string, out io.Writer) error {
	// Linux ends the nodes with the thread that started them (see nodeAttributes);
	// this goroutine starts all of them, and keeps its thread.
	runtime.LockOSThread()
	plan, err := planNodes(o)
	if err != nil {
		return err
	}
	if err := checkPorts(plan); err != nil {
		return err
	}
	ended := make(chan *nodeProcess, len(plan))
	var running []*nodeProcess
	for _, p := range plan {
		n, err := startNode(p, exe, ended)
		if err != nil {
			return errors.Join(err, stopNodes(running, ended, out))
		}
		running = append(running, n)
	}
	fmt.Fprintf(out, "Starting %d nodes; their logs are %s\n", len(running), filepath.Join(o.dataDir, "node*", "warren.log"))
	if err := awaitReady(ctx, running, ended, out); err != nil {
		return errors.Join(err, stopNodes(running, ended, out))
	}
	if ctx.Err() == nil {
		printNodes(out, running)
	}
	return watch(ctx, running, ended, out)
}

// awaitReady returns when every node is ready or ctx ends, and fails if one
// ends before.
func awaitReady(ctx context.Context, nodes []*nodeProcess, ended <-chan *nodeProcess, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting := append([]*nodeProcess(nil), nodes...)
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	quiet := time.Now()
	for len(waiting) > 0 {
		reason := probe(ctx, waiting[0])
		if reason == "" {
			waiting = waiting[1:]
			continue
		}
		if time.Since(quiet) > readySilence {
			fmt.Fprintf(out, "waiting for %s: %s\n", waiting[0].name, reason)
			quiet = time.Now()
		}
		select {
		case n := <-ended:
			n.gone = true
			return fmt.Errorf("%s %s before the cluster was ready; the end of %s:\n%s", n.name, n.how(), n.logPath, n.logTail())
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// probe asks a node whether it is ready; "" means that it is.
func probe(ctx context.Context, n *nodeProcess) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.httpURL()+"/readyz", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "it does not answer yet"
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, probeBodyBytes))
	if resp.StatusCode == http.StatusOK && err == nil {
		return ""
	}
	return strings.TrimSpace(string(body))
}

// watch tells of nodes that end, until ctx ends, and stops those that are left.
func watch(ctx context.Context, nodes []*nodeProcess, ended <-chan *nodeProcess, out io.Writer) error {
	left := len(nodes)
	for {
		select {
		case n := <-ended:
			n.gone = true
			left--
			fmt.Fprintf(out, "%s %s; its log is %s; start it again with:\n  %s\n", n.name, n.how(), n.logPath, n.commandLine())
			if left == 0 {
				return errors.New("no node is left")
			}
		case <-ctx.Done():
			fmt.Fprintln(out, "\nStopping all nodes; press Ctrl-C again to kill them")
			return stopNodes(nodes, ended, out)
		}
	}
}

// stopNodes asks every running node to stop, and kills those that have not
// when patience or the person at the terminal runs out.
func stopNodes(nodes []*nodeProcess, ended <-chan *nodeProcess, out io.Writer) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	begin := time.Now()
	left := 0
	for _, n := range nodes {
		if !n.gone {
			left++
			n.signal(syscall.SIGTERM)
		}
	}
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	var killed error
	kill := func(why string) {
		killed = fmt.Errorf("nodes were killed: %s", why)
		for _, n := range nodes {
			if !n.gone {
				n.signal(syscall.SIGKILL)
			}
		}
	}
	for left > 0 {
		select {
		case n := <-ended:
			n.gone = true
			left--
			fmt.Fprintf(out, "%s %s\n", n.name, n.how())
		case <-again:
			if time.Since(begin) > secondSignalIn {
				kill("asked to")
			}
		case <-patience.C:
			kill(fmt.Sprintf("they had not stopped after %v", stopPatience))
		}
	}
	return killed
}

func printNodes(out io.Writer, nodes []*nodeProcess) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nNODE\tAMQP\tMANAGEMENT\tPID\tDATA")
	for _, n := range nodes {
		fmt.Fprintf(w, "%s\tamqp://%s\t%s\t%d\t%s\n", n.name, n.amqp, n.httpURL(), n.pid(), n.dataDir)
	}
	w.Flush()
	fmt.Fprintln(out, "\nThe cluster is ready. Any node serves any queue. Ctrl-C stops all nodes.")
}
