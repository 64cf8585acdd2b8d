// Package amplification measures how many bytes the nodes of a cluster write
// for each byte of the messages that go through it.
package amplification

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/test/harness"
)

const (
	countEnv  = "AMPLIFICATION" // messages; without it there is nothing to measure
	bodyBytes = 1 << 10
	// walMost is what the shared log may come to: records, batches, the pages
	// that two writes share, and now and then a snapshot.
	walMost = 1.3
	window  = 256 // unconfirmed messages, and unacknowledged ones
	queue   = "amplification"
	// silenceMax is how long nothing may happen.
	silenceMax = time.Minute
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// What is published and acknowledged at once is written about once by each
// node: the log has it, and nothing else.
func TestAmplification(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv(countEnv))
	if err != nil || count < 1 {
		t.Skip("measures for minutes; " + countEnv + " says how many messages")
	}
	for _, store := range []string{"wal", "boltdb"} {
		t.Run(store, func(t *testing.T) {
			c := harness.Start(t, 3, "--raft-log-store", store)
			before, began := written(t, c), time.Now()
			pass(t, c.URLs(), count)
			took, after := time.Since(began), written(t, c)
			t.Logf("%d messages of %d bytes in %v", count, bodyBytes, took.Round(time.Second))
			for i := range after {
				share := float64(after[i]-before[i]) / float64(count*bodyBytes)
				t.Logf("%s %s: %d MiB, %.2f bytes written for each byte of a message", store, c.Node(i+1).Name(), (after[i]-before[i])>>20, share)
				if store == "wal" && share > walMost {
					t.Errorf("that is more than %v", walMost)
				}
			}
		})
	}
}

// written is how many bytes each node's process has had written to its disk.
func written(t *testing.T, c *harness.Cluster) (bytes []int64) {
	t.Helper()
	for i := range c.URLs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", c.Node(i+1).PID()))
		if err != nil {
			t.Skip(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nwrite_bytes: ")
		line, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			t.Fatalf("%s", b)
		}
		bytes = append(bytes, n)
	}
	return bytes
}

// pass sends messages through a queue: the publisher, the leader and the
// consumer are on nodes of their own, if the leader happens to be on the second.
func pass(t *testing.T, urls []string, count int) {
	t.Helper()
	in, out := channel(t, urls[0]), channel(t, urls[2])
	if _, err := channel(t, urls[1]).QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := out.Qos(window, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := out.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		if err := publish(in, count); err != nil {
			t.Error(err)
		}
	})
	for got := range count {
		select {
		case d, ok := <-deliveries:
			if !ok {
				t.Errorf("the consumer ended after %d messages", got)
				return
			}
			if err := d.Ack(false); err != nil {
				t.Error(err)
				return
			}
		case <-time.After(silenceMax):
			t.Errorf("no message in %v, after %d", silenceMax, got)
			return
		}
	}
	harness.Await(t, "all is acknowledged", func() bool {
		q, err := channel(t, urls[1]).QueueDeclarePassive(queue, true, false, false, false, nil)
		return err == nil && q.Messages == 0
	}, nil)
}

func publish(ch *amqp091.Channel, count int) error {
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirms := ch.NotifyPublish(make(chan amqp091.Confirmation, window))
	body := make([]byte, bodyBytes)
	for sent, confirmed := 0, 0; confirmed < count; {
		if sent < count && sent-confirmed < window {
			err := ch.PublishWithContext(context.Background(), "", queue, true, false, amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body})
			if err != nil {
				return err
			}
			sent++
			continue
		}
		select {
		case c, ok := <-confirms:
			if !ok || !c.Ack {
				return fmt.Errorf("message %d was not confirmed", confirmed)
			}
			confirmed++
		case <-time.After(silenceMax):
			return fmt.Errorf("no confirm in %v, after %d", silenceMax, confirmed)
		}
	}
	return nil
}

func channel(t *testing.T, url string) *amqp091.Channel {
	t.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
