package queue

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

// entriesOf makes a log of parts: several in an entry where it is drawn so.
func entriesOf(t *rapid.T, parts []part) (entries [][]byte) {
	var entry []byte
	for i, p := range parts {
		decided := uint64(term)
		if p.stale {
			decided--
		}
		if entry == nil {
			entry = AppendEntry(nil, decided, int64(i))
		}
		entry = p.append(entry)
		if i+1 < len(parts) && parts[i].stale == parts[i+1].stale && rapid.Bool().Draw(t, "join") {
			continue
		}
		entries = append(entries, entry)
		entry = nil
	}
	return entries
}

// spoil draws what may have become of an entry on its way.
func spoil(t *rapid.T, entry []byte) []byte {
	entry = slices.Clone(entry)
	switch rapid.IntRange(0, 3).Draw(t, "spoil") {
	case 0:
		return entry[:rapid.IntRange(0, len(entry)-1).Draw(t, "cut")]
	case 1:
		return append(entry, rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "tail")...)
	default:
		at := rapid.IntRange(0, min(len(entry)-1, 200)).Draw(t, "at")
		entry[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		return entry
	}
}

// restored is a state that went through a snapshot of some version that can
// say it: what an older build wrote is one of these.
func restored(t *rapid.T, s *State) *State {
	b := s.appendAs(nil, byte(rapid.IntRange(int(s.version()), snapshotVersionStaged).Draw(t, "version")))
	r := New()
	if err := r.Restore(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplicasAgreeAtEveryIndexWhateverBecomesOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := []*State{New(), New(), New()}
		fx := make([]Effects, len(replicas))
		apply := func(entry []byte) {
			var errs int
			for i, s := range replicas {
				fx[i].Reset()
				before := s.Hash()
				if err := s.Apply(term, entry, &fx[i]); err != nil {
					if errs++; s.Hash() != before {
						t.Fatalf("replica %d took half of an entry: %v", i, err)
					}
				}
			}
			if errs != 0 && errs != len(replicas) {
				t.Fatalf("%d of the replicas refuse an entry", errs)
			}
		}
		for at, entry := range entriesOf(t, program(t)) {
			apply(entry)
			if rapid.IntRange(0, 3).Draw(t, "bad") == 0 {
				apply(spoil(t, entry))
			}
			for i, s := range replicas {
				if s.Hash() != replicas[0].Hash() || s.Digest() != replicas[0].Digest() {
					t.Fatalf("entry %d: replica %d differs from the first", at, i)
				}
				if err := s.Audit(); err != nil {
					t.Fatalf("entry %d: replica %d: %v", at, i, err)
				}
				if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
					replicas[i] = restored(t, s)
				}
			}
		}
	})
}

func TestStatesThatDifferHaveOtherDigests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := program(t)
		whole, less := New(), New()
		run(t, whole, parts, never)
		leftOut := rapid.IntRange(0, len(parts)).Draw(t, "left out")
		for i := range parts {
			if i != leftOut {
				run(t, less, parts[i:i+1], never)
			}
		}
		same := bytes.Equal(whole.AppendTo(nil), less.AppendTo(nil))
		if got := whole.Digest() == less.Digest(); got != same {
			t.Fatalf("digests are the same: %v, states are: %v", got, same)
		}
	})
}

func TestDigestsCostNothingForQueuesThatAreLeftAlone(t *testing.T) {
	s := New()
	for id := range mq.QueueID(100) {
		apply(t, s, AppendReserve(nil, id+1, 5))
	}
	s.Digest()
	apply(t, s, AppendReserve(nil, 7, 9), AppendReserve(nil, 8, 9), AppendReserve(nil, 7, 10))
	if len(s.dirty) != 2 {
		t.Errorf("%d queues are looked at, want 2", len(s.dirty))
	}
	entry := AppendReserve(AppendEntry(nil, term, 0), 7, 11)
	var fx Effects
	if got := testing.AllocsPerRun(10, func() {
		fx.Reset()
		if err := s.Apply(term, entry, &fx); err != nil {
			t.Fatal(err)
		}
		s.Digest()
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
}

// rich is a state with everything that there can be.
func rich(t testing.TB) *State {
	s := New()
	ops := enqueued(2500, 1, 300)
	ops = AppendEnqueueOnce(ops, 5, []Window{{ID: OwnWindow, Key: Key{1}}, {ID: 9, Keys: 4, ExpiresMs: 70, Key: Key{2}, Term: 6}}, []mq.QueueID{7}, 1, 2, 3, []byte("x"))
	ops = AppendSettle(AppendSettle(AppendSettle(ops, 1, 1, 3), 1, 9, 9), 1, 1200, 1400)
	entry := AppendBatch(nil, Origin{1, 2, 1}, ops)
	entry = AppendRefusing(entry, Origin{3, 4, 1}, []Refusal{{0, 0, true}, {1, 0, false}}, enqueued(3, 8))
	entry = AppendReturnLater(entry, 1, []Returned{{1, 5, 1, 2, 1 << 40}, {1, 1500, 2, 3, 0}})
	apply(t, s, AppendReserve(entry, 1, 1000))
	return s
}

// The digest of a state is what other nodes have, of other builds too: who
// changes what it is made of has to change DigestVersion, and this.
func TestTheDigestIsWhatDigestVersionNames(t *testing.T) {
	if got, want := rich(t).Digest(), uint64(0x5ec84f3ff2a0178); got != want || DigestVersion != 1 {
		t.Errorf("got %#x, want %#x", got, want)
	}
}

func TestAuditFindsWhatTheLogHasNotDone(t *testing.T) {
	for name, change := range map[string]func(q *Queue, s *State){
		"a message is lost":      func(q *Queue, _ *State) { q.chunk(20).bitmap[0] &^= 1 << 20 },
		"one has come":           func(q *Queue, _ *State) { q.chunk(20).bitmap[0] |= 1 << 9 },
		"a chunk is lost":        func(q *Queue, _ *State) { q.chunks[2].live = 0 },
		"the count is wrong":     func(q *Queue, _ *State) { q.count++ },
		"the mark is wrong":      func(q *Queue, _ *State) { q.highWater ^= 1 << 9 },
		"the front is wrong":     func(q *Queue, _ *State) { q.front++ },
		"a return is forgotten":  func(q *Queue, _ *State) { q.note(5).Failed = 0 },
		"a due time is wrong":    func(q *Queue, _ *State) { q.setDue(5, 3) },
		"a note is lost":         func(_ *Queue, s *State) { s.Queue(8).note(1).Buried = false },
		"a key is forgotten":     func(_ *Queue, s *State) { s.Queue(7).window(9).seen[0].forgotten = true },
		"a key expires too late": func(_ *Queue, s *State) { s.Queue(7).window(9).seen[0].expiresMs++ },
		"a refusal is forgotten": func(_ *Queue, s *State) { s.node(3).refused[0].runs = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := rich(t)
			s.Digest()
			if err := s.Audit(); err != nil {
				t.Fatal(err)
			}
			change(s.Queue(1), s)
			if s.Audit() == nil {
				t.Error("nothing was found")
			}
		})
	}
}

func BenchmarkDigestOf1000QueuesThatChanged(b *testing.B) {
	s := New()
	var entry []byte
	for id := range mq.QueueID(1000) {
		entry = AppendReserve(entry, id+1, 5)
	}
	for b.Loop() {
		b.StopTimer()
		apply(b, s, entry)
		b.StartTimer()
		s.Digest()
	}
}

func BenchmarkAuditOf10MillionMessages(b *testing.B) {
	s := New()
	for i := range uint64(10_000) {
		apply(b, s, AppendBatch(nil, Origin{1, 1, i + 1}, enqueued(1000, 1)))
	}
	for seq := mq.Seq(2); seq < 10_000_000; seq += 500 {
		apply(b, s, AppendDrop(nil, 1, seq, seq))
	}
	for b.Loop() {
		if err := s.Audit(); err != nil {
			b.Fatal(err)
		}
	}
}
