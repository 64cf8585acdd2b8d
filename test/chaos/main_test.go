// Package chaos holds what must be true of a cluster of real processes while
// they are killed, frozen and restarted. It knows AMQP's client side and the
// harness, and nothing inside a node.
package chaos

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"warren/test/harness"
)

// How long the runs are: more rounds find more, fewer are for every day.
const (
	roundsEnv     = "ROUNDS"
	roundsDefault = 3
	manyRounds    = 20     // from here on each test is run in all its variants
	seedEnv       = "SEED" // of the random moments; drawn anew if there is none
)

var (
	roundsFlag = flag.Int("rounds", roundsFromEnv(), "rounds of kills")
	seedFlag   = flag.Uint64("seed", seedFromEnv(), "seed of the random moments; 0 draws one")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func roundsFromEnv() int {
	if n, err := strconv.Atoi(os.Getenv(roundsEnv)); err == nil && n > 0 {
		return n
	}
	return roundsDefault
}

func seedFromEnv() uint64 {
	n, _ := strconv.ParseUint(os.Getenv(seedEnv), 10, 64)
	return n
}
