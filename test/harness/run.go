package harness

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Runner is what runs all tests of a package: a *testing.M, or what wraps one.
type Runner interface{ Run() int }

// MainWith is Main for packages whose tests share one cluster of n nodes. It
// hands their addresses, separated by commas, to the tests in the environment
// variable env; if that is set already, the tests are for a broker that runs,
// and nothing is built or started.
func MainWith(m Runner, n int, env string) int {
	flag.Parse()
	if os.Getenv(env) != "" {
		return m.Run()
	}
	return mainWith(func() int {
		if testing.Short() || flag.Lookup("test.list").Value.String() != "" {
			return m.Run()
		}
		run := &runTB{}
		defer run.end()
		os.Setenv(env, strings.Join(Start(run, n).URLs(), ","))
		code := m.Run()
		run.failed = run.failed || code != 0
		if run.failed && code == 0 {
			code = 1 // a node ended by itself
		}
		return code
	})
}

// runTB lets a cluster belong to a whole run of tests instead of one of them.
// It has what the harness calls, and panics at anything else.
type runTB struct {
	testing.TB
	failed   bool
	cleanups []func()
}

// Helper does nothing: there is no test whose line could be shown.
func (r *runTB) Helper() {}

// Failed tells whether something has gone wrong.
func (r *runTB) Failed() bool { return r.failed }

// Cleanup keeps f for the end of the run.
func (r *runTB) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// Logf writes to where a test's output goes.
func (r *runTB) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Errorf is Logf for what makes the run fail.
func (r *runTB) Errorf(format string, args ...any) {
	r.failed = true
	r.Logf(format, args...)
}

// Fatal ends the run.
func (r *runTB) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

// Fatalf ends the run.
func (r *runTB) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.end()
	os.Exit(1)
}

// TempDir makes a folder that goes at the end of the run.
func (r *runTB) TempDir() string {
	dir, err := os.MkdirTemp("", "warren-run-")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// end cleans up, the last thing first.
func (r *runTB) end() {
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		f()
	}
}
