package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"warren/mq"
)

func TestEveryFieldTypeMatchesItsBytesBothWays(t *testing.T) {
	for _, c := range []struct {
		value any
		bytes string // letter and value
	}{
		{nil, "56"},
		{true, "74 01"},
		{false, "74 00"},
		{int8(-2), "62 fe"},
		{uint8(254), "42 fe"},
		{int16(-2), "73 fffe"},
		{uint16(65534), "75 fffe"},
		{int32(-2), "49 fffffffe"},
		{uint32(1<<32 - 2), "69 fffffffe"},
		{int64(-2), "6c fffffffffffffffe"},
		{float32(1.5), "66 3fc00000"},
		{1.5, "64 3ff8000000000000"},
		{mq.Decimal{Scale: 2, Value: 314}, "44 02 0000013a"},
		{"é", "53 00000002 c3a9"},
		{"", "53 00000000"},
		{[]byte{0, 255}, "78 00000002 00ff"},
		{time.Unix(1700000000, 0).UTC(), "54 000000006553f100"},
		{mq.Table{{Key: "k", Value: nil}}, "46 00000003 01 6b 56"},
		{mq.Table(nil), "46 00000000"},
		{[]any{true, "x", []any{nil}}, "41 0000000e 74 01 53 00000001 78 41 00000001 56"},
		{[]any(nil), "41 00000000"},
	} {
		value := unhex(t, c.bytes)
		entry := append([]byte{3, 'k', 'e', 'y'}, value...)
		want := append(binary.BigEndian.AppendUint32(nil, uint32(len(entry))), entry...)
		table := mq.Table{{Key: "key", Value: c.value}}
		if got := AppendTable(nil, table); !bytes.Equal(got, want) {
			t.Errorf("%T %v: encoded %x, want %x", c.value, c.value, got, want)
		}
		got, rest, err := ParseTable(append(want, "rest"...))
		if err != nil || string(rest) != "rest" || !reflect.DeepEqual(got, table) {
			t.Errorf("%T %v: decoded %v, rest %q, %v", c.value, c.value, got, rest, err)
		}
		if fault := checkTable(want); fault != "" {
			t.Errorf("%T %v: checkTable: %s", c.value, c.value, fault)
		}
	}
}

func TestUnsignedLongsKeepTheirBits(t *testing.T) {
	for _, c := range []struct {
		value  uint64
		letter byte
	}{{1 << 62, 'l'}, {1 << 63, 'L'}} {
		got := AppendTable(nil, mq.Table{{Key: "k", Value: c.value}})
		if want := append([]byte{0, 0, 0, 11, 1, 'k', c.letter}, binary.BigEndian.AppendUint64(nil, c.value)...); !bytes.Equal(got, want) {
			t.Errorf("%d: encoded %x, want %x", c.value, got, want)
		}
	}
}

func TestTablesKeepOrderAndRepeatedKeys(t *testing.T) {
	want := mq.Table{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: "3"}}
	got, _, err := ParseTable(AppendTable(nil, want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

// nested is a table of n tables or arrays inside each other.
func nested(letter byte, n int) []byte {
	b := []byte{}
	for i := range n {
		entry := append([]byte{letter}, binary.BigEndian.AppendUint32(nil, uint32(len(b)))...)
		if letter == 'F' || i == n-1 {
			entry = append([]byte{0}, entry...)
		}
		b = append(entry, b...)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func TestTenThousandNestedTablesAreASyntaxError(t *testing.T) {
	for _, letter := range []byte{'F', 'A'} {
		for n, ok := range map[int]bool{1: true, tableDepthMax - 1: true, tableDepthMax: false, 10_000: false} {
			b := nested(letter, n)
			_, _, err := ParseTable(b)
			if ok && err != nil || ok != (checkTable(b) == "") {
				t.Errorf("%d of %c: %v, check %q", n, letter, err, checkTable(b))
			}
			if !ok {
				wantError(t, err, mq.SyntaxError, "nested too deep")
			}
		}
	}
}

func TestHostileTables(t *testing.T) {
	for claim, c := range map[string]struct{ bytes, text string }{
		"no length":                        {"0000", "too short"},
		"longer than what there is":        {"00000002 00", "too short"},
		"4 GiB":                            {"ffffffff", "too short"},
		"key longer than the table":        {"00000003 ff 61 56", "too short"},
		"key without a value":              {"00000002 01 61", "too short"},
		"4 GiB string in a small table":    {"00000007 01 61 53 ffffffff", "too short"},
		"4 GiB array in a small table":     {"00000007 01 61 41 ffffffff", "too short"},
		"inner table longer than outer":    {"00000008 01 61 46 00000002 00 56 56", "too short"},
		"string that runs past the table":  {"00000008 01 61 53 00000005 61 62636465", "too short"},
		"half a number":                    {"00000006 01 61 49 000000", "too short"},
		"unknown type":                     {"00000003 01 61 7a", "unknown field type"},
		"unknown type inside an array":     {"00000008 01 61 41 00000001 7a", "unknown field type"},
		"key of an inner table too long":   {"0000000a 01 61 46 00000003 05 61 56", "too short"},
		"array whose last value is cut":    {"0000000a 01 61 41 00000003 49 0000", "too short"},
		"second field of an inner table":   {"0000000d 01 61 46 00000006 01 62 56 01 63 7a", "unknown field type"},
		"decimal that is a scale and less": {"00000006 01 61 44 02 0000", "too short"},
	} {
		t.Run(claim, func(t *testing.T) {
			b := unhex(t, c.bytes)
			_, _, err := ParseTable(b)
			wantError(t, err, mq.SyntaxError, c.text)
			if len(b) > 4 && uint64(binary.BigEndian.Uint32(b)) == uint64(len(b)-4) && checkTable(b) == "" {
				t.Error("checkTable lets it pass")
			}
		})
	}
}

func TestAnAnnouncedLengthAllocatesNothing(t *testing.T) {
	for claim, payload := range map[string]string{
		"long string": "000a 0015 ffffffff",
		"table":       "0032 000a 0000 00 00 ffffffff",
		"array":       "0032 000a 0000 00 00 00000006 00 41 ffffffff",
	} {
		b := unhex(t, payload)
		if got := allocated(func() { _, _ = ParseMethod(b) }); got > 4096 {
			t.Errorf("%s of 4 GiB: %d bytes allocated", claim, got)
		}
	}
}

func TestManySmallFieldsAllocateABoundedMultiple(t *testing.T) {
	fields := bytes.Repeat([]byte{0, 'V'}, 60_000)
	values := bytes.Repeat([]byte{'V'}, 120_000)
	array := append([]byte{0, 'A'}, binary.BigEndian.AppendUint32(nil, uint32(len(values)))...)
	for claim, entries := range map[string][]byte{"table": fields, "array": append(array, values...)} {
		b := append(binary.BigEndian.AppendUint32(nil, uint32(len(entries))), entries...)
		got := allocated(func() {
			if _, _, err := ParseTable(b); err != nil {
				t.Fatal(err)
			}
		})
		if limit := allocationFactorMax * len(b); got > uint64(limit) {
			t.Errorf("%s: %d bytes allocated for %d", claim, got, len(b))
		}
	}
}

// allocationFactorMax is how many bytes decoding may allocate for one of the
// input: a field of two octets becomes a key and a value, 32 bytes.
const allocationFactorMax = 24

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAValueThatNoTableHasPanics(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.Contains(r.(string), "int in a field table") {
			t.Errorf("recovered %v", r)
		}
	}()
	AppendTable(nil, mq.Table{{Key: "k", Value: 1}})
}
