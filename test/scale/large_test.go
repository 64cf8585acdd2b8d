package scale

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

const (
	bytesEnv      = "BYTES"
	bytesOrdinary = 8 << 20
	largeEnv      = "MESSAGES"
	largeOrdinary = 2
	// aloneFor is how long small messages are confirmed before there are large
	// ones; the cluster has come to its feature level by then.
	aloneFor = 3 * time.Second
	// longerMax is how much longer the longest confirm may take because of them.
	longerMax = 20 * time.Millisecond
	smallMax  = 100 // queues to find one in the group of the large messages' queue
)

func TestALargeMessageHoldsNobodyUp(t *testing.T) {
	size, count := amount(bytesEnv, bytesOrdinary), amount(largeEnv, largeOrdinary)
	t.Setenv("WARREN_MAX_MESSAGE_SIZE", strconv.Itoa(size))
	c := cluster(t)
	m := newMeter(t, c)
	m.watch()
	declared := channel(t, c.URLs()[0])
	group := declareIn(t, c, declared, "large", 0)
	small := ""
	for i := 0; small == ""; i++ {
		if i == smallMax {
			t.Fatal("no queue is in the group of the large messages'")
		}
		if name := fmt.Sprintf("small-%d", i); declareIn(t, c, declared, name, group) == group {
			small = name
		}
	}
	urls := c.URLs()
	alone := confirmSmall(newPublisher(t, urls[0]), small, time.After(aloneFor))
	m.say("alone: %d small messages confirmed, %s", len(alone), longest(alone))

	done := make(chan time.Time)
	begin := time.Now()
	go func() {
		defer close(done)
		publishLarge(newPublisher(t, urls[1]), size, count)
	}()
	beside := confirmSmall(newPublisher(t, urls[0]), small, done)
	took := time.Since(begin)
	m.say("beside %d messages of %d MiB, which took %v: %d confirmed, %s", count, size>>20, took.Round(time.Millisecond), len(beside), longest(beside))
	longer := beside[len(beside)-1] - alone[len(alone)-1]
	m.goal("longest confirm longer by", longer.Round(100*time.Microsecond).String(), "<= "+longerMax.String(), longer <= longerMax)
	m.say("highest memory of a node %d MiB", m.peak()>>20)
	if !t.Failed() {
		takeLarge(t, urls[2], size, count)
		m.say("all have come; highest memory of a node %d MiB", m.peak()>>20)
	}
}

// declareIn declares a queue, and returns its group. One that is in another
// group than it should is deleted.
func declareIn(t *testing.T, c *harness.Cluster, ch *amqp091.Channel, name string, want uint64) (group uint64) {
	t.Helper()
	if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range st.Queues {
		if q.Name == name {
			group = q.Group
		}
	}
	if want != 0 && group != want {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			t.Fatal(err)
		}
	}
	return group
}

// confirmSmall publishes one message after the other until the end, and returns
// how long the confirm of each took, the longest last.
func confirmSmall(p *publisher, queue string, end <-chan time.Time) (took []time.Duration) {
	for {
		select {
		case <-end:
			slices.Sort(took)
			return took
		default:
		}
		begin := time.Now()
		p.publish("", queue, len(took), amqp091.Publishing{Body: make([]byte, 100)})
		p.finish()
		took = append(took, time.Since(begin))
	}
}

func longest(took []time.Duration) string {
	return fmt.Sprintf("p50 %v, p99 %v, longest %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// largeBody is a body that is like no other.
func largeBody(n, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b) // it never fails
	binary.BigEndian.PutUint64(b, uint64(n))
	return b
}

func publishLarge(p *publisher, size, count int) {
	for i := range count {
		p.publish("", "large", i, amqp091.Publishing{Body: largeBody(i, size)})
		p.finish()
	}
}

// takeLarge takes all large messages, in their order.
func takeLarge(t *testing.T, url string, size, count int) {
	ch := channel(t, url)
	if err := ch.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.ConsumeWithContext(t.Context(), "large", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		select {
		case d := <-deliveries:
			if sha256.Sum256(d.Body) != sha256.Sum256(largeBody(i, size)) {
				t.Fatalf("message %d of %d bytes is not what was published", i, len(d.Body))
			}
			if err := d.Ack(false); err != nil {
				t.Fatal(err)
			}
		case <-time.After(harness.Patience):
			t.Fatalf("only %d of %d messages came", i, count)
		}
	}
}
