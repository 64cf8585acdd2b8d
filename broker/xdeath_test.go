package broker

import (
	"reflect"
	"testing"
	"time"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

const buriedMs = 1_700_000_000_999

var buriedAt = time.Unix(1_700_000_000, 0).UTC()

// died is an x-death entry as RabbitMQ shows it.
func died(count int64, why, queue, exchange string, keys ...any) mq.Table {
	return args("count", count, "reason", why, "queue", queue, "time", buriedAt, "exchange", exchange, "routing-keys", keys)
}

func deadLetterQueue(name string, more ...any) *meta.Queue {
	return &meta.Queue{VHost: "/", Name: name, Args: args(append([]any{"x-dead-letter-exchange", "dlx"}, more...)...)}
}

func content(exchange, key string, p wire.Properties) mq.Content {
	return append(mq.NewContent(exchange, key, wire.AppendProperties(nil, p), 4), "body"...)
}

func withHeaders(kv ...any) wire.Properties {
	return wire.Properties{Present: wire.HasHeaders, Headers: args(kv...)}
}

func TestBurial(t *testing.T) {
	byBroker := broughtByBroker | queue.Persistent
	firstOf := func(q, why, x string) []any {
		return []any{"x-first-death-queue", q, "x-first-death-reason", why, "x-first-death-exchange", x,
			"x-last-death-queue", q, "x-last-death-reason", why, "x-last-death-exchange", x}
	}
	for _, c := range []struct {
		name    string
		queue   *meta.Queue
		why     reason
		flags   uint8
		content mq.Content
		key     string
		keys    []string
		headers mq.Table
		present uint16
	}{
		{
			name: "first death", queue: deadLetterQueue("q"), why: rejected,
			content: content("x", "k", wire.Properties{}),
			key:     "k", keys: []string{"k"},
			headers: args(append(firstOf("q", "rejected", "x"), "x-death", []any{died(1, "rejected", "q", "x", "k")})...),
			present: wire.HasHeaders,
		},
		{
			name: "other properties stay, expiration is told", queue: deadLetterQueue("q"), why: timedOut,
			content: content("", "q", wire.Properties{
				Present: wire.HasExpiration | wire.HasHeaders | wire.HasPriority, Expiration: "250", Priority: 3, Headers: args("mine", "yes"),
			}),
			key: "q", keys: []string{"q"},
			headers: args(append(append([]any{"mine", "yes"}, firstOf("q", "expired", "")...), "x-death",
				[]any{append(args("original-expiration", "250"), died(1, "expired", "q", "", "q")...)})...),
			present: wire.HasHeaders | wire.HasPriority,
		},
		{
			name: "CC counts, BCC does not and goes", queue: deadLetterQueue("q"), why: tooMany,
			content: content("x", "k", withHeaders("CC", []any{"c1", "c2"}, "BCC", []any{"b"})),
			key:     "k", keys: []string{"k", "c1", "c2"},
			headers: args(append(append([]any{"CC", []any{"c1", "c2"}}, firstOf("q", "maxlen", "x")...), "x-death",
				[]any{died(1, "maxlen", "q", "x", "k", "c1", "c2")})...),
			present: wire.HasHeaders,
		},
		{
			name: "a routing key of the queue's replaces all", queue: deadLetterQueue("q", "x-dead-letter-routing-key", "dead"), why: rejected,
			content: content("x", "k", withHeaders("CC", []any{"c1"})),
			key:     "dead", keys: []string{"dead"},
			headers: args(append(firstOf("q", "rejected", "x"), "x-death", []any{died(1, "rejected", "q", "x", "k", "c1")})...),
			present: wire.HasHeaders,
		},
		{
			name: "second queue comes first", queue: deadLetterQueue("r"), why: timedOut, flags: byBroker,
			content: content("dlx", "k", withHeaders(append(firstOf("q", "rejected", "x"), "x-death", []any{died(2, "rejected", "q", "x", "k")})...)),
			key:     "k", keys: []string{"k"},
			headers: args("x-first-death-queue", "q", "x-first-death-reason", "rejected", "x-first-death-exchange", "x",
				"x-last-death-queue", "r", "x-last-death-reason", "expired", "x-last-death-exchange", "dlx",
				"x-death", []any{died(1, "expired", "r", "dlx", "k"), died(2, "rejected", "q", "x", "k")}),
			present: wire.HasHeaders,
		},
		{
			name: "the same death again counts and moves to the front", queue: deadLetterQueue("q"), why: rejected, flags: byBroker,
			content: content("back", "k2", withHeaders(append(firstOf("q", "rejected", "x"), "x-death",
				[]any{died(1, "expired", "r", "dlx", "k"), died(2, "rejected", "q", "x", "k")})...)),
			key: "k2", keys: []string{"k2"},
			headers: args("x-first-death-queue", "q", "x-first-death-reason", "rejected", "x-first-death-exchange", "x",
				"x-last-death-queue", "q", "x-last-death-reason", "rejected", "x-last-death-exchange", "back",
				"x-death", []any{died(3, "rejected", "q", "x", "k"), died(1, "expired", "r", "dlx", "k")}),
			present: wire.HasHeaders,
		},
		{
			name: "another reason in the same queue is another death", queue: deadLetterQueue("q"), why: timedOut, flags: byBroker,
			content: content("x", "k", withHeaders(append(firstOf("q", "rejected", "x"), "x-death", []any{died(1, "rejected", "q", "x", "k")})...)),
			key:     "k", keys: []string{"k"},
			headers: args("x-first-death-queue", "q", "x-first-death-reason", "rejected", "x-first-death-exchange", "x",
				"x-last-death-queue", "q", "x-last-death-reason", "expired", "x-last-death-exchange", "x",
				"x-death", []any{died(1, "expired", "q", "x", "k"), died(1, "rejected", "q", "x", "k")}),
			present: wire.HasHeaders,
		},
		{
			name: "what a client calls x-death is not believed", queue: deadLetterQueue("q"), why: timedOut,
			content: content("x", "k", withHeaders("x-death", []any{died(9, "expired", "q", "x", "k")}, "x-first-death-queue", "forged", "x-last-death-queue", "forged")),
			key:     "k", keys: []string{"k"},
			headers: args(append(firstOf("q", "expired", "x"), "x-death", []any{died(1, "expired", "q", "x", "k")})...),
			present: wire.HasHeaders,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := bury(c.queue, c.why, c.flags, c.content, buriedMs)
			if err != nil {
				t.Fatal(err)
			}
			if _, sound := mq.ParseContent(got.content); !sound {
				t.Fatal("malformed content")
			}
			if b, x, k := string(got.content.Body()), string(got.content.Exchange()), string(got.content.RoutingKey()); b != "body" || x != "dlx" || k != c.key {
				t.Errorf("%q to %q by %q, want it by %q", b, x, k, c.key)
			}
			var keys []string
			for _, k := range got.keys {
				keys = append(keys, string(k))
			}
			if !reflect.DeepEqual(keys, c.keys) {
				t.Errorf("routed by %q, want %q", keys, c.keys)
			}
			p, err := wire.ParseProperties(got.content.Properties())
			if err != nil {
				t.Fatal(err)
			}
			if p.Present != c.present || !reflect.DeepEqual(p.Headers, c.headers) {
				t.Errorf("flags %x, headers\n%v\nwant %x\n%v", p.Present, p.Headers, c.present, c.headers)
			}
			if m := got.outgoing(3); m.flags&^queue.Persistent != broughtByBroker || m.flags&queue.Persistent != c.flags&queue.Persistent || m.ttlMs >= 0 {
				t.Errorf("goes out with flags %d, ttl %d", m.flags, m.ttlMs)
			}
		})
	}
}

func TestCyclesAreThoseThatNobodyWanted(t *testing.T) {
	for _, c := range []struct {
		name   string
		deaths []any
		want   bool
	}{
		{"a queue that it did not die in", []any{died(1, "expired", "r", "x")}, false},
		{"expired there last", []any{died(1, "expired", "q", "x")}, true},
		{"too many there last", []any{died(1, "maxlen", "q", "x")}, true},
		{"rejected there last", []any{died(1, "rejected", "q", "x")}, false},
		{"expired there, then elsewhere", []any{died(1, "expired", "r", "x"), died(1, "expired", "q", "x")}, true},
		{"expired there, then rejected elsewhere", []any{died(1, "rejected", "r", "x"), died(1, "expired", "q", "x")}, false},
		{"rejected before it came there", []any{died(1, "expired", "q", "x"), died(1, "rejected", "r", "x")}, true},
		{"rejected there, then expired elsewhere", []any{died(1, "expired", "r", "x"), died(1, "rejected", "q", "x")}, false},
		{"nothing known", nil, false},
	} {
		if got := cycles(c.deaths, "q"); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
