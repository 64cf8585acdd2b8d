package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"warren/management"
)

const (
	answerBytesMax  = 64 << 20 // of an answer that are read
	controlBytesMax = 64 << 10 // of a control file
	// fallbackURL is where a node on RabbitMQ's ports is.
	fallbackURL = "http://127.0.0.1:15672"
)

// endpoint is a node that a command may be sent to.
type endpoint struct {
	node, url string
	secret    string // "" if none is known
}

// endpoints finds the nodes that may be meant, the likeliest first. A node on
// this machine left its address and a secret in its data directory.
func (c *ctlCall) endpoints() ([]endpoint, error) {
	local, problem := localNodes(c.dataDir())
	wanted := c.option("node")
	if wanted != "" && isAddress(wanted) {
		url := addressOf(wanted)
		local = slices.DeleteFunc(local, func(l endpoint) bool { return l.url != url })
		if len(local) == 0 {
			local = []endpoint{{url: url}}
		}
		return local, nil
	}
	if wanted != "" {
		var names []string
		for _, l := range local {
			if l.node == wanted {
				return []endpoint{l}, nil
			}
			names = append(names, l.node)
		}
		if len(names) == 0 {
			names = []string{"none"}
		}
		return nil, nobody("no node named %s has its data in %s; there is %s. Give --data-dir, or the node's address with --node",
			wanted, c.dataDir(), strings.Join(names, ", "))
	}
	if len(local) > 0 {
		return local, nil
	}
	if problem != nil && c.login() == "" {
		return nil, fail(management.ExitUnavailable, "%v (run this as the user that runs the node)", problem)
	}
	return []endpoint{{url: fallbackURL}}, nil
}

func (c *ctlCall) dataDir() string {
	if dir := c.option("data-dir"); dir != "" {
		return dir
	}
	return "warren-data"
}

// localNodes reads the control files in dir, or in the folders in it: `warren
// up` keeps node1, node2, ... in one folder, and `warren server` has its own
// next to them.
func localNodes(dir string) (found []endpoint, problem error) {
	paths := []string{filepath.Join(dir, management.ControlFileName)}
	if below, err := filepath.Glob(filepath.Join(dir, "*", management.ControlFileName)); err == nil {
		paths = append(paths, below...)
	}
	for _, path := range paths {
		b, err := readFile(path, controlBytesMax)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				problem = err
			}
			continue
		}
		var f management.ControlFile
		if err := json.Unmarshal(b, &f); err != nil || f.URL == "" {
			problem = fmt.Errorf("%s is not what a node leaves there", path)
			continue
		}
		found = append(found, endpoint{f.Node, f.URL, f.Secret})
	}
	return found, problem
}

// isAddress tells addresses from nodes' names, which have no colon.
func isAddress(s string) bool { return strings.Contains(s, ":") }

func addressOf(s string) string {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	return strings.TrimSuffix(s, "/")
}

// ask sends a request to the first node that can be reached, and returns what
// it answers.
func (c *ctlCall) ask(method, path string, body []byte) ([]byte, error) {
	nodes, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	var unreachable error
	for _, e := range nodes {
		if path == management.ControlPath && e.secret == "" && c.login() == "" {
			return nil, nobody("no data directory of a node at %s was found in %s: give --data-dir, or --user and --password of an administrator", e.url, c.dataDir())
		}
		answer, err := c.askOne(e, method, path, body)
		var dial *net.OpError
		switch {
		case errors.As(err, &dial) && dial.Op == "dial":
			err = nobody("no node at %s: is it running? (%v)", e.url, dial.Err)
		case !errors.Is(err, errNotLetIn):
			return answer, c.explain(e, err)
		}
		// Nothing was done: another one may be asked. A node that was killed
		// leaves its file, and another may have its address by now.
		if unreachable == nil {
			unreachable = err
		}
	}
	return nil, c.explain(nodes[0], unreachable)
}

// errNotLetIn says that a node does not know the secret or the user.
var errNotLetIn = errors.New("not let in")

func (c *ctlCall) askOne(e endpoint, method, path string, body []byte) ([]byte, error) {
	if _, err := url.Parse(e.url); err != nil {
		return nil, fail(management.ExitUsage, "%v", err)
	}
	req, err := http.NewRequestWithContext(c.ctx, method, e.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fail(management.ExitUsage, "%v", err)
	}
	if user := c.login(); user != "" {
		req.SetBasicAuth(user, c.option("password"))
	} else if e.secret != "" {
		req.Header.Set("Authorization", "Bearer "+e.secret)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret is for this node
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(e, resp, answer)
	}
	return answer, nil
}

// explain is an error of asking a node as people hear it.
func (c *ctlCall) explain(e endpoint, err error) error {
	var x *exitError
	switch {
	case err == nil || errors.As(err, &x):
		return err
	case errors.Is(err, errNotLetIn):
		return fail(management.ExitUnavailable, "%s does not let this command in (%v)", e.url, err)
	case c.ctx.Err() != nil:
		return fail(management.ExitUnavailable, "%s did not answer in time (--timeout)", e.url)
	}
	return fail(management.ExitUnavailable, "ask %s: %v", e.url, err)
}

// refusal is an answer that says no.
func refusal(e endpoint, resp *http.Response, answer []byte) error {
	var said struct {
		management.ControlError
		Status string `json:"status"` // of a health check
	}
	known := json.Unmarshal(answer, &said) == nil && said.Reason != ""
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", errNotLetIn, said.Reason)
	case known && said.Exit != 0:
		return fail(said.Exit, "%s", said.Reason)
	case known:
		return fail(management.ExitUnavailable, "%s: %s", e.url, said.Reason)
	}
	return fail(management.ExitUnavailable, "%s answered %s: %s", e.url, resp.Status, strings.TrimSpace(string(answer)))
}
