package conform

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// fieldTypes has a value of each type that RabbitMQ knows in a table, by
// RabbitMQ's name of it ("AMQP 0-9-1 Errata").
func fieldTypes() map[string]any {
	return map[string]any{
		"byte": int8(-5), "unsignedbyte": uint8(200), "short": int16(-300), "unsignedshort": uint16(60000),
		"signedint": int32(-70000), "unsignedint": uint32(4_000_000_000), "long": int64(-1) << 60,
		"float": float32(-2.25), "double": 1.5, "decimal": amqp.Decimal{Scale: 2, Value: -5}, "timestamp": time.Unix(1<<33, 0),
		"bool": true, "void": nil, "longstr": "ü€", "binary": []byte{0, 255}, "array": []any{int8(1), "two"}, "table": amqp.Table{"a": int16(1)},
	}
}

// headersOf are the headers of the message that comes next, as they were sent.
func (r *raw) headersOf(class, method uint16) string {
	r.c.Helper()
	r.want(class, method)
	head := r.next()
	if head.kind != frameHeader || binary.BigEndian.Uint16(head.rest[12:])&(1<<13) == 0 {
		r.c.Fatalf("got %v, want a content header with headers", head)
	}
	table := head.rest[14:]
	table = table[4 : 4+binary.BigEndian.Uint32(table)]
	r.next() // the body
	return string(table)
}

func TestAHeaderOfEachTypeComesAsItWasSent(t *testing.T) {
	for name, v := range fieldTypes() {
		t.Run(name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "AMQP 0-9-1 Errata": field types`)
			r, q := c.raw(), c.queue("q", nil)
			for _, headers := range []amqp.Table{{"h": v}, {"h": amqp.Table{"h": []any{v}}}} {
				r.call(confirmSelect(), 85, 11)
				r.publish("", q, 0, amqp.Publishing{Headers: headers, Body: []byte("m")})
				r.want(60, 80)
				r.send(basicGet(q, true))
				equal(t, "headers", fmt.Sprintf("%x", r.headersOf(60, 71)), fmt.Sprintf("%x", payload(nil).table(headers)[4:]))
			}
		})
	}
}

func TestADeadLettersHeaderOfEachTypeStays(t *testing.T) {
	for name, v := range fieldTypes() {
		t.Run(name, func(t *testing.T) {
			c := begin(t, dlxSource)
			dead := c.queue("dead", nil)
			q := c.queue("q", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, "x-max-length": 0})
			r := c.raw()
			r.call(basicConsume(dead, "", noAck, nil), 60, 21)
			r.publish("", q, 0, amqp.Publishing{Headers: amqp.Table{"a-first": v}, Body: []byte("m")})
			sent := string(payload(nil).table(amqp.Table{"a-first": v})[4:])
			if got := r.headersOf(60, 60); got[:min(len(got), len(sent))] != sent {
				t.Errorf("got %x, want it to begin with %x", got, sent)
			}
		})
	}
}

func TestAnArgumentThatIsANumberMayHaveAnyWidthAndNoOtherType(t *testing.T) {
	for name, v := range map[string]any{
		"byte": int8(5), "unsignedbyte": uint8(5), "short": int16(5), "unsignedshort": uint16(5),
		"signedint": int32(5), "unsignedint": uint32(5), "long": int64(5),
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Queues": optional arguments`)
			args := amqp.Table{"x-message-ttl": v, "x-expires": v, "x-max-length": v, "x-max-length-bytes": v, "x-max-priority": v}
			args["x-expires"] = int64(60_000) // it must live through the test
			r, q := c.raw(), c.name("q")
			r.call(queueDeclare(q, durable, args), 50, 11)
			c.queues = append(c.queues, q)
			for key := range args {
				if key != "x-expires" {
					args[key] = int64(5)
				}
			}
			r.call(queueDeclare(q, durable, args), 50, 11) // equivalent
			args["x-message-ttl"] = int64(6)
			r.refused("channel 406 50.10 PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'conform-q-ID' in vhost '/': received '6' but current is '5'",
				queueDeclare(q, durable, args))
		})
	}
	for name, v := range fieldTypes() {
		switch v.(type) {
		case int8, uint8, int16, uint16, int32, uint32, int64:
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := begin(t, `RabbitMQ "Queues": optional arguments`)
			for _, key := range []string{"x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority"} {
				c.raw().refused(fmt.Sprintf("channel 406 50.10 PRECONDITION_FAILED - invalid arg '%s' for queue 'conform-q-ID' in vhost '/': \"expected integer, got %s\"", key, name),
					queueDeclare(c.name("q"), durable, amqp.Table{key: v}))
			}
		})
	}
}

// routes tells whether a headers exchange takes a header for that of a binding.
func (c *claim) routes(bound, sent any) bool {
	c.Helper()
	x := c.exchange("x", "headers", nil)
	q := c.queue("q", nil)
	r := c.raw()
	r.call(method(50, 20).short(0).str(q).str(x).str("").octet(0).table(amqp.Table{"h": bound}), 50, 21)
	r.call(confirmSelect(), 85, 11)
	r.publish(x, "", mandatory, amqp.Publishing{Headers: amqp.Table{"h": sent}, Body: []byte("m")})
	f := r.next()
	return f.is(60, 80)
}

func TestHeadersOfOtherTypes(t *testing.T) {
	const why = "RabbitMQ compares the seconds of the one with the milliseconds of the other"
	for _, f := range []struct {
		name        string
		bound, sent any
		want        bool
	}{
		{"a float of another width", 1.5, float32(1.5), true},
		{"a whole float and a whole number", int32(5), 5.0, false},
		{"a whole number and a whole float", 5.0, int64(5), false},
		{"unsigned and signed", uint8(5), int64(5), true},
		{"bytes and a text", []byte("z"), "z", true},
		{"a number and its digits", int32(5), "5", false},
		{"a truth and a number", true, int32(1), false},
		{"decimals", amqp.Decimal{Scale: 1, Value: 15}, amqp.Decimal{Scale: 1, Value: 15}, true},
		{"a decimal and a float", amqp.Decimal{Scale: 1, Value: 15}, 1.5, false},
		{"nothing and anything", nil, "z", true},
		{"something and nothing", "z", nil, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			equal(t, "routed", begin(t, `RabbitMQ "Exchanges": headers`).routes(f.bound, f.sent), f.want)
		})
	}
	t.Run("timestamps", func(t *testing.T) {
		c := begin(t, `RabbitMQ "Exchanges": headers`)
		equal(t, "routed", c.routes(time.Unix(77, 0), time.Unix(77, 0)), differs(t, false, true, why))
	})
	t.Run("a timestamp and a number", func(t *testing.T) {
		c := begin(t, `RabbitMQ "Exchanges": headers`)
		equal(t, "routed", c.routes(time.Unix(77, 0), int64(77)), differs(t, true, false, why))
	})
}
