package conform

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestAMessageKeepsAllItsProperties(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.1")
	q := c.queue("q", nil)
	sent := amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "gzip", DeliveryMode: 2, Priority: 3, CorrelationId: "corr",
		ReplyTo: "reply", Expiration: "600000", MessageId: "id", Timestamp: time.Unix(1700000000, 0), Type: "type",
		UserId: "guest", AppId: "app", Body: []byte("body"),
		Headers: amqp.Table{"s": "x", "i": int32(1), "l": int64(2), "t": true, "n": nil, "f": 1.5,
			"table": amqp.Table{"in": "side"}, "list": []any{"a", int32(2)}, "bytes": []byte{0, 255}},
	}
	c.link().send("", q, sent)
	got := c.link().take(q)
	back := amqp.Publishing{
		ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, DeliveryMode: got.DeliveryMode, Priority: got.Priority,
		CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo, Expiration: got.Expiration, MessageId: got.MessageId,
		Timestamp: got.Timestamp, Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body, Headers: got.Headers,
	}
	equal(t, "timestamp", got.Timestamp.Unix(), sent.Timestamp.Unix())
	sent.Timestamp, back.Timestamp = time.Time{}, time.Time{} // they have pointers to time zones
	equal(t, "message", fmt.Sprint(back), fmt.Sprint(sent))
}

func TestAMessageWithoutPropertiesComesWithoutThem(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6.1")
	q := c.queue("q", nil)
	r := c.raw()
	r.publish("", q, 0, amqp.Publishing{Body: []byte("m")})
	c.await("the message", func() bool { return c.link().depth(q) == 1 })
	r.call(basicGet(q, true), 60, 71)
	head := r.next()
	equal(t, "property flags", binary.BigEndian.Uint16(head.rest[12:]), 0)
}

func TestAnEmptyMessageIsAMessage(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6.2")
	q := c.queue("q", nil)
	c.link().texts("", q, "")
	equal(t, "octets", len(c.link().take(q).Body), 0)
}

func TestABodyOfManyFramesComesWhole(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6.2")
	q := c.queue("q", nil)
	body := strings.Repeat("0123456789abcdef", 1<<16)
	c.link().texts("", q, body)
	if got := string(c.link().take(q).Body); got != body {
		t.Errorf("got %d octets, want the %d that were sent", len(got), len(body))
	}
}

func TestABodyInSmallFramesComesWhole(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6.2")
	q := c.queue("q", nil)
	r := c.raw()
	r.send(basicPublish("", q, 0))
	r.write(frame(frameHeader, 1, contentHeader(60, 3, []byte{0, 0})))
	for _, b := range "abc" {
		r.write(frame(frameBody, 1, []byte{byte(b)}))
	}
	equal(t, "body", string(c.link().take(q).Body), "abc")
}

func TestChannelsMayInterleaveTheirFrames(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.2.6")
	q := c.queue("q", nil)
	r := c.raw()
	r.sendOn(2, channelOpen())
	r.want(20, 11)
	r.send(basicPublish("", q, 0))
	r.sendOn(2, basicPublish("", q, 0))
	r.write(frame(frameHeader, 1, contentHeader(60, 1, []byte{0, 0})))
	r.write(frame(frameHeader, 2, contentHeader(60, 1, []byte{0, 0})))
	r.write(frame(frameBody, 2, []byte("2")))
	r.write(frame(frameBody, 1, []byte("1")))
	got := c.link().bodies(q, 2)
	if got[0] == got[1] {
		t.Errorf("got %v", got)
	}
}

func TestAMandatoryMessageThatIsRoutedNowhereComesBack(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.9")
	l := c.link()
	p := text("back")
	p.MessageId = "id"
	p.Headers = amqp.Table{"h": "v"}
	c.must(l.Publish("amq.direct", c.name("k"), true, false, p))
	back := next(t, l.returned)
	equal(t, "code", back.ReplyCode, 312)
	equal(t, "text", back.ReplyText, "NO_ROUTE")
	equal(t, "exchange", back.Exchange, "amq.direct")
	equal(t, "key", back.RoutingKey, c.name("k"))
	equal(t, "body", string(back.Body), "back")
	equal(t, "id", back.MessageId, "id")
	equal[any](t, "header", back.Headers["h"], "v")
}

func TestAMandatoryMessageThatIsRoutedDoesNotComeBack(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.7.3")
	l := c.link()
	c.must(l.Publish("", c.queue("q", nil), true, false, text("m")))
	quiet(t, l.returned)
}

func TestAMessageThatIsRoutedNowhereIsDroppedInSilence(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.8.3.7")
	r := c.raw()
	r.publish("amq.direct", c.name("k"), 0, text("m"))
	r.quiet()
}

func TestAReturnComesBeforeItsConfirm(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	r := c.raw()
	r.call(confirmSelect(), 85, 11)
	r.publish("", c.name("none"), mandatory, text("m"))
	r.want(60, 50)
	r.content()
	r.want(60, 80)
}

func TestWhatIsRoutedNowhereIsConfirmed(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	equal(t, "acked", c.link().try("amq.direct", c.name("k"), text("m")), true)
}

func TestConfirmsCountFromOneOnEachChannel(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	q := c.queue("q", nil)
	r := c.raw()
	r.publish("", q, 0, text("before"))
	r.call(confirmSelect(), 85, 11)
	for tag := uint64(1); tag <= 3; tag++ {
		r.publish("", q, 0, text("m"))
		equal(t, "tag", binary.BigEndian.Uint64(r.want(60, 80).rest), tag)
	}
}

func TestConfirmSelectTwiceIsFineAndGoesOnCounting(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	q := c.queue("q", nil)
	r := c.raw()
	r.call(confirmSelect(), 85, 11)
	r.publish("", q, 0, text("1"))
	r.want(60, 80)
	r.call(confirmSelect(), 85, 11)
	r.publish("", q, 0, text("2"))
	equal(t, "tag", binary.BigEndian.Uint64(r.want(60, 80).rest), 2)
}

func TestEveryMessageOfABurstIsConfirmedOnce(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	q := c.queue("q", nil)
	r := c.raw()
	r.call(confirmSelect(), 85, 11)
	const n = 200
	for range n {
		r.publish("", q, 0, text("m"))
	}
	seen := map[uint64]bool{}
	for low := uint64(1); len(seen) < n; {
		f := r.want(60, 80)
		tag := binary.BigEndian.Uint64(f.rest)
		if f.rest[8] == 0 {
			low = tag // just this one
		}
		for ; low <= tag; low++ {
			if f.rest[8] == 0 && seen[low] {
				t.Fatalf("%d is confirmed twice", low)
			}
			seen[low] = true
		}
		for low = 1; seen[low]; low++ {
		}
	}
	r.quiet()
}

func TestAMessageIsConfirmedWhenAllItsQueuesHaveIt(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	x := c.exchange("x", "fanout", nil)
	var queues []string
	for _, name := range []string{"a", "b", "c", "d"} {
		queues = append(queues, c.bound(name, x, "", nil))
	}
	c.link().texts(x, "", "m")
	l := c.link()
	for _, q := range queues {
		equal(t, "depth of "+q, l.depth(q), 1)
	}
}

func TestNothingIsConfirmedAfterAPublishToAnExchangeThatIsNotThere(t *testing.T) {
	c := begin(t, `RabbitMQ "Publisher Confirms"`)
	r := c.raw()
	r.call(confirmSelect(), 85, 11)
	r.publish(c.name("none"), "", 0, text("m"))
	r.want(20, 40)
}

func TestMessagesOfOneChannelStayInOrder(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §4.7")
	q := c.queue("q", nil)
	l := c.link()
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i))
		c.must(l.Publish("", q, false, false, text(want[i])))
	}
	equal(t, "order", fmt.Sprint(c.link().bodies(q, 100)), fmt.Sprint(want))
}

func TestCCAndBCCHeadersAreRoutedByToo(t *testing.T) {
	c := begin(t, `RabbitMQ "Sender-selected Distribution"`, "CC and BCC")
	a, b, d := c.queue("a", nil), c.queue("b", nil), c.queue("d", nil)
	p := text("m")
	p.Headers = amqp.Table{"CC": []any{b}, "BCC": []any{d}}
	l := c.link()
	l.send("", a, p)
	for _, q := range []string{a, b, d} {
		got := l.take(q)
		equal(t, "routing key", got.RoutingKey, a)
		equal(t, "CC", fmt.Sprint(got.Headers["CC"]), fmt.Sprint([]any{b}))
		if _, there := got.Headers["BCC"]; there {
			t.Error("BCC is shown")
		}
	}
}

func TestCCDoesNotLeadToASecondCopy(t *testing.T) {
	c := begin(t, `RabbitMQ "Sender-selected Distribution"`, "CC and BCC")
	x := c.exchange("x", "direct", nil)
	q := c.bound("q", x, "a", nil)
	c.bind(q, x, "b", nil)
	p := text("m")
	p.Headers = amqp.Table{"CC": []any{"b"}}
	l := c.link()
	l.send(x, "a", p)
	l.take(q)
	l.isEmpty(q)
}

func TestCCCountsForMandatory(t *testing.T) {
	c := begin(t, `RabbitMQ "Sender-selected Distribution"`, "CC and BCC")
	q := c.queue("q", nil)
	p := text("m")
	p.Headers = amqp.Table{"CC": []any{q}}
	l := c.link()
	c.must(l.Publish("", c.name("none"), true, false, p))
	quiet(t, l.returned)
	l.take(q)
}
