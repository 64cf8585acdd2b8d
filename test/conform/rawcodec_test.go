package conform

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Frame types (AMQP 0-9-1 §4.2.3) and the octet that ends every frame.
const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE
)

// payload is a frame's payload in the making.
type payload []byte

// method begins a method.
func method(class, id uint16) payload { return payload(nil).short(class).short(id) }

func (p payload) octet(v uint8) payload     { return append(p, v) }
func (p payload) short(v uint16) payload    { return binary.BigEndian.AppendUint16(p, v) }
func (p payload) long(v uint32) payload     { return binary.BigEndian.AppendUint32(p, v) }
func (p payload) longlong(v uint64) payload { return binary.BigEndian.AppendUint64(p, v) }
func (p payload) str(s string) payload      { return append(append(p, byte(len(s))), s...) }
func (p payload) longstr(s string) payload  { return append(p.long(uint32(len(s))), s...) }

func (p payload) table(t amqp.Table) payload {
	var inside payload
	for _, key := range slices.Sorted(maps.Keys(t)) {
		inside = inside.str(key).value(t[key])
	}
	return p.longstr(string(inside))
}

// value appends a field's type and value (AMQP 0-9-1 §4.2.5.5, with the types
// that RabbitMQ uses).
func (p payload) value(v any) payload {
	switch v := v.(type) {
	case nil:
		return append(p, 'V')
	case bool:
		if v {
			return append(p, 't', 1)
		}
		return append(p, 't', 0)
	case int8:
		return append(p, 'b', byte(v))
	case uint8:
		return append(p, 'B', v)
	case int16:
		return append(p, 's').short(uint16(v))
	case uint16:
		return append(p, 'u').short(v)
	case uint32:
		return append(p, 'i').long(v)
	case uint64:
		return append(p, 'L').longlong(v)
	case float32:
		return append(p, 'f').long(math.Float32bits(v))
	case []byte:
		return append(p, 'x').longstr(string(v))
	case time.Time:
		return append(p, 'T').longlong(uint64(v.Unix()))
	case amqp.Decimal:
		return append(p, 'D', v.Scale).long(uint32(v.Value))
	case int:
		return append(p, 'I').long(uint32(v))
	case int32:
		return append(p, 'I').long(uint32(v))
	case int64:
		return append(p, 'l').longlong(uint64(v))
	case float64:
		return append(p, 'd').longlong(math.Float64bits(v))
	case string:
		return append(p, 'S').longstr(v)
	case []any:
		var inside payload
		for _, item := range v {
			inside = inside.value(item)
		}
		return append(p, 'A').longstr(string(inside))
	case amqp.Table:
		return append(p, 'F').table(v)
	}
	panic(fmt.Sprintf("no field type for %T", v))
}

// frame is a whole frame.
func frame(kind uint8, channel uint16, p []byte) []byte {
	b := payload{kind}.short(channel).long(uint32(len(p)))
	return append(append(b, p...), frameEnd)
}

// Flags of queue.declare and exchange.declare.
const (
	passive    = 1
	durable    = 2
	exclusive  = 4 // of a queue
	autoDelete = 8 // of a queue
	noWait     = 16

	exchangeAutoDelete = 4
	exchangeInternal   = 8
)

func queueDeclare(name string, flags uint8, args amqp.Table) payload {
	return method(50, 10).short(0).str(name).octet(flags).table(args)
}

func queueBind(queue, exchange, key string, args amqp.Table) payload {
	return method(50, 20).short(0).str(queue).str(exchange).str(key).octet(0).table(args)
}

func queueUnbind(queue, exchange, key string, args amqp.Table) payload {
	return method(50, 50).short(0).str(queue).str(exchange).str(key).table(args)
}

func queuePurge(name string) payload { return method(50, 30).short(0).str(name).octet(0) }

// Flags of queue.delete; if-unused is exchange.delete's too.
const (
	ifUnused = 1
	ifEmpty  = 2
)

func queueDelete(name string, flags uint8) payload {
	return method(50, 40).short(0).str(name).octet(flags)
}

func exchangeDeclare(name, kind string, flags uint8, args amqp.Table) payload {
	return method(40, 10).short(0).str(name).str(kind).octet(flags).table(args)
}

func exchangeDelete(name string, flags uint8) payload {
	return method(40, 20).short(0).str(name).octet(flags)
}

func exchangeBind(destination, source, key string) payload {
	return method(40, 30).short(0).str(destination).str(source).str(key).octet(0).table(nil)
}

func exchangeUnbind(destination, source, key string) payload {
	return method(40, 40).short(0).str(destination).str(source).str(key).octet(0).table(nil)
}

func basicQos(size uint32, count uint16, global bool) payload {
	return method(60, 10).long(size).short(count).octet(bit(global))
}

// Flags of basic.consume.
const (
	noLocal          = 1
	noAck            = 2
	exclusiveConsume = 4
)

func basicConsume(queue, tag string, flags uint8, args amqp.Table) payload {
	return method(60, 20).short(0).str(queue).str(tag).octet(flags).table(args)
}

func basicCancel(tag string) payload { return method(60, 30).str(tag).octet(0) }

// Flags of basic.publish.
const (
	mandatory = 1
	immediate = 2
)

func basicPublish(exchange, key string, flags uint8) payload {
	return method(60, 40).short(0).str(exchange).str(key).octet(flags)
}

func basicGet(queue string, autoAck bool) payload {
	return method(60, 70).short(0).str(queue).octet(bit(autoAck))
}

func basicAck(tag uint64, multiple bool) payload {
	return method(60, 80).longlong(tag).octet(bit(multiple))
}

func basicReject(tag uint64, requeue bool) payload {
	return method(60, 90).longlong(tag).octet(bit(requeue))
}

func basicNack(tag uint64, multiple, requeue bool) payload {
	return method(60, 120).longlong(tag).octet(bit(multiple) | bit(requeue)<<1)
}

func basicRecover(requeue bool) payload      { return method(60, 110).octet(bit(requeue)) }
func basicRecoverAsync(requeue bool) payload { return method(60, 100).octet(bit(requeue)) }

func confirmSelect() payload { return method(85, 10).octet(0) }
func txSelect() payload      { return method(90, 10) }
func txCommit() payload      { return method(90, 20) }
func txRollback() payload    { return method(90, 30) }
func channelOpen() payload   { return method(20, 10).str("") }

func channelClose() payload {
	return method(20, 40).short(200).str("bye").short(0).short(0)
}

func connectionClose() payload {
	return method(10, 50).short(200).str("bye").short(0).short(0)
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// contentHeader is a content header with properties: flags and list.
func contentHeader(class uint16, bodyBytes uint64, properties []byte) payload {
	return append(payload(nil).short(class).short(0).longlong(bodyBytes), properties...)
}

// properties encodes the ones of a publishing that tests here set
// (AMQP 0-9-1 §4.2.6.1).
func properties(p amqp.Publishing) payload {
	var flags uint16
	var list payload
	if p.Headers != nil {
		flags |= 1 << 13
		list = list.table(p.Headers)
	}
	if p.DeliveryMode != 0 {
		flags |= 1 << 12
		list = list.octet(p.DeliveryMode)
	}
	if p.ReplyTo != "" {
		flags |= 1 << 9
		list = list.str(p.ReplyTo)
	}
	if p.Expiration != "" {
		flags |= 1 << 8
		list = list.str(p.Expiration)
	}
	if p.UserId != "" {
		flags |= 1 << 4
		list = list.str(p.UserId)
	}
	return append(payload(nil).short(flags), list...)
}
