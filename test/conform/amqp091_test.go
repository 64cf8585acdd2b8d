package conform

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"warren/test/harness"
)

const amqp091Module = "github.com/rabbitmq/amqp091-go"

// notForWarren are amqp091-go's tests that may be skipped or fail, and why.
var notForWarren = map[string]string{
	"TestPlaintextDialTLS": "skips itself unless its address has RabbitMQ's default port",
}

// otherTests are those of amqp091-go that are not of its recovery.
const otherTests = "all but recovery"

// amqp091LogBytes is how much of the output of a failed test is shown.
const amqp091LogBytes = 4 << 10

// TestAMQP091GoIntegration runs the client library's own tests, unmodified but
// for the port of the management API and the broker's name, through node 2 of a
// cluster. Those of its recovery wait most of their time, so that they run
// beside the others, in two halves, each with a cluster of its own. A call of the
// library that is refused may hang, or take the answer of the channel.open that
// recovers its channel: it looks for where answers come in only when it has sent
// its request (Channel.call), and by then the channel may have been made anew. On
// a busy machine that was seen; on one processor what sends goes on to look.
func TestAMQP091GoIntegration(t *testing.T) {
	if !onWarren() || os.Getenv(harness.BinaryEnv) == "" {
		t.Skip("is for a Warren of its own")
	}
	dir := copyModule(t, amqp091Module)
	list := integrationTests(t, dir, "-list", ".")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the tests of %s: %v\n%s", amqp091Module, err, out)
	}
	parts := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		test := strings.TrimSpace(line)
		part := otherTests
		switch {
		case !strings.HasPrefix(test, "Test") && !strings.HasPrefix(test, "Example"):
			continue
		case strings.HasPrefix(test, "TestConnectionRecovery") && len(parts["recovery"]) <= len(parts["more recovery"]):
			part = "recovery"
		case strings.HasPrefix(test, "TestConnectionRecovery"):
			part = "more recovery"
		}
		parts[part] = append(parts[part], test)
	}
	for part, tests := range parts {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			args := []string(nil)
			if part != otherTests {
				args = append(args, "-cpu", "1")
			}
			runIntegrationTests(t, tests, args...)
		})
	}
}

// integrationTests is `go test` of the copied module in dir.
func integrationTests(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-tags", "integration", "-count=1", "-timeout", "15m"}, append(args, ".")...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	return cmd
}

func runIntegrationTests(t *testing.T, tests []string, args ...string) {
	t.Helper()
	c := harness.Start(t, 3)
	dir := copyModule(t, amqp091Module)
	api := strings.TrimPrefix(c.Node(2).HTTP(), "http://")
	_, port, err := net.SplitHostPort(api)
	if err != nil {
		t.Fatal(err)
	}
	replaceInTree(t, dir, "localhost:15672", api)
	replaceInTree(t, dir, `"15672"`, `"`+port+`"`)
	replaceInTree(t, dir, `== "RabbitMQ"`, `== "Warren"`) // or three tests ask nothing, and leave their connections open

	ctl := filepath.Join(t.TempDir(), "rabbitmqctl") // the binary under that name is one
	if err := os.Symlink(harness.Binary(t), ctl); err != nil {
		t.Fatal(err)
	}
	cmd := integrationTests(t, dir, append(args, "-json", "-run", "^("+strings.Join(tests, "|")+")$")...)
	cmd.Env = append(cmd.Env, "AMQP_URL=amqp://guest:guest@"+c.Node(2).AMQP()+"/",
		"RABBITMQ_RABBITMQCTL_PATH="+ctl, "WARREN_DATA_DIR="+c.Node(2).Dir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	results := readResults(t, out)
	err = cmd.Wait()
	if results.passed == 0 {
		t.Fatalf("no test of %s passed (%v):\n%s", amqp091Module, err, results.output(""))
	}
	for _, test := range tests {
		if results.outcome[test] == "" && strings.HasPrefix(test, "Test") {
			t.Errorf("%s did not run", test)
		}
	}
	results.judge(t)
}

// unfinished is the outcome of a test that began and did not end: it hung, or
// the process died in it.
const unfinished = "did not end"

// results are the outcomes of a run of `go test -json`.
type results struct {
	outcome map[string]string // pass, fail, skip or unfinished, by test; subtests too
	log     map[string]*strings.Builder
	seconds map[string]float64 // by test
	passed  int
}

func readResults(t *testing.T, r io.Reader) *results {
	t.Helper()
	res := &results{outcome: map[string]string{}, log: map[string]*strings.Builder{}, seconds: map[string]float64{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e.Action, e.Output = "output", lines.Text()+"\n" // the go command's own words
		}
		switch e.Action {
		case "output", "build-output":
			if res.log[e.Test] == nil {
				res.log[e.Test] = &strings.Builder{}
			}
			res.log[e.Test].WriteString(e.Output)
		case "run":
			res.outcome[e.Test] = unfinished
		case "pass", "fail", "skip":
			res.outcome[e.Test], res.seconds[e.Test] = e.Action, e.Elapsed
			if e.Test != "" && e.Action == "pass" {
				res.passed++
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return res
}

func (r *results) output(test string) string {
	b := r.log[test]
	if b == nil {
		return ""
	}
	s := b.String()
	if len(s) > amqp091LogBytes {
		s = "...\n" + s[len(s)-amqp091LogBytes:]
	}
	return s
}

// judge fails unless all passed but the named ones, and says how many those were.
func (r *results) judge(t *testing.T) {
	t.Helper()
	excused := 0
	failed := false
	for _, test := range slices.Sorted(maps.Keys(r.outcome)) {
		outcome := r.outcome[test]
		if test == "" || outcome == "pass" {
			continue
		}
		top, _, _ := strings.Cut(test, "/")
		if why, ok := notForWarren[top]; ok {
			t.Logf("%s: %s, excused: it %s", test, outcome, why)
			excused++
			continue
		}
		failed = true
		t.Errorf("%s: %s\n%s", test, outcome, r.output(test))
	}
	if r.outcome[""] != "pass" && !failed && excused == 0 {
		t.Errorf("the run as a whole did not pass:\n%s", r.output(""))
	}
	t.Logf("%d tests of %s passed, %d were excused", r.passed, amqp091Module, excused)
	r.showSlowest(t)
}

// slowestShown is how many of the slowest tests a run names.
const slowestShown = 5

func (r *results) showSlowest(t *testing.T) {
	t.Helper()
	tests := slices.SortedFunc(maps.Keys(r.seconds), func(a, b string) int { return cmp.Compare(r.seconds[b], r.seconds[a]) })
	for _, test := range tests[:min(len(tests), slowestShown+1)] {
		if test != "" {
			t.Logf("%6.1f s %s", r.seconds[test], test)
		}
	}
}

// copyModule copies a module out of the read-only module cache.
func copyModule(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("find %s: %v", module, err)
	}
	from, to := strings.TrimSpace(string(b)), filepath.Join(t.TempDir(), "module")
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o644)
	})
	if err != nil {
		t.Fatalf("copy %s: %v", module, err)
	}
	return to
}

// replaceInTree replaces a text in the Go files of a folder; it must be there.
func replaceInTree(t *testing.T, dir, old, with string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), old) {
			return err
		}
		found++
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(content), old, with)), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Fatalf("%q is not in %s any more", old, amqp091Module)
	}
}
