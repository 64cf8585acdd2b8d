package broker

import (
	"fmt"
	"slices"

	"warren/fsm/meta"
	"warren/mq"
)

const (
	// expiryMsMax is the longest TTL of a queue in RabbitMQ: ten years.
	expiryMsMax = 315_360_000_000
	// shortStringMax is the size of a short string (AMQP 0-9-1 §4.2.5.3), which
	// a routing key is.
	shortStringMax = 255
)

// argRule says what a queue argument may be. It returns what is wrong with
// the value, as RabbitMQ words it, or "".
type argRule func(v any, args mq.Table) string

// queueArg finds the rule of a known queue argument. implemented is false if
// this version does not have the feature: such an argument must be refused,
// since ignoring it would let messages live, die or arrive in another way
// than the client asked for. nil means an unknown key, which is kept and shown.
func queueArg(key string) (rule argRule, implemented bool) {
	switch key {
	case "x-queue-type":
		return oneOf("\"unsupported queue type '%s'\"", "classic", "quorum", "stream"), true
	case "x-single-active-consumer", dedupExchange:
		return isBool, true
	// Hints: how something is done, not what happens.
	case "x-queue-leader-locator":
		return oneOf("invalid_queue_locator_arg", "client-local", "balanced", "random", "least-leaders"), true
	case "x-quorum-initial-group-size", "x-quorum-target-group-size":
		return isPositive, true
	case "x-queue-mode":
		return anything, true // RabbitMQ does not look at it any more
	case "x-queue-version":
		return isVersion, true
	case "x-max-in-memory-length", "x-max-in-memory-bytes":
		return isNotNegative, true

	case "x-max-priority":
		return isPriority, true
	case "x-message-ttl":
		return isTTL, true
	case "x-max-length", "x-max-length-bytes":
		return isNotNegative, true
	case "x-dead-letter-exchange":
		return isString, true
	case "x-dead-letter-routing-key":
		return isDeadLetterKey, true
	case "x-overflow":
		return oneOf("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx"), true

	case "x-expires":
		return isExpires, true
	case "x-member-placement-tag":
		return isString, false
	case "x-dead-letter-strategy": // see neverDropped; a letter is handed over once in any case
		return oneOf("invalid_dlx_strategy", "at-most-once", "at-least-once"), true
	case consumerTimeout:
		return isNotNegative, true
	case retryType:
		return oneOf("invalid_delayed_retry_type", "all", "failed", "returned", "disabled"), true
	case retryMin, retryMax:
		return isNotNegative, true
	case "x-consumer-disconnected-timeout":
		return isNotNegative, false
	case "x-delivery-limit":
		return isInteger, true
	}
	return nil, false
}

// streamArgs are known to RabbitMQ's streams only; other queues refuse them.
var streamArgs = [...]string{
	"x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes", "x-initial-cluster-size",
}

// checkQueueArgs checks the arguments of a queue that is to be made: 406 for
// a value that RabbitMQ would not take either, 540 (of the channel only) for
// a feature that this version does not have.
func checkQueueArgs(vhost, name string, args mq.Table) error {
	queue := fmt.Sprintf("queue '%s' in vhost '%s'", name, vhost)
	for _, f := range args {
		rule, _ := queueArg(f.Key)
		if rule == nil {
			continue
		}
		if fault := rule(f.Value, args); fault != "" {
			return mq.Errorf(mq.PreconditionFailed, "invalid arg '%s' for %s: %s", f.Key, queue, fault)
		}
	}
	kind, _ := args.String("x-queue-type")
	if kind == "stream" {
		return notImplemented("queue type 'stream' of %s is not implemented in this version", queue)
	}
	for _, f := range args {
		if slices.Contains(streamArgs[:], f.Key) {
			return mq.Errorf(mq.PreconditionFailed, "invalid arg '%s' for %s of queue type rabbit_%s_queue",
				f.Key, queue, orClassic(kind))
		}
		if rule, implemented := queueArg(f.Key); rule != nil && !implemented {
			return notImplemented("argument '%s' of %s is not implemented in this version", f.Key, queue)
		}
	}
	return nil
}

func orClassic(kind string) string {
	if kind == "" {
		return "classic"
	}
	return kind
}

// notImplemented refuses one channel's wish; 540 would end the connection.
func notImplemented(format string, args ...any) *mq.Error {
	err := mq.Errorf(mq.NotImplemented, format, args...)
	err.ChannelOnly = true
	return err
}

func anything(any, mq.Table) string { return "" }

func unacceptable(v any) string { return fmt.Sprintf("{unacceptable_type,%s}", meta.TypeName(v)) }

func isBool(v any, _ mq.Table) string {
	if _, ok := v.(bool); !ok {
		return unacceptable(v)
	}
	return ""
}

func isString(v any, _ mq.Table) string {
	if _, ok := v.(string); !ok {
		return unacceptable(v)
	}
	return ""
}

// oneOf wants one of some strings; fault may show the other with %s.
func oneOf(fault string, values ...string) argRule {
	return func(v any, args mq.Table) string {
		s, ok := v.(string)
		switch {
		case !ok:
			return unacceptable(v)
		case slices.Contains(values, s):
			return ""
		case fault[0] == '"':
			return fmt.Sprintf(fault, s)
		}
		return fault
	}
}

// whole returns a whole number, or what is wrong with it.
func whole(v any) (int64, string) {
	n, ok := mq.Int(v)
	if !ok {
		return 0, fmt.Sprintf("\"expected integer, got %s\"", meta.TypeName(v))
	}
	return n, ""
}

func isInteger(v any, _ mq.Table) string {
	_, fault := whole(v)
	return fault
}

func isNotNegative(v any, _ mq.Table) string {
	n, fault := whole(v)
	if fault == "" && n < 0 {
		fault = fmt.Sprintf("{value_negative,%d}", n)
	}
	return fault
}

func isPositive(v any, args mq.Table) string {
	if n, fault := whole(v); fault == "" && n == 0 {
		return "{value_zero,0}"
	}
	return isNotNegative(v, args)
}

func isVersion(v any, args mq.Table) string {
	if fault := isNotNegative(v, args); fault != "" {
		return fault
	}
	if n, _ := mq.Int(v); n != 1 && n != 2 {
		return fmt.Sprintf("\"unsupported queue version '%d'\"", n)
	}
	return ""
}

func isTTL(v any, args mq.Table) string {
	if fault := isNotNegative(v, args); fault != "" {
		return fault
	}
	if n, _ := mq.Int(v); n > expiryMsMax {
		return fmt.Sprintf("{value_too_large,%d}", n)
	}
	return ""
}

func isExpires(v any, args mq.Table) string {
	if fault := isPositive(v, args); fault != "" {
		return fault
	}
	return isTTL(v, args)
}

func isPriority(v any, args mq.Table) string {
	if fault := isNotNegative(v, args); fault != "" {
		return fault
	}
	if n, _ := mq.Int(v); n > priorityMax {
		return fmt.Sprintf("{max_value_exceeded,%d}", n)
	}
	return ""
}

func isDeadLetterKey(v any, args mq.Table) string {
	if fault := isString(v, args); fault != "" {
		return fault
	}
	if _, ok := args.Get("x-dead-letter-exchange"); !ok {
		return "routing_key_but_no_dlx_defined"
	}
	if key, _ := v.(string); len(key) > shortStringMax {
		return fmt.Sprintf("\"longer than %d bytes\"", shortStringMax) // no basic.deliver could carry it
	}
	return ""
}
