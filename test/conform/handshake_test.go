package conform

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// saysWhy is why Warren closes in a handshake where RabbitMQ goes without a word.
const saysWhy = "an error in the handshake is said in connection.close, not only in the log"

func TestAnUnknownProtocolHeaderIsAnsweredWithTheRightOne(t *testing.T) {
	for name, header := range map[string]string{
		"HTTP":                 "GET / HT",
		"AMQP 0-8":             "AMQP\x01\x01\x08\x00",
		"AMQP of the future":   "AMQP\x00\x00\x0a\x00",
		"not quite AMQP 0-9-1": "AMQP\x00\x00\x09\x02",
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, "AMQP 0-9-1 §4.2.2")
			r := c.dialRaw()
			r.write([]byte(header))
			got := make([]byte, 8)
			if _, err := r.in.Read(got); err != nil {
				t.Fatal(err)
			}
			want := "AMQP\x00\x00\x09\x01"
			if !strings.HasPrefix(header, "AMQP\x00") {
				want = differs(t, "AMQP\x03\x01\x00\x00", want, "there is no AMQP 1.0")
			}
			equal(t, "answer", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
			r.wantEnd()
		})
	}
}

func TestTheHeaderOfAMQP09IsTakenFor091(t *testing.T) {
	r := begin(t, "RabbitMQ: rabbit_reader").dialRaw()
	r.write([]byte("AMQP\x01\x01\x00\x09"))
	r.want(10, 10)
}

func TestStartOffersVersion09AndPLAINAndEnUS(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.4.2.1")
	start := c.dialRaw().hello()
	if start.rest[0] != 0 || start.rest[1] != 9 {
		t.Errorf("version %d-%d, want 0-9", start.rest[0], start.rest[1])
	}
	rest := start.rest[2:]
	rest = rest[4+binary.BigEndian.Uint32(rest):]
	mechanisms, rest := string(rest[4:4+binary.BigEndian.Uint32(rest)]), rest[4+binary.BigEndian.Uint32(rest):]
	want := differs(t, "PLAIN AMQPLAIN ANONYMOUS", "PLAIN AMQPLAIN", "no access without a user: there is no ANONYMOUS")
	equal(t, "mechanisms", mechanisms, want)
	equal(t, "locales", string(rest[4:]), "en_US")
}

func TestTheServerHasTheCapabilitiesThatClientsAskFor(t *testing.T) {
	for _, capability := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
	} {
		t.Run(capability, func(t *testing.T) {
			c := begin(t, `RabbitMQ "AMQP 0-9-1 Extensions"`)
			all, _ := c.conn().Properties["capabilities"].(amqp.Table)
			equal[any](t, capability, all[capability], true)
		})
	}
}

func TestTheServerHasTheCapabilityDirectReplyTo(t *testing.T) {
	c := begin(t, `RabbitMQ "Direct Reply-to"`, "direct reply-to")
	all, _ := c.conn().Properties["capabilities"].(amqp.Table)
	equal[any](t, "direct_reply_to", all["direct_reply_to"], true)
}

func TestTheServerTellsItsProductVersionPlatformAndCluster(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.4.2.1.3")
	about := c.conn().Properties
	for _, key := range []string{"product", "version", "platform", "copyright", "information", "cluster_name"} {
		if s, ok := about[key].(string); !ok || s == "" {
			t.Errorf("%s: got %v, want a text", key, about[key])
		}
	}
}

func TestTuneOffers2047ChannelsAnd128KiBFramesAndAMinuteOfHeartbeat(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.4.2.5").dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
	tune := r.want(10, 30).rest
	equal(t, "channel-max", binary.BigEndian.Uint16(tune), 2047)
	equal(t, "frame-max", binary.BigEndian.Uint32(tune[2:]), 131072)
	equal(t, "heartbeat", binary.BigEndian.Uint16(tune[6:]), 60)
}

func TestLoginsAreRefused(t *testing.T) {
	const refused = "connection 403 0.0 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
	for _, f := range []struct{ name, mechanism, response, want, warren string }{
		{"with a wrong password", "PLAIN", "\x00guest\x00wrong", refused, refused},
		{"of a user that is not there", "PLAIN", "\x00nobody\x00guest", refused, refused},
		{"with an empty password", "PLAIN", "\x00guest\x00", refused, refused},
		{"with an unknown mechanism", "SCRAM", "", withoutAWord, "connection 503 0.0 COMMAND_INVALID - unknown authentication mechanism 'SCRAM'"},
		{"with half a response", "PLAIN", "guest", withoutAWord, "connection 502 0.0 SYNTAX_ERROR - invalid PLAIN response"},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := begin(t, `RabbitMQ "Authentication Failure Notifications"`).dialRaw()
			r.hello()
			r.sendOn(0, r.startOk(f.mechanism, f.response, allCapabilities()))
			if f.warren != f.want {
				f.want = differs(t, f.want, f.warren, saysWhy)
			}
			r.wantRefusal(f.want)
		})
	}
}

func TestAClientThatDoesNotKnowTheCloseIsJustCutOffAtAWrongPassword(t *testing.T) {
	r := begin(t, `RabbitMQ "Authentication Failure Notifications"`).dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", "\x00guest\x00wrong", amqp.Table{}))
	equal(t, "answer", r.refusal(), "the socket is closed without a word")
}

func TestAMQPLAINLogsIn(t *testing.T) {
	r := begin(t, `RabbitMQ "Access Control"`).dialRaw()
	r.hello()
	response := payload(nil).table(amqp.Table{"LOGIN": "guest", "PASSWORD": "guest"})
	r.sendOn(0, r.startOk("AMQPLAIN", string(response[4:]), allCapabilities()))
	r.want(10, 30)
}

func TestTuneOkOutOfRangeIsRefused(t *testing.T) {
	for _, f := range []struct {
		name     string
		channels uint16
		frameMax uint32
		warren   string
	}{
		{"too many channels", 2048, 131072, "connection 530 0.0 NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"},
		{"frames too large", 2047, 131073, "connection 530 0.0 NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"},
		{"frames too small", 2047, 4095, "connection 530 0.0 NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (8192)"},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := begin(t, "AMQP 0-9-1 §1.4.2.6").dialRaw()
			r.hello()
			r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
			r.want(10, 30)
			r.sendOn(0, tuneOk(f.channels, f.frameMax, 60))
			r.wantRefusal(differs(t, withoutAWord, f.warren, saysWhy))
		})
	}
}

func TestZeroInTuneOkIsNoLimitOfTheClient(t *testing.T) {
	for name, tuned := range map[string]payload{
		"channel-max": tuneOk(0, 131072, 0), "frame-max": tuneOk(2047, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, "AMQP 0-9-1 §1.4.2.6").dialRaw()
			r.hello()
			r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
			r.want(10, 30)
			r.sendOn(0, tuned)
			if differs(t, false, true, "0 is the specification's 'no limit'") {
				r.sendOn(0, connectionOpen("/"))
				r.want(10, 41)
				return
			}
			r.wantRefusal(withoutAWord)
		})
	}
}

func TestAVHostThatIsNotThereIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.4.2.7").dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
	r.want(10, 30)
	r.sendOn(0, tuneOk(2047, 131072, 0), connectionOpen("nowhere"))
	r.wantRefusal("connection 530 10.40 NOT_ALLOWED - vhost nowhere not found")
}

func TestAMethodBeforeItsTimeInTheHandshakeIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §2.2.4").dialRaw()
	r.hello()
	r.sendOn(0, connectionOpen("/"))
	r.wantRefusal(differs(t, withoutAWord, "connection 504 0.0 CHANNEL_ERROR - unexpected method in connection state starting", saysWhy))
}

func TestAChannelMethodBeforeTheHandshakeEndsIsRefused(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §2.2.4").dialRaw()
	r.hello()
	r.send(channelOpen())
	r.wantRefusal(differs(t, withoutAWord, "connection 505 0.0 UNEXPECTED_FRAME - type 1 on channel 1 in connection state starting", saysWhy))
}

func TestConnectionCloseIsAnswered(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §1.4.2.9").raw()
	r.sendOn(0, connectionClose())
	r.want(10, 51)
}

func TestAnythingAfterConnectionCloseButItsAnswerIsNotSaid(t *testing.T) {
	c := begin(t, "AMQP 0-9-1 §1.4.2.9")
	r := c.raw()
	r.sendOn(0, connectionClose())
	r.send(basicQos(0, 1, false))
	r.want(10, 51)
}

func TestHeartbeatsComeAsAgreed(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.7").dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
	r.want(10, 30)
	r.sendOn(0, tuneOk(2047, 131072, 1), connectionOpen("/"))
	r.want(10, 41)
	head, err := r.in.Peek(8)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "heartbeat", string(head), "\x08\x00\x00\x00\x00\x00\x00\xce")
}

func TestAClientThatIsSilentForTwoHeartbeatsIsCutOff(t *testing.T) {
	r := begin(t, "AMQP 0-9-1 §4.2.7").dialRaw()
	r.hello()
	r.sendOn(0, r.startOk("PLAIN", r.plain(), allCapabilities()))
	r.want(10, 30)
	r.sendOn(0, tuneOk(2047, 131072, 1), connectionOpen("/"))
	r.want(10, 41)
	r.wantEnd()
}

func TestAMQPLAINMayHaveItsTextsAsByteArrays(t *testing.T) {
	r := begin(t, `RabbitMQ "Access Control"`).dialRaw()
	r.hello()
	response := payload(nil).table(amqp.Table{"LOGIN": []byte("guest"), "PASSWORD": []byte("guest")})
	r.sendOn(0, r.startOk("AMQPLAIN", string(response[4:]), allCapabilities()))
	r.want(10, 30)
}

func TestANewSecretIsTakenAndNotComparedWithThePassword(t *testing.T) {
	for _, secret := range []string{"guest", "not the password", ""} {
		t.Run(secret, func(t *testing.T) {
			c := begin(t, `RabbitMQ "AMQP 0-9-1 Extensions"`)
			conn := c.conn()
			c.must(conn.UpdateSecret(secret, "to try it"))
			c.linkOn(conn).isThere("conform-none") // and it goes on
		})
	}
}
