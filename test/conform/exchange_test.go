package conform

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestThePredeclaredExchangesAreThere(t *testing.T) {
	for name, kind := range map[string]string{
		"amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic",
		"amq.headers": "headers", "amq.match": "headers",
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §3.1.3")
			c.must(c.link().ExchangeDeclare(name, kind, true, false, false, false, nil))
		})
	}
}

func TestAnExchangeDeclaredTwiceAlikeIsFine(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.6.2.1")
	x := c.exchange("x", "topic", nil)
	c.must(c.link().ExchangeDeclare(x, "topic", true, false, false, false, nil))
	c.must(c.link().ExchangeDeclarePassive(x, "topic", true, false, false, false, nil))
}

func TestUnknownArgumentsOfAnExchangeDoNotCountWhenItIsDeclaredAgain(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`)
	x := c.exchange("x", "direct", amqp.Table{"x-mine": 1})
	c.must(c.link().ExchangeDeclare(x, "direct", true, false, false, false, amqp.Table{"x-yours": 2}))
}

func TestDeletingAnExchangeThatIsNotThereIsFine(t *testing.T) {
	c := begin(t, `RabbitMQ "Specification": exchange.delete`)
	c.must(c.link().ExchangeDelete(c.name("x"), false, false))
}

func TestAnUnusedExchangeCanBeDeletedIfUnused(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.6.2.3.2")
	c.must(c.link().ExchangeDelete(c.exchange("x", "direct", nil), true, false))
}

func TestADeletedExchangeTakesItsBindingsAlong(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.6.2.3")
	x := c.exchange("x", "fanout", nil)
	q := c.bound("q", x, "", nil)
	c.must(c.link().ExchangeDelete(x, false, false))
	c.must(c.link().ExchangeDeclare(x, "fanout", true, false, false, false, nil))
	l := c.link()
	l.texts(x, "", "nobody hears this")
	l.isEmpty(q)
}

func TestLineEndsAreTakenOutOfAnExchangesName(t *testing.T) {
	c := begin(t, "RabbitMQ: rabbit_channel strip_cr_lf")
	x := c.exchange("x", "direct", nil)
	c.must(c.link().ExchangeDeclarePassive(x[:5]+"\r\n"+x[5:], "direct", true, false, false, false, nil))
}

func TestAnAutoDeleteExchangeGoesWithItsLastBinding(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`)
	l, x, q := c.link(), c.name("x"), c.queue("q", nil)
	c.must(l.ExchangeDeclare(x, "direct", true, true, false, false, nil))
	c.bind(q, x, "1", nil)
	c.bind(q, x, "2", nil)
	c.must(l.QueueUnbind(q, "1", x, nil))
	c.must(l.ExchangeDeclarePassive(x, "direct", true, true, false, false, nil))
	c.must(l.QueueUnbind(q, "2", x, nil))
	refusedWith(t, c.link().ExchangeDeclarePassive(x, "direct", true, true, false, false, nil), 404)
}

func TestAnAutoDeleteExchangeGoesWithTheQueueThatItWasLastBoundTo(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`)
	l, x, q := c.link(), c.name("x"), c.queue("q", nil)
	c.must(l.ExchangeDeclare(x, "direct", true, true, false, false, nil))
	c.bind(q, x, "1", nil)
	if _, err := l.QueueDelete(q, false, false, false); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, l.ExchangeDeclarePassive(x, "direct", true, true, false, false, nil), 404)
}

func TestAnAutoDeleteExchangeThatWasNeverBoundStays(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`)
	l, x := c.link(), c.name("x")
	c.must(l.ExchangeDeclare(x, "direct", true, true, false, false, nil))
	c.exchanges = append(c.exchanges, x)
	c.must(l.QueueUnbind(c.queue("q", nil), "k", x, nil))
	c.must(l.ExchangeDeclarePassive(x, "direct", true, true, false, false, nil))
}

func TestTheDefaultExchangeRoutesToTheQueueOfThatName(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §3.1.3.1")
	q := c.queue("q", nil)
	c.link().texts("", q, "m")
	d := c.link().take(q)
	equal(t, "exchange", d.Exchange, "")
	equal(t, "routing key", d.RoutingKey, q)
}

func TestADirectExchangeRoutesByTheWholeKey(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §3.1.3.1")
	x := c.exchange("x", "direct", nil)
	q := c.bound("q", x, "a.b", nil)
	l := c.link()
	for _, key := range []string{"a", "a.b", "a.*", "#", "A.B", "a.b.c"} {
		l.texts(x, key, key)
	}
	equal(t, "routed", string(l.take(q).Body), "a.b")
	l.isEmpty(q)
}

func TestAFanoutExchangeRoutesToAllWhateverTheKey(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §3.1.3.2")
	x := c.exchange("x", "fanout", nil)
	a, b := c.bound("a", x, "one", nil), c.bound("b", x, "two", nil)
	l := c.link()
	l.texts(x, "three", "m")
	equal(t, "in a", string(l.take(a).Body), "m")
	equal(t, "in b", string(l.take(b).Body), "m")
}

func TestAQueueBoundTwiceGetsOneCopy(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3")
	x := c.exchange("x", "topic", nil)
	q := c.bound("q", x, "a.*", nil)
	c.bind(q, x, "*.b", nil)
	l := c.link()
	l.texts(x, "a.b", "m")
	l.take(q)
	l.isEmpty(q)
}

func TestABindingMadeTwiceIsGoneAfterOneUnbind(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.3")
	x := c.exchange("x", "direct", nil)
	q := c.bound("q", x, "k", nil)
	c.bind(q, x, "k", nil)
	l := c.link()
	c.must(l.QueueUnbind(q, "k", x, nil))
	l.texts(x, "k", "m")
	l.isEmpty(q)
}

func TestABindingIsToldFromOthersByItsArguments(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.7.2.5")
	x := c.exchange("x", "direct", nil)
	q := c.bound("q", x, "k", amqp.Table{"n": 1})
	c.bind(q, x, "k", amqp.Table{"n": 2})
	l := c.link()
	c.must(l.QueueUnbind(q, "k", x, amqp.Table{"n": 1}))
	l.texts(x, "k", "m")
	equal(t, "still routed", string(l.take(q).Body), "m")
}

func TestUnbindingWhatIsNotBoundIsFine(t *testing.T) {
	c := begin(t, `RabbitMQ "Specification": queue.unbind`)
	c.must(c.link().QueueUnbind(c.queue("q", nil), "k", c.exchange("x", "direct", nil), nil))
}

func TestTopicPatterns(t *testing.T) {
	for _, f := range []struct{ pattern, yes, no string }{
		{"a.b", "a.b", "a a.b.c b.a a.B"},
		{"*", "a b", "a.b a. -"},
		{"#", "a a.b a.b.c .. -", ""},
		{"a.*", "a.b a.", "a a.b.c b.a"},
		{"*.b", "a.b .b", "b a.b.c"},
		{"a.#", "a a.b a.b.c", "b.a ab"},
		{"#.b", "b a.b a.a.b", "b.a a.bb"},
		{"a.*.c", "a.b.c a..c", "a.c a.b.b.c"},
		{"a.#.c", "a.c a.b.c a.b.b.c", "a c a.b"},
		{"*.#", "a a.b", "-"},
		{"#.a.#", "a b.a a.b b.a.b", "b b.b"},
		{"*.*", "a.b .", "a a.b.c"},
		{"", "-", "a"},
		{"a.**", "a.**", "a.b a"},
		{"a.b#", "a.b#", "a.b a.bc"},
	} {
		t.Run(f.pattern, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §3.1.3.3")
			x := c.exchange("x", "topic", nil)
			q := c.bound("q", x, f.pattern, nil)
			l := c.link()
			for _, key := range append(strings.Fields(f.no), strings.Fields(f.yes)...) {
				l.texts(x, strings.TrimSuffix(key, "-"), key)
			}
			equal(t, "routed", fmt.Sprint(l.bodies(q, len(strings.Fields(f.yes)))), fmt.Sprint(strings.Fields(f.yes)))
			l.isEmpty(q)
		})
	}
}

func TestHeadersMatch(t *testing.T) {
	type tables []amqp.Table
	for _, f := range []struct {
		name    string
		binding amqp.Table
		yes, no tables
	}{
		{"all is the default", amqp.Table{"a": 1, "b": "x"},
			tables{{"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": true}}, tables{{"a": 1}, {"b": "x"}, {"a": 2, "b": "x"}, {}}},
		{"all wants all", amqp.Table{"x-match": "all", "a": 1, "b": 2}, tables{{"a": 1, "b": 2}}, tables{{"a": 1}, {}}},
		{"any wants one", amqp.Table{"x-match": "any", "a": 1, "b": 2}, tables{{"a": 1}, {"b": 2, "a": 9}}, tables{{"a": 2}, {"c": 1}, {}}},
		{"all of nothing is everything", amqp.Table{"x-match": "all"}, tables{{}, {"a": 1}}, nil},
		{"any of nothing is nothing", amqp.Table{"x-match": "any"}, nil, tables{{}, {"a": 1}}},
		{"no arguments are all of nothing", nil, tables{{}, {"a": 1}}, nil},
		{"x- keys do not count for all", amqp.Table{"x-match": "all", "x-a": 1, "b": 2}, tables{{"b": 2}, {"x-a": 9, "b": 2}}, tables{{"x-a": 1}}},
		{"x- keys do not count for any", amqp.Table{"x-match": "any", "x-a": 1, "b": 2}, tables{{"b": 2}}, tables{{"x-a": 1}}},
		{"x- keys count for all-with-x", amqp.Table{"x-match": "all-with-x", "x-a": 1, "b": 2}, tables{{"x-a": 1, "b": 2}}, tables{{"b": 2}, {"x-a": 1}}},
		{"x- keys count for any-with-x", amqp.Table{"x-match": "any-with-x", "x-a": 1, "b": 2}, tables{{"x-a": 1}, {"b": 2}}, tables{{"x-a": 2}}},
		{"void asks for presence", amqp.Table{"a": nil}, tables{{"a": 1}, {"a": "x"}, {"a": true}}, tables{{"b": 1}, {}}},
		{"a text is not a number", amqp.Table{"a": "1"}, tables{{"a": "1"}}, tables{{"a": int32(1)}, {"a": int64(1)}}},
		{"a truth is not a number", amqp.Table{"a": true}, tables{{"a": true}}, tables{{"a": 1}, {"a": "true"}, {"a": false}}},
		{"texts are told apart by case", amqp.Table{"a": "x"}, tables{{"a": "x"}}, tables{{"a": "X"}, {"A": "x"}}},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §3.1.3.4")
			x := c.exchange("x", "headers", nil)
			q := c.bound("q", x, "key that says nothing", f.binding)
			l := c.link()
			send := func(prefix string, all tables) (sent []string) {
				for i, headers := range all {
					p := text(fmt.Sprint(prefix, i))
					p.Headers = headers
					l.send(x, "k", p)
					sent = append(sent, string(p.Body))
				}
				return sent
			}
			send("no ", f.no)
			want := send("yes ", f.yes)
			equal(t, "routed", fmt.Sprint(l.bodies(q, len(want))), fmt.Sprint(want))
			l.isEmpty(q)
		})
	}
}

func TestNumbersOfOtherWidthInHeaders(t *testing.T) {
	for name, header := range map[string]any{"int8": int8(1), "int16": int16(1), "int64": int64(1)} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §3.1.3.4")
			x := c.exchange("x", "headers", nil)
			q := c.bound("q", x, "", amqp.Table{"a": int32(1)})
			l := c.link()
			p := text("m")
			p.Headers = amqp.Table{"a": header}
			l.send(x, "", p)
			equal(t, "routed", string(l.take(q).Body), "m")
		})
	}
}

func TestBindingsBetweenExchanges(t *testing.T) {
	const source = `RabbitMQ "Exchange to Exchange Bindings"`
	t.Run("carry messages on", func(t *testing.T) {
		c := begin(t, source)
		x, y := c.exchange("x", "direct", nil), c.exchange("y", "fanout", nil)
		c.must(c.link().ExchangeBind(y, "k", x, false, nil))
		q := c.bound("q", y, "", nil)
		l := c.link()
		l.texts(x, "other", "no")
		l.texts(x, "k", "yes")
		d := l.take(q)
		equal(t, "body", string(d.Body), "yes")
		equal(t, "exchange", d.Exchange, x)
		equal(t, "routing key", d.RoutingKey, "k")
	})
	t.Run("are gone after unbind", func(t *testing.T) {
		c := begin(t, source)
		x, y := c.exchange("x", "direct", nil), c.exchange("y", "fanout", nil)
		l := c.link()
		c.must(l.ExchangeBind(y, "k", x, false, nil))
		c.must(l.ExchangeUnbind(y, "k", x, false, nil))
		q := c.bound("q", y, "", nil)
		l.texts(x, "k", "m")
		l.isEmpty(q)
	})
	t.Run("may go in a circle", func(t *testing.T) {
		c := begin(t, source)
		x, y := c.exchange("x", "fanout", nil), c.exchange("y", "fanout", nil)
		l := c.link()
		c.must(l.ExchangeBind(y, "", x, false, nil))
		c.must(l.ExchangeBind(x, "", y, false, nil))
		a, b := c.bound("a", x, "", nil), c.bound("b", y, "", nil)
		l.texts(x, "", "m")
		for _, q := range []string{a, b} {
			equal(t, "body", string(l.take(q).Body), "m")
			l.isEmpty(q)
		}
	})
	t.Run("may go to the exchange itself", func(t *testing.T) {
		c := begin(t, source)
		x := c.exchange("x", "fanout", nil)
		l := c.link()
		c.must(l.ExchangeBind(x, "", x, false, nil))
		q := c.bound("q", x, "", nil)
		l.texts(x, "", "m")
		l.take(q)
		l.isEmpty(q)
	})
	t.Run("lead to one copy on two ways", func(t *testing.T) {
		c := begin(t, source)
		x, y, z := c.exchange("x", "fanout", nil), c.exchange("y", "fanout", nil), c.exchange("z", "fanout", nil)
		l := c.link()
		c.must(l.ExchangeBind(y, "", x, false, nil))
		c.must(l.ExchangeBind(z, "", x, false, nil))
		q := c.bound("q", y, "", nil)
		c.bind(q, z, "", nil)
		l.texts(x, "", "m")
		l.take(q)
		l.isEmpty(q)
	})
	t.Run("reach internal exchanges", func(t *testing.T) {
		c := begin(t, source)
		l, x, inner := c.link(), c.exchange("x", "fanout", nil), c.name("inner")
		c.must(l.ExchangeDeclare(inner, "fanout", true, false, true, false, nil))
		c.exchanges = append(c.exchanges, inner)
		c.must(l.ExchangeBind(inner, "", x, false, nil))
		q := c.bound("q", inner, "", nil)
		l.texts(x, "", "m")
		equal(t, "body", string(l.take(q).Body), "m")
	})
	t.Run("keep an auto-delete source alive", func(t *testing.T) {
		c := begin(t, source)
		l, x, y := c.link(), c.name("x"), c.exchange("y", "fanout", nil)
		c.must(l.ExchangeDeclare(x, "fanout", true, true, false, false, nil))
		c.must(l.ExchangeBind(y, "", x, false, nil))
		c.must(l.ExchangeUnbind(y, "", x, false, nil))
		refusedWith(t, l.ExchangeDeclarePassive(x, "fanout", true, true, false, false, nil), 404)
	})
}

func TestAlternateExchanges(t *testing.T) {
	const source = `RabbitMQ "Alternate Exchanges"`
	alternate := func(name string) amqp.Table { return amqp.Table{"alternate-exchange": name} }
	t.Run("get what is routed nowhere", func(t *testing.T) {
		c := begin(t, source)
		ae := c.exchange("ae", "fanout", nil)
		x := c.exchange("x", "direct", alternate(ae))
		q, rest := c.bound("q", x, "k", nil), c.bound("rest", ae, "", nil)
		l := c.link()
		l.texts(x, "k", "routed")
		l.texts(x, "other", "lost")
		equal(t, "routed", string(l.take(q).Body), "routed")
		d := l.take(rest)
		equal(t, "the rest", string(d.Body), "lost")
		equal(t, "exchange", d.Exchange, x)
		l.isEmpty(rest)
	})
	t.Run("may have alternates themselves", func(t *testing.T) {
		c := begin(t, source)
		second := c.exchange("second", "fanout", nil)
		first := c.exchange("first", "direct", alternate(second))
		x := c.exchange("x", "direct", alternate(first))
		q := c.bound("q", second, "", nil)
		l := c.link()
		l.texts(x, "k", "m")
		equal(t, "body", string(l.take(q).Body), "m")
	})
	t.Run("may go in a circle", func(t *testing.T) {
		c := begin(t, source)
		x := c.exchange("x", "direct", alternate(c.name("y")))
		y := c.exchange("y", "direct", alternate(x))
		r := c.raw()
		r.publish(y, "k", mandatory, text("m"))
		equal(t, "returned with", string(r.want(60, 50).rest[:2]), "\x01\x38")
	})
	t.Run("need not be there", func(t *testing.T) {
		c := begin(t, source)
		x := c.exchange("x", "direct", alternate(c.name("none")))
		r := c.raw()
		r.publish(x, "k", mandatory, text("m"))
		r.want(60, 50)
	})
	t.Run("count as routed for mandatory", func(t *testing.T) {
		c := begin(t, source)
		ae := c.exchange("ae", "fanout", nil)
		x := c.exchange("x", "direct", alternate(ae))
		c.bound("q", ae, "", nil)
		r := c.raw()
		r.call(confirmSelect(), 85, 11)
		r.publish(x, "k", mandatory, text("m"))
		r.want(60, 80)
	})
	t.Run("do not get what a binding to an exchange took", func(t *testing.T) {
		c := begin(t, source)
		ae, nowhere := c.exchange("ae", "fanout", nil), c.exchange("nowhere", "direct", nil)
		x := c.exchange("x", "direct", alternate(ae))
		c.must(c.link().ExchangeBind(nowhere, "k", x, false, nil))
		q := c.bound("q", ae, "", nil)
		l := c.link()
		l.texts(x, "k", "m")
		l.isEmpty(q)
	})
	t.Run("are one for redeclaration", func(t *testing.T) {
		c := begin(t, source)
		x := c.exchange("x", "direct", alternate("amq.fanout"))
		c.must(c.link().ExchangeDeclare(x, "direct", true, false, false, false, alternate("amq.fanout")))
	})
}

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
