package chaos

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

// metadataFile is where a node has its log of the metadata.
const metadataFile = "groups/00000000/log.bolt"

// paddedQueues with padBytes of arguments each are more than a node keeps of
// its metadata's log in memory.
const (
	paddedQueues = 60
	padBytes     = 100 << 10
)

// flip changes a byte wherever text is in a file, which may be in use.
func flip(t *testing.T, name, text string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := false
	for at := 0; ; at++ {
		next := bytes.Index(b[at:], []byte(text))
		if next < 0 {
			break
		}
		at, found = at+next, true
		if _, err := f.WriteAt([]byte{text[0] ^ 1}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Fatalf("%q is not in %s", text, name)
	}
}

// metadataLeader waits until node i knows who leads the metadata, and returns
// that node's number.
func metadataLeader(t *testing.T, c *harness.Cluster, i int) (leader int) {
	t.Helper()
	harness.Await(t, "a leader of the metadata", func() bool {
		st, err := c.Status(i)
		if err != nil || len(st.Groups) == 0 {
			return false
		}
		for _, m := range st.Members {
			if m.ID == st.Groups[0].Leader {
				leader = int(m.Name[len(m.Name)-1] - '0')
			}
		}
		return leader != 0
	}, func() string { return "none" })
	return leader
}

// says waits until a node is not ready for all of these reasons.
func says(t *testing.T, c *harness.Cluster, i int, reasons ...string) {
	t.Helper()
	var last string
	harness.Await(t, c.Node(i).Name()+" to say what is wrong", func() bool {
		code, reason, err := c.Readiness(i)
		last = reason
		return err == nil && code == http.StatusServiceUnavailable &&
			!slices.ContainsFunc(reasons, func(r string) bool { return !strings.Contains(reason, r) })
	}, func() string { return last })
}

// The metadata is what clients are told: it is not taken away from under them.
// Whoever finds its log damaged ends its process, and whoever starts that again
// has a whole node.
func TestANodeWhoseMetadataGoesBadEndsAndIsRebuiltWhenItIsStartedAgain(t *testing.T) {
	const queue = "chaos.damage.metadata"
	c := harness.Start(t, 3)
	leader := metadataLeader(t, c, 1)
	late, other := leader%3+1, (leader+1)%3+1
	url := c.Node(other).URL()
	c.Node(late).Stop()
	declare(t, url, queue)
	conn := connection(t, url)
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	pad := amqp091.Table{"x-pad": strings.Repeat("p", padBytes)}
	for i := range paddedQueues {
		if _, err := ch.QueueDeclare(queue+".pad"+string(rune('0'+i)), true, false, false, false, pad); err != nil {
			t.Fatal(err)
		}
	}
	bad := c.Node(leader)
	flip(t, filepath.Join(bad.Dir(), metadataFile), queue+".pad0")
	bad.MayEnd()
	c.Node(late).Start() // who has to get that from the leader
	if code := bad.AwaitEnd(); code != 1 {
		t.Errorf("it has ended with exit code %d", code)
	}
	if log := bad.Log(); !strings.Contains(log, "is rebuilt at the next start") {
		t.Error("it has not said why")
	}
	c.WaitReady() // the others
	if conn.IsClosed() {
		t.Error("a connection to another node was closed")
	}
	declare(t, url, queue+".meanwhile")
	bad.Start()
	c.WaitReady()
	for _, name := range []string{queue, queue + ".pad0", queue + ".meanwhile"} {
		if _, err := channel(t, bad.URL()).QueueDeclarePassive(name, true, false, false, false, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of what two of three have lost, the third may lack the newest. Nobody goes on
// from that without being told to: the nodes wait, and say for what.
func TestMetadataThatIsBadOnTwoOfThreeWaitsForAnOperator(t *testing.T) {
	const queue = "chaos.damage.two"
	c := harness.Start(t, 3)
	declare(t, c.Node(1).URL(), queue)
	for i := range 3 {
		c.Node(i + 1).Stop()
	}
	bad := filepath.Join(c.Node(2).Dir(), metadataFile)
	whole, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		flip(t, filepath.Join(c.Node(i).Dir(), metadataFile), queue)
	}
	for i := range 3 {
		c.Node(i + 1).Start()
	}
	for i := 1; i <= 2; i++ {
		says(t, c, i, "metadata", "damaged", "not rebuilt yet", "restore this node's data directory from a copy")
	}
	says(t, c, 3, "no leader")

	c.Node(2).Kill()
	if err := os.WriteFile(bad, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Node(2).Start()
	c.WaitReady() // node 1 as well: the two others can bring it up
	declare(t, c.Node(1).URL(), queue+".after")
	for i := range 3 {
		if _, err := channel(t, c.Node(i+1).URL()).QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
}
