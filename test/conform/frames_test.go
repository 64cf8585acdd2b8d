package conform

import (
	"testing"
)

func TestAFrameWithoutItsEndIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.3").raw()
	f := frame(frameMethod, 1, queuePurge("q"))
	f[len(f)-1] = 0xCD
	r.write(f)
	r.wantRefusal("connection 501 0.0 FRAME_ERROR - type 1, all octets = <<0,50,0,30,0,0,1,113,0>>: {invalid_frame_end_marker,205}")
}

func TestAFrameLargerThanAgreedIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.3").raw()
	r.write(payload{frameMethod}.short(1).long(131073))
	r.wantRefusal("connection 501 0.0 FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,131073,131064}")
}

func TestAFrameOfUnknownTypeIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.3").raw()
	r.write(frame(7, 1, []byte("what")))
	r.wantRefusal("connection 501 0.0 FRAME_ERROR - type 7, all octets = <<\"what\">>: unknown_frame")
}

func TestAHeartbeatOnAChannelIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.7").raw()
	r.write(frame(frameHeartbeat, 1, nil))
	r.wantRefusal("connection 505 0.0 UNEXPECTED_FRAME - type 8, all octets = <<>>")
}

func TestAMethodOnAChannelThatIsNotOpenIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.5.2").raw()
	r.sendOn(2, queuePurge("q"))
	r.wantRefusal("connection 504 50.30 CHANNEL_ERROR - expected 'channel.open'")
}

func TestAChannelOpenedTwiceIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.5.2.1").raw()
	r.send(channelOpen())
	r.wantRefusal("connection 504 20.10 CHANNEL_ERROR - second 'channel.open' seen")
}

func TestMoreChannelsThanAgreedAreRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.4.2.6.1").dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
	r.want(10, 30)
	r.sendOn(0, tuneOk(2, 131072, 0), connectionOpen("/"))
	r.want(10, 41)
	r.sendOn(1, channelOpen())
	r.want(20, 11)
	r.sendOn(2, channelOpen())
	r.want(20, 11)
	r.sendOn(3, channelOpen())
	r.wantRefusal("connection 530 0.0 NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)")
}

func TestAChannelNumberAboveTheLimitIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.4.2.6.1").raw()
	r.sendOn(2048, channelOpen())
	if differs(t, true, false, "channel-max limits the number as well as the count") {
		r.want(20, 11)
		return
	}
	r.wantRefusal("connection 530 0.0 NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (2047)")
}

func TestAContentHeaderWithoutAPublishIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6").raw()
	r.write(frame(frameHeader, 1, contentHeader(60, 0, []byte{0, 0})))
	r.wantRefusal("connection 505 0.0 UNEXPECTED_FRAME - expected method frame, got non method frame instead")
}

func TestABodyWithoutAPublishIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6").raw()
	r.write(frame(frameBody, 1, []byte("body")))
	r.wantRefusal("connection 505 0.0 UNEXPECTED_FRAME - expected method frame, got non method frame instead")
}

func TestAMethodInsteadOfAContentHeaderIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6").raw()
	r.send(basicPublish("", "q", 0), queuePurge("q"))
	r.wantRefusal("connection 505 60.40 UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead")
}

func TestAMethodInsteadOfABodyIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6").raw()
	r.send(basicPublish("", "q", 0))
	r.write(frame(frameHeader, 1, contentHeader(60, 4, []byte{0, 0})))
	r.send(queuePurge("q"))
	r.wantRefusal("connection 505 60.40 UNEXPECTED_FRAME - expected content body, got non content body frame instead")
}

func TestAContentHeaderOfAnotherClassIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6.1").raw()
	r.send(basicPublish("", "q", 0))
	r.write(frame(frameHeader, 1, contentHeader(50, 4, []byte{0, 0})))
	r.wantRefusal("connection 505 60.40 UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead")
}

func TestABodyLongerThanAnnouncedIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.6.2").raw()
	r.send(basicPublish("", "q", 0))
	r.write(frame(frameHeader, 1, contentHeader(60, 2, []byte{0, 0})))
	r.write(frame(frameBody, 1, []byte("longer")))
	r.wantRefusal("connection 501 60.40 FRAME_ERROR - content body frame exceeds remaining content size")
}

func TestAMessageLargerThanTheLimitIsRefused(t *testing.T) {
	c := begin(t, `RabbitMQ "max_message_size"`)
	r := c.raw()
	r.send(basicPublish("", "q", 0))
	const size = 16<<20 + 1
	r.write(frame(frameHeader, 1, contentHeader(60, size, []byte{0, 0})))
	if !onWarren() { // it says so only when it has all of it
		for left := size; left > 0; left -= 100_000 {
			r.write(frame(frameBody, 1, make([]byte, min(left, 100_000))))
		}
	}
	r.wantRefusal("channel 406 60.40 PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216")
}

func TestAnUnknownMethodIsRefused(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §2.3.1")
	c.raw().refused(differs(t, "connection 501 60.200 FRAME_ERROR - cannot decode <<>>",
		"connection 503 60.200 COMMAND_INVALID - unimplemented method 60.200", "503 COMMAND_INVALID is the specification's name for it"),
		method(60, 200))
}

func TestAMethodCutShortIsRefused(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.4")
	c.raw().refused(differs(t, "connection 501 50.10 FRAME_ERROR - cannot decode <<0,0>>",
		"connection 502 50.10 SYNTAX_ERROR - cannot decode 'queue.declare': too short", "502 SYNTAX_ERROR is the specification's name for it"), method(50, 10).short(0))
}

func TestARefusedChannelHearsNothingButItsCloseOk(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.5.2.5")
	r := c.raw()
	r.send(queueDeclare(c.name("none"), passive, nil), queueDeclare("", exclusive, nil), basicQos(0, 1, false))
	r.want(20, 40)
	r.quiet()
}

func TestOtherChannelsGoOnWhenOneIsRefused(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.5")
	r := c.raw()
	r.sendOn(2, channelOpen())
	r.want(20, 11)
	r.send(queueDeclare(c.name("none"), passive, nil))
	r.want(20, 40)
	r.sendOn(2, basicQos(0, 1, false))
	equal(t, "channel of qos-ok", r.want(60, 11).channel, 2)
}

func TestContentOnAChannelThatIsNotOpenIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.5.2").raw()
	r.write(frame(frameHeader, 2, contentHeader(60, 0, []byte{0, 0})))
	r.wantRefusal("connection 505 0.0 UNEXPECTED_FRAME - expected method frame, got non method frame instead")
}

// Threads that share a connection send on a channel that another one closes.
func TestWhatIsOnItsWayWhenTheClientClosesAChannelEndsNothing(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.5.2.5")
	r, q := c.raw(), c.queue("q", nil)
	late := frame(frameMethod, 1, channelClose())
	late = append(late, frame(frameMethod, 1, basicAck(7, false))...)
	late = append(late, frame(frameMethod, 1, basicPublish("", q, 0))...)
	late = append(late, frame(frameHeader, 1, contentHeader(60, 4, []byte{0, 0}))...)
	late = append(late, frame(frameBody, 1, []byte("late"))...)
	r.write(late)
	r.want(20, 41)
	r.quiet()
	r.call(channelOpen(), 20, 11)
	c.link().isEmpty(q)
}

func TestChannelCloseIsAnswered(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.5.2.5").raw()
	r.call(channelClose(), 20, 41)
	r.call(channelOpen(), 20, 11)
}

func TestFlowStopIsNotImplemented(t *testing.T) {
	begin(t, "AMQP 0-9-1 §1.5.2.3").raw().refused("connection 540 20.20 NOT_IMPLEMENTED - active=false", method(20, 20).octet(0))
}

func TestFlowStartIsAnswered(t *testing.T) {
	equal(t, "active", begin(t, "AMQP 0-9-1 §1.5.2.3").raw().call(method(20, 20).octet(1), 20, 21).rest[0], 1)
}

func TestAnAccessRequestGetsATicket(t *testing.T) {
	begin(t, "AMQP 0-8 access.request").raw().call(method(30, 10).str("/data").octet(0), 30, 11)
}

func TestConnectionMethodsOnAChannelAreRefused(t *testing.T) {
	begin(t, "AMQP 0-9-1 §4.2.3").raw().refused("connection 503 10.40 COMMAND_INVALID - unimplemented method", method(10, 40).str("/").str("").octet(0))
}

func TestChannelMethodsOnChannelZeroAreRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.3").raw()
	r.sendOn(0, queuePurge("q"))
	r.wantRefusal("connection 504 50.30 CHANNEL_ERROR - unexpected method in connection state running")
}
