package node

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"warren/storage/raftlog"
	"warren/storage/vfs"
)

// fatalChild is set, to what its disk does, in the process that
// TestADiskThatFailsEndsTheProcess starts.
const fatalChild = "WARREN_TEST_DISK"

// TestFatalChild stores something on a disk that does not answer, or answers
// with an error.
func TestFatalChild(t *testing.T) {
	disk := os.Getenv(fatalChild)
	if disk == "" {
		t.Skip("only for TestADiskThatFailsEndsTheProcess")
	}
	n := &Node{slog: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	fs := vfs.NewMem()
	o := raftlog.Options{Log: n.slog, Fatal: n.fatal, FileBytes: 64 << 10}
	if disk == "hung" {
		o.SlowAfter, o.HungAfter = 100*time.Millisecond, 500*time.Millisecond
	}
	w, err := raftlog.OpenWAL(fs, "/wal", o)
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	fs.Inject(func(op vfs.Op, _ string) error {
		switch {
		case op != vfs.OpSync || !broken.Load():
			return nil
		case disk == "hung":
			select {}
		}
		return errors.New("input/output error")
	})
	broken.Store(true)
	_ = w.Close() // the last write
}

// A supervisor can tell a disk that hangs from other ends by the exit code.
func TestADiskThatFailsEndsTheProcess(t *testing.T) {
	for disk, want := range map[string]struct {
		code int
		says []string
	}{
		"hung":   {75, []string{"slow disk", "the disk has not answered for 500ms"}},
		"broken": {1, []string{"cannot go on", "input/output error"}},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFatalChild$")
		cmd.Env = append(os.Environ(), fatalChild+"="+disk)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != want.code {
			t.Errorf("a disk that is %s: %v, want the exit code %d\n%s", disk, err, want.code, out)
		}
		for _, text := range want.says {
			if !strings.Contains(string(out), text) {
				t.Errorf("a disk that is %s: the log does not say %q:\n%s", disk, text, out)
			}
		}
	}
}
