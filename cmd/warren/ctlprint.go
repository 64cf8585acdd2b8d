package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"warren/management"
)

// print prints a list in the form that --formatter asks for. Like
// rabbitmqctl's, a table without rows has no header either.
func (c *ctlCall) print(columns []string, rows []management.Row) error {
	if c.formatter() == "json" {
		return c.printJSON(columns, rows)
	}
	if len(rows) == 0 {
		return nil
	}
	lines := make([][]string, 0, len(rows)+1)
	headers := c.option("silent") == "false" && c.option("no-table-headers") == "false"
	if headers || c.formatter() == "pretty_table" {
		lines = append(lines, columns)
	}
	for _, r := range rows {
		line := make([]string, len(columns))
		for i, column := range columns {
			line[i] = cell(r[column])
		}
		lines = append(lines, line)
	}
	switch c.formatter() {
	case "csv":
		w := csv.NewWriter(c.out)
		return w.WriteAll(lines)
	case "pretty_table":
		_, err := fmt.Fprint(c.out, boxed(lines))
		return err
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(c.out, strings.Join(line, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// printJSON prints one object a line, with the columns in their order.
func (c *ctlCall) printJSON(columns []string, rows []management.Row) error {
	var b strings.Builder
	b.WriteString("[\n")
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('{')
		for j, column := range columns {
			if j > 0 {
				b.WriteByte(',')
			}
			value, err := json.Marshal(r[column])
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q:%s", column, value)
		}
		b.WriteString("}\n")
	}
	b.WriteString("]\n")
	_, err := fmt.Fprint(c.out, b.String())
	return err
}

// cell is a value as a table shows it. A queue's arguments come as triples of
// key, type and value.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return printable(v)
	case float64:
		return fmt.Sprintf("%.0f", v)
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			if t, ok := x.([]any); ok && len(t) == 3 {
				parts[i] = fmt.Sprintf("{%q,%s}", t[0], inner(t[2]))
			} else {
				parts[i] = cell(x)
			}
		}
		if len(v) > 0 && strings.HasPrefix(parts[0], "{") {
			return "[" + strings.Join(parts, ",") + "]"
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		return inner(v)
	}
	return fmt.Sprint(v)
}

// inner is a value inside another one.
func inner(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// boxed draws a table; the first line is its header.
func boxed(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, s := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(s))
		}
	}
	var b strings.Builder
	rule := func(left, middle, right string) {
		for i, w := range widths {
			if i == 0 {
				b.WriteString(left)
			} else {
				b.WriteString(middle)
			}
			b.WriteString(strings.Repeat("─", w+2))
		}
		b.WriteString(right + "\n")
	}
	rule("┌", "┬", "┐")
	for at, line := range lines {
		if at > 0 {
			rule("├", "┼", "┤")
		}
		for i, s := range line {
			fmt.Fprintf(&b, "│ %s%s ", s, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s)))
		}
		b.WriteString("│\n")
	}
	rule("└", "┴", "┘")
	return b.String()
}
