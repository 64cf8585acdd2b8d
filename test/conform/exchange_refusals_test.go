package conform

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestExchangeDeclareIsRefused(t *testing.T) {
	again := func(kind string, flags uint8, args amqp.Table) func(*claim) []payload {
		return func(c *claim) []payload {
			return []payload{exchangeDeclare(c.exchange("x", "direct", nil), kind, flags, args)}
		}
	}
	refuse(t, []refusal{
		{name: "with the server's prefix", source: "AMQP 0-9-1 §1.6.2.1.3",
			ask: asks(func(string) payload { return exchangeDeclare("amq.mine", "direct", durable, nil) }), want: "channel 403 40.10 ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"},
		{name: "of the default exchange", source: "AMQP 0-9-1 §3.1.3.1",
			ask: asks(func(string) payload { return exchangeDeclare("", "direct", durable, nil) }), want: "channel 403 40.10 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "passively of the default exchange", source: "AMQP 0-9-1 §3.1.3.1",
			ask: asks(func(string) payload { return exchangeDeclare("", "direct", passive, nil) }), want: "channel 403 40.10 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "passively if it is not there", source: "AMQP 0-9-1 §1.6.2.1.5",
			ask: asks(func(x string) payload { return exchangeDeclare(x, "direct", passive, nil) }), want: "channel 404 40.10 NOT_FOUND - no exchange 'conform-x-ID' in vhost '/'"},
		{name: "of an unknown type", source: "AMQP 0-9-1 §1.6.2.1.4",
			ask: asks(func(x string) payload { return exchangeDeclare(x, "x-magic", durable, nil) }), want: "channel 406 40.10 PRECONDITION_FAILED - unknown exchange type 'x-magic'"},
		{name: "of no type", source: "AMQP 0-9-1 §1.6.2.1.4",
			ask: asks(func(x string) payload { return exchangeDeclare(x, "", durable, nil) }), want: "channel 406 40.10 PRECONDITION_FAILED - invalid exchange type ''"},
		{name: "again as another type", source: "AMQP 0-9-1 §1.6.2.1.4", ask: again("fanout", durable, nil), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'conform-x-ID' in vhost '/': received 'fanout' but current is 'direct'"},
		{name: "again as transient", source: "AMQP 0-9-1 §1.6.2.1.6", ask: again("direct", 0, nil), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'conform-x-ID' in vhost '/': received 'false' but current is 'true'"},
		{name: "again as auto-delete", source: `RabbitMQ "Exchanges"`, ask: again("direct", durable|exchangeAutoDelete, nil), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange 'conform-x-ID' in vhost '/': received 'true' but current is 'false'"},
		{name: "again as internal", source: `RabbitMQ "Exchanges"`, ask: again("direct", durable|exchangeInternal, nil), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'internal' for exchange 'conform-x-ID' in vhost '/': received 'true' but current is 'false'"},
		{name: "again with an alternate exchange", source: `RabbitMQ "Alternate Exchanges"`,
			ask: again("direct", durable, amqp.Table{"alternate-exchange": "other"}), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'conform-x-ID' in vhost '/': received the value 'other' of type 'longstr' but current is none"},
		{name: "of a predeclared one as another type", source: "AMQP 0-9-1 §3.1.3.1",
			ask: asks(func(string) payload { return exchangeDeclare("amq.direct", "fanout", durable, nil) }), want: "channel 406 40.10 PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' but current is 'direct'"},
		{name: "with an alternate exchange that is a number", source: `RabbitMQ "Alternate Exchanges"`,
			ask: asks(func(x string) payload {
				return exchangeDeclare(x, "direct", durable, amqp.Table{"alternate-exchange": 1})
			}), want: "channel 406 40.10 PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'conform-x-ID' in vhost '/'"},
		{name: "with a history length that is a text", source: `RabbitMQ "Recent History Exchange"`, feature: "x-recent-history",
			ask: asks(func(x string) payload {
				return exchangeDeclare(x, "x-recent-history", durable, amqp.Table{"x-recent-history-length": "many"})
			}), want: "channel 406 40.10 PRECONDITION_FAILED - Invalid argument <<\"many\">>, 'x-recent-history-length' must be a positive integer"},
		{name: "with a hash of header and property", source: `RabbitMQ "Consistent Hash Exchange"`, feature: "x-consistent-hash",
			ask: asks(func(x string) payload {
				return exchangeDeclare(x, "x-consistent-hash", durable, amqp.Table{"hash-header": "h", "hash-property": "message_id"})
			}), want: "channel 406 40.10 PRECONDITION_FAILED - hash-header and hash-property are mutually exclusive"},
		{name: "with a hash of an unknown property", source: `RabbitMQ "Consistent Hash Exchange"`, feature: "x-consistent-hash",
			ask: asks(func(x string) payload {
				return exchangeDeclare(x, "x-consistent-hash", durable, amqp.Table{"hash-property": "weather"})
			}), want: "channel 406 40.10 PRECONDITION_FAILED - Unsupported property: weather"},
	})
}

func TestExchangeDeleteIsRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "of a predeclared one", source: "AMQP 0-9-1 §3.1.3.1",
			ask: asks(func(string) payload { return exchangeDelete("amq.direct", 0) }), want: "channel 403 40.20 ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"},
		{name: "of the default exchange", source: "AMQP 0-9-1 §3.1.3.1",
			ask: asks(func(string) payload { return exchangeDelete("", 0) }), want: "channel 403 40.20 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "with the server's prefix", source: "AMQP 0-9-1 §1.6.2.3",
			ask: asks(func(string) payload { return exchangeDelete("amq.none", 0) }), want: "channel 403 40.20 ACCESS_REFUSED - deletion of system exchange 'amq.none' in vhost '/' not allowed"},
		{name: "if-unused with a binding", source: "AMQP 0-9-1 §1.6.2.3.2", ask: func(c *claim) []payload {
			x := c.exchange("x", "direct", nil)
			c.bound("q", x, "k", nil)
			return []payload{exchangeDelete(x, ifUnused)}
		}, want: "channel 406 40.20 PRECONDITION_FAILED - exchange 'conform-x-ID' in vhost '/' in use"},
		{name: "if-unused with an exchange bound to it", source: "AMQP 0-9-1 §1.6.2.3.2", ask: func(c *claim) []payload {
			x, y := c.exchange("x", "direct", nil), c.exchange("y", "direct", nil)
			return []payload{exchangeBind(y, x, "k"), exchangeDelete(x, ifUnused)}
		}, want: "channel 406 40.20 PRECONDITION_FAILED - exchange 'conform-x-ID' in vhost '/' in use"},
	})
}

func TestBindingsBetweenExchangesAreRefused(t *testing.T) {
	const source = `RabbitMQ "Exchange to Exchange Bindings"`
	refuse(t, []refusal{
		{name: "if the source is not there", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeBind(c.exchange("x", "direct", nil), c.name("none"), "k")}
		}, want: "channel 404 40.30 NOT_FOUND - no exchange 'conform-none-ID' in vhost '/'"},
		{name: "if the destination is not there", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeBind(c.name("none"), c.exchange("x", "direct", nil), "k")}
		}, want: "channel 404 40.30 NOT_FOUND - no exchange 'conform-none-ID' in vhost '/'"},
		{name: "if both are not there", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeBind(c.name("none"), c.name("nor"), "k")}
		}, want: "channel 404 40.30 NOT_FOUND - no exchange 'conform-nor-ID' in vhost '/'"},
		{name: "from the default exchange", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeBind(c.exchange("x", "direct", nil), "", "k")}
		}, want: "channel 403 40.30 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "to the default exchange", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeBind("", c.exchange("x", "direct", nil), "k")}
		}, want: "channel 403 40.30 ACCESS_REFUSED - operation not permitted on the default exchange"},
		{name: "unbound from the default exchange", source: source, ask: func(c *claim) []payload {
			return []payload{exchangeUnbind(c.exchange("x", "direct", nil), "", "k")}
		}, want: "channel 403 40.40 ACCESS_REFUSED - operation not permitted on the default exchange"},
	})
}
