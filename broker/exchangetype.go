package broker

import (
	"fmt"
	"strconv"

	"warren/broker/route"
	"warren/fsm/meta"
	"warren/mq"
)

// What a declaration of an exchange or a binding must look like for the
// exchange's type. The texts are RabbitMQ's and show values as it does, which
// is as Erlang does.

// checkExchangeType refuses types that cannot be routed by. RabbitMQ answers
// 406 since 4.0; the connection lives.
func checkExchangeType(kind string) error {
	if route.Known(kind) || keeperOf(kind) != meta.NoKeeper {
		return nil
	}
	if kind == "" {
		return invalid("invalid exchange type ''")
	}
	return invalid("unknown exchange type '%s'", kind)
}

func invalid(format string, args ...any) error {
	return mq.Errorf(mq.PreconditionFailed, format, args...)
}

// checkExchangeArgs checks what the type of a new exchange makes of its
// arguments.
func checkExchangeArgs(x *meta.Exchange) error {
	if routedAs(x) != "x-consistent-hash" {
		return nil
	}
	for _, key := range [...]string{"hash-header", "hash-property"} {
		v, ok := x.Args.Get(key)
		if _, isString := v.(string); ok && !isString { // RabbitMQ answers an internal error
			return invalid("invalid type '%s' for arg '%s' in exchange '%s' in vhost '%s'", meta.TypeName(v), key, x.Name, x.VHost)
		}
	}
	_, byHeader := x.Args.Get("hash-header")
	property, byProperty := x.Args.String("hash-property")
	switch {
	case byHeader && byProperty:
		return invalid("hash-header and hash-property are mutually exclusive")
	case byProperty && !route.CanHash(property):
		return invalid("Unsupported property: %s", property)
	}
	return nil
}

// checkBinding checks a new binding of an exchange. q is the queue that it
// leads to, nil for an exchange.
func checkBinding(x *meta.Exchange, b *meta.Binding, q *meta.Queue) error {
	switch routedAs(x) {
	case "topic":
		return checkTopicKey(b.Key)
	case "headers":
		return checkHeadersMatch(b.Args)
	case "x-consistent-hash":
		return checkWeight(b.Key)
	case "x-local-random":
		return checkLocal(b.Key, q)
	}
	return nil
}

func checkTopicKey(key string) error {
	if n := route.CountHashes(key); n > route.HashesMax {
		return invalid("Topic binding key '%s' uses %d '#' wildcards, at most %d are allowed", key, n, route.HashesMax)
	}
	return nil
}

func checkHeadersMatch(args mq.Table) error {
	v, ok := args.Get("x-match")
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if !ok {
		return invalid("Invalid x-match field type %s (value %v); expected longstr", meta.TypeName(v), v)
	}
	switch s {
	case "all", "any", "all-with-x", "any-with-x":
		return nil
	}
	return invalid("Invalid x-match field value <<%q>>; expected all, any, all-with-x, or any-with-x", s)
}

// checkWeight checks the key of a binding to an x-consistent-hash exchange.
func checkWeight(key string) error {
	weight, err := strconv.Atoi(key)
	switch {
	case err != nil && !isWhole(key):
		return invalid("The binding key must be an integer: <<%q>>", key)
	case weight < 1: // also of one that is too small for an int
		return invalid("The binding key must be greater than 0")
	case weight > route.WeightMax:
		return invalid("The binding key must not exceed %d", route.WeightMax)
	}
	return nil
}

// isWhole reports whether s is a whole number, of any size.
func isWhole(s string) bool {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	for _, d := range s {
		if d < '0' || d > '9' {
			return false
		}
	}
	return s != ""
}

// checkLocal checks a binding to an x-local-random exchange: to a queue, which
// RabbitMQ wants to live on one node. Here a queue that was not asked to be a
// quorum queue will do.
func checkLocal(key string, q *meta.Queue) error {
	if key != "" {
		return invalid("Non empty binding '%s' key not permitted", key)
	}
	if q == nil {
		return invalid("Destination not found")
	}
	if kind, _ := q.Args.String("x-queue-type"); kind == "quorum" {
		return invalid("Queue type %s not valid for this exchange type", fmt.Sprintf("rabbit_%s_queue", kind))
	}
	return nil
}
