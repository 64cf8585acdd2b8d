package amqp

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"

	"warren/amqp/wire"
	"warren/mq"
)

// nullSession takes everything and does nothing. Unused methods are nil.
type nullSession struct {
	Session
	published, settled, drained int
	confirm                     bool
}

func (s *nullSession) Publish(_ context.Context, p *mq.Publish) (mq.Outcome, error) {
	s.published++
	if s.confirm {
		p.Confirm.Confirm(p.Tag, mq.Confirmed)
	}
	return mq.Pending, nil
}
func (s *nullSession) Settle(_ context.Context, t mq.Settlement) error {
	s.settled += len(t.Held)
	return nil
}
func (s *nullSession) Drained(_ mq.ConsumerID, messages, _ int) { s.drained += messages }
func (s *nullSession) Flush()                                   {}
func (s *nullSession) OpenChannel(context.Context) error        { return nil }
func (s *nullSession) Close() error                             { return nil }

// nullSocket swallows what is written.
type nullSocket struct{ net.Conn }

func (nullSocket) Write(b []byte) (int, error) { return len(b), nil }
func (nullSocket) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// bench is a connection without a socket, with channel 1 open, and its writer,
// which runs when a test says so.
type bench struct {
	conn    *conn
	slot    *slot
	session *nullSession
	writer  *writer
	batch   []item
}

func newBench(t testing.TB) *bench {
	s := New(nil, Config{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c := newConn(t.Context(), s, nullSocket{})
	session := &nullSession{}
	c.session, c.user, c.frameMax, c.channelMax = session, "guest", 131072, 2047
	b := &bench{conn: c, session: session}
	b.writer = &writer{out: c.out, nc: c.nc, server: s, session: session, frameMax: c.frameMax, sent: &c.sent}
	c.channelFrame(methodFrame(&wire.ChannelOpen{}))
	b.slot = c.slots[1]
	b.write()
	return b
}

// write does what the writer does for what is in the mailbox.
func (b *bench) write() {
	for {
		var over bool
		if b.batch, _, over = b.writer.out.take(b.batch, false); over || len(b.batch) == 0 {
			b.writer.tellLoose()
			b.writer.flush()
			b.writer.report(true)
			return
		}
		b.writer.encode(b.batch)
	}
}

func methodFrame(m wire.Method) wire.Frame { return frameOf(wire.AppendMethod(nil, 1, m)) }

func frameOf(b []byte) wire.Frame {
	return wire.Frame{Type: b[0], Channel: 1, Payload: b[7 : len(b)-1]}
}

func publishFrames(bodyBytes int) [3]wire.Frame {
	props := wire.AppendProperties(nil, wire.Properties{Present: wire.HasContentType | wire.HasDeliveryMode, ContentType: "text/plain", DeliveryMode: 2})
	return [3]wire.Frame{
		methodFrame(&wire.BasicPublish{Exchange: []byte("amq.topic"), RoutingKey: []byte("a.routing.key.of.more.than.thirty-two.bytes")}),
		frameOf(wire.AppendHeader(nil, 1, 60, uint64(bodyBytes), props)),
		frameOf(wire.AppendBody(nil, 1, make([]byte, bodyBytes), 0)),
	}
}

func (b *bench) publish(frames *[3]wire.Frame) {
	for _, f := range frames {
		b.conn.channelFrame(f)
	}
}

// consumer starts a consumer of the bench's channel.
func (b *bench) consumer() *consumer {
	k := &consumer{out: b.conn.out, ch: b.slot.ch, tag: "amq.ctag-0123456789012345678901", count: &b.conn.server.count.consumers}
	b.conn.out.start(k, 1, nil)
	return k
}

func TestAPublishAllocatesItsContentOnly(t *testing.T) {
	b := newBench(t)
	frames := publishFrames(1024)
	if n := testing.AllocsPerRun(1000, func() { b.publish(&frames) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestAConfirmedPublishAllocatesItsContentOnly(t *testing.T) {
	b := newBench(t)
	b.session.confirm = true
	b.conn.channelFrame(methodFrame(&wire.ConfirmSelect{NoWait: true}))
	frames := publishFrames(1024)
	n := testing.AllocsPerRun(1000, func() {
		for range 64 {
			b.publish(&frames)
		}
		b.write()
	})
	if n > 65 { // and a buffer now and then
		t.Errorf("%v allocations for 64 publishes", n)
	}
}

func TestADeliveryAndItsAckAllocateNothing(t *testing.T) {
	b := newBench(t)
	k := b.consumer()
	d := mq.Delivery{Consumer: 1, Queue: 1, Content: append(mq.NewContent("x", "key", []byte{0, 0}, 1024), make([]byte, 1024)...)}
	tag := uint64(0)
	ack := wire.AppendMethod(nil, 1, &wire.BasicAck{DeliveryTag: 1})
	f := frameOf(ack)
	n := testing.AllocsPerRun(1000, func() {
		for range 64 {
			d.Seq++
			k.Deliver(d)
		}
		b.write()
		for range 64 {
			tag++
			f.Payload[11] = byte(tag)
			f.Payload[10] = byte(tag >> 8)
			f.Payload[9] = byte(tag >> 16)
			b.conn.channelFrame(f)
		}
		b.conn.beforeWaiting()
	})
	if n > 1 {
		t.Errorf("%v allocations for 64 deliveries", n)
	}
	if b.session.settled != int(tag) || b.session.drained != int(tag) {
		t.Errorf("settled %d, drained %d of %d", b.session.settled, b.session.drained, tag)
	}
}

func BenchmarkPublish(b *testing.B) {
	bb := newBench(b)
	frames := publishFrames(1024)
	b.ReportAllocs()
	for b.Loop() {
		bb.publish(&frames)
	}
}

func BenchmarkConfirmedPublish(b *testing.B) {
	bb := newBench(b)
	bb.session.confirm = true
	bb.conn.channelFrame(methodFrame(&wire.ConfirmSelect{NoWait: true}))
	frames := publishFrames(1024)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		bb.publish(&frames)
		if n++; n%64 == 0 {
			bb.write()
		}
	}
}

func BenchmarkDelivery(b *testing.B) {
	bb := newBench(b)
	k := bb.consumer()
	d := mq.Delivery{Consumer: 1, Queue: 1, Content: append(mq.NewContent("x", "key", []byte{0, 0}, 1024), make([]byte, 1024)...)}
	ack := methodFrame(&wire.BasicAck{Multiple: true})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		d.Seq++
		k.Deliver(d)
		if n++; n%64 == 0 {
			bb.write()
			bb.conn.channelFrame(ack)
			bb.conn.beforeWaiting()
		}
	}
}
