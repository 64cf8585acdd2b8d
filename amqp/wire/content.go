package wire

import "warren/mq"

// What is here is used once for every message and does not allocate.

// The ids of the methods of the hot path.
const (
	classBasic    = 60
	methodReturn  = 50
	methodPublish = 40
	methodDeliver = 60
	methodGetOk   = 71
	methodAck     = 80
	methodReject  = 90
	methodNack    = 120
)

// hot begins to decode the payload of a method frame that should hold the
// given method of class basic.
func hot(payload []byte, method uint16) decoder {
	d := decoder{b: payload}
	if c, m := d.short(), d.short(); c != classBasic || m != method {
		d.fail("another method")
	}
	return d
}

// ParsePublish decodes a basic.publish into m, whose names become slices of
// payload. It is ParseMethod for the hot path, as are ParseAck, ParseNack and
// ParseReject; MethodID tells which to call.
func ParsePublish(payload []byte, m *BasicPublish) error {
	d := hot(payload, methodPublish)
	m.decode(&d)
	return d.finish("basic.publish")
}

// ParseAck decodes a basic.ack into m.
func ParseAck(payload []byte, m *BasicAck) error {
	d := hot(payload, methodAck)
	m.decode(&d)
	return d.finish("basic.ack")
}

// ParseNack decodes a basic.nack into m.
func ParseNack(payload []byte, m *BasicNack) error {
	d := hot(payload, methodNack)
	m.decode(&d)
	return d.finish("basic.nack")
}

// ParseReject decodes a basic.reject into m.
func ParseReject(payload []byte, m *BasicReject) error {
	d := hot(payload, methodReject)
	m.decode(&d)
	return d.finish("basic.reject")
}

// AppendDeliver appends the method frame of a basic.deliver; header and body
// follow with AppendHeader and AppendBody.
func AppendDeliver(dst []byte, channel uint16, consumerTag string, deliveryTag uint64, redelivered bool, exchange, routingKey []byte) []byte {
	start := len(dst)
	dst = beginMethod(dst, channel, classBasic, methodDeliver)
	m := BasicDeliver{consumerTag, deliveryTag, redelivered, exchange, routingKey}
	return endFrame(m.append(dst), start)
}

// AppendGetOk appends the method frame of a basic.get-ok.
func AppendGetOk(dst []byte, channel uint16, deliveryTag uint64, redelivered bool, exchange, routingKey []byte, messageCount uint32) []byte {
	start := len(dst)
	dst = beginMethod(dst, channel, classBasic, methodGetOk)
	m := BasicGetOk{deliveryTag, redelivered, exchange, routingKey, messageCount}
	return endFrame(m.append(dst), start)
}

// AppendReturn appends the method frame of a basic.return.
func AppendReturn(dst []byte, channel uint16, code mq.Code, text string, exchange, routingKey []byte) []byte {
	start := len(dst)
	dst = beginMethod(dst, channel, classBasic, methodReturn)
	m := BasicReturn{code, text, exchange, routingKey}
	return endFrame(m.append(dst), start)
}

// AppendAck appends a basic.ack frame.
func AppendAck(dst []byte, channel uint16, deliveryTag uint64, multiple bool) []byte {
	start := len(dst)
	dst = beginMethod(dst, channel, classBasic, methodAck)
	return endFrame(BasicAck{deliveryTag, multiple}.append(dst), start)
}

// AppendNack appends a basic.nack frame.
func AppendNack(dst []byte, channel uint16, deliveryTag uint64, multiple, requeue bool) []byte {
	start := len(dst)
	dst = beginMethod(dst, channel, classBasic, methodNack)
	return endFrame(BasicNack{deliveryTag, multiple, requeue}.append(dst), start)
}
