package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"warren/management"
)

const (
	// Patience is how long the harness waits for anything before the test fails.
	Patience   = 2 * time.Minute
	poll       = 20 * time.Millisecond
	askTimeout = 20 * time.Second
	askBytes   = 64 << 20 // of an answer that are read
)

// Cluster is some nodes of one test. Nodes are counted from 1, as their names
// are: node1, node2, ...
type Cluster struct {
	t     testing.TB
	nodes []*Node
	http  *http.Client
}

// New makes ready a cluster of n nodes, none of them started, with flags for
// all of them besides the harness's own. At the end of the test the nodes are
// killed, and their logs are shown if it failed.
func New(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	exe := Binary(t)
	dir := t.TempDir()
	c := &Cluster{t: t, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	launch := newLauncher()
	var join []string
	for i := range n {
		name := fmt.Sprintf("node%d", i+1)
		node := &Node{
			t: t, exe: exe, launch: launch, name: name, dir: filepath.Join(dir, name),
			amqp: ports.address(t), http: ports.address(t), cluster: ports.address(t),
		}
		join = append(join, node.cluster)
		c.nodes = append(c.nodes, node)
	}
	for _, node := range c.nodes {
		node.args = append([]string{
			"server", "--name", node.name, "--data-dir", node.dir,
			"--amqp-listen", node.amqp, "--http-listen", node.http,
			"--cluster-listen", node.cluster, "--cluster-advertise", node.cluster,
			"--join", strings.Join(join, ","), "--bootstrap-expect", strconv.Itoa(n),
		}, flags...)
	}
	t.Cleanup(func() {
		for _, node := range c.nodes {
			node.end()
		}
		launch.close()
		if t.Failed() {
			for _, node := range c.nodes {
				node.showLog()
			}
		}
	})
	return c
}

// Start is a running, ready cluster of n nodes.
func Start(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	c := New(t, n, flags...)
	for i := range n {
		c.Node(i + 1).Start()
	}
	c.WaitReady()
	return c
}

// Node is the i-th node, from 1.
func (c *Cluster) Node(i int) *Node { return c.nodes[i-1] }

// URLs are the AMQP addresses of all nodes, running or not.
func (c *Cluster) URLs() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.URL())
	}
	return out
}

// WaitReady waits until every running node is ready.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.running() {
			c.await(n, "/readyz")
		}
	}
}

// WaitAlive waits until node i answers, ready or not.
func (c *Cluster) WaitAlive(i int) {
	c.t.Helper()
	c.await(c.Node(i), "/healthz")
}

func (c *Cluster) await(n *Node, path string) {
	c.t.Helper()
	var last string
	Await(c.t, n.name+" answers "+path+" with 200", func() bool {
		select {
		case <-n.exited:
			c.t.Fatalf("%s ended while it was waited for: %v", n.name, n.err)
		default:
		}
		code, body, err := c.get(n, path)
		if last = strings.TrimSpace(string(body)); err != nil {
			last = err.Error()
		}
		return err == nil && code == http.StatusOK
	}, func() string { return last })
}

// Readiness is what node i answers to /readyz.
func (c *Cluster) Readiness(i int) (code int, reason string, err error) {
	code, body, err := c.get(c.Node(i), "/readyz")
	return code, strings.TrimSpace(string(body)), err
}

// Status is the cluster as node i sees it.
func (c *Cluster) Status(i int) (management.Status, error) {
	var st management.Status
	code, body, err := c.get(c.Node(i), "/api/warren/status")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d: %s", code, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &st)
	}
	return st, err
}

// Leader waits until node i knows who leads a queue, and returns that node's
// number.
func (c *Cluster) Leader(i int, queue string) (leader int) {
	c.t.Helper()
	var last any
	Await(c.t, "a leader of "+queue, func() bool {
		st, err := c.Status(i)
		if last = st.Queues; err != nil {
			last = err
			return false
		}
		leader = leaderOf(st, queue)
		return leader != 0
	}, func() string { return fmt.Sprint(last) })
	return leader
}

// leaderOf is the number of the node that leads a queue; 0 if that is not known.
func leaderOf(st management.Status, queue string) int {
	var id string
	for _, q := range st.Queues {
		if q.Name == queue {
			id = q.Leader
		}
	}
	for _, m := range st.Members {
		if n, err := strconv.Atoi(strings.TrimPrefix(m.Name, "node")); err == nil && m.ID == id {
			return n
		}
	}
	return 0
}

func (c *Cluster) get(n *Node, path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout) // also after the test's own context
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP()+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, askBytes))
	return resp.StatusCode, body, err
}

// Await asks until the answer is true, and fails the test when Patience runs
// out; seen may then tell what there was instead.
func Await(t testing.TB, what string, ask func() bool, seen func() string) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !ask() {
		if time.Now().After(deadline) {
			last := ""
			if seen != nil {
				last = "; last: " + seen()
			}
			t.Fatalf("waited %v in vain until %s%s", Patience, what, last)
		}
		<-tick.C
	}
}
