package harness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BinaryEnv names the binary to test; without it Main builds one, with the
// race detector if RaceEnv is set.
const (
	BinaryEnv = "WARREN_BINARY"
	RaceEnv   = "WARREN_RACE"
)

// Main is for TestMain of packages that use the harness: it sees to a binary,
// runs the tests and returns what the process should exit with. In short runs
// such tests skip themselves, and nothing is built.
func Main(m *testing.M) int { return mainWith(m.Run) }

// mainWith calls run once there is a binary.
func mainWith(run func() int) int {
	flag.Parse()
	if testing.Short() || os.Getenv(BinaryEnv) != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "warren-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "warren")
	args := []string{"build", "-o", path}
	if os.Getenv(RaceEnv) != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "warren/cmd/warren")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build warren: %v\n%s", err, out)
		return 1
	}
	os.Setenv(BinaryEnv, path)
	return run()
}

// Binary is the path of the binary under test.
func Binary(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes")
	}
	path := os.Getenv(BinaryEnv)
	if path == "" {
		t.Fatal("no binary: TestMain must call harness.Main")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
