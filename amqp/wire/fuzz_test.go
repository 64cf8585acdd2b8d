package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"warren/mq"
)

// FuzzDecode feeds the same bytes to every decoder: none panics, none answers
// an error that a client could not be shown, none allocates more than a
// constant multiple of its input, and what decodes encodes to the same again.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.payload))
		f.Add(AppendMethod(nil, 1, g.method))
	}
	publish, header, body := message()
	f.Add(append(append(bytes.Clone(publish), header...), body...))
	f.Add(payload(header))
	f.Add(payload(header)[12:])
	f.Add(nested('F', 70))
	f.Add(nested('A', 3))
	f.Add(unhex(f, "0000001b 0161 41 00000014 74ff 62fe 42fe 73fffe 75fffe 4cffffffffffffffff"))
	f.Add(unhex(f, "0000001a 0161 66 7f800001 0162 64 7ff0000000000001 0163 4402 00000001"))
	f.Add(unhex(f, "0000000f 0161 54 ffffffffffffffff 0162 7400"))
	f.Add(unhex(f, "0032 000a 0000 00 00 ffffffff"))
	f.Add(unhex(f, "000a 0028 00 02 6161 00")) // text in a reserved field
	f.Add(unhex(f, "01 0001 ffffffff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := allocated(func() {
			fuzzMethod(t, b)
			fuzzTable(t, b)
			fuzzProperties(t, b)
			fuzzHeader(t, b)
			fuzzFrames(t, b)
		})
		// All that the five do, encoding again included, on top of a constant.
		if limit := 20*allocationFactorMax*len(b) + 1<<20; got > uint64(limit) {
			t.Errorf("%d bytes allocated for %d", got, len(b))
		}
	})
}

func wantClientError(t *testing.T, err error) {
	t.Helper()
	var e *mq.Error
	if !errors.As(err, &e) || !e.Hard() {
		t.Fatalf("got %v, want a hard *mq.Error", err)
	}
}

// fuzzMethod relies on one encoding per method: what decodes encodes to a
// method that decodes the same, and from there on to the same bytes.
func fuzzMethod(t *testing.T, b []byte) {
	m, err := ParseMethod(b)
	if err != nil {
		wantClientError(t, err)
		return
	}
	first := AppendMethod(nil, 1, m)
	if len(payload(first)) != len(b) && !hasReservedString(m) {
		t.Fatalf("%s: %d octets in, %d out", m.Name(), len(b), len(payload(first)))
	}
	again, err := ParseMethod(payload(first))
	if err != nil {
		t.Fatalf("%s does not decode again: %v", m.Name(), err)
	}
	if second := AppendMethod(nil, 1, again); !bytes.Equal(first, second) {
		t.Fatalf("%s: encoded %x, then %x", m.Name(), first, second)
	}
	fuzzHot(t, b, m)
}

// hasReservedString reports whether m has a field that is dropped when it is
// decoded and whose size may vary.
func hasReservedString(m Method) bool {
	switch m.(type) {
	case *ConnectionOpen, *ConnectionOpenOk, *ChannelOpen, *ChannelOpenOk, *BasicGetEmpty:
		return true
	}
	return false
}

func fuzzHot(t *testing.T, b []byte, m Method) {
	var got Method
	var err error
	switch m.(type) {
	case *BasicPublish:
		p := &BasicPublish{}
		got, err = p, ParsePublish(b, p)
	case *BasicAck:
		p := &BasicAck{}
		got, err = p, ParseAck(b, p)
	case *BasicNack:
		p := &BasicNack{}
		got, err = p, ParseNack(b, p)
	case *BasicReject:
		p := &BasicReject{}
		got, err = p, ParseReject(b, p)
	default:
		return
	}
	if err != nil || !bytes.Equal(AppendMethod(nil, 1, got), AppendMethod(nil, 1, m)) {
		t.Fatalf("hot path decodes %+v, want %+v: %v", got, m, err)
	}
}

func fuzzTable(t *testing.T, b []byte) {
	table, rest, err := ParseTable(b)
	if len(b) >= 4 && uint64(binary.BigEndian.Uint32(b)) <= uint64(len(b)-4) {
		entries := b[:4+binary.BigEndian.Uint32(b)]
		if fault := checkTable(entries); (fault == "") != (err == nil) {
			t.Fatalf("checkTable says %q, ParseTable %v", fault, err)
		}
	}
	if err != nil {
		wantClientError(t, err)
		return
	}
	first := AppendTable(nil, table)
	if len(first)+len(rest) != len(b) {
		t.Fatalf("%d octets in, %d out and %d left", len(b), len(first), len(rest))
	}
	again, _, err := ParseTable(first)
	if err != nil {
		t.Fatalf("table does not decode again: %v", err)
	}
	if second := AppendTable(nil, again); !bytes.Equal(first, second) {
		t.Fatalf("encoded %x, then %x", first, second)
	}
}

func fuzzProperties(t *testing.T, b []byte) {
	p, err := ParseProperties(b)
	mode, priority, expiration, headers, userID, peekErr := PeekProperties(b)
	if err != nil {
		wantClientError(t, err)
		if peekErr == nil && checkTable(headers) == "" {
			t.Fatalf("PeekProperties takes what ParseProperties refuses: %v", err)
		}
		return
	}
	if peekErr != nil || mode != p.DeliveryMode || priority != p.Priority || string(expiration) != p.Expiration ||
		string(userID) != p.UserID || p.Has(HasHeaders) != (headers != nil) {
		t.Fatalf("peeked %d %d %q %x %q %v of %+v", mode, priority, expiration, headers, userID, peekErr, p)
	}
	fuzzPeekProperty(t, b, &p)
	if first := AppendProperties(nil, p); len(first) != len(b) {
		t.Fatalf("%d octets in, %d out", len(b), len(first))
	} else if headers == nil && !bytes.Equal(first, b) {
		t.Fatalf("encoded %x, want %x", first, b)
	}
}

func fuzzPeekProperty(t *testing.T, b []byte, p *Properties) {
	if got := PeekProperty(b, HasMessageID); p.Has(HasMessageID) != (got != nil) || string(got) != p.MessageID {
		t.Fatalf("peeked message-id %q of %+v", got, p)
	}
	for i, key := range []string{"BCC", "x", "a"} {
		want := *p
		want.Headers = slices.DeleteFunc(slices.Clone(p.Headers), func(f mq.Field) bool { return f.Key == key })
		got, err := ParseProperties(WithoutHeader(b, key))
		if err != nil || !bytes.Equal(AppendProperties(nil, got), AppendProperties(nil, want)) {
			t.Fatalf("%d: without %q: %+v, %v; want %+v", i, key, got, err, want)
		}
	}
}

func fuzzHeader(t *testing.T, b []byte) {
	class, bodyBytes, properties, err := ParseHeader(b)
	if err != nil {
		wantClientError(t, err)
		return
	}
	if _, err := ParseProperties(properties); err != nil {
		t.Fatalf("ParseHeader let through %v", err)
	}
	b = bytes.Clone(b)
	b[2], b[3] = 0, 0 // weight
	if got := payload(AppendHeader(nil, 1, class, bodyBytes, properties)); !bytes.Equal(got, b) {
		t.Fatalf("encoded %x, want %x", got, b)
	}
}

func fuzzFrames(t *testing.T, b []byte) {
	r := NewReader(bytes.NewReader(b), FrameMin)
	var out []byte
	for {
		f, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if err != io.ErrUnexpectedEOF {
				wantClientError(t, err)
			}
			return
		}
		out = AppendFrame(out, f)
	}
	if !bytes.Equal(out, b) {
		t.Fatalf("encoded %x, want %x", out, b)
	}
}
