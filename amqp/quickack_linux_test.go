package amqp_test

import (
	"net"
	"testing"
	"time"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
)

// A client with Nagle's algorithm sends a publish, which has no answer, and
// then asks something: that waits until the publish is acknowledged, which the
// kernel puts off for 40 ms on a connection that goes to and fro.
func TestAClientWithNaglesAlgorithmDoesNotWaitAfterAPublish(t *testing.T) {
	const (
		delay  = 40 * time.Millisecond // the least that Linux delays by
		warmUp = 60                    // a young connection is acknowledged at once
		rounds = 200                   // until one was fast: a busy machine has slow ones
	)
	c := amqptest.Serve(t, amqptest.New(), amqp.Config{}).Dial(t).Open(1)
	if err := c.Conn.(*net.TCPConn).SetNoDelay(false); err != nil {
		t.Fatal(err)
	}
	c.Declare(1, "q")
	fastest := time.Hour
	for i := 0; i < warmUp+rounds && fastest >= delay; i++ {
		c.Publish(1, wire.BasicPublish{RoutingKey: []byte("q")}, wire.Properties{}, "m")
		from := time.Now()
		c.Declare(1, "q")
		if i >= warmUp {
			fastest = min(fastest, time.Since(from))
		}
	}
	if fastest >= delay {
		t.Errorf("a question after a publish takes %v at best", fastest)
	}
}
