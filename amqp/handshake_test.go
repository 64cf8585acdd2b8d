package amqp_test

import (
	"crypto/tls"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/amqp/wire"
	"warren/mq"
)

// §4.2.2, and RabbitMQ's server properties, which clients decide by.
func TestStartOffersWhatClientsLookFor(t *testing.T) {
	for _, header := range []string{wire.ProtocolHeader, "AMQP\x01\x01\x00\x09"} {
		c := amqptest.Pipe(t, amqptest.New(), amqp.Config{Version: "1.2.3", ClusterName: func() string { return "burrow" }})
		c.Write([]byte(header))
		start := amqptest.Expect[wire.ConnectionStart](c)
		if start.Mechanisms != "PLAIN AMQPLAIN" || start.Locales != "en_US" || start.VersionMajor != 0 || start.VersionMinor != 9 {
			t.Errorf("got %+v", start)
		}
		for key, want := range map[string]string{"product": "Warren", "version": "1.2.3", "cluster_name": "burrow"} {
			if got, _ := start.ServerProperties.String(key); got != want {
				t.Errorf("%s: got %q want %q", key, got, want)
			}
		}
		caps, _ := start.ServerProperties.Get("capabilities")
		for _, name := range []string{"publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked", "per_consumer_qos", "direct_reply_to"} {
			if on, _ := caps.(mq.Table).Get(name); on != true {
				t.Errorf("capability %s: got %v", name, on)
			}
		}
	}
}

// §4.2.2: any other header is answered with ours, and the socket closes.
func TestAWrongHeaderIsAnsweredWithOurs(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	for _, sent := range []string{"AMQP\x00\x00\x08\x00", "AMQP\x00\x01\x00\x00", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("garbage!", 50_000)} {
		c := s.Dial(t)
		_, _ = c.Conn.Write([]byte(sent)) // the peer may be gone before it has all
		if got := string(c.ReadAll()); got != wire.ProtocolHeader {
			t.Errorf("%.10q: got %q", sent, got)
		}
	}
}

func TestAmqplainLogsIn(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{})
	c.Write([]byte(wire.ProtocolHeader))
	amqptest.Expect[wire.ConnectionStart](c)
	response := wire.AppendTable(nil, mq.Table{{Key: "LOGIN", Value: "guest"}, {Key: "PASSWORD", Value: "guest"}})[4:]
	c.Send(0, &wire.ConnectionStartOk{Mechanism: "AMQPLAIN", Response: string(response)})
	amqptest.Expect[wire.ConnectionTune](c)
}

// RabbitMQ's authentication_failure_close: 403 for those who announce it …
func TestARefusedLoginIsToldToClientsThatAskForIt(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c := s.Dial(t)
	c.Write([]byte(wire.ProtocolHeader))
	amqptest.Expect[wire.ConnectionStart](c)
	caps := mq.Table{{Key: "authentication_failure_close", Value: true}}
	c.Send(0, &wire.ConnectionStartOk{Mechanism: "PLAIN", Response: "\x00guest\x00wrong", ClientProperties: mq.Table{{Key: "capabilities", Value: caps}}})
	closed := c.ExpectClose(0, mq.AccessRefused)
	if want := "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."; closed.ReplyText != want {
		t.Errorf("got %q", closed.ReplyText)
	}
	c.Send(0, &wire.ConnectionCloseOk{})
	c.ExpectEOF()
	if n := s.Stats().AuthFailures; n != 1 {
		t.Errorf("got %d failures", n)
	}
}

// … and a closed socket, after a while, for the others.
func TestARefusedLoginIsASilentCloseToOthers(t *testing.T) {
	c := amqptest.Serve(t, amqptest.New(), amqp.Config{RefusalDelay: 10 * time.Millisecond}).Dial(t)
	c.Write([]byte(wire.ProtocolHeader))
	amqptest.Expect[wire.ConnectionStart](c)
	c.Send(0, &wire.ConnectionStartOk{Mechanism: "PLAIN", Response: "\x00guest\x00wrong"})
	c.ExpectEOF()
}

func TestHandshakeErrors(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	t.Run("an unknown mechanism is 503", func(t *testing.T) {
		c := s.Dial(t)
		c.Write([]byte(wire.ProtocolHeader))
		amqptest.Expect[wire.ConnectionStart](c)
		c.Send(0, &wire.ConnectionStartOk{Mechanism: "CRAM"})
		c.ExpectClose(0, mq.CommandInvalid)
	})
	t.Run("tune-ok out of range is 530", func(t *testing.T) {
		for _, ok := range []wire.ConnectionTuneOk{{FrameMax: 4096}, {FrameMax: 1 << 20}, {ChannelMax: 2048}} {
			c := s.Dial(t)
			c.Start("guest", "guest")
			c.Send(0, &ok)
			closed := c.ExpectClose(0, mq.NotAllowed)
			if !strings.HasPrefix(closed.ReplyText, "NOT_ALLOWED - negotiated ") {
				t.Errorf("got %q", closed.ReplyText)
			}
		}
	})
	t.Run("a missing vhost is 530", func(t *testing.T) {
		c := s.Dial(t)
		c.Start("guest", "guest")
		c.Send(0, &wire.ConnectionTuneOk{})
		c.Send(0, &wire.ConnectionOpen{VirtualHost: "nowhere"})
		closed := c.ExpectClose(0, mq.NotAllowed)
		if closed.ReplyText != "NOT_ALLOWED - vhost nowhere not found" || closed.ClassID != 10 || closed.MethodID != 40 {
			t.Errorf("got %q", closed.ReplyText)
		}
	})
	t.Run("a method out of turn is 504", func(t *testing.T) {
		c := s.Dial(t)
		c.Write([]byte(wire.ProtocolHeader))
		amqptest.Expect[wire.ConnectionStart](c)
		c.Send(0, &wire.ConnectionOpen{VirtualHost: "/"})
		c.ExpectClose(0, mq.ChannelError)
	})
	t.Run("before tune a frame has 8192 bytes", func(t *testing.T) {
		c := s.Dial(t)
		c.Write([]byte(wire.ProtocolHeader))
		amqptest.Expect[wire.ConnectionStart](c)
		c.Write(wire.AppendFrame(nil, wire.Frame{Type: wire.FrameMethod, Payload: make([]byte, 9000)}))
		c.ExpectClose(0, mq.FrameError)
	})
	t.Run("a panic below ends that connection only", func(t *testing.T) {
		other := s.Dial(t).Open(1)
		c := s.Dial(t)
		c.Write([]byte(wire.ProtocolHeader))
		amqptest.Expect[wire.ConnectionStart](c)
		c.Send(0, &wire.ConnectionStartOk{Mechanism: "PLAIN", Response: "\x00panic\x00panic"})
		c.ExpectEOF()
		other.ExpectNothing(1)
		if n := s.Stats().Crashes; n != 1 {
			t.Errorf("got %d crashes", n)
		}
	})
}

func TestTheHandshakeHasALimit(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{HandshakeTimeout: 20 * time.Millisecond})
	s.Dial(t).ExpectEOF()
}

// RabbitMQ's connection.update-secret: there is nothing here that it could be
// checked against, and nothing that runs out.
func TestUpdateSecretTakesAnySecret(t *testing.T) {
	c := amqptest.Pipe(t, amqptest.New(), amqp.Config{}).Open(0)
	for _, secret := range []string{"guest", "stale", ""} {
		c.Send(0, &wire.ConnectionUpdateSecret{NewSecret: secret})
		amqptest.Expect[wire.ConnectionUpdateSecretOk](c)
	}
}

// §4.2.7: heartbeats go out at half the interval, and two missed end it.
func TestHeartbeatsGoBothWays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := amqptest.New()
		c := amqptest.Pipe(t, b, amqp.Config{})
		c.Start("guest", "guest")
		c.Send(0, &wire.ConnectionTuneOk{Heartbeat: 1})
		c.Send(0, &wire.ConnectionOpen{VirtualHost: "/"})
		amqptest.Expect[wire.ConnectionOpenOk](c)
		from := time.Now()
		got := c.ReadAll() // says nothing itself
		if took := time.Since(from); took != 2*time.Second {
			t.Errorf("dropped after %v, want 2 s", took)
		}
		if want := wire.AppendHeartbeat(nil); len(got) < 3*len(want) || string(got[:len(want)]) != string(want) {
			t.Errorf("got %q", got)
		}
		await(t, "the session to end", func() bool { return b.Sessions() == 0 })
	})
}

// §1.4.2.8, and RabbitMQ's words for it.
func TestStopTellsEveryClient(t *testing.T) {
	b := amqptest.New()
	s := amqptest.Serve(t, b, amqp.Config{CloseTimeout: 2 * time.Second})
	polite, deaf, early := s.Dial(t).Open(1), s.Dial(t).Open(1), s.Dial(t)
	early.Write([]byte(wire.ProtocolHeader))
	amqptest.Expect[wire.ConnectionStart](early)
	stopped := make(chan struct{})
	go func() { s.Stop(); close(stopped) }()
	closed := polite.ExpectClose(0, mq.ConnectionForced)
	if closed.ReplyText != "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'" {
		t.Errorf("got %q", closed.ReplyText)
	}
	polite.Send(0, &wire.ConnectionCloseOk{})
	polite.ExpectEOF()
	early.ExpectEOF()
	<-stopped // although deaf never answers
	deaf.ExpectClose(0, mq.ConnectionForced)
	if st := s.Stats(); st.Connections != 0 || st.Channels != 0 || b.Sessions() != 0 {
		t.Errorf("left behind: %+v", st)
	}
}

func TestTheBrokerMayForceAConnectionToClose(t *testing.T) {
	b := amqptest.New()
	c := amqptest.Pipe(t, b, amqp.Config{}).Open(1)
	b.Force(mq.Errorf(mq.ConnectionForced, "node lost its session"))
	c.ExpectClose(0, mq.ConnectionForced)
}

// RabbitMQ's connection.blocked goes to those that publish.
func TestBlockIsToldToPublishers(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c := s.Dial(t).Open(1)
	s.Block("low on disk")
	c.ExpectNothing(1)
	c.Publish(1, wire.BasicPublish{RoutingKey: []byte("q")}, wire.Properties{}, "x")
	if m := amqptest.Expect[wire.ConnectionBlocked](c); m.Reason != "low on disk" {
		t.Errorf("got %+v", m)
	}
	s.Unblock()
	amqptest.Expect[wire.ConnectionUnblocked](c)
}

func TestAPublishThatWaitsIsToldAndTakenBack(t *testing.T) {
	b := amqptest.New()
	goOn := make(chan struct{})
	b.Alarm = func(waits func(string)) { waits("low on disk elsewhere"); <-goOn }
	s := amqptest.Serve(t, b, amqp.Config{})
	c := s.Dial(t).Open(1)
	for range 2 {
		c.Publish(1, wire.BasicPublish{RoutingKey: []byte("q")}, wire.Properties{}, "x")
		if m := amqptest.Expect[wire.ConnectionBlocked](c); m.Reason != "low on disk elsewhere" {
			t.Errorf("got %+v", m)
		}
		goOn <- struct{}{}
		amqptest.Expect[wire.ConnectionUnblocked](c)
	}
}

func TestTLSIsSpokenWhereConfigured(t *testing.T) {
	https := httptest.NewTLSServer(nil) // has a certificate
	conf := &tls.Config{Certificates: https.TLS.Certificates}
	https.Close()
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{TLS: conf})
	c, err := tls.Dial("tcp", s.Addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	client := amqptest.NewClient(t, c).Open(1)
	client.Declare(1, "q")
	client.Close()
}

// bubble runs a test on a clock that stands still while anything is being done.
// What it talks to has to be at the end of a pipe.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// await waits for a condition that other goroutines bring about.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for tick := time.NewTicker(time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
