package mq

import "encoding/binary"

// Content is a message as it travels and as it is stored: where it was
// published to, its property bytes exactly as the client sent them, and its
// body, in one run of bytes that is allocated once, when the content header
// arrives, and never changed or encoded again.
//
//	u8 len | exchange | u8 len | routing key | u32 len | properties | body
//
// properties are the property flags and property list of a content header
// (AMQP 0-9-1 §4.2.6.1), without class, weight and body size. A Content is
// made by NewContent or checked by ParseContent; its methods rely on that.
type Content []byte

// NewContent returns a Content without its body and with room for bodyBytes
// of it; the caller appends the body. Both names must be short strings (at
// most 255 bytes).
func NewContent(exchange, routingKey string, properties []byte, bodyBytes int) Content {
	n := 1 + len(exchange) + 1 + len(routingKey) + 4 + len(properties)
	c := make(Content, 0, n+bodyBytes)
	c = append(c, byte(len(exchange)))
	c = append(c, exchange...)
	c = append(c, byte(len(routingKey)))
	c = append(c, routingKey...)
	c = binary.BigEndian.AppendUint32(c, uint32(len(properties)))
	return append(c, properties...)
}

// ParseContent checks that b is laid out as a Content. It copies nothing.
func ParseContent(b []byte) (Content, bool) {
	at := 0
	for range 2 {
		if at >= len(b) {
			return nil, false
		}
		at += 1 + int(b[at])
	}
	if at+4 > len(b) {
		return nil, false
	}
	n := uint64(binary.BigEndian.Uint32(b[at:]))
	if uint64(at)+4+n > uint64(len(b)) {
		return nil, false
	}
	return Content(b), true
}

// Exchange is the name of the exchange that the message was published to.
func (c Content) Exchange() []byte { return c[1 : 1+int(c[0])] }

// RoutingKey is the key that the message was published with.
func (c Content) RoutingKey() []byte {
	at := 1 + int(c[0])
	return c[at+1 : at+1+int(c[at])]
}

// Properties are the property flags and list as the publisher sent them.
func (c Content) Properties() []byte {
	at := c.propertiesAt()
	n := int(binary.BigEndian.Uint32(c[at:]))
	return c[at+4 : at+4+n]
}

// Head is all before the body: a message with an empty one.
func (c Content) Head() Content { return c[: len(c)-len(c.Body()) : len(c)-len(c.Body())] }

// Body is the message's body.
func (c Content) Body() []byte {
	at := c.propertiesAt()
	return c[at+4+int(binary.BigEndian.Uint32(c[at:])):]
}

func (c Content) propertiesAt() int {
	at := 1 + int(c[0])
	return at + 1 + int(c[at])
}
