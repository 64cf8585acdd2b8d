// Package conform runs the tests that others wrote for RabbitMQ against Warren.
// It knows the harness, and nothing inside a node.
package conform

import (
	"os"
	"testing"

	"warren/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
