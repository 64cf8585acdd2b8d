package meta

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"

	"warren/mq"
)

// comparedArgs are the queue arguments that a redeclaration must repeat, in
// the order in which differences are reported. Others are not compared, as in
// RabbitMQ.
var comparedArgs = [...]string{
	"x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy",
	"x-max-length", "x-max-length-bytes", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-max-priority",
	"x-overflow", "x-queue-mode", "x-single-active-consumer", "x-queue-type", "x-delivery-limit",
	"x-quorum-initial-group-size", "x-queue-leader-locator", "x-consumer-timeout",
}

// Equivalent checks a declaration of a queue that exists (AMQP 0-9-1
// §1.7.2.1) and returns what RabbitMQ says if they differ: 405 for an
// exclusive queue of another connection or one that is exclusive on one side
// only, else 406.
func (q *Queue) Equivalent(op *QueueDeclare) *mq.Error {
	if q.Exclusive != op.Exclusive || q.Exclusive && (q.Owner != op.Owner || q.OwnerConn != op.OwnerConn) {
		return q.Locked()
	}
	name := fmt.Sprintf("queue '%s' in vhost '%s'", q.Name, q.VHost)
	if q.Durable != op.Durable {
		return inequivalent("durable", name, quoted(op.Durable), quoted(q.Durable))
	}
	if q.AutoDelete != op.AutoDelete {
		return inequivalent("auto_delete", name, quoted(op.AutoDelete), quoted(q.AutoDelete))
	}
	for _, key := range comparedArgs {
		if err := equivalentArg(key, name, q.Args, op.Args); err != nil {
			return err
		}
	}
	return nil
}

// Locked is what a client hears who may not use an exclusive queue.
func (q *Queue) Locked() *mq.Error {
	return mq.Errorf(mq.ResourceLocked, "cannot obtain exclusive access to locked queue '%s' in vhost '%s'. "+
		"It could be originally declared on another connection or the exclusive property value does not match "+
		"that of the original declaration.", q.Name, q.VHost)
}

// Equivalent checks a declaration of an exchange that exists (AMQP 0-9-1
// §1.6.2.1) and returns RabbitMQ's 406 if they differ. alternate-exchange is
// the only argument that counts.
func (x *Exchange) Equivalent(op *ExchangeDeclare) *mq.Error {
	name := fmt.Sprintf("exchange '%s' in vhost '%s'", x.Name, x.VHost)
	switch {
	case x.Type != op.Type:
		return inequivalent("type", name, quoted(op.Type), quoted(x.Type))
	case x.Durable != op.Durable:
		return inequivalent("durable", name, quoted(op.Durable), quoted(x.Durable))
	case x.AutoDelete != op.AutoDelete:
		return inequivalent("auto_delete", name, quoted(op.AutoDelete), quoted(x.AutoDelete))
	case x.Internal != op.Internal:
		return inequivalent("internal", name, quoted(op.Internal), quoted(x.Internal))
	}
	return equivalentArg("alternate-exchange", name, x.Args, op.Args)
}

func inequivalent(key, name, received, current string) *mq.Error {
	return mq.Errorf(mq.PreconditionFailed, "inequivalent arg '%s' for %s: received %s but current is %s",
		key, name, received, current)
}

// equivalentArg compares one argument as rabbit_misc:assert_args_equivalence
// does: widths of numbers do not count. Queue types do not count either if
// both are one engine here.
func equivalentArg(key, name string, current, received mq.Table) *mq.Error {
	was, wasSet := current.Get(key)
	is, isSet := received.Get(key)
	switch {
	case !wasSet && !isSet, wasSet && isSet && sameValue(was, is):
		return nil
	case key == "x-queue-type" && oneEngine(was, wasSet) && oneEngine(is, isSet):
		return nil
	case key == "x-queue-type":
		// Who does not say a type means classic.
		return inequivalent(key, name, quoted(orClassic(is, isSet)), quoted(orClassic(was, wasSet)))
	case wasSet && isSet:
		return inequivalent(key, name, quoted(is), quoted(was))
	}
	return inequivalent(key, name, typed(is, isSet), typed(was, wasSet))
}

func oneEngine(v any, set bool) bool { return !set || v == "classic" || v == "quorum" }

func orClassic(v any, set bool) any {
	if !set {
		return "classic"
	}
	return v
}

func sameValue(a, b any) bool {
	if m, ok := mq.Int(a); ok {
		n, ok := mq.Int(b)
		return ok && m == n
	}
	if m, ok := number(a); ok {
		n, ok := number(b)
		return ok && m == n
	}
	return bytes.Equal(valueBytes(a), valueBytes(b))
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case float32:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// valueBytes is a value in its AMQP encoding.
func valueBytes(v any) []byte { return appendTable(nil, mq.Table{{Value: v}}) }

// typed and quoted show values as RabbitMQ's messages do.
func typed(v any, set bool) string {
	if !set {
		return "none"
	}
	return fmt.Sprintf("the value %s of type '%s'", quoted(v), TypeName(v))
}

func quoted(v any) string { return "'" + plain(v) + "'" }

func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return "undefined"
	case string:
		return v
	case []byte:
		return string(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case mq.Table, []any:
		return hex.EncodeToString(valueBytes(v))
	case interface{ Unix() int64 }:
		return strconv.FormatInt(v.Unix(), 10)
	default:
		return fmt.Sprint(v)
	}
}

// TypeName names the AMQP type of a table's value as RabbitMQ's messages do.
func TypeName(v any) string { return mq.TypeName(v) }
