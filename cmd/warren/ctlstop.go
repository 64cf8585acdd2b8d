package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"warren/management"
)

const (
	// endPoll is how often a process is looked for that is to end.
	endPoll         = 100 * time.Millisecond
	pidFileBytesMax = 4 << 10
)

// ctlStop ends a node, and with a pid file waits for the process that it names.
func ctlStop(c *ctlCall) error {
	pid, unread := 0, error(nil)
	if len(c.args) == 1 {
		pid, unread = readPID(c.args[0])
		c.args = nil
	}
	_, err := c.stopOne()
	var said *exitError
	if c.option("idempotent") == "true" && errors.As(err, &said) && said.down {
		_, err = fmt.Fprintf(c.out, "Node %s is no longer running\n", onNode(c))
		return err
	}
	if err == nil {
		err = unread
	}
	if err != nil || pid == 0 {
		return err
	}
	return c.awaitEnd(pid)
}

// ctlShutdown ends a node and waits for its process.
func ctlShutdown(c *ctlCall) error {
	wait := c.option("no-wait") == "false"
	if nodes, err := c.endpoints(); err == nil && wait && nodes[0].secret == "" && c.login() != "" {
		return fail(management.ExitUsage, "This command can only --wait for shutdown of local nodes but node %s seems to be remote.\nPass --no-wait to shut node %s down without waiting.", nodes[0].url, nodes[0].url)
	}
	reply, err := c.stopOne()
	if err != nil || !wait {
		return err
	}
	if len(reply.Rows) != 1 {
		return fail(management.ExitSoftware, "the node did not say which process it is")
	}
	name, number := cell(reply.Rows[0]["node"]), cell(reply.Rows[0]["pid"])
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 {
		return fail(management.ExitSoftware, "the node says that its process is %s", number)
	}
	if c.talks() {
		fmt.Fprintf(c.out, "Shutting down Warren node %s running at PID %d\nWaiting for PID %d to terminate\n", name, pid, pid)
	}
	if err := c.awaitEnd(pid); err != nil {
		return err
	}
	if c.talks() {
		fmt.Fprintf(c.out, "Warren node %s running at PID %d successfully shut down\n", name, pid)
	}
	return nil
}

// stopOne has a node end, if it is clear which one is meant.
func (c *ctlCall) stopOne() (reply management.ControlReply, err error) {
	nodes, err := c.endpoints()
	if err != nil {
		return reply, err
	}
	if len(nodes) > 1 {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.node
		}
		return reply, fail(management.ExitUsage, "there are several nodes in %s: say with --node which of %s is to end", c.dataDir(), strings.Join(names, ", "))
	}
	return c.command()
}

// readPID reads the number that a file begins with.
func readPID(path string) (int, error) {
	b, err := readFile(path, pidFileBytesMax)
	if err != nil {
		return 0, fail(management.ExitUnavailable, "could not read pid from file %s. Error: %v", path, err)
	}
	fields := strings.Fields(string(b))
	if len(fields) > 0 {
		if pid, err := strconv.Atoi(fields[0]); err == nil && pid > 0 {
			return pid, nil
		}
	}
	return 0, fail(management.ExitUnavailable, "could not read pid from file %s. File contents: %s", path, printable(string(b)))
}

// awaitEnd returns when there is no process of this number.
func (c *ctlCall) awaitEnd(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil // it has gone
	}
	defer p.Release()
	tick := time.NewTicker(endPoll)
	defer tick.Stop()
	for {
		// An error that says something else is of a process of another user.
		if err := p.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return fail(management.ExitUnavailable, "the process %d was asked to end and has not (--timeout)", pid)
		}
	}
}
