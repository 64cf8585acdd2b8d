package broker

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

func TestHeldIsASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h held
		want := map[mq.Seq]bool{}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			seq := mq.Seq(rapid.IntRange(1, 40).Draw(t, "seq"))
			if rapid.Bool().Draw(t, "add") {
				h.add(seq)
				want[seq] = true
			} else {
				if got := h.remove(seq); got != want[seq] {
					t.Fatalf("remove(%d) says %v of %v", seq, got, h.seqs)
				}
				delete(want, seq)
			}
			if got := h.all(); !slices.Equal(got, slices.Sorted(maps.Keys(want))) || h.live != len(want) {
				t.Fatalf("holds %v (%d), want %v", got, h.live, slices.Sorted(maps.Keys(want)))
			}
		}
	})
}
