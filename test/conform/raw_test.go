package conform

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// raw is a client that sends what it is told and shows what comes: for what a
// library will not send, and what it does not show.
type raw struct {
	c  *claim
	nc net.Conn
	in *bufio.Reader
}

// incoming is a frame that came.
type incoming struct {
	kind    uint8
	channel uint16
	class   uint16 // of a method
	method  uint16 // of a method
	rest    []byte // payload; of a method, its arguments
}

func (f incoming) String() string {
	switch {
	case f.isClose():
		return f.refusal()
	case f.kind == frameMethod:
		return fmt.Sprintf("method %d.%d on channel %d", f.class, f.method, f.channel)
	}
	return fmt.Sprintf("frame of type %d on channel %d", f.kind, f.channel)
}

func (f incoming) is(class, method uint16) bool {
	return f.kind == frameMethod && f.class == class && f.method == method
}

func (f incoming) isClose() bool { return f.is(10, 50) || f.is(20, 40) }

// refusal shows a close like "channel 404 50.10 NOT_FOUND - ...": what is
// closed, why, and the method that is to blame.
func (f incoming) refusal() string {
	what := "channel"
	if f.class == 10 {
		what = "connection"
	}
	code := binary.BigEndian.Uint16(f.rest)
	text, rest := shortString(f.rest[2:])
	return fmt.Sprintf("%s %d %d.%d %s", what, code, binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:]), text)
}

// shortString splits a short string from what follows it.
func shortString(b []byte) (string, []byte) {
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:]
}

// dialRaw connects and says nothing.
func (c *claim) dialRaw() *raw {
	c.Helper()
	uri, err := amqp.ParseURI(c.address())
	c.must(err)
	nc, err := net.Dial("tcp", net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)))
	c.must(err)
	c.Cleanup(func() { nc.Close() })
	return &raw{c: c, nc: nc, in: bufio.NewReader(nc)}
}

// raw is a raw client with channel 1 open.
func (c *claim) raw() *raw {
	c.Helper()
	return c.rawAs(allCapabilities())
}

// rawAs is a raw client that has told its capabilities, with channel 1 open.
func (c *claim) rawAs(capabilities amqp.Table) *raw {
	c.Helper()
	r := c.dialRaw()
	r.handshake(capabilities)
	r.call(channelOpen(), 20, 11)
	return r
}

func allCapabilities() amqp.Table {
	return amqp.Table{"consumer_cancel_notify": true, "authentication_failure_close": true, "basic.nack": true,
		"connection.blocked": true, "publisher_confirms": true}
}

// handshake takes the connection from the protocol header to open-ok.
func (r *raw) handshake(capabilities amqp.Table) {
	r.c.Helper()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), capabilities))
	r.want(10, 30)
	r.sendOn(0, tuneOk(2047, 131072, 0), connectionOpen("/"))
	r.want(10, 41)
}

// hello sends the protocol header and reads connection.start.
func (r *raw) hello() incoming {
	r.c.Helper()
	r.write([]byte("AMQP\x00\x00\x09\x01"))
	return r.want(10, 10)
}

// plain is the response of the mechanism PLAIN.
func (r *raw) plain() string {
	uri, err := amqp.ParseURI(addresses()[0])
	r.c.must(err)
	return "\x00" + uri.Username + "\x00" + uri.Password
}

func (r *raw) startOk(mechanism, response string, capabilities amqp.Table) payload {
	return method(10, 11).table(amqp.Table{"capabilities": capabilities}).str(mechanism).longstr(response).str("en_US")
}

func tuneOk(channels uint16, frameMax uint32, heartbeat uint16) payload {
	return method(10, 31).short(channels).long(frameMax).short(heartbeat)
}

func connectionOpen(vhost string) payload { return method(10, 40).str(vhost).str("").octet(0) }

func (r *raw) write(b []byte) {
	r.c.Helper()
	if _, err := r.nc.Write(b); err != nil {
		r.c.Fatalf("write: %v", err)
	}
}

// send sends methods on channel 1.
func (r *raw) send(methods ...payload) {
	r.c.Helper()
	r.sendOn(1, methods...)
}

func (r *raw) sendOn(channel uint16, methods ...payload) {
	r.c.Helper()
	var all []byte
	for _, m := range methods {
		all = append(all, frame(frameMethod, channel, m)...)
	}
	r.write(all)
}

// publish sends a whole message on channel 1.
func (r *raw) publish(exchange, key string, flags uint8, p amqp.Publishing) {
	r.c.Helper()
	b := frame(frameMethod, 1, basicPublish(exchange, key, flags))
	b = append(b, frame(frameHeader, 1, contentHeader(60, uint64(len(p.Body)), properties(p)))...)
	if len(p.Body) > 0 {
		b = append(b, frame(frameBody, 1, p.Body)...)
	}
	r.write(b)
}

// read is the next frame that is not a heartbeat.
func (r *raw) read() (incoming, error) {
	for {
		var head [7]byte
		_ = r.nc.SetReadDeadline(time.Now().Add(patience)) // reading tells
		if _, err := io.ReadFull(r.in, head[:]); err != nil {
			return incoming{}, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(r.in, body); err != nil {
			return incoming{}, err
		}
		f := incoming{kind: head[0], channel: binary.BigEndian.Uint16(head[1:]), rest: body[:len(body)-1]}
		if f.kind == frameMethod {
			f.class, f.method = binary.BigEndian.Uint16(f.rest), binary.BigEndian.Uint16(f.rest[2:])
			f.rest = f.rest[4:]
		}
		if f.kind != frameHeartbeat {
			return f, nil
		}
	}
}

// next is the next frame; there must be one.
func (r *raw) next() incoming {
	r.c.Helper()
	f, err := r.read()
	if err != nil {
		r.c.Fatalf("read: %v", err)
	}
	return f
}

// want is the next frame, which must be this method.
func (r *raw) want(class, method uint16) incoming {
	r.c.Helper()
	f := r.next()
	if !f.is(class, method) {
		r.c.Fatalf("got %v, want method %d.%d", f, class, method)
	}
	return f
}

// call sends a method on channel 1 and wants this answer.
func (r *raw) call(m payload, class, method uint16) incoming {
	r.c.Helper()
	r.send(m)
	return r.want(class, method)
}

// content reads the rest of a message after its method.
func (r *raw) content() string {
	r.c.Helper()
	head := r.next()
	if head.kind != frameHeader {
		r.c.Fatalf("got %v, want a content header", head)
	}
	var body strings.Builder
	for size := binary.BigEndian.Uint64(head.rest[4:]); uint64(body.Len()) < size; {
		body.Write(r.next().rest)
	}
	return body.String()
}

// withoutAWord is the refusal of a broker that just goes.
const withoutAWord = "the socket is closed without a word"

// refusal skips all until the broker closes the channel or the connection,
// answers that, and checks that nothing else was hurt: after a channel's close
// the connection works, after the connection's the socket is closed.
func (r *raw) refusal() string {
	r.c.Helper()
	for {
		f, err := r.read()
		switch {
		case errors.Is(err, io.EOF) || isReset(err):
			return withoutAWord
		case err != nil:
			r.c.Fatalf("wait for a close: %v", err)
		case f.is(20, 40):
			r.sendOn(f.channel, method(20, 41))
			r.sendOn(f.channel, channelOpen())
			if again := r.next(); !again.is(20, 11) || again.channel != f.channel {
				r.c.Errorf("open channel %d again: %v", f.channel, again)
			}
			return f.refusal()
		case f.is(10, 50):
			r.sendOn(0, method(10, 51))
			r.wantEnd()
			return f.refusal()
		}
	}
}

// wantEnd checks that the broker closes the socket.
func (r *raw) wantEnd() {
	r.c.Helper()
	if f, err := r.read(); err == nil || !errors.Is(err, io.EOF) && !isReset(err) {
		r.c.Errorf("got %v, %v, want the socket to be closed", f, err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// quiet checks that nothing comes, then that the channel still answers.
func (r *raw) quiet() {
	r.c.Helper()
	_ = r.nc.SetReadDeadline(time.Now().Add(quietTime)) // reading tells
	if b, err := r.in.Peek(8); err == nil || !isTimeout(err) {
		r.c.Errorf("got %x, %v, want nothing", b, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// refused sends methods on channel 1 and checks how they are refused. ID in
// want stands for the end of the test's own names.
func (r *raw) refused(want string, methods ...payload) {
	r.c.Helper()
	r.send(methods...)
	r.wantRefusal(want)
}

func (r *raw) wantRefusal(want string) {
	r.c.Helper()
	got := strings.ReplaceAll(r.refusal(), r.c.id, "ID")
	if got != want {
		r.c.Errorf("refused with\n got  %s\n want %s", cmp.Or(got, "nothing"), want)
	}
}
