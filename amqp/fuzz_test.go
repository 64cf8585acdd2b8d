package amqp_test

import (
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// fuzzer is a client that does what bytes tell it to, right or wrong, and
// holds what it hears against what a server may say.
type fuzzer struct {
	t      *testing.T
	c      *amqptest.Client
	script []byte

	mu       sync.Mutex // of what follows; the reader and the script both use it
	channels map[uint16]*fuzzedChannel
	over     bool // the server has closed the connection, or was asked to
	faults   []string
}

// fuzzedChannel is what a client knows of one of its channels.
type fuzzedChannel struct {
	awaited   []reflect.Type // replies, in the order of what was sent
	published uint64         // since confirm.select
	confirmed map[uint64]bool
	selected  bool
	last      uint64 // delivery tag
	lost      bool   // a close is under way: what is answered is anybody's guess
}

// byte takes the next byte of the script; 0 when it is over.
func (f *fuzzer) byte() byte {
	if len(f.script) == 0 {
		return 0
	}
	b := f.script[0]
	f.script = f.script[1:]
	return b
}

func (f *fuzzer) bool() bool { return f.byte()&1 == 1 }

// The names in a script: few, so that its steps have to do with each other.
func (f *fuzzer) queue() string {
	return []string{"q", "r", "", "none", "amq.no"}[f.byte()%5]
}

func (f *fuzzer) exchange() string {
	return []string{"", "x", "amq.direct", "amq.fanout", "none"}[f.byte()%5]
}

func (f *fuzzer) tag() string { return []string{"c", "d", ""}[f.byte()%3] }

// method is the next method of the script.
func (f *fuzzer) method() wire.Method {
	switch f.byte() % 32 {
	case 0, 1, 2:
		return &wire.ChannelOpen{}
	case 3:
		return &wire.ChannelClose{ReplyCode: 200}
	case 4:
		return &wire.ChannelFlow{Active: f.bool()}
	case 5:
		return &wire.ExchangeDeclare{Exchange: f.exchange(), Type: []string{"fanout", "direct", "none"}[f.byte()%3], Passive: f.bool(), NoWait: f.bool()}
	case 6:
		return &wire.ExchangeDelete{Exchange: f.exchange(), IfUnused: f.bool(), NoWait: f.bool()}
	case 7, 8, 9:
		return &wire.QueueDeclare{Queue: f.queue(), Passive: f.bool(), Exclusive: f.bool(), NoWait: f.bool()}
	case 10:
		return &wire.QueueBind{Queue: f.queue(), Exchange: f.exchange(), RoutingKey: f.queue(), NoWait: f.bool()}
	case 11:
		return &wire.QueueUnbind{Queue: f.queue(), Exchange: f.exchange(), RoutingKey: f.queue()}
	case 12:
		return &wire.QueuePurge{Queue: f.queue(), NoWait: f.bool()}
	case 13:
		return &wire.QueueDelete{Queue: f.queue(), IfEmpty: f.bool(), NoWait: f.bool()}
	case 14:
		return &wire.BasicQos{PrefetchCount: uint16(f.byte() % 4), Global: f.bool()}
	case 15, 16, 17:
		return &wire.BasicConsume{Queue: f.queue(), ConsumerTag: f.tag(), NoAck: f.bool(), Exclusive: f.bool(), NoWait: f.bool()}
	case 18:
		return &wire.BasicCancel{ConsumerTag: f.tag(), NoWait: f.bool()}
	case 19, 20:
		return &wire.BasicGet{Queue: f.queue(), NoAck: f.bool()}
	case 21, 22, 23:
		return &wire.BasicAck{DeliveryTag: uint64(f.byte() % 8), Multiple: f.bool()}
	case 24:
		return &wire.BasicNack{DeliveryTag: uint64(f.byte() % 8), Multiple: f.bool(), Requeue: f.bool()}
	case 25:
		return &wire.BasicReject{DeliveryTag: uint64(f.byte() % 8), Requeue: f.bool()}
	case 26:
		return &wire.BasicRecover{Requeue: f.bool()}
	case 27:
		return &wire.ConfirmSelect{NoWait: f.bool()}
	case 28:
		return &wire.TxSelect{}
	case 29:
		return &wire.TxCommit{}
	case 30:
		return &wire.TxRollback{}
	default:
		return &wire.BasicRecoverAsync{Requeue: f.bool()}
	}
}

// answer is the type of the reply to a method; nil if there is none.
func answer(m wire.Method) reflect.Type {
	v := reflect.ValueOf(m).Elem()
	if w := v.FieldByName("NoWait"); w.IsValid() && w.Bool() {
		return nil
	}
	switch m.(type) {
	case *wire.ChannelOpen:
		return reflect.TypeFor[wire.ChannelOpenOk]()
	case *wire.ChannelClose:
		return reflect.TypeFor[wire.ChannelCloseOk]()
	case *wire.ChannelFlow:
		return reflect.TypeFor[wire.ChannelFlowOk]()
	case *wire.ExchangeDeclare:
		return reflect.TypeFor[wire.ExchangeDeclareOk]()
	case *wire.ExchangeDelete:
		return reflect.TypeFor[wire.ExchangeDeleteOk]()
	case *wire.QueueDeclare:
		return reflect.TypeFor[wire.QueueDeclareOk]()
	case *wire.QueueBind:
		return reflect.TypeFor[wire.QueueBindOk]()
	case *wire.QueueUnbind:
		return reflect.TypeFor[wire.QueueUnbindOk]()
	case *wire.QueuePurge:
		return reflect.TypeFor[wire.QueuePurgeOk]()
	case *wire.QueueDelete:
		return reflect.TypeFor[wire.QueueDeleteOk]()
	case *wire.BasicQos:
		return reflect.TypeFor[wire.BasicQosOk]()
	case *wire.BasicConsume:
		return reflect.TypeFor[wire.BasicConsumeOk]()
	case *wire.BasicCancel:
		return reflect.TypeFor[wire.BasicCancelOk]()
	case *wire.BasicGet:
		return reflect.TypeFor[wire.BasicGetOk]() // or get-empty
	case *wire.BasicRecover:
		return reflect.TypeFor[wire.BasicRecoverOk]()
	case *wire.ConfirmSelect:
		return reflect.TypeFor[wire.ConfirmSelectOk]()
	case *wire.TxSelect:
		return reflect.TypeFor[wire.TxSelectOk]()
	case *wire.TxCommit:
		return reflect.TypeFor[wire.TxCommitOk]()
	case *wire.TxRollback:
		return reflect.TypeFor[wire.TxRollbackOk]()
	}
	return nil
}

// write sends bytes unless the server has gone; it may at any moment.
func (f *fuzzer) write(b []byte) bool {
	_ = f.c.Conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := f.c.Conn.Write(b)
	return err == nil
}

// step does the next thing that the script says.
func (f *fuzzer) step() bool {
	number := uint16(f.byte() % 4) // 0 is no channel for most of it
	f.mu.Lock()
	ch := f.channels[number]
	if ch == nil {
		ch = &fuzzedChannel{confirmed: map[uint64]bool{}}
		f.channels[number] = ch
	}
	var out []byte
	switch kind := f.byte() % 16; {
	case kind == 0: // a frame that may be anything
		payload := make([]byte, f.byte()%32)
		for i := range payload {
			payload[i] = f.byte()
		}
		out = append([]byte{f.byte() % 9, 0, byte(number), 0, 0, 0, byte(len(payload))}, payload...)
		out = append(out, 0xCE-f.byte()%2)
		ch.lost = true
		f.lose()
	case kind < 5: // a message, or part of one
		body := make([]byte, f.byte()%16)
		m := &wire.BasicPublish{Exchange: []byte(f.exchange()), RoutingKey: []byte(f.queue()), Mandatory: f.bool()}
		out = wire.AppendMethod(nil, number, m)
		header := wire.AppendHeader(nil, number, 60, uint64(len(body)), []byte{0, 0})
		whole := f.byte()%8 != 0
		if whole {
			out = wire.AppendBody(append(out, header...), number, body, wire.FrameMin)
		} else {
			ch.lost = true
			f.lose() // whatever comes next on this channel ends the connection
		}
		if ch.selected {
			ch.published++
		}
	default:
		m := f.method()
		out = wire.AppendMethod(nil, number, m)
		if r := answer(m); r != nil {
			ch.awaited = append(ch.awaited, r)
		}
		if _, ok := m.(*wire.ConfirmSelect); ok {
			ch.selected = true
		}
	}
	f.mu.Unlock()
	return f.write(out)
}

// lose gives up on knowing what is answered. Runs with mu held.
func (f *fuzzer) lose() { f.over = true }

func (f *fuzzer) fault(format string, args ...any) {
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

// read hears all that the server says until it closes the socket.
func (f *fuzzer) read() {
	r := wire.NewReader(f.c.Conn, 0)
	for {
		_ = f.c.Conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		fr, err := r.Next()
		if err != nil {
			if ne, ok := err.(interface{ Timeout() bool }); ok && ne.Timeout() {
				f.mu.Lock()
				f.fault("the server says nothing and keeps the connection")
				f.mu.Unlock()
				f.c.Conn.Close()
			}
			_, _ = io.Copy(io.Discard, f.c.Conn)
			return
		}
		if fr.Type != wire.FrameMethod {
			continue
		}
		m, err := wire.ParseMethod(append([]byte(nil), fr.Payload...))
		f.mu.Lock()
		if err != nil {
			f.fault("a method that cannot be read: %v", err)
		} else {
			f.hear(fr.Channel, m)
		}
		f.mu.Unlock()
	}
}

// hear checks one method of the server. Runs with mu held.
func (f *fuzzer) hear(number uint16, m wire.Method) {
	ch := f.channels[number]
	if ch == nil {
		ch = &fuzzedChannel{}
	}
	switch m := m.(type) {
	case *wire.ConnectionClose:
		f.over = true
		go func() {
			f.write(wire.AppendMethod(nil, 0, &wire.ConnectionCloseOk{}))
			f.c.Conn.Close() // as clients do
		}()
	case *wire.ConnectionCloseOk, *wire.ConnectionBlocked, *wire.ConnectionUnblocked, *wire.BasicCancel, *wire.BasicReturn, *wire.AccessRequestOk:
	case *wire.ChannelClose:
		// From here until the server has our close-ok it ignores what we send, and
		// then takes it for a channel that is not open.
		ch.lost, f.over = true, true
		go f.write(wire.AppendMethod(nil, number, &wire.ChannelCloseOk{}))
	case *wire.BasicDeliver:
		f.delivered(number, ch, m.DeliveryTag)
	case *wire.BasicAck:
		f.confirmed(number, ch, m.DeliveryTag, m.Multiple)
	case *wire.BasicNack:
		f.confirmed(number, ch, m.DeliveryTag, m.Multiple)
	default:
		if got, ok := m.(*wire.BasicGetOk); ok {
			f.delivered(number, ch, got.DeliveryTag)
		}
		f.replied(number, ch, m)
	}
}

func (f *fuzzer) replied(number uint16, ch *fuzzedChannel, m wire.Method) {
	if f.over || ch.lost {
		return
	}
	got := reflect.TypeOf(m).Elem()
	if got == reflect.TypeFor[wire.BasicGetEmpty]() {
		got = reflect.TypeFor[wire.BasicGetOk]()
	}
	if len(ch.awaited) == 0 || ch.awaited[0] != got {
		f.fault("channel %d: %v is not the answer to %v", number, got, ch.awaited)
		f.over = true
		return
	}
	ch.awaited = ch.awaited[1:]
	if got == reflect.TypeFor[wire.ChannelCloseOk]() {
		awaited := ch.awaited
		*ch = fuzzedChannel{awaited: awaited, confirmed: map[uint64]bool{}}
		ch.lost = true // it may be open again by now, with tags that begin anew
	}
}

// delivered checks that tags only grow.
func (f *fuzzer) delivered(number uint16, ch *fuzzedChannel, tag uint64) {
	if !f.over && !ch.lost && tag != ch.last+1 {
		f.fault("channel %d: delivery %d after %d", number, tag, ch.last)
	}
	ch.last = tag
}

// confirmed checks that what is confirmed was published, and is confirmed once.
func (f *fuzzer) confirmed(number uint16, ch *fuzzedChannel, tag uint64, multiple bool) {
	if f.over || ch.lost {
		return
	}
	first := tag
	if multiple {
		first = 1
	}
	fresh := 0
	for n := first; n <= tag && n < 1<<16; n++ {
		if ch.confirmed[n] {
			continue
		}
		fresh++
		ch.confirmed[n] = true
	}
	if tag > ch.published || fresh == 0 {
		f.fault("channel %d: confirm of %d (multiple=%v), published are %d", number, tag, multiple, ch.published)
	}
}

// A connection does what it likes; nothing of it may show anywhere else, and
// all that it hears has to make sense.
func FuzzConnection(f *testing.F) {
	f.Add([]byte("\x01\x05\x07\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\x01\x05\x0f\x00\x00\x00\x00\x00\x01\x05\x15\x01\x00"))
	f.Add([]byte("\x01\x05\x1b\x00\x01\x01\x03\x00\x00\x00\x01\x02\x05\x07\x00\x00\x00\x00\x02\x05\x13\x00\x00"))
	f.Add([]byte("\x01\x05\x1c\x01\x01\x02\x00\x00\x00\x01\x01\x05\x1d\x01\x05\x1e\x01\x05\x03\x01\x05\x00"))
	f.Add([]byte("\x01\x00\x08\x00\x3c\x00\x28\x00\x00\x01q\x00\x01\x00"))
	b := amqptest.New()
	s := amqptest.Serve(f, b, amqp.Config{CloseTimeout: time.Second})
	f.Fuzz(func(t *testing.T, script []byte) {
		z := &fuzzer{t: t, c: s.Dial(t), script: script[:min(len(script), 1024)], channels: map[uint16]*fuzzedChannel{}}
		z.c.Open(3)
		var reading sync.WaitGroup
		reading.Go(z.read)
		for len(z.script) > 0 && z.step() {
		}
		z.write(wire.AppendMethod(nil, 0, &wire.ConnectionClose{ReplyCode: 200}))
		reading.Wait()
		z.c.Conn.Close()
		for _, fault := range z.faults {
			t.Error(fault)
		}
		if n := s.Stats().Crashes; n != 0 {
			t.Fatalf("%d panics", n)
		}
		other := s.Dial(t).Open(1)
		other.Send(1, &wire.QueueDelete{Queue: "q"})
		if code := deleted(other); code != 0 && code != mq.ResourceLocked {
			t.Errorf("another connection: %d", code)
		}
		other.Conn.Close()
	})
}

// deleted reads the answer to a queue.delete: 0, or the code of the close.
func deleted(c *amqptest.Client) mq.Code {
	_, got := c.Next()
	if m, ok := got.Method.(*wire.ChannelClose); ok {
		return m.ReplyCode
	}
	return 0
}
