package conform

import (
	"fmt"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestConsistentHashSpreadsByRoutingKeyAndKeepsAKeyTogether(t *testing.T) {
	c := begin(t, `RabbitMQ "Consistent Hash Exchange"`, "x-consistent-hash")
	x := c.exchange("x", "x-consistent-hash", nil)
	a, b := c.bound("a", x, "1", nil), c.bound("b", x, "1", nil)
	l := c.link()
	const keys, times = 50, 2
	for range times {
		for k := range keys {
			l.texts(x, fmt.Sprint("key", k), fmt.Sprint(k))
		}
	}
	na, nb := l.depth(a), l.depth(b)
	equal(t, "in both", na+nb, keys*times)
	if na == 0 || nb == 0 || na%times != 0 {
		t.Errorf("%d in one queue and %d in the other", na, nb)
	}
	inA := map[string]int{}
	for _, body := range l.bodies(a, na) {
		inA[body]++
	}
	for body, n := range inA {
		equal(t, "times of "+body, n, times)
	}
}

func TestConsistentHashMayTakeAHeader(t *testing.T) {
	c := begin(t, `RabbitMQ "Consistent Hash Exchange"`, "x-consistent-hash")
	x := c.exchange("x", "x-consistent-hash", amqp.Table{"hash-header": "h"})
	a, b := c.bound("a", x, "1", nil), c.bound("b", x, "1", nil)
	l := c.link()
	for i := range 40 {
		p := text("m")
		p.Headers = amqp.Table{"h": "same"}
		l.send(x, fmt.Sprint(i), p)
	}
	depths := []int{l.depth(a), l.depth(b)}
	slices.Sort(depths)
	equal(t, "depths", fmt.Sprint(depths), "[0 40]")
}

func TestConsistentHashMayTakeAProperty(t *testing.T) {
	c := begin(t, `RabbitMQ "Consistent Hash Exchange"`, "x-consistent-hash")
	x := c.exchange("x", "x-consistent-hash", amqp.Table{"hash-property": "message_id"})
	a, b := c.bound("a", x, "1", nil), c.bound("b", x, "1", nil)
	l := c.link()
	for i := range 40 {
		p := text("m")
		p.MessageId = "same"
		l.send(x, fmt.Sprint(i), p)
	}
	depths := []int{l.depth(a), l.depth(b)}
	slices.Sort(depths)
	equal(t, "depths", fmt.Sprint(depths), "[0 40]")
}

func TestARandomExchangeGivesEachMessageToOneQueue(t *testing.T) {
	for _, kind := range []string{"x-random", "x-modulus-hash"} {
		t.Run(kind, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Exchanges"`, kind)
			x := c.exchange("x", kind, nil)
			a, b := c.bound("a", x, "", nil), c.bound("b", x, "", nil)
			l := c.link()
			for i := range 60 {
				l.texts(x, fmt.Sprint(i), "m")
			}
			na, nb := l.depth(a), l.depth(b)
			equal(t, "in both", na+nb, 60)
			if na == 0 || nb == 0 {
				t.Errorf("%d in one queue and %d in the other", na, nb)
			}
		})
	}
}

func TestModulusHashKeepsAKeyTogether(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`, "x-modulus-hash")
	x := c.exchange("x", "x-modulus-hash", nil)
	a, b := c.bound("a", x, "", nil), c.bound("b", x, "", nil)
	l := c.link()
	for range 20 {
		l.texts(x, "same", "m")
	}
	depths := []int{l.depth(a), l.depth(b)}
	slices.Sort(depths)
	equal(t, "depths", fmt.Sprint(depths), "[0 20]")
}

func TestARecentHistoryExchangeGivesItsLastMessagesToWhoBinds(t *testing.T) {
	c := begin(t, `RabbitMQ "Recent History Exchange"`, "x-recent-history")
	x := c.exchange("x", "x-recent-history", amqp.Table{"x-recent-history-length": 2})
	l := c.link()
	l.texts(x, "", "1", "2", "3")
	q := c.bound("q", x, "", nil)
	got := l.bodies(q, 2)
	slices.Sort(got)
	equal(t, "history", fmt.Sprint(got), "[2 3]")
	l.texts(x, "", "4")
	equal(t, "and after", string(l.take(q).Body), "4")
}

func TestARecentHistoryExchangeLeavesOutWhatAsksForIt(t *testing.T) {
	c := begin(t, `RabbitMQ "Recent History Exchange"`, "x-recent-history")
	x := c.exchange("x", "x-recent-history", nil)
	l := c.link()
	p := text("secret")
	p.Headers = amqp.Table{"x-recent-history-no-store": true}
	l.send(x, "", p)
	l.texts(x, "", "known")
	q := c.bound("q", x, "", nil)
	equal(t, "history", string(l.take(q).Body), "known")
	l.isEmpty(q)
}

func TestALocalRandomExchangeGivesEachMessageToOneQueue(t *testing.T) {
	c := begin(t, `RabbitMQ "Local Random Exchange"`, "x-local-random")
	x := c.exchange("x", "x-local-random", nil)
	l, q := c.link(), c.name("q")
	_, err := l.QueueDeclare(q, false, false, true, false, nil)
	c.must(err)
	c.must(l.QueueBind(q, "", x, false, nil))
	l.texts(x, "any", "m")
	equal(t, "body", string(l.take(q).Body), "m")
}
