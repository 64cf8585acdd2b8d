package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func body(q, seq uint64, n int) []byte {
	b := make([]byte, n, n+8)
	x := q<<32 | seq
	for i := 0; i < n; i += 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b[i:i+8], x^x>>32)
	}
	return b
}

// model is the slow and obvious store.
type model map[uint64]map[uint64]Record

func (m model) put(q, seq uint64, r Record) {
	if m[q] == nil {
		m[q] = map[uint64]Record{}
	}
	m[q][seq] = r
}

func (m model) check(t interface{ Fatalf(string, ...any) }, s *Store, highest map[uint64]uint64) {
	var total int64
	for q, last := range highest {
		var bytesOfQueue int64
		for seq := uint64(1); seq <= last+1; seq++ {
			want, ok := m[q][seq]
			got, gotOK := s.Get(q, seq)
			if ok != gotOK {
				t.Fatalf("queue %d seq %d: got %v, want %v", q, seq, gotOK, ok)
			}
			if ok && (!bytes.Equal(got.Body, want.Body) || got.Flags != want.Flags || got.Priority != want.Priority || got.ExpiryMs != want.ExpiryMs) {
				t.Fatalf("queue %d seq %d differs", q, seq)
			}
			bytesOfQueue += int64(len(want.Body))
		}
		if got := s.Bytes(q); got != bytesOfQueue {
			t.Fatalf("queue %d: Bytes %d, want %d", q, got, bytesOfQueue)
		}
		total += bytesOfQueue
	}
	if s.Total() != total {
		t.Fatalf("Total %d, want %d", s.Total(), total)
	}
}

func (m model) checkView(t interface{ Fatalf(string, ...any) }, v *View) {
	seen := 0
	var lastQ, lastSeq uint64
	err := v.Each(func(q, seq uint64, r Record) error {
		if q < lastQ || q == lastQ && seq <= lastSeq {
			return fmt.Errorf("%d/%d after %d/%d", q, seq, lastQ, lastSeq)
		}
		lastQ, lastSeq = q, seq
		want, ok := m[q][seq]
		if !ok || !bytes.Equal(want.Body, r.Body) {
			return fmt.Errorf("%d/%d: there %v, or body differs", q, seq, ok)
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatalf("view: %v", err)
	}
	want := 0
	for _, q := range m {
		want += len(q)
	}
	if seen != want {
		t.Fatalf("view has %d messages, want %d", seen, want)
	}
}

func (m model) clone() model {
	c := model{}
	for q, msgs := range m {
		for seq, r := range msgs {
			c.put(q, seq, r)
		}
	}
	return c
}

func TestStoreDoesWhatAMapWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m, highest := NewStore(), model{}, map[uint64]uint64{}
		type past struct {
			view *View
			was  model
		}
		var views []past
		var kept []Record // bodies handed out earlier must not change
		var keptWant [][]byte
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			q := rapid.Uint64Range(1, 3).Draw(t, "queue")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2, 3: // a run of puts, sometimes with gaps
				n := rapid.IntRange(1, 700).Draw(t, "run")
				size := rapid.SampledFrom([]int{0, 1, 30, 1000, 3000, bigBody}).Draw(t, "size")
				if size == bigBody {
					n = min(n, 20)
				}
				seq := highest[q] + rapid.Uint64Range(1, 3).Draw(t, "gap")
				for range n {
					r := Record{Flags: 1, Priority: uint8(seq), ExpiryMs: int64(seq), Body: body(q, seq, size)}
					s.Put(q, seq, r.Flags, r.Priority, r.ExpiryMs, r.Body)
					m.put(q, seq, r)
					highest[q] = seq
					seq++
				}
			case 4, 5, 6, 7:
				first := rapid.Uint64Range(0, highest[q]+2).Draw(t, "first")
				last := first + uint64(rapid.SampledFrom([]int{0, 1, 5, 900, 5000}).Draw(t, "length"))
				s.Drop(q, first, last)
				for seq := range m[q] {
					if seq >= first && seq <= last {
						delete(m[q], seq)
					}
				}
			case 8:
				views = append(views, past{s.View(), m.clone()})
			case 9:
				if r, ok := s.Get(q, highest[q]); ok {
					kept = append(kept, r)
					keptWant = append(keptWant, bytes.Clone(r.Body))
				} else if rapid.Bool().Draw(t, "delete") {
					s.DropQueue(q)
					delete(m, q)
					highest[q] = 0
				}
			}
		}
		for _, p := range views {
			p.was.checkView(t, p.view)
		}
		for i, r := range kept {
			if !bytes.Equal(r.Body, keptWant[i]) {
				t.Fatalf("a body that was handed out has changed")
			}
		}
		m.check(t, s, highest)
	})
}

func TestPutIsIdempotent(t *testing.T) {
	s := NewStore()
	for range 2 {
		for seq := uint64(1); seq <= 3000; seq++ {
			s.Put(7, seq, 0, 0, -1, body(7, seq, 10))
		}
	}
	if got := s.Bytes(7); got != 30000 {
		t.Errorf("bytes %d, want 30000", got)
	}
	s.Drop(7, 5, 5)
	s.Put(7, 5, 0, 0, -1, body(7, 5, 10))
	if _, ok := s.Get(7, 5); ok {
		t.Error("a replayed put brought a dropped message back")
	}
}

func TestADrainedTailHidesNothingBeforeIt(t *testing.T) {
	for count := uint64(2); count < 12; count++ {
		s := NewStore()
		for seq := uint64(1); seq <= count; seq++ {
			s.Put(1, seq, 0, 0, 0, body(1, seq, chunkBytes))
		}
		s.Drop(1, count, count)
		for seq := count - 1; seq > 0; seq-- { // not the way that hints help
			if _, ok := s.Get(1, seq); !ok {
				t.Errorf("%d messages, the last dropped: %d is not there", count, seq)
			}
		}
	}
}

func TestABodyThatWasReadIsNeverOverwritten(t *testing.T) {
	s := NewStore()
	var read [][]byte
	for seq := uint64(1); seq <= 20_000; seq++ {
		s.Put(1, seq, 0, 0, -1, body(1, seq, 100))
		r, _ := s.Get(1, seq)
		read = append(read, r.Body)
		s.Drop(1, seq, seq)
	}
	for i, b := range read {
		if !bytes.Equal(b, body(1, uint64(i)+1, 100)) {
			t.Fatalf("body %d changed after its drop", i+1)
		}
	}
}

func TestAReplicaThatNeverReadsRecyclesItsMemory(t *testing.T) {
	s, b := NewStore(), make([]byte, 1000)
	var seq uint64
	round := func() {
		for range 2000 {
			seq++
			s.Put(1, seq, 0, 0, -1, b)
		}
		s.Drop(1, seq-1999, seq)
	}
	for range 5 {
		round()
	}
	if got := testing.AllocsPerRun(20, round); got > 60 {
		t.Errorf("%v allocations per 2000 messages", got)
	}
}

func TestManyDrainedQueuesKeepNoBuffers(t *testing.T) {
	s := NewStore()
	for q := uint64(1); q <= 1000; q++ {
		for seq := uint64(1); seq <= 100; seq++ {
			s.Put(q, seq, 0, 0, -1, make([]byte, 1000))
			s.Get(q, seq)
		}
		s.Drop(q, 1, 100)
	}
	held := 0
	for _, q := range s.queues {
		held += len(q.chunks)
	}
	if held > drainedMax {
		t.Errorf("%d queues hold a chunk without messages, want at most %d", held, drainedMax)
	}
}

func TestAViewMayBeReadWhileTheStoreGoesOn(t *testing.T) {
	s, m := NewStore(), model{}
	for seq := uint64(1); seq <= 5000; seq++ {
		b := body(1, seq, 200)
		s.Put(1, seq, 0, 0, -1, b)
		m.put(1, seq, Record{Body: b})
	}
	v := s.View()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.checkView(t, v) // the race detector is the judge
		v.Release()
	}()
	for seq := uint64(5001); seq <= 9000; seq++ {
		s.Put(1, seq, 0, 0, -1, body(1, seq, 200))
		s.Drop(1, seq-5000, seq-5000)
	}
	s.Drop(1, 1, 9000)
	for seq := uint64(9001); seq <= 12000; seq++ {
		s.Put(1, seq, 0, 0, -1, body(1, seq, 200))
	}
	<-done
}

func BenchmarkPut1KiB(b *testing.B) {
	for _, read := range []bool{false, true} {
		b.Run(fmt.Sprintf("read=%v", read), func(b *testing.B) {
			s, payload := NewStore(), make([]byte, 1024)
			b.ReportAllocs()
			b.SetBytes(1024)
			for i := range b.N {
				seq := uint64(i + 1)
				s.Put(1, seq, 0, 0, -1, payload)
				if read {
					s.Get(1, seq)
				}
				if seq > 500 {
					s.Drop(1, seq-500, seq-500)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	const depth = 1_000_000
	s, payload := NewStore(), make([]byte, 64)
	for seq := uint64(1); seq <= depth; seq++ {
		s.Put(1, seq, 0, 0, -1, payload)
	}
	b.Run("in order", func(b *testing.B) {
		for i := range b.N {
			s.Get(1, uint64(i%depth)+1)
		}
	})
	b.Run("random", func(b *testing.B) {
		for i := range b.N {
			s.Get(1, uint64(i)*7919%depth+1)
		}
	})
}

func BenchmarkDrop(b *testing.B) {
	payload := make([]byte, 64)
	b.ReportAllocs()
	for i := 0; i < b.N; i += 100_000 {
		b.StopTimer()
		s := NewStore()
		for seq := uint64(1); seq <= 100_000; seq++ {
			s.Put(1, seq, 0, 0, -1, payload)
		}
		b.StartTimer()
		for seq := uint64(1); seq <= min(100_000, uint64(b.N-i)); seq++ {
			s.Drop(1, seq, seq)
		}
	}
}

func BenchmarkView(b *testing.B) {
	s, payload := NewStore(), make([]byte, 64)
	for seq := uint64(1); seq <= 1_000_000; seq++ {
		s.Put(seq%100, seq/100+1, 0, 0, -1, payload)
	}
	b.ResetTimer()
	for range b.N {
		s.View().Release()
	}
}

func TestBlocksHaveLittleRoomThatStaysEmpty(t *testing.T) {
	s := NewStore()
	for n := 1; n <= 1000; n++ {
		b := s.block(n, max(blockBytesMin, 2*n))
		if len(b) < 2*n || len(b)%n > len(b)/6 { // that is what the allocator adds, at most
			t.Errorf("a block of %d bytes for bodies of %d", len(b), n)
		}
	}
}

func TestAChunkHasLittleRoomForMoreRecords(t *testing.T) {
	s := NewStore()
	for seq := uint64(1); seq <= chunkSlots; seq++ {
		s.Put(1, seq, 0, 0, 0, []byte("x"))
		h := s.queue(1).chunks[0].hot
		most := 2 * len(h.recs)
		if len(h.recs) < recsFew {
			most = recsMin + len(h.recs)*3/2
		}
		if cap(h.recs) > min(most, chunkSlots) {
			t.Errorf("%d records have room for %d", len(h.recs), cap(h.recs))
		}
	}
}
