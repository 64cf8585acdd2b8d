package wire

import (
	"bytes"
	"testing"
	"time"

	"warren/mq"
)

func TestEveryPropertyIsPeekedWhereItIs(t *testing.T) {
	all := Properties{
		Present: 0xfffc, ContentType: "ct", ContentEncoding: "ce", Headers: someTable, DeliveryMode: 2, Priority: 9,
		CorrelationID: "ci", ReplyTo: "rt", Expiration: "100", MessageID: "mi",
		Timestamp: time.Unix(5, 0).UTC(), Type: "ty", UserID: "ui", AppID: "ai",
	}
	want := map[uint16]string{
		HasContentType: "ct", HasContentEncoding: "ce", HasHeaders: string(AppendTable(nil, someTable)), HasDeliveryMode: "\x02",
		HasPriority: "\x09", HasCorrelationID: "ci", HasReplyTo: "rt", HasExpiration: "100", HasMessageID: "mi",
		HasTimestamp: "\x00\x00\x00\x00\x00\x00\x00\x05", HasType: "ty", HasUserID: "ui", HasAppID: "ai",
	}
	for flag, text := range want {
		if got := PeekProperty(AppendProperties(nil, all), flag); string(got) != text {
			t.Errorf("%04x: got %q, want %q", flag, got, text)
		}
		less := all
		less.Present &^= flag
		if got := PeekProperty(AppendProperties(nil, less), flag); got != nil {
			t.Errorf("%04x: got %q of properties without it", flag, got)
		}
		only := all
		only.Present = flag
		b := AppendProperties(nil, only)
		if got := PeekProperty(b, flag); string(got) != text || Present(b) != flag {
			t.Errorf("%04x alone: got %q, want %q", flag, got, text)
		}
	}
}

func TestAHeaderIsTakenOutAndNothingElseChanges(t *testing.T) {
	headers := func(keys ...string) (t mq.Table) {
		for _, k := range keys {
			t = append(t, mq.Field{Key: k, Value: []any{"x", k}})
		}
		return t
	}
	for _, c := range []struct{ have, want mq.Table }{
		{headers("a", "BCC", "b"), headers("a", "b")},
		{headers("BCC"), nil},
		{headers("BCC", "a", "BCC"), headers("a")},
		{headers("CC", "bcc"), headers("CC", "bcc")},
		{nil, nil},
	} {
		p := Properties{Present: HasContentType | HasHeaders | HasAppID, ContentType: "t", Headers: c.have, AppID: "me"}
		b := AppendProperties(nil, p)
		before := bytes.Clone(b)
		p.Headers = c.want
		if got, want := WithoutHeader(b, "BCC"), AppendProperties(nil, p); !bytes.Equal(got, want) {
			t.Errorf("%v: got %x, want %x", c.have, got, want)
		}
		if !bytes.Equal(b, before) {
			t.Error("the original was written to")
		}
	}
	// 'L' is not what AppendTable writes for a number.
	odd := []byte("\x20\x00\x00\x00\x00\x11\x01nL\x00\x00\x00\x00\x00\x00\x00\x07\x03BCCV")
	want := []byte("\x20\x00\x00\x00\x00\x0b\x01nL\x00\x00\x00\x00\x00\x00\x00\x07")
	odd[5] = byte(len(odd) - 6)
	if got := WithoutHeader(odd, "BCC"); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := WithoutHeader([]byte{0, 0}, "BCC"); !bytes.Equal(got, []byte{0, 0}) {
		t.Errorf("got %x of no properties", got)
	}
}
