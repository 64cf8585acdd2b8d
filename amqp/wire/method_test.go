package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"warren/mq"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("bad test: %v", err)
	}
	return b
}

// wantError checks that err is an *mq.Error of the given code whose text has text.
func wantError(t *testing.T, err error, code mq.Code, text string) {
	t.Helper()
	var e *mq.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *mq.Error %d", err, code)
	}
	if e.Code != code || !strings.Contains(e.Text, text) {
		t.Fatalf("got %d %q, want %d %q", e.Code, e.Text, code, text)
	}
}

func TestEveryMethodIsInTheGoldenTable(t *testing.T) {
	seen := map[uint32]bool{}
	for _, g := range golden {
		class, method := g.method.ID()
		seen[uint32(class)<<16|uint32(method)] = true
	}
	for class := range uint16(256) {
		for method := range uint16(256) {
			if m := newMethod(class, method); m != nil {
				if c, i := m.ID(); c != class || i != method {
					t.Errorf("newMethod(%d, %d) answers a method with the ids %d, %d", class, method, c, i)
				}
				if !seen[uint32(class)<<16|uint32(method)] {
					t.Errorf("%s has no golden bytes", m.Name())
				}
				delete(seen, uint32(class)<<16|uint32(method))
			}
		}
	}
	if len(seen) > 0 {
		t.Errorf("newMethod does not know %v", seen)
	}
}

func TestEveryMethodMatchesItsGoldenBytesBothWays(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			payload := unhex(t, g.payload)
			frame := AppendMethod(nil, 7, g.method)
			if want := AppendFrame(nil, Frame{FrameMethod, 7, payload}); !bytes.Equal(frame, want) {
				t.Errorf("encoded %x\nwant    %x", frame, want)
			}
			got, err := ParseMethod(payload)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, g.method) {
				t.Errorf("decoded %+v, want %+v", got, g.method)
			}
			if got.Name() != g.name {
				t.Errorf("named %q, want %q", got.Name(), g.name)
			}
			class, method, ok := MethodID(payload)
			if !ok || MethodName(class, method) != g.name {
				t.Errorf("MethodName(%d, %d) = %q, want %q", class, method, MethodName(class, method), g.name)
			}
		})
	}
}

func TestEveryMethodSurvivesAsZeroValue(t *testing.T) {
	for _, g := range golden {
		class, method := g.method.ID()
		frame := AppendMethod(nil, 1, newMethod(class, method))
		got, err := ParseMethod(frame[frameHeaderBytes : len(frame)-1])
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if again := AppendMethod(nil, 1, got); !bytes.Equal(again, frame) {
			t.Errorf("%s: encoded %x, then %x", g.name, frame, again)
		}
	}
}

func TestEveryMethodCutShortIsASyntaxError(t *testing.T) {
	for _, g := range golden {
		payload := unhex(t, g.payload)
		for n := range len(payload) {
			_, err := ParseMethod(payload[:n:n])
			wantError(t, err, mq.SyntaxError, "")
		}
	}
}

func TestEveryMethodWithTrailingOctetsIsASyntaxError(t *testing.T) {
	for _, g := range golden {
		_, err := ParseMethod(append(unhex(t, g.payload), 0))
		wantError(t, err, mq.SyntaxError, "trailing octets")
	}
}

func TestParseMethodErrors(t *testing.T) {
	for _, c := range []struct {
		claim, payload string
		code           mq.Code
		text           string
	}{
		{"no octets", "", mq.SyntaxError, "too short"},
		{"half an id", "000a00", mq.SyntaxError, "too short"},
		{"unknown class", "0001 000a", mq.CommandInvalid, "unimplemented method 1.10"},
		{"unknown method", "003c 00c8", mq.CommandInvalid, "unimplemented method 60.200"},
		{"exchange.unbind-ok under the id it ought to have", "0028 0029", mq.CommandInvalid, "40.41"},
		{"short string longer than the frame", "0014 000a ff 61", mq.SyntaxError, "channel.open"},
		{"4 GiB long string", "000a 0015 ffffffff 61", mq.SyntaxError, "too short"},
		{"2 GiB long string", "000a 0015 80000000 61", mq.SyntaxError, "too short"},
		{"4 GiB table", "000a 000b ffffffff 61", mq.SyntaxError, "too short"},
		{"queue name that is not UTF-8", "0032 001e 0000 02 c328 00", mq.FrameError, "Malformed UTF-8 in shortstr"},
		{"table with an unknown type", "0032 0032 0000 00 00 00 00000003 01 61 7a", mq.SyntaxError, "unknown field type"},
	} {
		t.Run(c.claim, func(t *testing.T) {
			_, err := ParseMethod(unhex(t, c.payload))
			wantError(t, err, c.code, c.text)
		})
	}
}

func TestPublishMayRouteByAnyBytes(t *testing.T) {
	var p BasicPublish
	if err := ParsePublish(unhex(t, "003c 0028 0000 00 02 c328 01"), &p); err != nil {
		t.Fatal(err)
	}
	if string(p.RoutingKey) != "\xc3\x28" || !p.Mandatory || p.Immediate {
		t.Errorf("got %+v", p)
	}
}

func TestMethodNameOfUnknownIdsShowsThem(t *testing.T) {
	if got := MethodName(60, 200); got != "60.200" {
		t.Errorf("got %q", got)
	}
}

func TestMethodsEncodeAsValuesToo(t *testing.T) {
	got := AppendMethod(nil, 1, QueuePurgeOk{MessageCount: 3})
	want := AppendMethod(nil, 1, &QueuePurgeOk{MessageCount: 3})
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestLongReplyTextIsCutBetweenCharacters(t *testing.T) {
	for n := 250; n < 260; n++ {
		for _, char := range []string{"x", "é", "€", "😀"} {
			text := strings.Repeat("x", n) + strings.Repeat(char, 10)
			frame := AppendMethod(nil, 1, &ChannelClose{ReplyCode: 404, ReplyText: text})
			m, err := ParseMethod(frame[frameHeaderBytes : len(frame)-1])
			if err != nil {
				t.Fatal(err)
			}
			got := m.(*ChannelClose).ReplyText
			kept, dots := strings.CutSuffix(got, "...")
			if !strings.HasPrefix(text, kept) || !utf8.ValidString(got) || len(got) > 255 || len(got) < 252 || dots != (len(text) > 255) {
				t.Errorf("%d x and %s: cut to %d bytes %q", n, char, len(got), got)
			}
		}
	}
}

func TestDecodedStringsDoNotAliasThePayload(t *testing.T) {
	payload := unhex(t, "0032 000a 0000 01 71 00 0000000c 03 6b6579 53 00000003 76616c")
	m, err := ParseMethod(payload)
	if err != nil {
		t.Fatal(err)
	}
	clear(payload)
	want := &QueueDeclare{Queue: "q", Arguments: mq.Table{{Key: "key", Value: "val"}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}
