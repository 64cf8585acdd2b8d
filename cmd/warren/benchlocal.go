package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// Base ports that bench tries for a cluster of its own, away from a cluster
// that is there already and from the ports of outgoing connections.
const (
	localBaseFirst = 10672
	localBaseStep  = 100
	localBaseLast  = 11972
)

// benchLocal runs bench on a cluster of its own, with data in a folder that
// goes with it.
func benchLocal(ctx context.Context, o benchOptions, out io.Writer) (err error) {
	runtime.LockOSThread() // see up
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the own binary: %w", err)
	}
	dir, err := os.MkdirTemp("", "warren-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plan, err := planLocal(o.local, dir)
	if err != nil {
		return err
	}
	ended := make(chan *nodeProcess, len(plan))
	var running []*nodeProcess
	defer func() { err = errors.Join(err, stopNodes(running, ended, io.Discard)) }()
	for _, p := range plan {
		n, err := startNode(p, exe, ended)
		if err != nil {
			return err
		}
		running = append(running, n)
	}
	if err := awaitReady(ctx, running, ended, out); err != nil || ctx.Err() != nil {
		return err
	}
	var urls []string
	for _, n := range running {
		urls = append(urls, "amqp://guest:guest@"+n.amqp+"/")
	}
	o.urls = strings.Join(urls, ",")
	return bench(ctx, o, out, onTerminal(out))
}

// planLocal lays a cluster out on the first free ports.
func planLocal(nodes int, dir string) ([]nodePlan, error) {
	var last error
	for base := localBaseFirst; base <= localBaseLast; base += localBaseStep {
		plan, err := planNodes(upOptions{nodes: nodes, dataDir: dir, basePort: base, logLevel: "warning"})
		if err != nil {
			return nil, fmt.Errorf("--local: %w", err)
		}
		if last = checkPorts(plan); last == nil {
			return plan, nil
		}
	}
	return nil, last
}
