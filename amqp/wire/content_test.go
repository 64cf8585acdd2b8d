package wire

import (
	"bytes"
	"testing"

	"warren/mq"
)

func TestHotEncodersEqualAppendMethod(t *testing.T) {
	x, k := []byte("exchange"), []byte("key")
	for _, c := range []struct {
		got  []byte
		want Method
	}{
		{AppendDeliver(nil, 9, "tag", 1<<40, true, x, k), &BasicDeliver{"tag", 1 << 40, true, x, k}},
		{AppendGetOk(nil, 9, 2, false, x, k, 77), &BasicGetOk{2, false, x, k, 77}},
		{AppendReturn(nil, 9, mq.NoRoute, "NO_ROUTE", x, k), &BasicReturn{mq.NoRoute, "NO_ROUTE", x, k}},
		{AppendAck(nil, 9, 3, true), &BasicAck{3, true}},
		{AppendNack(nil, 9, 4, false, true), &BasicNack{4, false, true}},
	} {
		if want := AppendMethod(nil, 9, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s: got %x, want %x", c.want.Name(), c.got, want)
		}
	}
}

func TestHotParsersEqualParseMethod(t *testing.T) {
	payloadOf := func(m Method) []byte {
		f := AppendMethod(nil, 1, m)
		return f[frameHeaderBytes : len(f)-1]
	}
	var ack BasicAck
	if err := ParseAck(payloadOf(BasicAck{5, true}), &ack); err != nil || ack != (BasicAck{5, true}) {
		t.Errorf("ack: %+v, %v", ack, err)
	}
	var nack BasicNack
	if err := ParseNack(payloadOf(BasicNack{5, false, true}), &nack); err != nil || nack != (BasicNack{5, false, true}) {
		t.Errorf("nack: %+v, %v", nack, err)
	}
	var reject BasicReject
	if err := ParseReject(payloadOf(BasicReject{6, true}), &reject); err != nil || reject != (BasicReject{6, true}) {
		t.Errorf("reject: %+v, %v", reject, err)
	}
	var publish BasicPublish
	want := BasicPublish{[]byte("x"), []byte("k"), false, true}
	if err := ParsePublish(payloadOf(want), &publish); err != nil || string(publish.Exchange) != "x" ||
		string(publish.RoutingKey) != "k" || publish.Mandatory || !publish.Immediate {
		t.Errorf("publish: %+v, %v", publish, err)
	}
	wantError(t, ParseAck(payloadOf(BasicReject{6, true}), &ack), mq.SyntaxError, "another method")
	wantError(t, ParseNack(payloadOf(BasicNack{})[:12], &nack), mq.SyntaxError, "basic.nack")
	wantError(t, ParsePublish(nil, &publish), mq.SyntaxError, "basic.publish")
}

// message is a publish as a client sends it: method, header and body frames.
func message() (publish, header, body []byte) {
	publish = AppendMethod(nil, 1, &BasicPublish{Exchange: []byte("orders"), RoutingKey: []byte("eu.created")})
	properties := AppendProperties(nil, Properties{
		Present:     HasContentType | HasHeaders | HasDeliveryMode | HasPriority | HasExpiration | HasUserID,
		Headers:     mq.Table{{Key: "a", Value: "b"}, {Key: "n", Value: []any{int32(1), mq.Table{{Key: "x", Value: true}}}}},
		ContentType: "application/json", DeliveryMode: 2, Priority: 5, Expiration: "60000", UserID: "guest",
	})
	header = AppendHeader(nil, 1, 60, 100, properties)
	return publish, header, AppendBody(nil, 1, make([]byte, 100), FrameMaxDefault)
}

func payload(frame []byte) []byte { return frame[frameHeaderBytes : len(frame)-1] }

func TestHotPathDoesNotAllocate(t *testing.T) {
	publish, header, body := message()
	ack, nack := payload(AppendAck(nil, 1, 9, true)), payload(AppendNack(nil, 1, 9, true, true))
	reject := payload(AppendMethod(nil, 1, &BasicReject{9, true}))
	_, _, properties, err := ParseHeader(payload(header))
	if err != nil {
		t.Fatal(err)
	}
	x, k := []byte("orders"), []byte("eu.created")
	dst := make([]byte, 0, 4096)
	var p BasicPublish
	var a BasicAck
	var n BasicNack
	var r BasicReject
	stream := bytes.NewReader(nil)
	in := append(append(bytes.Clone(publish), header...), body...)
	frames := NewReader(stream, 0)
	for name, f := range map[string]func(){
		"ParsePublish":   func() { _ = ParsePublish(payload(publish), &p) },
		"ParseAck":       func() { _ = ParseAck(ack, &a) },
		"ParseNack":      func() { _ = ParseNack(nack, &n) },
		"ParseReject":    func() { _ = ParseReject(reject, &r) },
		"ParseHeader":    func() { _, _, _, _ = ParseHeader(payload(header)) },
		"PeekProperties": func() { _, _, _, _, _, _ = PeekProperties(properties) },
		"MethodID":       func() { _, _, _ = MethodID(ack) },
		"AppendDeliver":  func() { dst = AppendDeliver(dst[:0], 1, "ctag-1", 7, false, x, k) },
		"AppendGetOk":    func() { dst = AppendGetOk(dst[:0], 1, 7, false, x, k, 3) },
		"AppendHeader":   func() { dst = AppendHeader(dst[:0], 1, 60, 100, properties) },
		"AppendBody":     func() { dst = AppendBody(dst[:0], 1, payload(body), FrameMaxDefault) },
		"AppendAck":      func() { dst = AppendAck(dst[:0], 1, 7, true) },
		"AppendNack":     func() { dst = AppendNack(dst[:0], 1, 7, true, false) },
		"Next, Ready": func() {
			stream.Reset(in)
			for range 3 {
				if _, err := frames.Next(); err != nil {
					t.Fatal(err)
				}
				_ = frames.Ready()
			}
		},
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s allocates %v times", name, got)
		}
	}
}

func BenchmarkPublishIn(b *testing.B) {
	publish, header, body := message()
	in := append(append(bytes.Clone(publish), header...), body...)
	stream := bytes.NewReader(nil)
	frames := NewReader(stream, 0)
	var p BasicPublish
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		stream.Reset(in)
		for range 3 {
			f, err := frames.Next()
			if err != nil {
				b.Fatal(err)
			}
			switch f.Type {
			case FrameMethod:
				err = ParsePublish(f.Payload, &p)
			case FrameHeader:
				var properties []byte
				if _, _, properties, err = ParseHeader(f.Payload); err == nil {
					_, _, _, _, _, err = PeekProperties(properties)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkDeliverOut(b *testing.B) {
	_, header, body := message()
	_, _, properties, err := ParseHeader(payload(header))
	if err != nil {
		b.Fatal(err)
	}
	x, k := []byte("orders"), []byte("eu.created")
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendDeliver(dst[:0], 1, "ctag-1", 7, false, x, k)
		dst = AppendHeader(dst, 1, 60, 100, properties)
		dst = AppendBody(dst, 1, payload(body), FrameMaxDefault)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkAckInOut(b *testing.B) {
	ack := payload(AppendAck(nil, 1, 9, true))
	dst := make([]byte, 0, 64)
	var m BasicAck
	b.ReportAllocs()
	for b.Loop() {
		if err := ParseAck(ack, &m); err != nil {
			b.Fatal(err)
		}
		dst = AppendAck(dst[:0], 1, m.DeliveryTag, m.Multiple)
	}
}
