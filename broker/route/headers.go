package route

import (
	"bytes"
	"slices"
	"strings"

	"warren/mq"
)

// headers matches the message's headers against the bindings' arguments
// (AMQP 0-9-1 §3.1.3.4). x-match says how; all-with-x and any-with-x are
// RabbitMQ's, which otherwise leaves keys that begin with "x-" out.
type headers []headersBinding

type headersBinding struct {
	any  bool // else all; all of no conditions match everything, any of none nothing
	want mq.Table
	dest int
}

func newHeaders(bindings []Binding) headers {
	m := make(headers, 0, len(bindings))
	for _, b := range bindings {
		match, _ := b.Args.String("x-match") // anything else is all
		h := headersBinding{any: match == "any" || match == "any-with-x", dest: b.Dest}
		withX := match == "all-with-x" || match == "any-with-x"
		for _, f := range b.Args {
			if f.Key != "x-match" && (withX || !strings.HasPrefix(f.Key, "x-")) {
				h.want = append(h.want, f)
			}
		}
		m = append(m, h)
	}
	return m
}

// Match implements Matcher.
func (h headers) Match(m Message, hit func(int)) {
	var have mq.Table
	if len(h) > 0 {
		have = m.Headers()
	}
	get := have.Get
	if len(have) > walkMax {
		have = sorted(have)
		get = func(key string) (any, bool) { return search(have, key) }
	}
	for i := range h {
		if h[i].matches(get) {
			hit(h[i].dest)
		}
	}
}

func (b *headersBinding) matches(get func(string) (any, bool)) bool {
	for i := range b.want {
		v, ok := get(b.want[i].Key)
		// No value in the binding asks for presence only.
		ok = ok && (b.want[i].Value == nil || equal(b.want[i].Value, v, tableDepthMax))
		if ok == b.any {
			return b.any
		}
	}
	return !b.any
}

// walkMax is how many headers are looked up by walking them. A message may have
// thousands, and a binding too.
const walkMax = 32

// sorted returns a copy of t by key; of equal keys the first stays first.
func sorted(t mq.Table) mq.Table {
	t = slices.Clone(t)
	slices.SortStableFunc(t, func(a, b mq.Field) int { return strings.Compare(a.Key, b.Key) })
	return t
}

func search(t mq.Table, key string) (any, bool) {
	i, ok := slices.BinarySearchFunc(t, key, func(f mq.Field, key string) int { return strings.Compare(f.Key, key) })
	if !ok {
		return nil, false
	}
	return t[i].Value, true
}

// tableDepthMax bounds the comparison of nested tables; deeper ones differ.
const tableDepthMax = 64

// seconds is a time.Time, without the package that knows what time it is.
type seconds interface{ Unix() int64 }

// equal compares as RabbitMQ does, by value: a whole number has the same value in
// every width, and so has a float, but the two are never equal; a string and a byte array ('x') are both bytes.
// Values of other kinds are equal only to their own kind.
func equal(a, b any, depth int) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	switch x := a.(type) {
	case nil:
		return b == nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case string:
		switch y := b.(type) {
		case string:
			return x == y
		case []byte:
			return x == string(y)
		}
	case []byte:
		switch y := b.(type) {
		case string:
			return string(x) == y
		case []byte:
			return bytes.Equal(x, y)
		}
	case mq.Decimal:
		y, ok := b.(mq.Decimal)
		return ok && x == y
	case seconds:
		y, ok := b.(seconds)
		return ok && x.Unix() == y.Unix()
	case mq.Table:
		y, ok := b.(mq.Table)
		return ok && equalTables(x, y, depth)
	case []any:
		y, ok := b.([]any)
		return ok && equalArrays(x, y, depth)
	}
	return false
}

func equalTables(a, b mq.Table, depth int) bool {
	if len(a) != len(b) || depth == 0 {
		return false
	}
	a, b = sorted(a), sorted(b)
	for i := range a {
		if a[i].Key != b[i].Key || !equal(a[i].Value, b[i].Value, depth-1) {
			return false
		}
	}
	return true
}

func equalArrays(a, b []any, depth int) bool {
	if len(a) != len(b) || depth == 0 {
		return false
	}
	for i := range a {
		if !equal(a[i], b[i], depth-1) {
			return false
		}
	}
	return true
}

// num is a number: whole, or a float. big is a whole one above int64.
type num struct {
	whole   int64
	big     uint64
	float   float64
	isFloat bool
}

func number(v any) (num, bool) {
	if i, ok := mq.Int(v); ok {
		return num{whole: i}, true
	}
	switch n := v.(type) {
	case uint64:
		return num{big: n}, true
	case float32:
		return num{float: float64(n), isFloat: true}, true
	case float64:
		return num{float: n, isFloat: true}, true
	}
	return num{}, false
}
