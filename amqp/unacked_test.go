package amqp

import (
	"math/rand/v2"
	"slices"
	"testing"

	"warren/mq"
)

// Against a map, with random pushes, settlements and rollbacks, and holes in
// the tags where deliveries without ack lie.
func TestUnackedBehavesLikeAMap(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var u unacked
		live, taken := map[uint64]mq.Held{}, map[uint64]mq.Held{}
		tag, recalled := uint64(0), uint64(0)
		for range 2000 {
			switch rnd.IntN(6) {
			case 0, 1:
				tag += uint64(1 + rnd.IntN(2)*rnd.IntN(3))
				h := mq.Held{Consumer: mq.ConsumerID(tag % 3), Seq: mq.Seq(tag)}
				live[tag] = h
				u.push(tag, h, tag%2 == 0)
			case 2:
				at, multiple := rnd.Uint64N(tag+2), rnd.IntN(20) == 0
				got, ok := u.take(at, multiple, nil)
				_, want := live[at]
				if _, is := taken[at]; at == 0 && multiple || at > 0 && at <= recalled && !is {
					want = true
				}
				if ok != want {
					t.Fatalf("seed %d: take(%d, %v) got %v", seed, at, multiple, ok)
				}
				for _, h := range got {
					k := uint64(h.Seq)
					if _, is := live[k]; !is || k > at && at != 0 || k != at && !multiple {
						t.Fatalf("seed %d: take(%d, %v) took %d", seed, at, multiple, k)
					}
					taken[k] = live[k]
					delete(live, k)
				}
				if ok && multiple {
					for k := range live {
						if k <= at || at == 0 {
							t.Fatalf("seed %d: take(%d, true) left %d", seed, at, k)
						}
					}
				}
			case 3:
				u.sweep(len(taken))
				clear(taken)
			case 5:
				recalled = max(recalled, recallSome(rnd, &u, live, tag))
			case 4:
				if rnd.IntN(4) == 0 {
					u.untake()
					for k, h := range taken {
						live[k] = h
					}
					clear(taken)
				}
			}
			counted := 0
			for k := range live {
				counted += int(1 - k%2)
			}
			for k := range taken {
				counted += int(1 - k%2)
			}
			if u.counted != counted || u.empty() != (len(live)+len(taken) == 0) {
				t.Fatalf("seed %d: counted %d want %d, empty %v", seed, u.counted, counted, u.empty())
			}
		}
		rest := u.drain()
		if len(rest) != len(live)+len(taken) || !slices.IsSortedFunc(rest, func(a, b mq.Held) int { return int(a.Seq) - int(b.Seq) }) {
			t.Fatalf("seed %d: drained %d of %d", seed, len(rest), len(live)+len(taken))
		}
	}
}

// recallSome takes some of what is live back, and returns the highest such tag.
func recallSome(rnd *rand.Rand, u *unacked, live map[uint64]mq.Held, last uint64) (highest uint64) {
	if rnd.IntN(10) > 0 {
		return 0 // not often
	}
	of := mq.ConsumerID(rnd.IntN(3))
	seqs := []mq.Seq{mq.Seq(rnd.Uint64N(last + 2)), mq.Seq(last), mq.Seq(last + 1)}
	slices.Sort(seqs)
	u.recall(of, seqs)
	for k, h := range live {
		if h.Consumer == of && slices.Contains(seqs, h.Seq) {
			highest = max(highest, k)
			delete(live, k)
		}
	}
	return highest
}

// One delivery that is never settled does not keep the others in memory.
func TestUnackedForgetsWhatLiesBehindAnOldTag(t *testing.T) {
	var u unacked
	for tag := uint64(1); tag <= 200_000; tag++ {
		u.push(tag, mq.Held{}, true)
		if tag == 1 {
			continue
		}
		if _, ok := u.take(tag, false, nil); !ok {
			t.Fatalf("tag %d is gone", tag)
		}
		u.sweep(1)
	}
	if cap(u.entries) > 4096 || u.counted != 1 {
		t.Errorf("room for %d, counted %d", cap(u.entries), u.counted)
	}
}
