package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"warren/management"
)

func ctlCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ctl",
		Short: "Look at a running cluster",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(ctlStatusCommand())
	return c
}

const (
	ctlTimeout  = 10 * time.Second
	statusBytes = 64 << 20 // of an answer that are read
)

func ctlStatusCommand() *cobra.Command {
	var (
		node   string
		asJSON bool
		queues int
	)
	c := &cobra.Command{
		Use:   "status",
		Short: "Show members, groups with their leaders, and queues with their counts",
		Example: `  warren ctl status
  warren ctl status --node http://127.0.0.1:15673 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := fetchStatus(c.Context(), node, queues)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = c.OutOrStdout().Write(body)
				return err
			}
			var st management.Status
			if err := json.Unmarshal(body, &st); err != nil {
				return fmt.Errorf("read the status of %s: %w", node, err)
			}
			return printStatus(c.OutOrStdout(), st)
		},
	}
	fallback := "http://127.0.0.1:15672"
	if v := os.Getenv("WARREN_NODE"); v != "" {
		fallback = v
	}
	c.Flags().StringVar(&node, "node", fallback, "management `address` of any node (WARREN_NODE)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().IntVar(&queues, "queues", 1000, "show at most `N` queues")
	return c
}

func fetchStatus(ctx context.Context, node string, queues int) ([]byte, error) {
	if !strings.Contains(node, "://") {
		node = "http://" + node
	}
	ctx, cancel := context.WithTimeout(ctx, ctlTimeout)
	defer cancel()
	target := strings.TrimSuffix(node, "/") + "/api/warren/status?" + url.Values{"queues": {strconv.Itoa(queues)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", node, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", node, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, statusBytes))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", node, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s: %s", node, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
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
