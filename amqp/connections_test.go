package amqp_test

import (
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"warren/amqp"
	"warren/amqp/amqptest"
	"warren/mq"
)

func TestConnectionsAreListedAsTheyAre(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	if got := s.Connections(); len(got) != 0 {
		t.Fatalf("before anyone came: %v", got)
	}
	shaking := s.Dial(t) // never gets past the handshake
	defer shaking.Conn.Close()
	shaking.Start("guest", "guest")
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName("mole")
	client := must[*amqp091.Connection](t)(amqp091.DialConfig("amqp://guest:guest@"+s.Addr, amqp091.Config{Properties: properties, Heartbeat: 17e9}))
	defer client.Close()
	channelOf(t, client)
	ch := channelOf(t, client)
	await(t, "the connection to be listed with two channels", func() bool {
		got := s.Connections()
		return len(got) == 1 && got[0].Channels == 2
	})
	c := s.Connections()[0]
	if want := client.LocalAddr().String() + " -> " + s.Addr; c.Name != want {
		t.Errorf("name %q, want %q", c.Name, want)
	}
	if name, _ := c.ClientProperties.String("connection_name"); name != "mole" {
		t.Errorf("client properties %v have no connection_name", c.ClientProperties)
	}
	if c.User != "guest" || c.VHost != "/" || c.Mechanism != "PLAIN" || c.State != "running" || c.Heartbeat.Seconds() != 17 ||
		c.PeerHost != "127.0.0.1" || c.Host != "127.0.0.1" || c.PeerPort == 0 || c.Port == 0 || c.OpenedAt.IsZero() || c.BytesReceived == 0 || c.BytesSent == 0 {
		t.Errorf("got %+v", c)
	}
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.Connections()[0].Channels; got != 1 {
		t.Errorf("%d channels after one was closed, want 1", got)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the connection to go", func() bool { return len(s.Connections()) == 0 })
}

func TestAnOperatorClosesAConnectionByItsName(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c, other := s.Dial(t).Open(1), s.Dial(t).Open(1)
	name := c.Conn.LocalAddr().String() + " -> " + s.Addr
	await(t, "both to be listed", func() bool { return len(s.Connections()) == 2 })
	if s.CloseConnection(name+"0", "no") {
		t.Error("closed a connection that is not there")
	}
	if !s.CloseConnection(name, "Closed via management plugin") {
		t.Fatal("the connection was not found")
	}
	if got := c.ExpectClose(0, mq.ConnectionForced).ReplyText; got != "CONNECTION_FORCED - Closed via management plugin" {
		t.Errorf("the client heard %q", got)
	}
	other.ExpectNothing(1)
}

func TestALongReasonReachesTheClientCut(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	c := s.Dial(t).Open(0)
	await(t, "it to be listed", func() bool { return len(s.Connections()) == 1 })
	s.CloseConnection(s.Connections()[0].Name, strings.Repeat("why ", 1000))
	if got := c.ExpectClose(0, mq.ConnectionForced).ReplyText; len(got) != 255 {
		t.Errorf("the client heard %d bytes, want 255", len(got))
	}
}

func TestStatsTellAutoAckFromManualAckAndConfirmFromPlain(t *testing.T) {
	s := amqptest.Serve(t, amqptest.New(), amqp.Config{})
	client := dial(t, s)
	ch := channelOf(t, client)
	q := must[amqp091.Queue](t)(ch.QueueDeclare("q", true, false, false, false, nil))
	must[amqp091.Queue](t)(ch.QueueDeclarePassive("q", true, false, false, false, nil))
	publish := func(ch *amqp091.Channel, n int) {
		for range n {
			if err := ch.Publish("", q.Name, false, false, amqp091.Publishing{Body: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(ch, 3)
	confirming := channelOf(t, client)
	if err := confirming.Confirm(false); err != nil {
		t.Fatal(err)
	}
	publish(confirming, 4)
	await(t, "seven messages", func() bool { return s.Stats().Published == 7 })
	await(t, "four confirms", func() bool { return s.Stats().Confirmed == 4 })
	get := func(autoAck bool) {
		if d, ok, err := ch.Get(q.Name, autoAck); err != nil || !ok {
			t.Fatal(ok, err)
		} else if !autoAck {
			d.Ack(false)
		}
	}
	get(true)
	get(false)
	auto := must[<-chan amqp091.Delivery](t)(ch.Consume(q.Name, "auto", true, false, false, false, nil))
	for range 5 {
		<-auto
	}
	if err := ch.Cancel("auto", false); err != nil {
		t.Fatal(err)
	}
	publish(ch, 2)
	manual := must[<-chan amqp091.Delivery](t)(ch.Consume(q.Name, "manual", false, false, false, false, nil))
	for range 2 {
		<-manual
	}
	st := s.Stats()
	got := []uint64{st.PublishedConfirm, st.GotAutoAck, st.GotManualAck, st.DeliveredAutoAck, st.DeliveredManualAck, st.QueuesDeclared}
	for i, want := range []uint64{4, 1, 1, 5, 2, 1} {
		if got[i] != want {
			t.Errorf("confirm, got auto and manual, delivered auto and manual, declared: %v, want 4 1 1 5 2 1", got)
			break
		}
	}
}
