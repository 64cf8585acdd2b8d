// Package scale measures what a cluster of real processes takes when there is
// much of something: a deep queue, many queues, many delayed messages, large ones. Each
// test prints its figures beside the goals, and fails only for what is wrong
// however slow the machine is. By themselves they run with little; `make
// bench-backlog`, `bench-queues`, `bench-delays` and `bench-large` say how much.
package scale

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"warren/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// amount is a number from the environment, or what an ordinary run takes.
func amount(env string, ordinary int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil && n > 0 {
		return n
	}
	return ordinary
}

// nodeFlagsEnv has flags for all nodes, with spaces between, for whoever looks
// for a reason: --pprof-listen 127.0.0.1:0
const nodeFlagsEnv = "NODE_FLAGS"

// cluster is three nodes that keep 128 MiB of messages in memory.
func cluster(t *testing.T) *harness.Cluster {
	flags := append([]string{"--body-memory", "128MiB", "--log-level", "warning"}, strings.Fields(os.Getenv(nodeFlagsEnv))...)
	return harness.Start(t, nodes, flags...)
}

const nodes = 3
