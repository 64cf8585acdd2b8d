package broker

import (
	"fmt"
	"testing"

	"warren/mq"
)

// declareAll declares an exchange of every type, named as its type, and queues.
func (f *topo) declareAll() {
	for _, kind := range []string{"direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"} {
		f.must(mq.ExchangeDeclare{Name: kind, Type: kind, Durable: true})
	}
	f.must(mq.QueueDeclare{Name: "q", Durable: true})
	f.must(mq.QueueDeclare{Name: "quorum", Durable: true, Args: mq.Table{{Key: "x-queue-type", Value: "quorum"}}})
	f.must(mq.QueueDeclare{Name: "mine", Exclusive: true})
}

// The texts are those of RabbitMQ 4.3.6.
func TestBindingsAreCheckedForTheTypeOfTheirExchange(t *testing.T) {
	for _, c := range []struct{ exchange, queue, key, want string }{ // want "" is for accepted
		{"x-consistent-hash", "q", "1", ""},
		{"x-consistent-hash", "q", "10000", ""},
		{"x-consistent-hash", "q", "+7", ""},
		{"x-consistent-hash", "q", "0", "The binding key must be greater than 0"},
		{"x-consistent-hash", "q", "-3", "The binding key must be greater than 0"},
		{"x-consistent-hash", "q", "-99999999999999999999", "The binding key must be greater than 0"},
		{"x-consistent-hash", "q", "10001", "The binding key must not exceed 10000"},
		{"x-consistent-hash", "q", "99999999999999999999", "The binding key must not exceed 10000"},
		{"x-consistent-hash", "q", "many", `The binding key must be an integer: <<"many">>`},
		{"x-consistent-hash", "q", "", `The binding key must be an integer: <<"">>`},
		{"x-consistent-hash", "q", "1.5", `The binding key must be an integer: <<"1.5">>`},
		{"x-consistent-hash", "q", "+", `The binding key must be an integer: <<"+">>`},
		{"x-local-random", "q", "", ""},
		{"x-local-random", "mine", "", ""},
		{"x-local-random", "q", "k", "Non empty binding 'k' key not permitted"},
		{"x-local-random", "quorum", "", "Queue type rabbit_quorum_queue not valid for this exchange type"},
		{"x-modulus-hash", "q", "any", ""},
		{"x-random", "q", "any", ""},
		{"topic", "q", "#.a.#", ""},
		{"topic", "q", "#.a.#.#", "Topic binding key '#.a.#.#' uses 3 '#' wildcards, at most 2 are allowed"},
		{"topic", "q", "a#.#.b#.#", ""},
		{"direct", "q", "#.#.#", ""},
	} {
		t.Run(fmt.Sprintf("%s %q", c.exchange, c.key), func(t *testing.T) {
			f := newTopo(t)
			f.declareAll()
			before := f.size()
			_, err := f.Change(t.Context(), mq.QueueBind{Queue: c.queue, Exchange: c.exchange, RoutingKey: c.key})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "":
				wantText(t, err, "PRECONDITION_FAILED - "+c.want)
				if f.size() != before {
					t.Error("it was refused and bound")
				}
			}
		})
	}
}

func TestALocalRandomExchangeBindsNoExchange(t *testing.T) {
	f := newTopo(t)
	f.declareAll()
	_, err := f.Change(t.Context(), mq.ExchangeBind{Destination: "fanout", Source: "x-local-random"})
	wantText(t, err, "PRECONDITION_FAILED - Destination not found")
}

// RabbitMQ looks at the binding before it looks whose queue it is.
func TestABadBindingOfALockedQueueIsABadBinding(t *testing.T) {
	f := newTopo(t)
	f.declareAll()
	_, err := f.as("guest", 2).Change(t.Context(), mq.QueueBind{Queue: "mine", Exchange: "topic", RoutingKey: "#.#.#"})
	wantText(t, err, "PRECONDITION_FAILED - Topic binding key '#.#.#' uses 3 '#' wildcards, at most 2 are allowed")
}

func TestUnbindingIsNotChecked(t *testing.T) {
	f := newTopo(t)
	f.declareAll()
	f.must(mq.QueueUnbind{Queue: "q", Exchange: "x-consistent-hash", RoutingKey: "many"})
}

func TestArgumentsOfAConsistentHashExchangeAreChecked(t *testing.T) {
	arg := func(kv ...any) (t mq.Table) {
		for i := 0; i < len(kv); i += 2 {
			t = append(t, mq.Field{Key: kv[i].(string), Value: kv[i+1]})
		}
		return t
	}
	for _, c := range []struct {
		kind string
		args mq.Table
		want string
	}{
		{"x-consistent-hash", nil, ""},
		{"x-consistent-hash", arg("hash-header", "user"), ""},
		{"x-consistent-hash", arg("hash-property", "message_id"), ""},
		{"x-consistent-hash", arg("hash-property", "correlation_id"), ""},
		{"x-consistent-hash", arg("hash-property", "timestamp"), ""},
		{"x-consistent-hash", arg("hash-property", "app_id"), "Unsupported property: app_id"},
		{"x-consistent-hash", arg("hash-header", "user", "hash-property", "message_id"), "hash-header and hash-property are mutually exclusive"},
		{"x-consistent-hash", arg("hash-header", int32(1)), "invalid type 'signedint' for arg 'hash-header' in exchange 'new' in vhost '/'"},
		{"x-consistent-hash", arg("hash-property", true), "invalid type 'bool' for arg 'hash-property' in exchange 'new' in vhost '/'"},
		{"direct", arg("hash-header", "user", "hash-property", "message_id"), ""},
		{delayedExchange, arg(delayedType, "x-consistent-hash", "hash-property", "app_id"), "Unsupported property: app_id"},
		{delayedExchange, arg(delayedType, "x-consistent-hash", "hash-property", "message_id"), ""},
		{delayedExchange, arg(delayedType, historyExchange), "Invalid argument, 'x-delayed-type' must be an existing exchange type"},
	} {
		f := newTopo(t)
		_, err := f.Change(t.Context(), mq.ExchangeDeclare{Name: "new", Type: c.kind, Args: c.args})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s %v: %v", c.kind, c.args, err)
			}
			continue
		}
		wantText(t, err, "PRECONDITION_FAILED - "+c.want)
		if f.catalog.View().Exchange("/", "new") != nil {
			t.Errorf("%v was refused and declared", c.args)
		}
	}
}

// alternate-exchange is the only argument that counts when an exchange is
// declared again.
func TestRedeclaringDoesNotLookAtHashArguments(t *testing.T) {
	f := newTopo(t)
	f.declareAll()
	f.must(mq.ExchangeDeclare{Name: "x-consistent-hash", Type: "x-consistent-hash", Durable: true,
		Args: mq.Table{{Key: "hash-property", Value: "odd"}}})
}

func TestAnAutoDeleteExchangeGoesWithItsLastBindingToAnExchange(t *testing.T) {
	f := newTopo(t)
	f.must(mq.ExchangeDeclare{Name: "a", Type: "fanout", AutoDelete: true})
	f.must(mq.ExchangeDeclare{Name: "b", Type: "fanout", AutoDelete: true})
	f.must(mq.ExchangeDeclare{Name: "c", Type: "fanout"})
	f.must(mq.ExchangeBind{Source: "a", Destination: "b"})
	f.must(mq.ExchangeBind{Source: "b", Destination: "c"})
	there := func(name string) bool { return f.catalog.View().Exchange("/", name) != nil }
	if !there("a") || !there("b") {
		t.Fatal("an exchange that has bindings is gone")
	}
	f.must(mq.ExchangeDelete{Name: "c"}) // b's last destination, and then a's
	if there("a") || there("b") {
		t.Error("an exchange without bindings is still there")
	}
}
