package amqp_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"
	"time"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// frame is a frame that may be as wrong as a test needs it.
func frame(typ byte, channel uint16, announced uint32, payload []byte, end ...byte) []byte {
	b := []byte{typ, byte(channel >> 8), byte(channel)}
	b = binary.BigEndian.AppendUint32(b, announced)
	return append(append(b, payload...), end...)
}

func method(class, id uint16, args ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, class)
	return append(binary.BigEndian.AppendUint16(b, id), args...)
}

// What RabbitMQ answers to broken input (rabbit_reader.erl,
// rabbit_command_assembler.erl, rabbit_channel.erl). Each case has a
// connection of its own with channel 1 open; a bystander sees none of it.
func TestBadInputGetsTheProtocolsError(t *testing.T) {
	deep := wire.AppendTable(nil, nil)
	for range 10_000 {
		inner := append([]byte{1, 'k', 'F'}, deep...)
		deep = append(binary.BigEndian.AppendUint32(nil, uint32(len(inner))), inner...)
	}
	declare := func(args []byte) []byte {
		return wire.AppendFrame(nil, wire.Frame{Type: wire.FrameMethod, Channel: 1, Payload: method(50, 10, append([]byte{0, 0, 1, 'q', 0}, args...)...)})
	}
	publish := wire.AppendMethod(nil, 1, &wire.BasicPublish{RoutingKey: []byte("q")})
	cases := []struct {
		name          string
		send          []byte
		channel       uint16 // that is closed; 0: the connection
		code          mq.Code
		text          string // part of it
		class, method uint16
	}{
		{"a bad frame end", frame(1, 1, 4, method(20, 10), 0x00), 0, mq.FrameError, "invalid_frame_end_marker", 0, 0},
		{"an oversized frame", frame(1, 1, 1<<31, nil), 0, mq.FrameError, "frame_too_large", 0, 0},
		{"an unknown frame type", frame(9, 1, 0, nil, wire.FrameEnd), 0, mq.FrameError, "unknown_frame", 0, 0},
		{"a heartbeat on a channel", frame(8, 1, 0, nil, wire.FrameEnd), 0, mq.UnexpectedFrame, "type 8", 0, 0},
		{"a body without a method", frame(3, 1, 1, []byte{1}, wire.FrameEnd), 0, mq.UnexpectedFrame, "expected method frame, got non method frame instead", 0, 0},
		{"a body on channel 0", frame(3, 0, 1, []byte{1}, wire.FrameEnd), 0, mq.UnexpectedFrame, "", 0, 0},
		{"a method instead of a header", append(bytes.Clone(publish), publish...), 0, mq.UnexpectedFrame, "expected content header for class 60, got non content header frame instead", 60, 40},
		{"a method instead of a body", append(wire.AppendHeader(bytes.Clone(publish), 1, 60, 5, nil), publish...), 0, mq.UnexpectedFrame, "expected content body, got non content body frame instead", 60, 40},
		{"a header of another class", wire.AppendHeader(bytes.Clone(publish), 1, 50, 5, nil), 0, mq.UnexpectedFrame, "expected content header for class 60, got one for class 50 instead", 60, 40},
		{"more body than announced", wire.AppendBody(wire.AppendHeader(bytes.Clone(publish), 1, 60, 1, nil), 1, []byte("xx"), 0), 0, mq.FrameError, "content body frame exceeds remaining content size", 60, 40},
		{"an unknown method", wire.AppendFrame(nil, wire.Frame{Type: 1, Channel: 1, Payload: method(50, 99)}), 0, mq.CommandInvalid, "", 50, 99},
		{"an unknown class", wire.AppendFrame(nil, wire.Frame{Type: 1, Channel: 1, Payload: method(77, 10)}), 0, mq.CommandInvalid, "", 77, 10},
		{"a method of the server", wire.AppendMethod(nil, 1, &wire.QueueDeclareOk{}), 0, mq.CommandInvalid, "unimplemented method", 50, 11},
		{"a method that is too short", wire.AppendFrame(nil, wire.Frame{Type: 1, Channel: 1, Payload: method(50, 10, 0)}), 0, mq.SyntaxError, "", 50, 10},
		{"a method frame without ids", wire.AppendFrame(nil, wire.Frame{Type: 1, Channel: 1, Payload: []byte{0}}), 0, mq.SyntaxError, "", 0, 0},
		{"a method on a channel that is not open", wire.AppendMethod(nil, 7, &wire.BasicQos{}), 0, mq.ChannelError, "expected 'channel.open'", 60, 10},
		{"a second channel.open", wire.AppendMethod(nil, 1, &wire.ChannelOpen{}), 0, mq.ChannelError, "second 'channel.open' seen", 20, 10},
		{"a channel above channel-max", wire.AppendMethod(nil, 2048, &wire.ChannelOpen{}), 0, mq.NotAllowed, "channel_max (2047)", 0, 0},
		{"a method for channels on channel 0", wire.AppendMethod(nil, 0, &wire.BasicQos{}), 0, mq.ChannelError, "unexpected method in connection state running", 60, 10},
		{"a method of connections on a channel", wire.AppendMethod(nil, 1, &wire.ConnectionTuneOk{}), 0, mq.CommandInvalid, "unimplemented method", 10, 31},
		{"tables 10 000 deep", declare(deep), 0, mq.SyntaxError, "", 50, 10},
		{"a table of 4 GiB", declare([]byte{0xff, 0xff, 0xff, 0xff}), 0, mq.SyntaxError, "", 50, 10},
		{"a string of 4 GiB in a table", declare([]byte{0, 0, 0, 9, 1, 'k', 'S', 0xff, 0xff, 0xff, 0xff, 'x', 'y'}), 0, mq.SyntaxError, "", 50, 10},
		{"a body of 2^63 bytes", wire.AppendHeader(bytes.Clone(publish), 1, 60, 1<<63, nil), 1, mq.PreconditionFailed, "message size 9223372036854775808 is larger than configured max size 16777216", 60, 40},
	}
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	bystander := s.Dial(t).Open(1)
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			c := s.Dial(t).Open(1)
			before := heapBytes()
			c.Write(k.send)
			closed := c.ExpectClose(k.channel, k.code)
			if grown := int64(heapBytes()) - int64(before); grown > 4<<20 {
				t.Errorf("memory grew by %d bytes", grown)
			}
			if !strings.Contains(closed.ReplyText, k.text) || closed.ClassID != k.class || closed.MethodID != k.method {
				t.Errorf("got %+v", closed)
			}
			bystander.ExpectNothing(1)
		})
	}
	if n := s.Stats().Crashes; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A body that is announced and never comes costs nothing.
func TestAnAnnouncedBodyCostsWhatArrived(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{MaxMessageBytes: 1 << 30})
	c := s.Dial(t).Open(100)
	runtime.GC()
	before := heapBytes()
	for ch := uint16(1); ch <= 100; ch++ {
		b := wire.AppendMethod(nil, ch, &wire.BasicPublish{RoutingKey: []byte("q")})
		c.Write(wire.AppendBody(wire.AppendHeader(b, ch, 60, 1<<30, nil), ch, []byte("x"), 0))
	}
	c.Send(0, &wire.ConnectionUpdateSecret{NewSecret: "guest"})
	amqptest.Expect[wire.ConnectionUpdateSecretOk](c)
	if grown := int64(heapBytes()) - int64(before); grown > 160<<20 {
		t.Errorf("100 GiB announced: memory grew by %d MiB", grown>>20)
	}
}

func TestSeventyThousandChannelsEndInAnError(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c := s.Dial(t).Open(0)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := 1; n <= 70_000; n++ {
			if _, err := c.Conn.Write(wire.AppendMethod(nil, uint16(n), &wire.ChannelOpen{})); err != nil {
				return // it was told
			}
		}
	}()
	for n := uint16(1); n <= 2047; n++ {
		amqptest.Expect[wire.ChannelOpenOk](c)
	}
	closed := c.ExpectClose(0, mq.NotAllowed)
	if want := "NOT_ALLOWED - number of channels opened (2047) has reached the negotiated channel_max (2047)"; closed.ReplyText != want || closed.ClassID != 0 {
		t.Errorf("got %q", closed.ReplyText)
	}
	c.Conn.Close()
	<-sent
}

// §1.5.2.5: after channel.close only close-ok counts, and then the number is
// free again.
func TestAClosedChannelIgnoresAllButCloseOk(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(2)
	c.Send(1, &wire.QueueDeclare{Queue: "missing", Passive: true})
	closed := c.ExpectClose(1, mq.NotFound)
	if closed.ReplyText != "NOT_FOUND - no queue 'missing' in vhost '/'" || closed.ClassID != 50 || closed.MethodID != 10 {
		t.Errorf("got %+v", closed)
	}
	c.Publish(1, wire.BasicPublish{Exchange: []byte("missing")}, wire.Properties{}, "late")
	c.Send(1, &wire.QueueDeclare{Queue: "late"})
	c.Send(1, &wire.BasicAck{DeliveryTag: 99})
	c.ExpectNothing(2)
	c.Send(1, &wire.ChannelClose{}) // crossed ours
	amqptest.Expect[wire.ChannelCloseOk](c)
	c.Send(1, &wire.ChannelCloseOk{})
	c.Send(1, &wire.ChannelOpen{})
	amqptest.Expect[wire.ChannelOpenOk](c)
	c.Declare(1, "again")
}

// A client's threads share a connection and not their knowledge: what one sends
// while another closes the channel is on its way, and ends nothing. Later it
// is an error again.
func TestWhatWasOnItsWayWhenAClientClosedAChannelIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(2)
		b := wire.AppendMethod(nil, 1, &wire.ChannelClose{})
		b = wire.AppendMethod(b, 1, &wire.BasicAck{DeliveryTag: 1})
		b = wire.AppendMethod(b, 1, &wire.BasicPublish{RoutingKey: []byte("q")})
		b = wire.AppendBody(wire.AppendHeader(b, 1, 60, 1, nil), 1, []byte("x"), 0)
		b = wire.AppendMethod(b, 1, &wire.QueueDeclare{Queue: "late"})
		c.Write(b)
		amqptest.Expect[wire.ChannelCloseOk](c)
		c.ExpectNothing(2)
		c.Send(1, &wire.ChannelOpen{})
		amqptest.Expect[wire.ChannelOpenOk](c)
		c.Declare(1, "again")
		c.Send(1, &wire.ChannelClose{})
		amqptest.Expect[wire.ChannelCloseOk](c)
		deadline := time.Now().Add(10 * time.Second)
		for closed := false; !closed; <-time.After(time.Millisecond) { // until the grace is over
			if time.Now().After(deadline) {
				t.Fatal("a closed channel may be used for ever")
			}
			c.Write(wire.AppendMethod(wire.AppendMethod(nil, 1, &wire.BasicQos{}), 2, &wire.BasicQos{}))
			_, got := c.Next()
			_, answered := got.Method.(*wire.BasicQosOk)
			closed = !answered
		}
	})
}

func TestWhatAChannelRefuses(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{})
	s.Dial(t).Open(1).Declare(1, "q")
	publish := func(p wire.Properties, m wire.BasicPublish) []byte {
		b := wire.AppendMethod(nil, 1, &m)
		return wire.AppendHeader(b, 1, 60, 0, wire.AppendProperties(nil, p))
	}
	methods := func(ms ...wire.Method) (b []byte) {
		for _, m := range ms {
			b = wire.AppendMethod(b, 1, m)
		}
		return b
	}
	cases := []struct {
		name string
		send []byte
		hard bool
		code mq.Code
		text string
	}{
		{"an exchange that is not there", publish(wire.Properties{}, wire.BasicPublish{Exchange: []byte("x")}), false, mq.NotFound, "no exchange 'x' in vhost '/'"},
		{"immediate", publish(wire.Properties{}, wire.BasicPublish{Immediate: true}), true, mq.NotImplemented, "immediate=true"},
		{"an expiration that is no number", publish(wire.Properties{Present: wire.HasExpiration, Expiration: "1s"}, wire.BasicPublish{}), false, mq.PreconditionFailed, `invalid expiration '1s': {leftover_string,"s"}`},
		{"a negative expiration", publish(wire.Properties{Present: wire.HasExpiration, Expiration: "-1"}, wire.BasicPublish{}), false, mq.PreconditionFailed, "invalid expiration '-1': {value_negative,-1}"},
		{"an empty expiration", publish(wire.Properties{Present: wire.HasExpiration}, wire.BasicPublish{}), false, mq.PreconditionFailed, "invalid expiration '': no_integer"},
		{"an expiration of eleven years", publish(wire.Properties{Present: wire.HasExpiration, Expiration: "0346896000000"}, wire.BasicPublish{}), false, mq.PreconditionFailed, "invalid expiration '0346896000000': {value_too_large,346896000000}"},
		{"an expiration beyond 64 bits", publish(wire.Properties{Present: wire.HasExpiration, Expiration: "99999999999999999999"}, wire.BasicPublish{}), false, mq.PreconditionFailed, "{value_too_large,99999999999999999999}"},
		{"a consumer's priority that is a text", methods(&wire.BasicConsume{Queue: "q", Arguments: mq.Table{{Key: "x-priority", Value: "1"}}}), false, mq.PreconditionFailed, "invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\""},
		{"an exchange that is not there before the expiration", publish(wire.Properties{Present: wire.HasExpiration, Expiration: "x"}, wire.BasicPublish{Exchange: []byte("x")}), false, mq.NotFound, "no exchange 'x' in vhost '/'"},
		{"an unknown delivery tag", methods(&wire.BasicAck{DeliveryTag: 1}), false, mq.PreconditionFailed, "unknown delivery tag 1"},
		{"a nack of an unknown tag", methods(&wire.BasicNack{DeliveryTag: 3, Multiple: true}), false, mq.PreconditionFailed, "unknown delivery tag 3"},
		{"a reject of an unknown tag", methods(&wire.BasicReject{DeliveryTag: 0}), false, mq.PreconditionFailed, "unknown delivery tag 0"},
		{"prefetch_size", methods(&wire.BasicQos{PrefetchSize: 9}), true, mq.NotImplemented, "prefetch_size!=0 (9)"},
		{"recover without requeue", methods(&wire.BasicRecover{}), true, mq.NotImplemented, "requeue=false"},
		{"stopping the flow", methods(&wire.ChannelFlow{}), true, mq.NotImplemented, "active=false"},
		{"no current queue", methods(&wire.QueuePurge{}), false, mq.NotFound, "no previously declared queue"},
		{"tx on a confirm channel", methods(&wire.ConfirmSelect{NoWait: true}, &wire.TxSelect{}), false, mq.PreconditionFailed, "cannot switch from confirm to tx mode"},
		{"commit without select", methods(&wire.TxCommit{}), false, mq.PreconditionFailed, "channel is not transactional"},
		{"rollback without select", methods(&wire.TxRollback{}), false, mq.PreconditionFailed, "channel is not transactional"},
		{"a consumer tag twice", methods(&wire.BasicConsume{Queue: "q", ConsumerTag: "t", NoWait: true}, &wire.BasicConsume{Queue: "q", ConsumerTag: "t"}), true, mq.NotAllowed, "attempt to reuse consumer tag 't'"},
		{"a priority that is no number", methods(&wire.BasicConsume{Queue: "q", Arguments: mq.Table{{Key: "x-priority", Value: "high"}}}), false, mq.PreconditionFailed, "invalid arg 'x-priority'"},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			c := s.Dial(t).Open(2)
			c.Write(k.send)
			channel := uint16(1)
			if k.hard {
				channel = 0
			}
			if closed := c.ExpectClose(channel, k.code); !strings.Contains(closed.ReplyText, k.text) {
				t.Errorf("got %q", closed.ReplyText)
			}
			if !k.hard {
				c.ExpectNothing(2)
			}
		})
	}
}
