package conform

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declares is for a queue with arguments that are not to be taken.
func declares(args amqp.Table) func(*claim) []payload {
	return asks(func(q string) payload { return queueDeclare(q, durable, args) })
}

func TestQueueDeclareIsRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "with the server's prefix", source: "AMQP 0-9-1 §1.7.2.1.2",
			ask: asks(func(string) payload { return queueDeclare("amq.mine", durable, nil) }), want: "channel 403 50.10 ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"},
		{name: "passively if it is not there", source: "AMQP 0-9-1 §1.7.2.1.3",
			ask: asks(func(q string) payload { return queueDeclare(q, passive, nil) }), want: "channel 404 50.10 NOT_FOUND - no queue 'conform-x-ID' in vhost '/'"},
		{name: "passively without a name", source: "AMQP 0-9-1 §1.7.2.1.3",
			ask: asks(func(string) payload { return queueDeclare("", passive, nil) }), want: "channel 404 50.10 NOT_FOUND - no queue '' in vhost '/'"},
		{name: "again as transient", source: "AMQP 0-9-1 §1.7.2.1.4", ask: redeclares(0, nil), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'conform-q-ID' in vhost '/': received 'false' but current is 'true'"},
		{name: "again as exclusive", source: "AMQP 0-9-1 §1.7.2.1.5", ask: redeclares(durable|exclusive, nil), want: "channel 405 50.10 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "again as auto-delete", source: "AMQP 0-9-1 §1.7.2.1.6", ask: redeclares(durable|autoDelete, nil), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'conform-q-ID' in vhost '/': received 'true' but current is 'false'"},
		{name: "again with a TTL", source: `RabbitMQ "Time-to-Live"`, ask: redeclares(durable, amqp.Table{"x-message-ttl": 1000}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'conform-q-ID' in vhost '/': received the value '1000' of type 'signedint' but current is none"},
		{name: "again with an expiry", source: `RabbitMQ "Time-to-Live"`, feature: "x-expires",
			ask: redeclares(durable, amqp.Table{"x-expires": 100000}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'conform-q-ID' in vhost '/': received the value '100000' of type 'signedint' but current is none"},
		{name: "again with a limit", source: `RabbitMQ "Queue Length Limit"`, ask: redeclares(durable, amqp.Table{"x-max-length": 10}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'conform-q-ID' in vhost '/': received the value '10' of type 'signedint' but current is none"},
		{name: "again with a dead-letter exchange", source: `RabbitMQ "Dead Letter Exchanges"`,
			ask: redeclares(durable, amqp.Table{"x-dead-letter-exchange": "dlx"}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'conform-q-ID' in vhost '/': received the value 'dlx' of type 'longstr' but current is none"},
		{name: "again with a single active consumer", source: `RabbitMQ "Consumers"`,
			ask: redeclares(durable, amqp.Table{"x-single-active-consumer": true}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-single-active-consumer' for queue 'conform-q-ID' in vhost '/': received the value 'true' of type 'bool' but current is none"},
		{name: "again with priorities", source: `RabbitMQ "Priority Queues"`, feature: "x-max-priority",
			ask: redeclares(durable, amqp.Table{"x-max-priority": 10}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'conform-q-ID' in vhost '/': received the value '10' of type 'signedint' but current is none"},
		{name: "again as another type", source: `RabbitMQ "Queues"`, ask: redeclares(durable, amqp.Table{"x-queue-type": "stream"}), want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'conform-q-ID' in vhost '/': received 'stream' but current is 'classic'"},
		{name: "again with another limit", source: `RabbitMQ "Queue Length Limit"`, ask: func(c *claim) []payload {
			q := c.queue("q", amqp.Table{"x-max-length": 10})
			return []payload{queueDeclare(q, durable, amqp.Table{"x-max-length": 11})}
		}, want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'conform-q-ID' in vhost '/': received '11' but current is '10'"},
		{name: "again without a limit", source: `RabbitMQ "Queue Length Limit"`, ask: func(c *claim) []payload {
			return []payload{queueDeclare(c.queue("q", amqp.Table{"x-max-length": 10}), durable, nil)}
		}, want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'conform-q-ID' in vhost '/': received none but current is the value '10' of type 'signedint'"},
		{name: "again with another overflow", source: `RabbitMQ "Queue Length Limit"`, feature: "reject-publish", ask: func(c *claim) []payload {
			q := c.queue("q", amqp.Table{"x-overflow": "drop-head"})
			return []payload{queueDeclare(q, durable, amqp.Table{"x-overflow": "reject-publish"})}
		}, want: "channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'conform-q-ID' in vhost '/': received 'reject-publish' but current is 'drop-head'"},
	})
}

func TestQueueArgumentsAreRefused(t *testing.T) {
	const ttl, limits, dlx = `RabbitMQ "Time-to-Live"`, `RabbitMQ "Queue Length Limit"`, `RabbitMQ "Dead Letter Exchanges"`
	refuse(t, []refusal{
		{name: "a negative TTL", source: ttl, ask: declares(amqp.Table{"x-message-ttl": -1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'conform-x-ID' in vhost '/': {value_negative,-1}"},
		{name: "a TTL that is a text", source: ttl, ask: declares(amqp.Table{"x-message-ttl": "1000"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'conform-x-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "a TTL with a fraction", source: ttl, ask: declares(amqp.Table{"x-message-ttl": 1.5}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'conform-x-ID' in vhost '/': \"expected integer, got double\""},
		{name: "a TTL of ages", source: ttl, ask: declares(amqp.Table{"x-message-ttl": int64(1) << 40}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'conform-x-ID' in vhost '/': {value_too_large,1099511627776}"},
		{name: "an expiry of zero", source: ttl, feature: "x-expires", ask: declares(amqp.Table{"x-expires": 0}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'conform-x-ID' in vhost '/': {value_zero,0}"},
		{name: "a negative expiry", source: ttl, feature: "x-expires", ask: declares(amqp.Table{"x-expires": -1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'conform-x-ID' in vhost '/': {value_negative,-1}"},
		{name: "an expiry that is a text", source: ttl, feature: "x-expires", ask: declares(amqp.Table{"x-expires": "soon"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'conform-x-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "a negative length", source: limits, ask: declares(amqp.Table{"x-max-length": -1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'conform-x-ID' in vhost '/': {value_negative,-1}"},
		{name: "a length that is a text", source: limits, ask: declares(amqp.Table{"x-max-length": "10"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'conform-x-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "a negative size", source: limits, ask: declares(amqp.Table{"x-max-length-bytes": -1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-length-bytes' for queue 'conform-x-ID' in vhost '/': {value_negative,-1}"},
		{name: "a size that is a truth", source: limits, ask: declares(amqp.Table{"x-max-length-bytes": true}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-length-bytes' for queue 'conform-x-ID' in vhost '/': \"expected integer, got bool\""},
		{name: "an overflow that nobody knows", source: limits, ask: declares(amqp.Table{"x-overflow": "explode"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'conform-x-ID' in vhost '/': invalid_overflow"},
		{name: "an overflow that is a number", source: limits, ask: declares(amqp.Table{"x-overflow": 1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'conform-x-ID' in vhost '/': {unacceptable_type,signedint}"},
		{name: "a dead-letter exchange that is a number", source: dlx, ask: declares(amqp.Table{"x-dead-letter-exchange": 1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'conform-x-ID' in vhost '/'"},
		{name: "a dead-letter key that is a number", source: dlx,
			ask: declares(amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue 'conform-x-ID' in vhost '/': {unacceptable_type,signedint}"},
		{name: "a dead-letter key without an exchange", source: dlx, ask: declares(amqp.Table{"x-dead-letter-routing-key": "k"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue 'conform-x-ID' in vhost '/': routing_key_but_no_dlx_defined"},
		{name: "a priority below zero", source: `RabbitMQ "Priority Queues"`, feature: "x-max-priority",
			ask: declares(amqp.Table{"x-max-priority": -1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'conform-x-ID' in vhost '/': {value_negative,-1}"},
		{name: "a priority above 255", source: `RabbitMQ "Priority Queues"`, feature: "x-max-priority",
			ask: declares(amqp.Table{"x-max-priority": 256}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'conform-x-ID' in vhost '/': {max_value_exceeded,256}"},
		{name: "a priority that is a text", source: `RabbitMQ "Priority Queues"`, feature: "x-max-priority",
			ask: declares(amqp.Table{"x-max-priority": "10"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'conform-x-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "a single active consumer that is a number", source: `RabbitMQ "Consumers"`,
			ask: declares(amqp.Table{"x-single-active-consumer": 1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-single-active-consumer' for queue 'conform-x-ID' in vhost '/': {unacceptable_type,signedint}"},
		{name: "a type that nobody knows", source: `RabbitMQ "Queues"`, ask: declares(amqp.Table{"x-queue-type": "heap"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'conform-x-ID' in vhost '/': \"unsupported queue type 'heap'\""},
		{name: "a type that is a number", source: `RabbitMQ "Queues"`, ask: declares(amqp.Table{"x-queue-type": 1}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'conform-x-ID' in vhost '/': {unacceptable_type,signedint}"},
		{name: "a version that nobody knows", source: `RabbitMQ "Classic Queues"`, ask: declares(amqp.Table{"x-queue-version": 7}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-queue-version' for queue 'conform-x-ID' in vhost '/': \"unsupported queue version '7'\""},
		{name: "a locator that nobody knows", source: `RabbitMQ "Queues"`, ask: declares(amqp.Table{"x-queue-leader-locator": "north"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-queue-leader-locator' for queue 'conform-x-ID' in vhost '/': invalid_queue_locator_arg"},
		{name: "a dead-letter strategy that nobody knows", source: dlx, feature: "at-least-once",
			ask: declares(amqp.Table{"x-queue-type": "quorum", "x-dead-letter-strategy": "maybe"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-dead-letter-strategy' for queue 'conform-x-ID' in vhost '/': invalid_dlx_strategy"},
		{name: "a stream's argument", source: `RabbitMQ "Queues"`, ask: declares(amqp.Table{"x-max-age": "1h"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-max-age' for queue 'conform-x-ID' in vhost '/' of queue type rabbit_classic_queue"},
		{name: "a quorum queue's consumer timeout that is a text", source: `RabbitMQ "Consumers"`, feature: "x-consumer-timeout",
			ask: declares(amqp.Table{"x-queue-type": "quorum", "x-consumer-timeout": "soon"}), want: "channel 406 50.10 PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'conform-x-ID' in vhost '/': \"expected integer, got longstr\""},
	})
}

func TestAnotherConnectionsExclusiveQueueIsLocked(t *testing.T) {
	locked := func(m func(q string) payload) func(*claim) []payload {
		return func(c *claim) []payload {
			q := c.name("q")
			owner := c.raw()
			owner.call(queueDeclare(q, exclusive, nil), 50, 11)
			owner.call(queueBind(q, "amq.direct", "k", nil), 50, 21)
			return []payload{m(q)}
		}
	}
	const source = "AMQP 0-9-1 §1.7.2.1.5"
	refuse(t, []refusal{
		{name: "for declare", source: source, ask: locked(func(q string) payload { return queueDeclare(q, exclusive, nil) }), want: "channel 405 50.10 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for passive declare", source: source, ask: locked(func(q string) payload { return queueDeclare(q, passive, nil) }), want: "channel 405 50.10 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for bind", source: source, ask: locked(func(q string) payload { return queueBind(q, "amq.direct", "k", nil) }), want: "channel 405 50.20 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for unbind", source: source, ask: locked(func(q string) payload { return queueUnbind(q, "amq.direct", "k", nil) }), want: "channel 405 50.50 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for purge", source: source, ask: locked(queuePurge), want: "channel 405 50.30 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for delete", source: source, ask: locked(func(q string) payload { return queueDelete(q, 0) }), want: "channel 405 50.40 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for consume", source: source, ask: locked(func(q string) payload { return basicConsume(q, "", 0, nil) }), want: "channel 405 60.20 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
		{name: "for get", source: source, ask: locked(func(q string) payload { return basicGet(q, true) }), want: "channel 405 60.70 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'conform-q-ID' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."},
	})
}

func TestAQueueThatIsNotThereIsRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "for bind", source: "AMQP 0-9-1 §1.7.2.3.1", ask: asks(func(q string) payload { return queueBind(q, "amq.direct", "k", nil) }), want: "channel 404 50.20 NOT_FOUND - no queue 'conform-x-ID' in vhost '/'"},
		{name: "for purge", source: "AMQP 0-9-1 §1.7.2.7.1", ask: asks(queuePurge), want: "channel 404 50.30 NOT_FOUND - no queue 'conform-x-ID' in vhost '/'"},
		{name: "for consume", source: "AMQP 0-9-1 §1.8.3.3.1", ask: asks(func(q string) payload { return basicConsume(q, "", 0, nil) }), want: "channel 404 60.20 NOT_FOUND - no queue 'conform-x-ID' in vhost '/'"},
		{name: "for get", source: "AMQP 0-9-1 §1.8.3.10.1", ask: asks(func(q string) payload { return basicGet(q, true) }), want: "channel 404 60.70 NOT_FOUND - no queue 'conform-x-ID' in vhost '/'"},
	})
}

func TestAQueueWithoutANameIsRefusedWhenTheChannelHasDeclaredNone(t *testing.T) {
	const source = "AMQP 0-9-1 §1.7.2.3.1"
	refuse(t, []refusal{
		{name: "for bind", source: source, ask: asks(func(string) payload { return queueBind("", "amq.direct", "k", nil) }), want: "channel 404 50.20 NOT_FOUND - no previously declared queue"},
		{name: "for unbind", source: source, ask: asks(func(string) payload { return queueUnbind("", "amq.direct", "k", nil) }), want: "channel 404 50.50 NOT_FOUND - no previously declared queue"},
		{name: "for purge", source: source, ask: asks(func(string) payload { return queuePurge("") }), want: "channel 404 50.30 NOT_FOUND - no previously declared queue"},
		{name: "for delete", source: source, ask: asks(func(string) payload { return queueDelete("", 0) }), want: "channel 404 50.40 NOT_FOUND - no previously declared queue"},
		{name: "for consume", source: source, ask: asks(func(string) payload { return basicConsume("", "", 0, nil) }), want: "channel 404 60.20 NOT_FOUND - no previously declared queue"},
		{name: "for get", source: source, ask: asks(func(string) payload { return basicGet("", true) }), want: "channel 404 60.70 NOT_FOUND - no previously declared queue"},
	})
}

func TestQueueDeleteIsRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "if-unused with a consumer", source: "AMQP 0-9-1 §1.7.2.9.2", ask: func(c *claim) []payload {
			q := c.queue("q", nil)
			return []payload{basicConsume(q, "", 0, nil), queueDelete(q, ifUnused)}
		}, want: "channel 406 50.40 PRECONDITION_FAILED - queue 'conform-q-ID' in vhost '/' in use"},
		{name: "if-empty with a message", source: "AMQP 0-9-1 §1.7.2.9.3", ask: func(c *claim) []payload {
			q := c.queue("q", nil)
			c.link().texts("", q, "m")
			return []payload{queueDelete(q, ifEmpty)}
		}, want: "channel 406 50.40 PRECONDITION_FAILED - queue 'conform-q-ID' in vhost '/' not empty"},
		{name: "if-unused with a consumer of a quorum queue", source: `RabbitMQ "Quorum Queues"`, ask: func(c *claim) []payload {
			q := c.queue("q", amqp.Table{"x-queue-type": "quorum"})
			return []payload{basicConsume(q, "", 0, nil), queueDelete(q, ifUnused)}
		}, want: "connection 540 50.40 NOT_IMPLEMENTED - cannot delete queue 'conform-q-ID' in vhost '/'. queue.delete operations with if-unused flag set are not supported by quorum queues", warren: "channel 406 50.40 PRECONDITION_FAILED - queue 'conform-q-ID' in vhost '/' in use", why: "there is one queue engine"},
		{name: "if-empty with a message in a quorum queue", source: `RabbitMQ "Quorum Queues"`, ask: func(c *claim) []payload {
			q := c.queue("q", amqp.Table{"x-queue-type": "quorum"})
			c.link().texts("", q, "m")
			return []payload{queueDelete(q, ifEmpty)}
		}, want: "connection 540 50.40 NOT_IMPLEMENTED - cannot delete queue 'conform-q-ID' in vhost '/'. queue.delete operations with if-empty flag set are not supported by quorum queues", warren: "channel 406 50.40 PRECONDITION_FAILED - queue 'conform-q-ID' in vhost '/' not empty", why: "there is one queue engine"},
	})
}

func TestBindingsAreRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "to an exchange that is not there", source: "AMQP 0-9-1 §1.7.2.3.2", ask: func(c *claim) []payload {
			return []payload{queueBind(c.queue("q", nil), c.name("x"), "k", nil)}
		}, want: "channel 404 50.20 NOT_FOUND - no exchange 'conform-x-ID' in vhost '/'"},
		{name: "to the default exchange", source: "AMQP 0-9-1 §3.1.3.1", ask: func(c *claim) []payload {
			return []payload{queueBind(c.queue("q", nil), "", "k", nil)}
		}, want: "channel 403 50.20 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "from the default exchange", source: "AMQP 0-9-1 §3.1.3.1", ask: func(c *claim) []payload {
			return []payload{queueUnbind(c.queue("q", nil), "", "k", nil)}
		}, want: "channel 403 50.50 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "with an x-match that nobody knows", source: `RabbitMQ "Exchanges": headers`, ask: func(c *claim) []payload {
			return []payload{queueBind(c.queue("q", nil), "amq.headers", "", amqp.Table{"x-match": "most"})}
		}, want: "channel 406 50.20 PRECONDITION_FAILED - Invalid x-match field value <<\"most\">>; expected all, any, all-with-x, or any-with-x"},
		{name: "with an x-match that is a number", source: `RabbitMQ "Exchanges": headers`, ask: func(c *claim) []payload {
			return []payload{queueBind(c.queue("q", nil), "amq.headers", "", amqp.Table{"x-match": 1})}
		}, want: "channel 406 50.20 PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"},
		{name: "by a weight that is no number", source: `RabbitMQ "Consistent Hash Exchange"`, feature: "x-consistent-hash", ask: func(c *claim) []payload {
			x := c.exchange("x", "x-consistent-hash", nil)
			return []payload{queueBind(c.queue("q", nil), x, "heavy", nil)}
		}, want: "channel 406 50.20 PRECONDITION_FAILED - The binding key must be an integer: <<\"heavy\">>"},
		{name: "with more # than a key may have", source: `RabbitMQ "Topics"`, ask: func(c *claim) []payload {
			return []payload{queueBind(c.queue("q", nil), "amq.topic", strings.Repeat("#.", 9)+"#", nil)}
		}, want: "channel 406 50.20 PRECONDITION_FAILED - Topic binding key '#.#.#.#.#.#.#.#.#.#' uses 10 '#' wildcards, at most 2 are allowed"},
	})
}
