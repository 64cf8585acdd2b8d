package conform

import (
	"crypto/rand"
	"encoding/hex"
	"hash/fnv"
	"os"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// notYet are the features that Warren does not have, by the names that tests
// give to begin. Their tests are skipped on Warren, and nowhere else: when a
// feature is there, its line goes.
var notYet = []string{}

// claim is one behaviour under test: its names, its connections, and what it
// has to clean up.
type claim struct {
	*testing.T
	id        string // in all its names
	dialled   int    // connections so far
	queues    []string
	exchanges []string
}

// begin begins the test of one behaviour, beside others. source says who asks
// for it; feature is its name in notYet, for what came later.
func begin(t *testing.T, source string, feature ...string) *claim {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a broker")
	}
	t.Attr("source", source)
	for _, f := range feature {
		if onWarren() && slices.Contains(notYet, f) {
			t.Skipf("Warren has no %s yet", f)
		}
	}
	t.Parallel()
	c := &claim{T: t, id: unique()}
	first := fnv.New32()
	first.Write([]byte(t.Name()))
	c.dialled = int(first.Sum32() % 1024) // tests begin at different nodes
	t.Cleanup(c.clean)
	return c
}

// unique is in the names of one test, and in those of no other nor of another run.
func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// name is a name for something that only this test knows.
func (c *claim) name(what string) string { return "conform-" + what + "-" + c.id }

// address is that of the next node in turn.
func (c *claim) address() string {
	all := addresses()
	c.dialled++
	return all[c.dialled%len(all)]
}

// clean deletes what was declared.
func (c *claim) clean() {
	if len(c.queues)+len(c.exchanges) == 0 {
		return
	}
	conn, err := amqp.Dial(c.address())
	if err != nil {
		c.Errorf("clean up: %v", err)
		return
	}
	defer conn.Close()
	remove := func(what, name string, del func(*amqp.Channel) error) {
		ch, err := conn.Channel()
		if err == nil {
			err = del(ch)
		}
		if err != nil {
			c.Errorf("delete %s %s: %v", what, name, err)
		}
	}
	for _, name := range c.queues {
		remove("queue", name, func(ch *amqp.Channel) error { _, err := ch.QueueDelete(name, false, false, false); return err })
	}
	for _, name := range c.exchanges {
		remove("exchange", name, func(ch *amqp.Channel) error { return ch.ExchangeDelete(name, false, false) })
	}
}

func onWarren() bool { return os.Getenv(productEnv) == "Warren" }

// differs is what to expect where Warren means to differ from RabbitMQ;
// docs/differences.md has the reason.
func differs[T any](t testing.TB, rabbit, warren T, reason string) T {
	t.Helper()
	if onWarren() {
		t.Logf("differs from RabbitMQ: %s", reason)
		return warren
	}
	return rabbit
}
