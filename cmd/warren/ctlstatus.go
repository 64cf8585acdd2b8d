package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"warren/management"
)

// ctlStatus shows the cluster as one node sees it. That is told to this
// machine without a secret.
func ctlStatus(c *ctlCall) error {
	queues, err := c.flags.GetInt("queues")
	if err != nil {
		return err
	}
	target := "/api/warren/status?" + url.Values{"queues": {strconv.Itoa(queues)}}.Encode()
	body, err := c.ask(http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	if asJSON, _ := c.flags.GetBool("json"); asJSON || c.formatter() == "json" {
		_, err = c.out.Write(body)
		return err
	}
	var st management.Status
	if err := json.Unmarshal(body, &st); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	return printStatus(c.out, st)
}

// ctlPing asks whether a node's process is alive.
func ctlPing(c *ctlCall) error {
	if _, err := c.ask(http.MethodGet, "/healthz", nil); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "Ping succeeded")
	return nil
}

// startupPoll is how often await_startup asks.
const startupPoll = 200 * time.Millisecond

// ctlAwaitStartup returns when a node is ready to serve clients.
func ctlAwaitStartup(c *ctlCall) error {
	tick := time.NewTicker(startupPoll)
	defer tick.Stop()
	for {
		_, err := c.ask(http.MethodGet, "/readyz", nil)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			if context.Cause(c.ctx) == context.DeadlineExceeded {
				return fail(management.ExitUnavailable, "the node was not ready in time: %v", err)
			}
			return c.ctx.Err()
		}
	}
}

// ctlClusterStatus shows who is in the cluster, in rabbitmqctl's form.
func ctlClusterStatus(c *ctlCall) error {
	reply, err := c.command()
	if err != nil {
		return err
	}
	if len(reply.Rows) != 1 {
		return fail(management.ExitSoftware, "the node said nothing of its cluster")
	}
	row := reply.Rows[0]
	if c.formatter() == "json" {
		b, err := json.Marshal(row)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", b)
		return err
	}
	lines := func(v any) string {
		list, _ := v.([]any)
		var b strings.Builder
		for _, name := range list {
			fmt.Fprintf(&b, "%s\n", cell(name))
		}
		return b.String()
	}
	fmt.Fprintf(c.out, "Basics\n\nCluster name: %s\nCluster id: %s\n\nDisk Nodes\n\n%s\nRunning Nodes\n\n%s\nVersions\n\n%s: Warren %s\n",
		cell(row["cluster_name"]), cell(row["cluster_id"]), lines(row["disk_nodes"]), lines(row["running_nodes"]), cell(row["node"]), cell(row["version"]))
	return nil
}

// printStatus prints three tables; nodes are shown by name.
func printStatus(out io.Writer, st management.Status) error {
	slices.SortFunc(st.Members, func(a, b management.Member) int { return strings.Compare(a.Name, b.Name) })
	names := make(map[string]string, len(st.Members))
	for _, m := range st.Members {
		names[m.ID] = m.Name
	}
	name := func(id string) string {
		switch {
		case id == "":
			return "-"
		case names[id] != "":
			return names[id]
		}
		return id
	}
	fmt.Fprintf(out, "cluster %s (%s), as %s sees it; warren %s, up %v\n", st.Cluster, st.ClusterID, st.Node,
		st.Version, (time.Duration(st.UptimeMs) * time.Millisecond).Round(time.Second))
	if st.NotReady != "" {
		fmt.Fprintf(out, "not ready: %s\n", st.NotReady)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nMEMBER\tID\tADDRESS\tSTATE")
	for _, m := range st.Members {
		state := "up"
		if !m.Alive {
			state = "down"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.ID, m.Address, state)
	}
	fmt.Fprintln(w, "\nGROUP\tLEADER\tTERM\tCOMMIT\tAPPLIED\tREPLICAS")
	for _, g := range st.Groups {
		id := strconv.FormatUint(g.ID, 10)
		if g.ID == 0 {
			id = "0 (metadata)"
		}
		replicas := make([]string, len(g.Replicas))
		for i, r := range g.Replicas {
			replicas[i] = name(r)
		}
		slices.Sort(replicas)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", id, name(g.Leader), g.Term, g.CommitIndex, g.AppliedIndex, strings.Join(replicas, " "))
	}
	fmt.Fprintln(w, "\nVHOST\tQUEUE\tKIND\tGROUP\tLEADER\tREADY\tUNACKED\tCONSUMERS")
	for _, q := range st.Queues {
		group := "-"
		if q.Group != 0 {
			group = strconv.FormatUint(q.Group, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(q.VHost), printable(q.Name), kind(q), group, name(q.Leader),
			count(q.Ready), count(q.Unacked), count(q.Consumers))
	}
	if more := st.QueuesTotal - len(st.Queues); more > 0 {
		fmt.Fprintf(w, "... and %d more queues (--queues)\n", more)
	}
	return w.Flush()
}

// printable quotes a name that a client may have made to play with terminals.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func kind(q management.Queue) string {
	switch {
	case q.Exclusive:
		return "exclusive"
	case q.Durable:
		return "durable"
	}
	return "transient"
}

// count shows a count, or that nobody told it.
func count(n int64) string {
	if n < 0 {
		return "?"
	}
	return strconv.FormatInt(n, 10)
}
