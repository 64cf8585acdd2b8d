package fields

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, i := rapid.Uint64().Draw(t, "uint"), rapid.Int64().Draw(t, "int")
		b, s := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"), rapid.String().Draw(t, "text")
		yes, tail := rapid.Bool().Draw(t, "bool"), rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "tail")
		all := AppendUint(nil, u)
		all = AppendInt(all, i)
		all = AppendBytes(all, b)
		all = AppendString(all, s)
		all = AppendBool(all, yes)
		all = append(all, tail...)

		r := Read(all)
		if got := r.Uint(); got != u {
			t.Fatalf("number %d is read as %d", u, got)
		}
		if got := r.Int(); got != i {
			t.Fatalf("number %d is read as %d", i, got)
		}
		if got := r.Bytes(); !bytes.Equal(got, b) {
			t.Fatalf("%x is read as %x", b, got)
		}
		if got := r.Text(); got != s {
			t.Fatalf("%q is read as %q", s, got)
		}
		if got := r.Bool(); got != yes {
			t.Fatalf("%v is read as %v", yes, got)
		}
		if r.Done() == nil || r.Err() != nil {
			t.Fatalf("with %d bytes left it is done: %v, fault: %v", len(tail), r.Done(), r.Err())
		}
		if got := r.Take(uint64(len(tail))); !bytes.Equal(got, tail) || r.Done() != nil || r.More() {
			t.Fatalf("the rest %x is read as %x, then: %v", tail, got, r.Done())
		}
		// Whatever is cut off, the end is a fault and nothing panics.
		r = Read(all[:rapid.IntRange(0, len(all)-len(tail)-1).Draw(t, "cut")])
		r.Uint()
		r.Int()
		r.Bytes()
		r.Text()
		r.Bool()
		if r.Err() == nil || r.Done() == nil {
			t.Fatal("what is cut short has no fault")
		}
	})
}

func TestAfterAFaultNothingIsRead(t *testing.T) {
	for name, fault := range map[string]func(*Reader){
		"own":                  (*Reader).Fail,
		"number without end":   func(r *Reader) { r.Take(3); r.Uint() },
		"more items than rest": func(r *Reader) { r.Count() },
		"more than most":       func(r *Reader) { r.UpTo(8) },
		"more bytes than rest": func(r *Reader) { r.Take(math.MaxUint64) },
	} {
		r := Read([]byte{9, 1, 2, 0x80})
		fault(&r)
		if r.Err() == nil || r.Done() == nil || r.More() || len(r.Rest()) > 0 {
			t.Errorf("%s: fault %v, rest %x", name, r.Err(), r.Rest())
		}
		if u, i, b, c := r.Uint(), r.Int(), r.Byte(), r.Count(); u != 0 || i != 0 || b != 0 || c != 0 || r.Bool() || r.Text() != "" || r.Bytes() != nil {
			t.Errorf("%s: something is read after it", name)
		}
	}
}

func TestBytesHaveNoRoomToAppend(t *testing.T) {
	all := AppendString(AppendString(nil, "one"), "two")
	r := Read(all)
	_ = append(r.Bytes(), 'X', 'X')
	if got := r.Text(); got != "two" {
		t.Errorf("what follows is %q", got)
	}
}
