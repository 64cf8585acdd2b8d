package wire

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"warren/mq"
)

func TestPropertiesMatchTheirBytesBothWays(t *testing.T) {
	all := Properties{
		Present:     0xfffc,
		ContentType: "ct", ContentEncoding: "ce", Headers: someTable, DeliveryMode: 2, Priority: 9,
		CorrelationID: "ci", ReplyTo: "rt", Expiration: "100", MessageID: "mi",
		Timestamp: time.Unix(1700000000, 0).UTC(), Type: "ty", UserID: "ui", AppID: "ai", reservedCluster: "cl",
	}
	for claim, c := range map[string]struct {
		p     Properties
		bytes string
	}{
		"none": {Properties{}, "0000"},
		"all": {all, "fffc 026374 026365 0000000e 036b6579 53 00000005 76616c7565 02 09" +
			"026369 027274 03313030 026d69 000000006553f100 027479 027569 026169 02636c"},
		"persistent":            {Properties{Present: HasDeliveryMode, DeliveryMode: 2}, "1000 02"},
		"present but empty":     {Properties{Present: HasType | HasHeaders}, "2020 00000000 00"},
		"first and last":        {Properties{Present: HasContentType | HasAppID, ContentType: "a", AppID: "b"}, "8008 0161 0162"},
		"text that is not utf8": {Properties{Present: HasMessageID, MessageID: "\xc3\x28"}, "0080 02c328"},
	} {
		t.Run(claim, func(t *testing.T) {
			b := unhex(t, c.bytes)
			if got := AppendProperties(nil, c.p); !bytes.Equal(got, b) {
				t.Errorf("encoded %x, want %x", got, b)
			}
			got, err := ParseProperties(b)
			if err != nil || !reflect.DeepEqual(got, c.p) {
				t.Errorf("decoded %+v, %v", got, err)
			}
			mode, priority, expiration, headers, userID, err := PeekProperties(b)
			if err != nil || mode != c.p.DeliveryMode || priority != c.p.Priority ||
				string(expiration) != c.p.Expiration || string(userID) != c.p.UserID {
				t.Errorf("peeked %d %d %q %q, %v", mode, priority, expiration, userID, err)
			}
			if c.p.Has(HasHeaders) != (headers != nil) || headers != nil && !bytes.Equal(headers, AppendTable(nil, c.p.Headers)) {
				t.Errorf("peeked headers %x", headers)
			}
			for n := range b {
				_, err := ParseProperties(b[:n:n])
				wantError(t, err, mq.SyntaxError, "content properties")
				_, _, _, _, _, err = PeekProperties(b[:n:n])
				wantError(t, err, mq.SyntaxError, "content properties")
			}
		})
	}
}

func TestHostileProperties(t *testing.T) {
	for claim, c := range map[string]struct{ bytes, text string }{
		"more flags announced":  {"0001 0000", "unknown property flags"},
		"an unused flag":        {"0002", "unknown property flags"},
		"trailing octets":       {"1000 02 02", "trailing octets"},
		"4 GiB of headers":      {"2000 ffffffff 00", "too short"},
		"string past the end":   {"8000 ff 61", "too short"},
		"half a timestamp":      {"0040 00000000", "too short"},
		"flags without content": {"fffc", "too short"},
	} {
		t.Run(claim, func(t *testing.T) {
			b := unhex(t, c.bytes)
			_, err := ParseProperties(b)
			wantError(t, err, mq.SyntaxError, c.text)
			_, _, _, _, _, err = PeekProperties(b)
			wantError(t, err, mq.SyntaxError, c.text)
		})
	}
}

func TestHeaderMatchesItsBytesBothWays(t *testing.T) {
	properties := unhex(t, "1000 02")
	frame := AppendHeader(nil, 3, 60, 1<<33, properties)
	want := unhex(t, "02 0003 0000000f 003c 0000 0000000200000000 1000 02 ce")
	if !bytes.Equal(frame, want) {
		t.Errorf("encoded %x, want %x", frame, want)
	}
	class, bodyBytes, got, err := ParseHeader(payload(frame))
	if err != nil || class != 60 || bodyBytes != 1<<33 || !bytes.Equal(got, properties) {
		t.Errorf("decoded %d %d %x, %v", class, bodyBytes, got, err)
	}
	if got := AppendHeader(nil, 3, 60, 0, nil); !bytes.Equal(payload(got)[12:], []byte{0, 0}) {
		t.Errorf("no properties encoded as %x", got)
	}
}

func TestHostileHeaders(t *testing.T) {
	for claim, c := range map[string]struct{ bytes, text string }{
		"too short":            {"003c 0000 00000000000000", "content header"},
		"no property flags":    {"003c 0000 0000000000000000", "content properties"},
		"headers do not parse": {"003c 0000 0000000000000000 2000 00000003 01 61 7a", "unknown field type"},
		"headers nested deep":  {"003c 0000 0000000000000000 2000" + hexOf(nested('F', 10_000)), "nested too deep"},
	} {
		t.Run(claim, func(t *testing.T) {
			_, _, _, err := ParseHeader(unhex(t, c.bytes))
			wantError(t, err, mq.SyntaxError, c.text)
		})
	}
}
