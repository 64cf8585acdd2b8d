package scale

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"warren/test/harness"
)

// meter reads off what the nodes of a cluster take.
type meter struct {
	t *testing.T
	c *harness.Cluster

	mu      sync.Mutex
	highest [nodes]int64 // bytes of memory seen so far
}

func newMeter(t *testing.T, c *harness.Cluster) *meter {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("reads figures from /proc")
	}
	return &meter{t: t, c: c}
}

// watch reads the memory of all nodes every second until the test ends.
func (m *meter) watch() {
	ctx, cancel := context.WithCancel(m.t.Context())
	m.t.Cleanup(cancel)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.memory()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// memory is what each node has resident, in bytes; 0 if it does not run.
func (m *meter) memory() (resident [nodes]int64) {
	for i := range resident {
		resident[i] = kilobytes(m.c.Node(i+1).PID(), "VmRSS:") << 10
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range resident {
		m.highest[i] = max(m.highest[i], b)
	}
	return resident
}

// peak is the most that any node had resident.
func (m *meter) peak() (most int64) {
	m.memory()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.highest {
		most = max(most, b)
	}
	return most
}

// kilobytes is a line of a process's status.
func kilobytes(pid int, line string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), line)
	n, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	return n
}

// ticksPerSecond is what Linux counts processor time in.
const ticksPerSecond = 100

// processor is the time that each node has computed since it was started.
func (m *meter) processor() (used [nodes]time.Duration) {
	for i := range used {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.c.Node(i+1).PID()))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
		f := strings.Fields(rest)
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		used[i] = time.Duration(user+system) * time.Second / ticksPerSecond
	}
	return used
}

// idle is the share of a core that each node takes over a while.
func (m *meter) idle(while time.Duration) (share [nodes]float64) {
	before, begin := m.processor(), time.Now()
	<-time.After(while)
	after, took := m.processor(), time.Since(begin)
	for i := range share {
		share[i] = float64(after[i]-before[i]) / float64(took)
	}
	return share
}

// disk is what each node's folder takes; a file with two names counts once.
func (m *meter) disk() (used [nodes]int64) {
	for i := range used {
		seen := map[uint64]bool{}
		err := filepath.WalkDir(m.c.Node(i+1).Dir(), func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // removed meanwhile
			}
			info, err := e.Info()
			if err != nil {
				return nil
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
				seen[st.Ino] = true
				used[i] += st.Blocks * 512
			}
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return used
}

// readyPatience is how long a restart may take before the test gives up.
const readyPatience = 20 * time.Minute

// restart kills all nodes at once, starts them, and returns how long that took
// until every one was ready.
func (m *meter) restart() time.Duration {
	for i := range nodes {
		m.c.Node(i + 1).Kill()
	}
	begin := time.Now()
	for i := range nodes {
		m.c.Node(i + 1).Start()
	}
	for i := range nodes {
		m.awaitReady(m.c.Node(i + 1))
	}
	return time.Since(begin)
}

func (m *meter) awaitReady(n *harness.Node) {
	deadline := time.Now().Add(readyPatience)
	for {
		resp, err := http.Get(n.HTTP() + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s was not ready after %v", n.Name(), readyPatience)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// goal prints a figure beside what it is to be.
func (m *meter) goal(what, got, want string, held bool) {
	verdict := "held"
	if !held {
		verdict = "MISSED"
	}
	m.say("goal %-40s %-12s %-12s %s", what, got, want, verdict)
}

// say prints at once: a run takes long.
func (m *meter) say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// mib shows bytes of each node.
func mib(bytes [nodes]int64) string {
	var out []string
	for _, b := range bytes {
		out = append(out, strconv.FormatInt(b>>20, 10))
	}
	return strings.Join(out, " / ") + " MiB"
}
