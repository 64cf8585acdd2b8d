package conform

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// publishing is a publish that is not to be taken.
type publishing struct {
	name, source, feature string
	exchange, key         string
	flags                 uint8
	p                     amqp.Publishing
	want                  string
}

func TestPublishIsRefused(t *testing.T) {
	for _, f := range []publishing{
		{name: "to an exchange that is not there", source: "AMQP 0-9-1 §1.8.3.7.1", exchange: "conform-none", want: "channel 404 60.40 NOT_FOUND - no exchange 'conform-none' in vhost '/'"},
		{name: "immediate", source: `RabbitMQ "Specification": immediate`, flags: immediate, want: "connection 540 60.40 NOT_IMPLEMENTED - immediate=true"},
		{name: "in somebody else's name", source: `RabbitMQ "Validated User-ID"`, p: amqp.Publishing{UserId: "mallory"}, want: "channel 406 60.40 PRECONDITION_FAILED - user_id property set to 'mallory' but authenticated user was 'guest'"},
		{name: "with an expiration that is no number", source: `RabbitMQ "Time-to-Live"`, p: amqp.Publishing{Expiration: "soon"}, want: "channel 406 60.40 PRECONDITION_FAILED - invalid expiration 'soon': no_integer"},
		{name: "with a negative expiration", source: `RabbitMQ "Time-to-Live"`, p: amqp.Publishing{Expiration: "-1"}, want: "channel 406 60.40 PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}"},
		{name: "with an expiration with a unit", source: `RabbitMQ "Time-to-Live"`, p: amqp.Publishing{Expiration: "10s"}, want: "channel 406 60.40 PRECONDITION_FAILED - invalid expiration '10s': {leftover_string,\"s\"}"},
		{name: "with an expiration of ages", source: `RabbitMQ "Time-to-Live"`, p: amqp.Publishing{Expiration: "315360000001"}, want: "channel 406 60.40 PRECONDITION_FAILED - invalid expiration '315360000001': {value_too_large,315360000001}"},
		{name: "with a CC that is no array", source: `RabbitMQ "Sender-selected Distribution"`, feature: "CC and BCC",
			exchange: "amq.direct", p: amqp.Publishing{Headers: amqp.Table{"CC": "q"}}, want: "channel 406 60.40 PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}"},
		{name: "with a reply-to of nobody", source: `RabbitMQ "Direct Reply-to"`, feature: "direct reply-to",
			exchange: "amq.direct", p: amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to"}, want: "channel 406 60.40 PRECONDITION_FAILED - fast reply consumer does not exist"},
	} {
		t.Run(f.name, func(t *testing.T) {
			var features []string
			if f.feature != "" {
				features = append(features, f.feature)
			}
			r := begin(t, f.source, features...).raw()
			f.p.Body = []byte("m")
			r.publish(f.exchange, f.key, f.flags, f.p)
			r.wantRefusal(f.want)
		})
	}
}

func TestAnInternalExchangeTakesNoPublish(t *testing.T) {
	c := begin(t, `RabbitMQ "Exchanges"`)
	x := c.name("x")
	r := c.raw()
	r.call(exchangeDeclare(x, "direct", durable|exchangeInternal, nil), 40, 11)
	c.exchanges = append(c.exchanges, x)
	r.publish(x, "k", 0, text("m"))
	r.wantRefusal("channel 403 60.40 ACCESS_REFUSED - cannot publish to internal exchange 'conform-x-ID' in vhost '/'")
}

func TestConsumeIsRefused(t *testing.T) {
	twice := func(second func(q string) payload) func(*claim) []payload {
		return func(c *claim) []payload {
			q := c.queue("q", nil)
			return []payload{basicConsume(q, "one", 0, nil), second(q)}
		}
	}
	refuse(t, []refusal{
		{name: "with a tag that the channel has", source: "AMQP 0-9-1 §1.8.3.3.2",
			ask: twice(func(q string) payload { return basicConsume(q, "one", 0, nil) }), want: "connection 530 60.20 NOT_ALLOWED - attempt to reuse consumer tag 'one'"},
		{name: "exclusively beside another", source: "AMQP 0-9-1 §1.8.3.3.5",
			ask: twice(func(q string) payload { return basicConsume(q, "two", exclusiveConsume, nil) }), want: "channel 403 60.20 ACCESS_REFUSED - queue 'conform-q-ID' in vhost '/' in exclusive use"},
		{name: "beside an exclusive one", source: "AMQP 0-9-1 §1.8.3.3.5", ask: func(c *claim) []payload {
			q := c.queue("q", nil)
			c.raw().call(basicConsume(q, "one", exclusiveConsume, nil), 60, 21)
			return []payload{basicConsume(q, "two", 0, nil)}
		}, want: "channel 403 60.20 ACCESS_REFUSED - queue 'conform-q-ID' in vhost '/' in exclusive use"},
		{name: "with a priority that is a text", source: `RabbitMQ "Consumer Priorities"`, ask: func(c *claim) []payload {
			return []payload{basicConsume(c.queue("q", nil), "", 0, amqp.Table{"x-priority": "high"})}
		}, want: "channel 406 60.20 PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'conform-q-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "with a size for prefetch", source: `RabbitMQ "Consumer Prefetch"`,
			ask: asks(func(string) payload { return basicQos(1, 0, false) }), want: "connection 540 60.10 NOT_IMPLEMENTED - prefetch_size!=0 (1)"},
		{name: "for replies with acks", source: `RabbitMQ "Direct Reply-to"`, feature: "direct reply-to",
			ask: asks(func(string) payload { return basicConsume("amq.rabbitmq.reply-to", "", 0, nil) }), want: "channel 406 60.20 PRECONDITION_FAILED - reply consumer cannot acknowledge"},
		{name: "exclusively from a queue with a single active consumer", source: `RabbitMQ "Consumers": single active consumer`, ask: func(c *claim) []payload {
			return []payload{basicConsume(c.queue("q", amqp.Table{"x-single-active-consumer": true}), "", exclusiveConsume, nil)}
		}, want: "channel 403 60.20 ACCESS_REFUSED - queue 'conform-q-ID' in vhost '/' in exclusive use"},
		{name: "with a timeout that is a text", source: `RabbitMQ "Consumers": timeout`, ask: func(c *claim) []payload {
			return []payload{basicConsume(c.queue("q", amqp.Table{"x-queue-type": "quorum"}), "", 0, amqp.Table{"x-consumer-timeout": "soon"})}
		}, want: "channel 406 60.20 PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'conform-q-ID' in vhost '/': \"expected integer, got longstr\""},
		{name: "with a timeout below zero", source: `RabbitMQ "Consumers": timeout`, ask: func(c *claim) []payload {
			return []payload{basicConsume(c.queue("q", amqp.Table{"x-queue-type": "quorum"}), "", 0, amqp.Table{"x-consumer-timeout": -1})}
		}, want: "channel 406 60.20 PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'conform-q-ID' in vhost '/': {value_negative,-1}"},
		{name: "for replies twice", source: `RabbitMQ "Direct Reply-to"`, feature: "direct reply-to", ask: func(*claim) []payload {
			return []payload{basicConsume("amq.rabbitmq.reply-to", "", noAck, nil), basicConsume("amq.rabbitmq.reply-to", "", noAck, nil)}
		}, want: "channel 406 60.20 PRECONDITION_FAILED - reply consumer already set"},
	})
}

func TestGetIsRefused(t *testing.T) {
	refuse(t, []refusal{
		{name: "from a quorum queue with a single active consumer", source: `RabbitMQ "Consumers"`, ask: func(c *claim) []payload {
			q := c.queue("q", amqp.Table{"x-single-active-consumer": true, "x-queue-type": "quorum"})
			return []payload{basicGet(q, true)}
		}, want: "channel 405 60.70 RESOURCE_LOCKED - cannot obtain access to locked queue 'conform-q-ID' in vhost '/'. basic.get operations are not supported by <<\"quorum\">> queues with single active consumer",
			warren: "channel 405 60.70 RESOURCE_LOCKED - cannot obtain access to locked queue 'conform-q-ID' in vhost '/'. basic.get operations are not supported by queues with single active consumer",
			why:    "there is one queue engine"},
	})
}

func TestSettlementsAreRefused(t *testing.T) {
	// got is for settling message 1 of a channel.
	got := func(then ...payload) func(*claim) []payload {
		return func(c *claim) []payload {
			q := c.queue("q", nil)
			c.link().texts("", q, "m")
			return append([]payload{basicGet(q, false)}, then...)
		}
	}
	none := func(m payload) func(*claim) []payload { return func(*claim) []payload { return []payload{m} } }
	refuse(t, []refusal{
		{name: "ack of an unknown tag", source: "AMQP 0-9-1 §1.8.3.13.1", ask: none(basicAck(42, false)), want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 42"},
		{name: "ack of tag 0", source: "AMQP 0-9-1 §1.8.3.13.1", ask: none(basicAck(0, false)), want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 0"},
		{name: "multiple ack of an unknown tag", source: "AMQP 0-9-1 §1.8.3.13.2", ask: none(basicAck(42, true)), want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 42"},
		{name: "nack of an unknown tag", source: `RabbitMQ "Negative Acknowledgements"`, ask: none(basicNack(42, false, true)), want: "channel 406 60.120 PRECONDITION_FAILED - unknown delivery tag 42"},
		{name: "reject of an unknown tag", source: "AMQP 0-9-1 §1.8.3.14.1", ask: none(basicReject(42, true)), want: "channel 406 60.90 PRECONDITION_FAILED - unknown delivery tag 42"},
		{name: "ack twice", source: "AMQP 0-9-1 §1.8.3.13", ask: got(basicAck(1, false), basicAck(1, false)), want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 1"},
		{name: "reject after ack", source: "AMQP 0-9-1 §1.8.3.14", ask: got(basicAck(1, false), basicReject(1, true)), want: "channel 406 60.90 PRECONDITION_FAILED - unknown delivery tag 1"},
		{name: "ack of what needs none", source: "AMQP 0-9-1 §1.8.3.13.1", ask: func(c *claim) []payload {
			q := c.queue("q", nil)
			c.link().texts("", q, "m")
			return []payload{basicGet(q, true), basicAck(1, false)}
		}, want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 1"},
		{name: "ack twice in a transaction", source: "AMQP 0-9-1 §1.9", ask: got(txSelect(), basicAck(1, false), basicAck(1, false)), want: "channel 406 60.80 PRECONDITION_FAILED - unknown delivery tag 1"},
		{name: "recover without requeue", source: "AMQP 0-9-1 §1.8.3.16.1", ask: none(basicRecover(false)), want: "connection 540 60.110 NOT_IMPLEMENTED - requeue=false"},
		{name: "recover-async without requeue", source: "AMQP 0-9-1 §1.8.3.15.1", ask: none(basicRecoverAsync(false)), want: "connection 540 60.100 NOT_IMPLEMENTED - requeue=false"},
	})
}

func TestMixedModesAreRefused(t *testing.T) {
	modes := func(ms ...payload) func(*claim) []payload { return func(*claim) []payload { return ms } }
	refuse(t, []refusal{
		{name: "tx after confirm", source: `RabbitMQ "Confirms"`, ask: modes(confirmSelect(), txSelect()), want: "channel 406 90.10 PRECONDITION_FAILED - cannot switch from confirm to tx mode"},
		{name: "confirm after tx", source: `RabbitMQ "Confirms"`, ask: modes(txSelect(), confirmSelect()), want: "channel 406 85.10 PRECONDITION_FAILED - cannot switch from tx to confirm mode"},
		{name: "commit without a transaction", source: "AMQP 0-9-1 §1.9.2.3", ask: modes(txCommit()), want: "channel 406 90.20 PRECONDITION_FAILED - channel is not transactional"},
		{name: "rollback without a transaction", source: "AMQP 0-9-1 §1.9.2.5", ask: modes(txRollback()), want: "channel 406 90.30 PRECONDITION_FAILED - channel is not transactional"},
	})
}

func TestARefusalThatWouldBeTooLongIsCut(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.5.3")
	r := c.raw()
	r.send(queueDeclare(strings.Repeat("long", 63), passive, nil))
	got := r.refusal()
	const most = len("channel 404 50.10 ") + 255
	if len(got) != most || !strings.HasPrefix(got, "channel 404 50.10 NOT_FOUND - no queue 'longlong") || !strings.HasSuffix(got, "...") {
		t.Errorf("refused with %d octets: %s", len(got), got)
	}
}
