package amqp

import (
	"bytes"
	"fmt"
	"unsafe"

	"warren/amqp/wire"
	"warren/mq"
)

const (
	// eagerBytes is the largest body for which room is made when it is announced;
	// more is made as it arrives.
	eagerBytes = 1 << 20
	// trustedShare of a message has to have come until room is made for all of it.
	trustedShare = 8
)

type assemblyStage uint8

const (
	stageNone   assemblyStage = iota
	stageHeader               // basic.publish has come
	stageBody                 // the header has come, body is missing
)

// assembly is a publish that is arriving: method, header and body are frames
// of their own (§4.2.6).
type assembly struct {
	stage     assemblyStage
	mandatory bool
	names     []byte // exchange, then routing key
	exchange  int    // bytes of names
	missing   uint64 // bytes of body
	publish   mq.Publish
}

// unexpected is the error of a frame that does not go on with the publish.
func (a *assembly) unexpected() *mq.Error {
	if a.stage == stageHeader {
		return mq.Errorf(mq.UnexpectedFrame, "expected content header for class 60, got non content header frame instead")
	}
	return mq.Errorf(mq.UnexpectedFrame, "expected content body, got non content body frame instead")
}

// publish handles basic.publish.
func (s *slot) publish(payload []byte) error {
	var m wire.BasicPublish
	if err := wire.ParsePublish(payload, &m); err != nil {
		return err
	}
	if m.Immediate {
		return mq.Errorf(mq.NotImplemented, "immediate=true")
	}
	a := &s.content
	a.names = append(append(a.names[:0], m.Exchange...), m.RoutingKey...)
	a.exchange = len(m.Exchange)
	a.mandatory = m.Mandatory
	a.stage = stageHeader
	return nil
}

// contentFrame handles a content header or a piece of body.
func (s *slot) contentFrame(f wire.Frame) error {
	a := &s.content
	switch {
	case a.stage == stageNone:
		s.class, s.method = 0, 0
		return mq.Errorf(mq.UnexpectedFrame, "expected method frame, got non method frame instead")
	case a.stage == stageHeader && f.Type == wire.FrameHeader:
		return s.header(f.Payload)
	case a.stage == stageBody && f.Type == wire.FrameBody:
		if uint64(len(f.Payload)) > a.missing {
			return mq.Errorf(mq.FrameError, "content body frame exceeds remaining content size")
		}
		a.publish.Content = grow(a.publish.Content, len(f.Payload), a.missing)
		a.publish.Content = append(a.publish.Content, f.Payload...)
		a.missing -= uint64(len(f.Payload))
		if a.missing > 0 {
			return nil
		}
		return s.published()
	}
	return a.unexpected()
}

// grow makes room for n more bytes: twice what there is, and once a share of the
// message has come, all that is missing. Each step copies what has come: of
// 128 MiB, 16 at the most.
func grow(c mq.Content, n int, missing uint64) mq.Content {
	if len(c)+n <= cap(c) {
		return c
	}
	room, have := min(max(n, 2*cap(c)-len(c)), int(missing)), uint64(len(c)+n)
	if missing-uint64(n) <= have*(trustedShare-1) {
		room = int(missing)
	}
	return mq.Joined(len(c)+room, c)
}

// header handles a content header. Whether the message is well-formed and not
// too large is checked before there is a body, the rest by the broker.
func (s *slot) header(payload []byte) error {
	class, bodyBytes, properties, err := wire.ParseHeader(payload)
	if err != nil {
		return err
	}
	if class != classBasic {
		return mq.Errorf(mq.UnexpectedFrame, "expected content header for class 60, got one for class %d instead", class)
	}
	if most := s.conn.server.config.MaxMessageBytes; bodyBytes > uint64(most) {
		return mq.Errorf(mq.PreconditionFailed, "message size %d is larger than configured max size %d", bodyBytes, most)
	}
	a := &s.content
	deliveryMode, priority, expiration, _, _, err := wire.PeekProperties(properties)
	if err != nil {
		return err
	}
	properties, fault := s.withReplyTo(properties)
	expirationMs, bad := parseExpiration(expiration)
	if fault == nil {
		fault = bad
	}
	a.publish = mq.Publish{
		Mandatory: a.mandatory, Persistent: deliveryMode == 2, Priority: priority, ExpirationMs: expirationMs, Fault: fault,
		Content: mq.NewContent(view(a.names[:a.exchange]), view(a.names[a.exchange:]), properties, int(min(bodyBytes, eagerBytes))),
	}
	a.missing = bodyBytes
	a.stage = stageBody
	if bodyBytes == 0 {
		return s.published()
	}
	return nil
}

// view is b as a string without a copy; for callees that do not keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// expirationMsMax is the longest time to live of a message (RabbitMQ: ten years).
const expirationMsMax = 315_360_000_000

// parseExpiration reads the expiration property: milliseconds in base 10. nil
// is none, -1. What is wrong is said as RabbitMQ says it.
func parseExpiration(b []byte) (int64, *mq.Error) {
	if b == nil {
		return -1, nil
	}
	digits := b
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		digits = b[1:]
	}
	ms, n := int64(0), 0
	for ; n < len(digits) && digits[n] >= '0' && digits[n] <= '9'; n++ {
		if ms <= expirationMsMax { // and stays above it
			ms = 10*ms + int64(digits[n]-'0')
		}
	}
	why := ""
	switch {
	case n == 0:
		why = "no_integer"
	case n < len(digits):
		why = fmt.Sprintf("{leftover_string,%q}", digits[n:])
	case ms > 0 && b[0] == '-':
		why = fmt.Sprintf("{value_negative,-%s}", bytes.TrimLeft(digits, "0"))
	case ms > expirationMsMax:
		why = fmt.Sprintf("{value_too_large,%s}", bytes.TrimLeft(digits, "0"))
	default:
		return ms, nil
	}
	return 0, mq.Errorf(mq.PreconditionFailed, "invalid expiration '%s': %s", b, why)
}

// published hands a complete message to the broker.
func (s *slot) published() error {
	a, ch, c := &s.content, s.ch, s.conn
	a.stage = stageNone
	p := &a.publish
	if !c.publishes.Load() {
		c.publishes.Store(true)
	}
	if c.server.blocked.Load() != nil {
		c.tellBlocked()
	}
	if !s.away { // else this is not the reader's goroutine
		c.unanswered = ch.confirms == nil
	}
	if ch.confirms != nil {
		c.server.count.publishedConfirm.Add(1)
	} else {
		c.server.count.published.Add(1)
	}
	p.Waits = c.waits
	if ch.tx != nil {
		if err := c.session.Check(c.ctx, p); err != nil {
			return err
		}
		return ch.tx.keep(p)
	}
	if ch.confirms != nil {
		p.Confirm, p.Tag = ch.confirms, ch.confirms.next()
	}
	outcome, err := c.session.Publish(c.ctx, p)
	c.goesOn()
	content, tag, mandatory := p.Content, p.Tag, p.Mandatory
	*p = mq.Publish{} // an idle channel keeps no message alive
	if err != nil {
		return err
	}
	switch outcome {
	case mq.Pending:
		return nil
	case mq.Unroutable:
		if mandatory {
			c.out.giveBack(ch, content, tag) // confirms tag once it is written
			return nil
		}
		c.server.count.unroutableDropped.Add(1)
		outcome = mq.Confirmed
	}
	if ch.confirms != nil {
		ch.confirms.Confirm(tag, outcome)
	}
	return nil
}
