package route

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

const tries = 10_000

// shares sends tries messages with different keys and answers who got which.
func shares(t testing.TB, kind string, bindings []Binding) map[string]int {
	t.Helper()
	x, got := compile(t, kind, nil, bindings), map[string]int{}
	for i := range tries {
		n := 0
		key := "user-" + strconv.Itoa(i)
		x.Match(&message{keys: []string{key}}, func(d int) { n++; got[key] = d })
		if n != 1 {
			t.Fatalf("%s: key %q has %d destinations", kind, key, n)
		}
	}
	return got
}

func weighted(weights ...int) (b []Binding) {
	for i, w := range weights {
		b = append(b, Binding{Key: strconv.Itoa(w), To: fmt.Sprintf("queue-%d", i), Dest: i})
	}
	return b
}

func TestConsistentHashSharesInProportionToWeights(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 2, 2, 1}, {10, 10, 10, 10, 10, 10, 10, 10, 10, 10}, {1, 3, 6}, {10000, 5000, 5000}} {
		count, total := make([]int, len(weights)), 0
		for _, d := range shares(t, "x-consistent-hash", weighted(weights...)) {
			count[d]++
		}
		for _, w := range weights {
			total += w
		}
		for i, w := range weights {
			want := float64(tries*w) / float64(total)
			if got := float64(count[i]); math.Abs(got-want) > 0.15*want {
				t.Errorf("weights %v: destination %d got %v of %d, its share is %v", weights, i, got, tries, want)
			}
		}
	}
}

// Property: when a destination comes, keys move to it only; when it goes, only
// its own keys move; and what moves is its share.
func TestConsistentHashMovesOnlyTheShareOfWhoComesOrGoes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 20), 2, 12).Draw(r, "weights")
		all := weighted(weights...)
		gone := rapid.IntRange(0, len(all)-1).Draw(r, "gone")
		fewer := slices.Delete(slices.Clone(all), gone, gone+1)
		with, without := shares(t, "x-consistent-hash", all), shares(t, "x-consistent-hash", fewer)
		moved, total := 0, 0
		for key, d := range with {
			switch {
			case d == gone:
				moved++
			case without[key] != d:
				r.Fatalf("%q moved from %d to %d, and %d was gone", key, d, without[key], gone)
			}
		}
		for _, w := range weights {
			total += w
		}
		share := float64(weights[gone]) / float64(total)
		if got := float64(moved) / tries; math.Abs(got-share) > 0.15*share+0.01 {
			r.Fatalf("%v of the keys moved, the share is %v", got, share)
		}
	})
}

// Nodes compile from the same metadata, of which the order is the same; the
// outcome must not hang on it all the same, for names sort differently as
// queues come and go.
func TestConsistentHashDoesNotHangOnTheOrderOfBindings(t *testing.T) {
	b := weighted(1, 2, 3, 4)
	reversed := slices.Clone(b)
	slices.Reverse(reversed)
	there, back := shares(t, "x-consistent-hash", b), shares(t, "x-consistent-hash", reversed)
	for key := range there {
		if there[key] != back[key] {
			t.Fatalf("%q went to %d and %d", key, there[key], back[key])
		}
	}
}

// The hash is part of what nodes of different versions must agree on.
func TestHashesNeverChange(t *testing.T) {
	for s, want := range map[string]uint64{"": 0xf52a15e9a9b5e89b, "order.eu.1": 0x3629f83a08bc8aad} {
		if got := hash(s); got != want {
			t.Errorf("%q: %#x, was %#x", s, got, want)
		}
	}
}

func TestConsistentHashTakesTheHeaviestBindingOfADestination(t *testing.T) {
	b := append(weighted(1, 1), Binding{Key: "3", To: "queue-0", Dest: 2}, Binding{Key: "2", To: "queue-0", Dest: 3})
	count := map[int]int{}
	for _, d := range shares(t, "x-consistent-hash", b) {
		count[d]++
	}
	if len(count) != 2 || count[2] < tries*70/100 || count[2] > tries*80/100 {
		t.Errorf("got %v", count)
	}
}

func TestConsistentHashHashesWhatItsArgumentsName(t *testing.T) {
	bindings := weighted(slices.Repeat([]int{1}, 50)...)
	pick := func(args mq.Table, m message) (to int) {
		m.keys = append(m.keys, "a key")
		compile(t, "x-consistent-hash", args, bindings).Match(&m, func(d int) { to = d })
		return to
	}
	header, property := table("hash-header", "user"), table("hash-property", "message_id")
	for _, c := range []struct {
		claim string
		args  mq.Table
		a, b  message
		same  bool
	}{
		{"the routing key", nil, message{keys: []string{"x"}}, message{keys: []string{"y"}}, false},
		{"the first routing key only", nil, message{keys: []string{"x", "z"}}, message{keys: []string{"x", "y"}}, true},
		{"a header", header, message{headers: table("user", "x")}, message{headers: table("user", "y")}, false},
		{"the header and not the key", header, message{keys: []string{"k"}, headers: table("user", "x")}, message{headers: table("user", "x")}, true},
		{"a number of any width", header, message{headers: table("user", int8(7))}, message{headers: table("user", int64(7))}, true},
		{"other numbers", header, message{headers: table("user", int8(7))}, message{headers: table("user", int8(8))}, false},
		{"bytes as a string", header, message{headers: table("user", []byte("x"))}, message{headers: table("user", "x")}, true},
		{"a header that is not there", header, message{}, message{headers: table("other", "x")}, true},
		{"a table", header, message{headers: table("user", table("a", "b"))}, message{headers: table("user", table("a", "c"))}, false},
		{"a property", property, message{properties: map[string]string{"message_id": "x"}}, message{properties: map[string]string{"message_id": "y"}}, false},
		{"a property that is not there", property, message{}, message{properties: map[string]string{"timestamp": "1"}}, true},
	} {
		if got := pick(c.args, c.a) == pick(c.args, c.b); got != c.same {
			t.Errorf("%s: same destination is %v", c.claim, got)
		}
	}
}

func TestModulusHashCountsEveryBinding(t *testing.T) {
	count := map[int]int{}
	for _, d := range shares(t, "x-modulus-hash", []Binding{{Dest: 0}, {Dest: 1, Key: "a"}, {Dest: 1, Key: "b"}}) {
		count[d]++
	}
	if count[0] < tries*28/100 || count[0] > tries*38/100 {
		t.Errorf("got %v", count)
	}
}

func TestModulusHashCountsEveryKey(t *testing.T) {
	x := compile(t, "x-modulus-hash", nil, keys(slices.Repeat([]string{""}, 50)...))
	to := map[int]bool{}
	for i := range 10 {
		x.Match(&message{keys: []string{"same", strconv.Itoa(i)}}, func(d int) { to[d] = true })
	}
	if len(to) < 2 {
		t.Error("the second key does not count")
	}
}

func TestRandomPicksWhatIsDrawn(t *testing.T) {
	x := compile(t, "x-random", nil, keys("", "a", "b"))
	for want := range 3 {
		m := &message{keys: []string{"", ""}, draw: func(n int) int { return want % n }}
		var got []int
		x.Match(m, func(d int) { got = append(got, d) })
		if !slices.Equal(got, []int{want}) {
			t.Errorf("drawn %d: got %v", want, got)
		}
	}
}

func TestLocalRandomPicksAmongTheNearest(t *testing.T) {
	for _, c := range []struct {
		places []Place
		want   []int // all that may be picked
	}{
		{[]Place{Elsewhere, Here, Anywhere, Here}, []int{1, 3}},
		{[]Place{Anywhere, Elsewhere, Anywhere}, []int{0, 2}},
		{[]Place{Anywhere, Here}, []int{1}},
		{[]Place{Elsewhere, Elsewhere}, nil},
		{nil, nil},
	} {
		x := compile(t, "x-local-random", nil, keys(slices.Repeat([]string{""}, len(c.places))...))
		got := map[int]int{}
		seed := uint64(1)
		draw := func(n int) int { seed = mix(seed + 1); return int(seed % uint64(n)) }
		for range 1000 {
			n := 0
			x.Match(&message{places: c.places, draw: draw}, func(d int) { n++; got[d]++ })
			if n > 1 {
				t.Fatalf("%v: %d destinations", c.places, n)
			}
		}
		for _, d := range c.want {
			if got[d] < 800/len(c.want) {
				t.Errorf("%v: got %v", c.places, got)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%v: got %v, want only %v", c.places, got, c.want)
		}
	}
}

func TestOnlyTypesThatLookAtKeysRouteByKey(t *testing.T) {
	for _, c := range []struct {
		kind string
		args mq.Table
		want bool
	}{
		{"direct", nil, true}, {"fanout", nil, true}, {"topic", nil, true}, {"headers", nil, false},
		{"x-modulus-hash", nil, true}, {"x-random", nil, false}, {"x-local-random", nil, false},
		{"x-consistent-hash", nil, true},
		{"x-consistent-hash", table("hash-header", "h"), false},
		{"x-consistent-hash", table("hash-property", "message_id"), false},
	} {
		if got := ByKey(c.kind, c.args); got != c.want {
			t.Errorf("%s %v: got %v", c.kind, c.args, got)
		}
	}
}

func TestHashesOfPatternsAreCounted(t *testing.T) {
	for pattern, want := range map[string]int{"": 0, "a.b": 0, "#": 1, "#.#": 2, "a.#.b.#": 2, "a#.#b.##": 0, "#.#.#": 3, ".#.": 1} {
		if got := CountHashes(pattern); got != want {
			t.Errorf("%q: got %d, want %d", pattern, got, want)
		}
	}
}
