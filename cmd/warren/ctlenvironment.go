package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"warren/management"
)

// ctlEnvironment prints what a node goes by in the form of a configuration
// file.
func ctlEnvironment(c *ctlCall) error {
	reply, err := c.command()
	if err != nil {
		return err
	}
	if len(reply.Rows) == 0 {
		return fail(management.ExitSoftware, "the node said nothing of what it goes by")
	}
	if c.formatter() == "json" {
		all := map[string]any{}
		for _, r := range reply.Rows {
			all[cell(r["key"])] = r["value"]
		}
		b, err := json.Marshal(all)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", b)
		return err
	}
	for _, r := range reply.Rows {
		if _, err := fmt.Fprintf(c.out, "%s = %s\n", cell(r["key"]), quoted(cell(r["value"]))); err != nil {
			return err
		}
	}
	return nil
}

// quoted is a value as a configuration file has it: what could be taken for a
// comment, or trimmed, stands in quotes.
func quoted(value string) string {
	if strings.Contains(value, "#") || strings.TrimSpace(value) != value {
		return "'" + value + "'"
	}
	return value
}
