package main

import (
	"fmt"
	"strings"

	"warren/node"
)

// configFileBytesMax bounds a configuration file.
const configFileBytesMax = 1 << 20

// applyFile reads a configuration file into c.
func applyFile(c *node.Config, path string) error {
	b, err := readFile(path, configFileBytesMax)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return applyLines(c, path, string(b))
}

// applyLines reads the dotted `key = value` form of RabbitMQ's configuration
// files: one setting a line, # begins a comment at the start of a line or
// after a space, a value may stand in single quotes, and the last line of a
// key wins.
func applyLines(c *node.Config, path, text string) error {
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		key, value, err := parseLine(line)
		if err == nil && key != "" {
			err = applySetting(c, key, value)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	return nil
}

// parseLine takes a line apart; an empty key is a line that says nothing.
func parseLine(line string) (key, value string, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	key, value, ok := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" {
		return "", "", fmt.Errorf("%q is not of the form key = value", line)
	}
	value = strings.TrimSpace(value)
	if rest, quoted := strings.CutPrefix(value, "'"); quoted {
		value, rest, ok = strings.Cut(rest, "'")
		if rest = strings.TrimSpace(rest); !ok || (rest != "" && rest[0] != '#') {
			return "", "", fmt.Errorf("the quote of %s does not end the value", key)
		}
		return key, value, nil
	}
	for _, comment := range []string{" #", "\t#"} {
		if at := strings.Index(value, comment); at >= 0 {
			value = value[:at]
		}
	}
	if strings.HasPrefix(value, "#") {
		value = ""
	}
	return key, strings.TrimSpace(value), nil
}

func applySetting(c *node.Config, key, value string) error {
	s, ok := settingFor(key)
	if !ok {
		return fmt.Errorf("unknown key %q; the nearest known one is %q", key, nearestKey(key))
	}
	if err := s.set(c, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// nearestKey is the known key that takes the fewest edits to get to.
func nearestKey(key string) string {
	best, bestEdits := "", -1
	for _, s := range settings() {
		if n := edits(key, s.key); bestEdits < 0 || n < bestEdits {
			best, bestEdits = s.key, n
		}
	}
	return best
}

// keyBytesCompared bounds the work of edits for a line that is no key at all.
const keyBytesCompared = 128

// edits is the number of bytes to insert, delete or replace to make b of a
// (Levenshtein's distance).
func edits(a, b string) int {
	a, b = a[:min(len(a), keyBytesCompared)], b[:min(len(b), keyBytesCompared)]
	row := make([]int, len(b)+1) // of a's prefix so far against every prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// applyEnv reads the environment into c. Variables that are empty or that no
// setting has are not looked at: a host may have its own WARREN_ ones.
func applyEnv(c *node.Config, getenv func(string) string) error {
	for _, s := range settings() {
		for _, name := range s.env {
			v := getenv(name)
			if v == "" {
				continue
			}
			if err := s.set(c, v); err != nil {
				return fmt.Errorf("environment variable %s: %w", name, err)
			}
		}
	}
	return nil
}
