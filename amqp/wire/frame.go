package wire

import (
	"encoding/binary"

	"warren/mq"
)

// Frame types (AMQP 0-9-1 §4.2.3) and the octet that ends every frame.
const (
	FrameMethod    = 1
	FrameHeader    = 2
	FrameBody      = 3
	FrameHeartbeat = 8
	FrameEnd       = 0xCE
)

// Frame sizes in octets; a frame-max counts whole frames.
const (
	frameHeaderBytes = 7 // type, channel, payload size
	// FrameOverhead is what surrounds a payload: the header and the frame-end.
	FrameOverhead = frameHeaderBytes + 1
	// FrameMin is the least that a peer may be limited to (§4.2.3).
	FrameMin = 4096
	// FrameMaxDefault is what RabbitMQ proposes.
	FrameMaxDefault = 131072
)

// ProtocolHeader is what a client sends before its first frame (§4.2.2).
const ProtocolHeader = "AMQP\x00\x00\x09\x01"

// Frame is one frame without its framing.
type Frame struct {
	Type    uint8
	Channel uint16
	Payload []byte // valid until the Reader's next Next
}

// beginFrame appends a frame header whose size endFrame fills in.
func beginFrame(dst []byte, typ uint8, channel uint16) []byte {
	return append(dst, typ, byte(channel>>8), byte(channel), 0, 0, 0, 0)
}

// endFrame ends the frame that begins at start.
func endFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+3:], uint32(len(dst)-start-frameHeaderBytes))
	return append(dst, FrameEnd)
}

// AppendFrame appends any frame, as it stands.
func AppendFrame(dst []byte, f Frame) []byte {
	start := len(dst)
	return endFrame(append(beginFrame(dst, f.Type, f.Channel), f.Payload...), start)
}

// AppendMethod appends a method frame. Methods are not split over frames, so
// one with a large table may exceed a small frame-max.
func AppendMethod(dst []byte, channel uint16, m Method) []byte {
	start := len(dst)
	class, method := m.ID()
	return endFrame(m.append(beginMethod(dst, channel, class, method)), start)
}

func beginMethod(dst []byte, channel, class, method uint16) []byte {
	dst = beginFrame(dst, FrameMethod, channel)
	return append(dst, byte(class>>8), byte(class), byte(method>>8), byte(method))
}

// AppendHeader appends a content header frame. properties are property flags
// and list as ParseHeader answers them; nil stands for none. A header is not
// split either.
func AppendHeader(dst []byte, channel uint16, class uint16, bodyBytes uint64, properties []byte) []byte {
	start := len(dst)
	dst = beginFrame(dst, FrameHeader, channel)
	dst = append(dst, byte(class>>8), byte(class), 0, 0) // weight is always 0
	dst = appendLonglong(dst, bodyBytes)
	if len(properties) == 0 {
		dst = append(dst, 0, 0)
	}
	return endFrame(append(dst, properties...), start)
}

// AppendBody appends a body as body frames that fit frameMax (0 means no
// limit). An empty body has no frames.
func AppendBody(dst []byte, channel uint16, body []byte, frameMax uint32) []byte {
	room := len(body)
	if frameMax != 0 {
		room = max(int(frameMax), FrameMin) - FrameOverhead
	}
	for len(body) > 0 {
		n := min(room, len(body))
		dst = AppendFrame(dst, Frame{FrameBody, channel, body[:n]})
		body = body[n:]
	}
	return dst
}

// AppendHeartbeat appends a heartbeat frame.
func AppendHeartbeat(dst []byte) []byte {
	return append(dst, FrameHeartbeat, 0, 0, 0, 0, 0, 0, FrameEnd)
}

// ParseHeader takes a content header apart. properties are its property flags
// and list, as AppendHeader takes them: checked down to the last header, but
// not copied.
func ParseHeader(payload []byte) (class uint16, bodyBytes uint64, properties []byte, err error) {
	d := decoder{b: payload}
	class = d.short()
	d.skip(2) // weight: "must be zero" (§4.2.6.1), but RabbitMQ does not look
	bodyBytes = d.longlong()
	properties, d.b = d.b, nil
	if err := d.finish("content header"); err != nil {
		return 0, 0, nil, err
	}
	_, _, _, headers, _, err := PeekProperties(properties)
	if err != nil {
		return 0, 0, nil, err
	}
	if fault := checkTable(headers); fault != "" {
		return 0, 0, nil, mq.Errorf(mq.SyntaxError, "cannot decode 'headers': %s", fault)
	}
	return class, bodyBytes, properties, nil
}
