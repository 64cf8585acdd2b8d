package management

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"warren/fsm/meta"
	"warren/mq"
)

func (c *command) aboutOperators() bool { return strings.Contains(c.Verb, "operator_polic") }

func (c *command) setPolicy(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	definition, err := Definition([]byte(c.arg(2)))
	if err != nil {
		return ControlReply{}, refused(ExitUnavailable, "Could not parse JSON document: %v", err)
	}
	p := meta.Policy{
		VHost: c.VHost, Name: c.arg(0), Operator: c.aboutOperators(), Pattern: c.arg(1), ApplyTo: meta.ApplyToAll, Definition: definition,
	}
	if to := c.Options["apply-to"]; to != "" {
		p.ApplyTo = to
	}
	if given := c.Options["priority"]; given != "" {
		if p.Priority, err = strconv.ParseInt(given, 10, 64); err != nil {
			return ControlReply{}, refused(ExitUsage, "%s priority must be a number", given)
		}
	}
	return c.change(ctx, meta.PolicySet{Policy: p})
}

func (c *command) clearPolicy(ctx context.Context) (ControlReply, error) {
	if err := c.mustHaveVHost(); err != nil {
		return ControlReply{}, err
	}
	was, err := c.server.source.Administer(ctx, meta.PolicyClear{VHost: c.VHost, Name: c.arg(0), Operator: c.aboutOperators()})
	if err == nil && !was {
		err = refused(ExitUnavailable, "Parameter does not exist")
	}
	return ControlReply{}, err
}

func (c *command) listPolicies(context.Context) (r ControlReply, err error) {
	if err := c.mustHaveVHost(); err != nil {
		return r, err
	}
	policies := c.view.Policies
	if c.aboutOperators() {
		policies = c.view.OperatorPolicies
	}
	for _, p := range byPriority(policies(c.VHost)) {
		r.Rows = append(r.Rows, Row{
			"vhost": p.VHost, "name": p.Name, "pattern": p.Pattern, "apply-to": p.ApplyTo, "priority": p.Priority,
			"definition": string(Properties(p.Definition)),
		})
	}
	return r, nil
}

// byPriority shows the policy first that counts last, as rabbitmqctl does.
func byPriority(ps iter.Seq[*meta.Policy]) []*meta.Policy {
	return slices.SortedStableFunc(ps, func(a, b *meta.Policy) int {
		switch {
		case a.Priority < b.Priority:
			return -1
		case a.Priority > b.Priority:
			return 1
		}
		return 0
	})
}

// Definition reads a policy's definition, sorted by key. A key that is there
// twice is kept twice: whoever checks the policy refuses it.
func Definition(b []byte) (mq.Table, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object: %s", b)
	}
	var out mq.Table
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		out = append(out, mq.Field{Key: key.(string), Value: tableValue(v)})
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON object: %s", b)
	}
	slices.SortStableFunc(out, func(a, b mq.Field) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// tableValue is a JSON value as a field table has it.
func tableValue(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = tableValue(v[i])
		}
		return out
	case map[string]any:
		var out mq.Table
		for key, value := range v {
			out = append(out, mq.Field{Key: key, Value: tableValue(value)})
		}
		slices.SortFunc(out, func(a, b mq.Field) int { return strings.Compare(a.Key, b.Key) })
		return out
	}
	return v
}

// commas splits a list of tags.
func commas(v string) (out []string) {
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
