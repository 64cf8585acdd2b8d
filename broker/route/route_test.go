package route

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"warren/mq"
)

// message is a Message made of its parts.
type message struct {
	keys       []string
	headers    mq.Table
	properties map[string]string
	draw       func(n int) int
	places     []Place
}

func (m *message) Keys() (keys [][]byte) {
	for _, k := range m.keys {
		keys = append(keys, []byte(k))
	}
	return keys
}

func (m *message) Headers() mq.Table { return m.headers }

func (m *message) Property(name string) []byte {
	if v, ok := m.properties[name]; ok {
		return []byte(v)
	}
	return nil
}

func (m *message) Random(n int) int     { return m.draw(n) }
func (m *message) Place(dest int) Place { return m.places[dest] }

func compile(t testing.TB, kind string, args mq.Table, bindings []Binding) Matcher {
	t.Helper()
	m, err := Compile(kind, args, bindings)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// match returns the destinations in ascending order, each once.
func match(t testing.TB, kind string, bindings []Binding, key string, headers mq.Table) []int {
	t.Helper()
	got := []int{}
	compile(t, kind, nil, bindings).Match(&message{keys: []string{key}, headers: headers}, func(d int) { got = append(got, d) })
	slices.Sort(got)
	return slices.Compact(got)
}

func keys(keys ...string) []Binding {
	b := make([]Binding, len(keys))
	for i, k := range keys {
		b[i] = Binding{Key: k, Dest: i}
	}
	return b
}

func TestDirectMatchesTheWholeKey(t *testing.T) {
	bindings := append(keys("a", "b", "", "a.*", "a"), Binding{Key: "a", Dest: 0})
	for key, want := range map[string][]int{"a": {0, 4}, "b": {1}, "": {2}, "a.*": {3}, "a.b": {}, "A": {}} {
		if got := match(t, "direct", bindings, key, nil); !slices.Equal(got, want) {
			t.Errorf("key %q: got %v, want %v", key, got, want)
		}
	}
}

func TestFanoutIgnoresTheKey(t *testing.T) {
	bindings := append(keys("a", "b"), Binding{Key: "c", Dest: 1})
	for _, key := range []string{"", "a", "x.y"} {
		if got := match(t, "fanout", bindings, key, nil); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("key %q: got %v", key, got)
		}
	}
}

func TestUnknownTypeDoesNotCompile(t *testing.T) {
	if _, err := Compile("x-none", nil, nil); err == nil {
		t.Error("no error")
	}
}

// The examples of AMQP 0-9-1 §3.1.3.3, of RabbitMQ's tutorial five, and the
// odd cases that RabbitMQ's broker has an answer for.
func TestTopicMatchesWords(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"*.stock.#", []string{"usd.stock", "eur.stock.db"}, []string{"stock.nasdaq", "stock"}},
		{"*.orange.*", []string{"quick.orange.rabbit", "lazy.orange.elephant"}, []string{"quick.orange.new.rabbit", "orange", "lazy.brown.fox"}},
		{"*.*.rabbit", []string{"quick.orange.rabbit"}, []string{"quick.orange.male.rabbit", "rabbit"}},
		{"lazy.#", []string{"lazy", "lazy.brown.fox", "lazy.orange.new.rabbit"}, []string{"quick.lazy", "lazyy"}},
		{"#", []string{"", "a", "a.b", ".", ".."}, nil},
		{"", []string{""}, []string{".", "a"}},
		{"*", []string{"a", "*", "#"}, []string{"", "a.b", "."}},
		{"*.*", []string{"a.b", ".", "a.", ".b"}, []string{"a", ".."}},
		{"a.", []string{"a."}, []string{"a", "a.b", "a.."}},
		{".a", []string{".a"}, []string{"a", "b.a"}},
		{"a..b", []string{"a..b"}, []string{"a.b", "a.x.b"}},
		{"a.*.b", []string{"a..b", "a.x.b"}, []string{"a.b"}},
		{"#.a", []string{"a", "x.a", ".a", "a.a"}, []string{"", "a.x"}},
		{"#.#", []string{"", "a", "a.b"}, nil},
		{"#.*", []string{"a", "a.b"}, []string{""}},
		{"*.#", []string{"a", "a.b", "."}, []string{""}},
		{"#.*.#", []string{"a", "a.b.c"}, []string{""}},
		{"#.a.#", []string{"a", "x.a", "a.x", "x.a.x"}, []string{"", "x"}},
		{"a.#.b.#.c", []string{"a.b.c", "a.b.b.c.c", "a.x.b.y.z.c"}, []string{"a.c", "a.c.b", "a.b"}},
		{"#.b.*.c", []string{"b.x.c", "b.b.x.c", "a.b.b.c"}, []string{"b.c", "b.x.y.c"}},
		{"a#", []string{"a#"}, []string{"a", "ab"}},
		{"a.*b", []string{"a.*b"}, []string{"a.xb"}},
	}
	for _, test := range tests {
		for _, key := range test.yes {
			if got := match(t, "topic", keys(test.pattern), key, nil); len(got) != 1 {
				t.Errorf("%q does not match %q", test.pattern, key)
			}
		}
		for _, key := range test.no {
			if got := match(t, "topic", keys(test.pattern), key, nil); len(got) != 0 {
				t.Errorf("%q matches %q", test.pattern, key)
			}
		}
	}
}

// naive is the definition: RabbitMQ's, word by word.
func naive(pattern, words []string) bool {
	switch {
	case len(pattern) == 0:
		return len(words) == 0
	case pattern[0] == "#":
		return naive(pattern[1:], words) || len(words) > 0 && naive(pattern, words[1:])
	case len(words) == 0:
		return false
	}
	return (pattern[0] == "*" || pattern[0] == words[0]) && naive(pattern[1:], words[1:])
}

func split(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, ".")
}

func TestTopicAgreesWithTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"a", "b", "", "*", "#", "*", "#"})
		patterns := rapid.SliceOfN(rapid.SliceOfN(word, 0, 6), 1, 20).Draw(t, "patterns")
		bindings := make([]Binding, len(patterns))
		for i, p := range patterns {
			bindings[i] = Binding{Key: strings.Join(p, "."), Dest: i}
		}
		key := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", ""}), 0, 8).Draw(t, "key"), ".")
		want := []int{}
		for i := range bindings {
			if naive(split(bindings[i].Key), split(key)) {
				want = append(want, i)
			}
		}
		m, err := Compile("topic", nil, bindings)
		if err != nil {
			t.Fatal(err)
		}
		got := []int{}
		m.Match(&message{keys: []string{key}}, func(d int) { got = append(got, d) })
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Fatalf("key %q: got %v, want %v of %v", key, got, want, bindings)
		}
	})
}

// Backtracking would need longer than the universe has.
func TestTopicWithManyHashesIsQuick(t *testing.T) {
	pattern := strings.Repeat("#.a.*.", 30) + "b"
	key := strings.TrimSuffix(strings.Repeat("a.", 127), ".")
	if got := match(t, "topic", keys(pattern), key, nil); len(got) != 0 {
		t.Errorf("%q matches", pattern)
	}
	if got := match(t, "topic", keys(pattern), key+".b", nil); len(got) != 1 {
		t.Errorf("%q does not match", pattern)
	}
}

func table(kv ...any) mq.Table {
	var t mq.Table
	for i := 0; i < len(kv); i += 2 {
		t = append(t, mq.Field{Key: kv[i].(string), Value: kv[i+1]})
	}
	return t
}

func TestHeadersMatch(t *testing.T) {
	tests := []struct {
		claim   string
		args    mq.Table
		headers mq.Table
		want    bool
	}{
		{"all is the default", table("a", "1", "b", "2"), table("a", "1", "b", "2", "c", "3"), true},
		{"all needs each", table("x-match", "all", "a", "1", "b", "2"), table("a", "1"), false},
		{"all needs each value", table("x-match", "all", "a", "1"), table("a", "2"), false},
		{"all of nothing matches", nil, table("a", "1"), true},
		{"all of nothing matches a message without headers", table("x-match", "all"), nil, true},
		{"any needs one", table("x-match", "any", "a", "1", "b", "2"), table("b", "2"), true},
		{"any needs one value", table("x-match", "any", "a", "1", "b", "2"), table("a", "2", "b", "1"), false},
		{"any of nothing matches nothing", table("x-match", "any"), table("a", "1"), false},
		{"x- keys do not count for all", table("x-match", "all", "x-a", "1", "b", "2"), table("b", "2"), true},
		{"x- keys do not count for any", table("x-match", "any", "x-a", "1"), table("x-a", "1"), false},
		{"x- keys count for all-with-x", table("x-match", "all-with-x", "x-a", "1", "b", "2"), table("b", "2"), false},
		{"x- keys count for any-with-x", table("x-match", "any-with-x", "x-a", "1"), table("x-a", "1"), true},
		{"x-match itself never counts", table("x-match", "any-with-x"), table("x-match", "any-with-x"), false},
		{"no value asks for presence", table("a", nil), table("a", "whatever"), true},
		{"no value needs presence", table("a", nil), table("b", "1"), false},
		{"no value counts for any", table("x-match", "any", "a", nil), table("a", false), true},
		{"a value does not match no value", table("a", "1"), table("a", nil), false},
		{"keys are case-sensitive", table("A", "1"), table("a", "1"), false},
		{"the first of equal headers counts", table("a", "1"), table("a", "2", "a", "1"), false},
		{"an unknown x-match is all", table("x-match", "some", "a", "1", "b", "2"), table("a", "1"), false},
		{"whole numbers of any width are equal", table("a", int8(5)), table("a", uint64(5)), true},
		{"whole numbers with other values differ", table("a", int64(-1)), table("a", uint64(math.MaxUint64)), false},
		{"large unsigned numbers are equal", table("a", uint64(math.MaxUint64)), table("a", uint64(math.MaxUint64)), true},
		{"a whole float is not the number", table("a", int32(2)), table("a", 2.0), false},
		{"a float of either width", table("a", float32(0.5)), table("a", 0.5), true},
		{"a number is not its digits", table("a", int32(5)), table("a", "5"), false},
		{"a number is not a truth", table("a", int32(1)), table("a", true), false},
		{"truth", table("a", true), table("a", true), true},
		{"bytes and string", table("a", []byte("x")), table("a", "x"), true},
		{"string and bytes", table("a", "x"), table("a", []byte("x")), true},
		{"times", table("a", time.Unix(5, 0)), table("a", time.Unix(5, 0).UTC()), true},
		{"other times", table("a", time.Unix(5, 0)), table("a", time.Unix(6, 0)), false},
		{"decimals", table("a", mq.Decimal{Scale: 2, Value: 314}), table("a", mq.Decimal{Scale: 2, Value: 314}), true},
		{"tables in any order", table("a", table("b", int8(1), "c", "2")), table("a", table("c", "2", "b", int64(1))), true},
		{"tables that differ", table("a", table("b", "1")), table("a", table("b", "2")), false},
		{"arrays", table("a", []any{"x", int8(1)}), table("a", []any{"x", int64(1)}), true},
		{"arrays in another order", table("a", []any{"x", "y"}), table("a", []any{"y", "x"}), false},
	}
	for _, test := range tests {
		for _, headers := range []mq.Table{test.headers, append(slices.Clone(test.headers), many()...)} {
			got := match(t, "headers", []Binding{{Args: test.args}}, "", headers)
			if (len(got) == 1) != test.want {
				t.Errorf("%s: got %v, want %v (%d headers)", test.claim, !test.want, test.want, len(headers))
			}
		}
	}
}

// many is more headers than are looked up by walking.
func many() (t mq.Table) {
	for i := range walkMax {
		t = append(t, mq.Field{Key: fmt.Sprintf("zz%d", i), Value: int32(i)})
	}
	return t
}

func TestHeadersOfAMessageWithoutTable(t *testing.T) {
	got := match(t, "headers", []Binding{{Args: nil, Dest: 3}, {Args: table("a", "1"), Dest: 4}}, "", nil)
	if !slices.Equal(got, []int{3}) {
		t.Errorf("got %v", got)
	}
}

// keyed is a Message that has only keys, which it does not make anew.
type keyed struct {
	message
	key [][]byte
}

func (m *keyed) Keys() [][]byte { return m.key }

func TestMatchAllocatesNothing(t *testing.T) {
	n := 0
	m := &keyed{key: [][]byte{[]byte("a.b.c")}, message: message{draw: func(n int) int { return n - 1 }, places: []Place{Here, Here}}}
	hit := func(int) { n++ }
	for kind, bindings := range map[string][]Binding{
		"direct":            keys("a.b.c", "a"),
		"fanout":            keys("", ""),
		"topic":             keys("a.*.c", "#.c", "a.#", "#.b.#", "a.b.c", "*.*.*", "a.#.b.#"),
		"x-consistent-hash": {{Key: "1", To: "a"}, {Key: "2", To: "b"}},
		"x-modulus-hash":    keys("", ""),
		"x-random":          keys("", ""),
		"x-local-random":    keys("", ""),
	} {
		x := compile(t, kind, nil, bindings)
		if allocs := testing.AllocsPerRun(100, func() { x.Match(m, hit) }); allocs != 0 {
			t.Errorf("%s: %v allocations", kind, allocs)
		}
	}
	if n == 0 {
		t.Error("nothing matched")
	}
}

func BenchmarkMatch(b *testing.B) {
	var exact, patterns []Binding
	var args, shares []Binding
	for i := range 1000 {
		shares = append(shares, Binding{Key: "1", To: fmt.Sprint("q", i), Dest: i})
		exact = append(exact, Binding{Key: fmt.Sprintf("order.eu.%d", i), Dest: i})
		patterns = append(patterns, Binding{Key: []string{"order.*.%d", "#.%d", "order.eu.%d", "order.%d.#"}[i%4], Dest: i})
		patterns[i].Key = fmt.Sprintf(patterns[i].Key, i)
		args = append(args, Binding{Args: table("region", "eu", "id", int32(i)), Dest: i})
	}
	headers := table("region", "eu", "id", int64(4), "kind", "order")
	for _, c := range []struct {
		kind     string
		bindings []Binding
	}{{"direct", exact}, {"topic", patterns}, {"headers", args}, {"x-consistent-hash", shares[:10]}, {"x-consistent-hash", shares}} {
		b.Run(fmt.Sprintf("%s-%d", c.kind, len(c.bindings)), func(b *testing.B) {
			x, n := compile(b, c.kind, nil, c.bindings), 0
			m := &keyed{key: [][]byte{[]byte("order.eu.4")}, message: message{headers: headers}}
			hit := func(int) { n++ }
			b.ReportAllocs()
			for b.Loop() {
				x.Match(m, hit)
			}
			if n == 0 {
				b.Fatal("nothing matched")
			}
		})
	}
}

func FuzzTopic(f *testing.F) {
	f.Add("a.#.b", "a.x.b")
	f.Add("*.#", "..")
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if strings.Count(pattern, "#") > 4 || len(key) > 64 {
			return // the definition takes for ever
		}
		got := false
		newTopic(keys(pattern)).Match(&message{keys: []string{key}}, func(int) { got = true })
		if want := naive(split(pattern), split(key)); got != want {
			t.Errorf("%q against %q: got %v, want %v", pattern, key, got, want)
		}
	})
}
