package conform

import (
	"fmt"
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
