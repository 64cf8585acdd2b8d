package wire

import (
	"encoding/binary"
	"fmt"

	"warren/mq"
)

// Method is one method of AMQP 0-9-1 or of RabbitMQ's extensions. ParseMethod
// answers pointers (*QueueDeclare); AppendMethod takes pointers and values.
type Method interface {
	// ID is the class and method id.
	ID() (class, method uint16)
	// Name is the name in the specification, like "queue.declare".
	Name() string
	append(dst []byte) []byte
}

// decodable is a Method that can be decoded into.
type decodable interface {
	Method
	decode(*decoder)
}

// MethodID returns the ids that a method frame's payload begins with, even if
// there is no such method; false if the payload is too short to have any.
func MethodID(payload []byte) (class, method uint16, ok bool) {
	if len(payload) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), true
}

// MethodName is the specification's name of a method, like "queue.declare",
// or its ids, like "60.200", if there is no such method.
func MethodName(class, method uint16) string {
	if m := newMethod(class, method); m != nil {
		return m.Name()
	}
	return fmt.Sprintf("%d.%d", class, method)
}

// ParseMethod decodes the payload of a method frame. Strings and tables are
// copied; only BasicPublish, BasicDeliver, BasicReturn and BasicGetOk keep
// slices of the payload.
func ParseMethod(payload []byte) (Method, error) {
	class, method, ok := MethodID(payload)
	if !ok {
		return nil, mq.Errorf(mq.SyntaxError, "method frame too short: %d octets", len(payload))
	}
	m := newMethod(class, method)
	if m == nil {
		// RabbitMQ drops such a connection without a word (lookup_method_name
		// exits); 503 is what it says to a method that it knows but lacks.
		return nil, mq.Errorf(mq.CommandInvalid, "unimplemented method %d.%d", class, method)
	}
	d := decoder{b: payload[4:]}
	m.decode(&d)
	if err := d.finish(m.Name()); err != nil {
		return nil, err
	}
	return m, nil
}
