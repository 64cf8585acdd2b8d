package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"warren/mq"
)

// apply applies parts as one entry and returns what came of it.
func apply(t testing.TB, s *State, parts ...[]byte) *Effects {
	t.Helper()
	fx := &Effects{}
	if err := s.Apply(term, append(AppendEntry(nil, term, 0), bytes.Join(parts, nil)...), fx); err != nil {
		t.Fatal(err)
	}
	return fx
}

func enqueued(n int, queues ...mq.QueueID) (ops []byte) {
	for range n {
		ops = AppendEnqueue(ops, queues, 0, 0, 0, nil)
	}
	return ops
}

func TestOneEnqueueToManyQueuesSharesItsContent(t *testing.T) {
	entry := AppendBatch(AppendEntry(nil, term, 0), Origin{1, 1, 1}, AppendEnqueue(nil, []mq.QueueID{4, 9, 5}, 1, 2, -3, []byte("content")))
	var fx Effects
	if err := New().Apply(term, entry, &fx); err != nil {
		t.Fatal(err)
	}
	if len(fx.Enqueued) != 3 {
		t.Fatalf("got %d messages, want 3", len(fx.Enqueued))
	}
	for i, e := range fx.Enqueued {
		if e.Queue != []mq.QueueID{4, 9, 5}[i] || e.Seq != 1 || e.Flags != 1 || e.Priority != 2 || e.ExpiryMs != -3 || string(e.Content) != "content" {
			t.Errorf("got %+v", e)
		}
		if &e.Content[0] != &entry[len(entry)-7] {
			t.Error("the content was copied")
		}
	}
}

func TestABatchIsAppliedOnce(t *testing.T) {
	s := New()
	steps := []struct {
		claim        string
		session, seq uint64
		code         Code
		last, count  uint64
	}{
		{"the first is applied", 5, 1, Applied, 1, 1},
		{"the same again is not", 5, 1, Duplicate, 1, 1},
		{"the next is applied", 5, 2, Applied, 2, 2},
		{"an old one is a duplicate", 5, 1, Duplicate, 2, 2},
		{"one that skips is refused", 5, 4, Gap, 2, 2},
		{"number 0 is nobody's", 5, 0, Duplicate, 2, 2},
		{"a newer session begins at 1", 6, 3, Gap, 0, 2},
		{"and ends the older even so", 5, 3, Ended, 0, 2},
		{"and goes on", 6, 1, Applied, 1, 3},
		{"the older stays ended", 5, 1, Ended, 0, 3},
		{"a much newer one", 60, 1, Applied, 1, 4},
	}
	for _, step := range steps {
		o := Origin{7, mq.SessionID(step.session), step.seq}
		fx := apply(t, s, AppendBatch(nil, o, enqueued(1, 1)))
		want := Result{Origin: o, Code: step.code, Last: step.last}
		if len(fx.Results) != 1 || !reflect.DeepEqual(fx.Results[0], want) {
			t.Errorf("%s: got %+v, want %+v", step.claim, fx.Results, want)
		}
		if got := s.Queue(1).Count(); got != step.count {
			t.Errorf("%s: %d messages, want %d", step.claim, got, step.count)
		}
	}
	if fx := apply(t, s, AppendBatch(nil, Origin{8, 1, 1}, nil)); fx.Results[0].Code != Applied {
		t.Errorf("another node is told %v", fx.Results[0].Code)
	}
}

func TestAPurgeFromAnotherTermDoesNothing(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(5, 1)))
	before := s.AppendTo(nil)
	var fx Effects
	for _, decided := range []uint64{term - 1, term + 1} {
		if err := s.Apply(term, AppendPurge(AppendEntry(nil, decided, 0), 1, 5, nil, 1), &fx); err != nil {
			t.Fatal(err)
		}
	}
	if len(fx.Purged)+len(fx.Settled) != 0 || !bytes.Equal(before, s.AppendTo(nil)) {
		t.Errorf("got %+v", fx)
	}
	got := apply(t, s, AppendPurge(nil, 1, 4, []mq.Seq{2}, 8))
	if want := []Range{{1, 1, 1}, {1, 3, 4}}; !slices.Equal(got.Settled, want) || got.Purged[0] != (Purged{1, 8, 3}) {
		t.Errorf("got %+v", got)
	}
}

func TestPurgeKeepsItsExceptions(t *testing.T) {
	for _, test := range []struct {
		upTo   mq.Seq
		except []mq.Seq
		want   []mq.Seq
	}{
		{10, nil, nil}, {0, nil, []mq.Seq{1, 2, 3, 4, 5}}, {3, nil, []mq.Seq{4, 5}},
		{5, []mq.Seq{1}, []mq.Seq{1}}, {5, []mq.Seq{5}, []mq.Seq{5}}, {4, []mq.Seq{4}, []mq.Seq{4, 5}}, {4, []mq.Seq{5, 9}, []mq.Seq{5}},
		{5, []mq.Seq{4, 2, 4}, []mq.Seq{2, 4}}, {math.MaxUint64, []mq.Seq{3, math.MaxUint64}, []mq.Seq{3}}, {5, []mq.Seq{0}, nil}, {0, []mq.Seq{0}, []mq.Seq{1, 2, 3, 4, 5}},
	} {
		s := New()
		apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(5, 1)), AppendPurge(nil, 1, test.upTo, test.except, 0))
		var got []mq.Seq
		for seq, ok := s.Queue(1).Next(0); ok; seq, ok = s.Queue(1).Next(seq + 1) {
			got = append(got, seq)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("up to %d except %v: left %v, want %v", test.upTo, test.except, got, test.want)
		}
	}
}

func TestRangesOfOddSizes(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(3, 1)))
	for _, r := range [][2]mq.Seq{{3, 2}, {0, 0}, {4, math.MaxUint64}, {math.MaxUint64, 0}} {
		if fx := apply(t, s, AppendDrop(nil, 1, r[0], r[1])); len(fx.Settled) != 0 {
			t.Errorf("%v settles %v", r, fx.Settled)
		}
	}
	if fx := apply(t, s, AppendDrop(nil, 1, 0, math.MaxUint64)); !slices.Equal(fx.Settled, []Range{{1, 1, 3}}) {
		t.Errorf("all: %v", fx.Settled)
	}
	apply(t, s, AppendDrop(nil, 77, 1, 5))
	if s.Queue(77) != nil {
		t.Error("a settlement made a queue")
	}
}

func TestADeletedQueueIsGone(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(3, 1, 2)), AppendDrop(nil, 1, 2, 2))
	fx := apply(t, s, AppendDelete(nil, 1), AppendDelete(nil, 5))
	if !slices.Equal(fx.Settled, []Range{{1, 1, 1}, {1, 3, 3}}) || !slices.Equal(fx.Deleted, []mq.QueueID{1, 5}) {
		t.Errorf("got %+v", fx)
	}
	if s.Queue(1) != nil || !slices.Equal(s.Queues(), []mq.QueueID{2}) {
		t.Errorf("queues %v", s.Queues())
	}
}

func TestMalformedEntriesChangeNothing(t *testing.T) {
	good := AppendEntry(nil, term, 77)
	good = AppendBatch(good, Origin{1, 1, 1}, enqueued(2, 1, 2))
	good = AppendDelete(AppendPurge(AppendReserve(AppendDrop(good, 1, 1, 1), 1, 900), 2, 1, []mq.Seq{1, 2}, 3), 2)
	s := New()
	want := s.AppendTo(nil)
	var fx Effects
	bad := [][]byte{{entryMagic, 2, 0, 0}, {0xB6, 1, 0, 0}, append(slices.Clone(good), 0x99, 0), append(slices.Clone(good), partDrop, 200)}
	bad = append(bad, append(AppendDelete(slices.Clone(good), 2), AppendBatch(nil, Origin{1, 1, 2}, []byte{0x77, 0})...))
	starts := map[int]bool{} // a cut between parts is a shorter entry
	for b := good[len(AppendEntry(nil, term, 77)):]; ; {
		starts[len(good)-len(b)] = true
		if len(b) == 0 {
			break
		}
		_, _, b, _ = nextPart(b)
	}
	for n := range good {
		if !starts[n] {
			bad = append(bad, good[:n])
		}
	}
	for _, b := range bad {
		if err := s.Apply(term, b, &fx); err == nil {
			t.Errorf("no error for %x", b)
		}
		if !bytes.Equal(s.AppendTo(nil), want) {
			t.Fatalf("%x was applied in part", b)
		}
	}
}

func TestCheckOpsRefusesWhatCannotBeRead(t *testing.T) {
	content := append(mq.NewContent("ex", "key", []byte{0, 0}, 4), "body"...)
	ops := AppendSettle(AppendEnqueue(nil, []mq.QueueID{3, 700}, 1, 9, -5, content), 4, 10, 20)
	var got []Op
	if err := CheckOps(ops, func(op Op) { op.Queues = slices.Clone(op.Queues); got = append(got, op) }); err != nil {
		t.Fatal(err)
	}
	e, r := got[0], got[1]
	if e.Kind != Enqueue || !slices.Equal(e.Queues, []mq.QueueID{3, 700}) || e.Flags != 1 || e.Priority != 9 || e.ExpiryMs != -5 || string(e.Content.Body()) != "body" {
		t.Errorf("got %+v", e)
	}
	if r.Kind != Settle || r.Queue != 4 || r.First != 10 || r.Last != 20 {
		t.Errorf("got %+v", r)
	}
	for _, bad := range [][]byte{
		ops[:len(ops)-1], {0x30, 0}, AppendDelete(nil, 1), AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, []byte("no content")),
		{byte(Enqueue), 3, 9, 1, 1}, {byte(Enqueue), 0}, {byte(Settle), 1, 1}, {byte(Settle), 4, 1, 1, 1, 1},
	} {
		if CheckOps(bad, nil) == nil {
			t.Errorf("no error for %x", bad)
		}
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(3000, 1)), AppendBatch(nil, Origin{2, 1, 1}, enqueued(2, 2)), AppendDrop(nil, 1, 500, 1500))
	good := s.AppendTo(nil)
	r := New()
	apply(t, r, AppendBatch(nil, Origin{9, 9, 1}, enqueued(1, 9)))
	before := r.AppendTo(nil)
	for n := range good {
		if r.Restore(good[:n]) == nil {
			t.Errorf("cut at %d: no error", n)
		}
	}
	if r.Restore(append(slices.Clone(good), 0)) == nil || r.Restore(append([]byte{9}, good[1:]...)) == nil {
		t.Error("no error")
	}
	if !bytes.Equal(before, r.AppendTo(nil)) {
		t.Error("a refused snapshot changed the state")
	}
}

func TestSizesAreWhatTheDesignSays(t *testing.T) {
	if got := unsafe.Sizeof(chunk{}); got > 16 {
		t.Errorf("a chunk is %d B", got)
	}
	if got := unsafe.Sizeof(Queue{}); got > 112 {
		t.Errorf("a queue is %d B", got)
	}
	s := New()
	for i := range uint64(1_000) {
		apply(t, s, AppendBatch(nil, Origin{1, 1, i + 1}, enqueued(1000, 1)))
	}
	q := s.Queue(1)
	for _, c := range q.chunks {
		if c.bitmap != nil {
			t.Fatal("a full chunk has a bitmap")
		}
	}
	if got := cap(q.chunks) * int(unsafe.Sizeof(chunk{})); got > 40_000 {
		t.Errorf("a million messages take %d B", got)
	}
	if got := len(s.AppendTo(nil)); got > 40 {
		t.Errorf("a million messages are %d B in a snapshot", got)
	}
	apply(t, s, AppendDrop(nil, 1, 1, q.Last()-1))
	if cap(q.chunks) > 64 {
		t.Errorf("one message keeps %d chunks", cap(q.chunks))
	}
	apply(t, s, AppendDrop(nil, 1, 1, q.Last()))
	if cap(q.chunks) > 4 {
		t.Errorf("an empty queue keeps %d chunks", cap(q.chunks))
	}
}

// traffic makes entries of 64 enqueues and the settlement of the 64 before.
func traffic(entries, queues int) [][]byte {
	content := append(mq.NewContent("", "q", []byte{0, 0}, 1024), strings.Repeat("x", 1024)...)
	out := make([][]byte, entries)
	for i := range out {
		var ops []byte
		q := mq.QueueID(1 + i%queues)
		for range 64 {
			ops = AppendEnqueue(ops, []mq.QueueID{q}, 1, 0, 0, content)
		}
		round := uint64(i / queues)
		for k := range uint64(64) {
			if seq := mq.Seq(round*64 + k ^ 1); round > 0 { // a little out of order
				ops = AppendSettle(ops, q, seq-64+1, seq-64+1)
			}
		}
		out[i] = AppendBatch(AppendEntry(nil, term, int64(i)), Origin{1, 1, uint64(i + 1)}, ops)
	}
	return out
}

func TestApplyDoesNotAllocatePerMessage(t *testing.T) {
	entries := traffic(2100, 3)
	s := New()
	var fx Effects
	i := 0
	next := func() {
		fx.Reset()
		if err := s.Apply(term, entries[i], &fx); err != nil {
			t.Fatal(err)
		}
		i++
	}
	for range 100 {
		next()
	}
	if got := testing.AllocsPerRun(1900, next); got > 0.1 {
		t.Errorf("%v allocations per entry of 64 enqueues and 64 settlements", got)
	}
}

func BenchmarkApply(b *testing.B) {
	for _, queues := range []int{1, 50} {
		b.Run(map[int]string{1: "1queue", 50: "50queues"}[queues], func(b *testing.B) {
			entries := traffic(3000, queues)
			var s *State
			var fx Effects
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%len(entries) == 0 {
					s = New()
				}
				fx.Reset()
				if err := s.Apply(term, entries[i%len(entries)], &fx); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/msg")
		})
	}
}

func BenchmarkAppendTo(b *testing.B) {
	s := New()
	for i := range uint64(100_000) {
		var fx Effects
		e := AppendBatch(AppendEntry(nil, 1, 0), Origin{1, 1, i + 1}, enqueued(10, mq.QueueID(i<<12)))
		if err := s.Apply(1, e, &fx); err != nil {
			b.Fatal(err)
		}
	}
	buf := s.AppendTo(nil)
	b.ReportMetric(float64(len(buf)), "B")
	for b.Loop() {
		buf = s.AppendTo(buf[:0])
	}
}

func BenchmarkNext(b *testing.B) {
	s := New()
	for i := range uint64(100) {
		apply(b, s, AppendBatch(nil, Origin{1, 1, i + 1}, enqueued(1000, 1)))
	}
	for seq := mq.Seq(2); seq < 100_000; seq += 3 {
		apply(b, s, AppendDrop(nil, 1, seq, seq))
	}
	q, seq := s.Queue(1), mq.Seq(1)
	for b.Loop() {
		var ok bool
		if seq, ok = q.Next(seq + 1); !ok {
			seq = 0
		}
	}
}

func TestNumbersHaveTheLengthThatIsSaid(t *testing.T) {
	for _, v := range []int64{0, 1, -1, 63, 64, -64, -65, math.MaxInt64, math.MinInt64} {
		if got, want := varintLen(v), len(binary.AppendVarint(nil, v)); got != want {
			t.Errorf("varint %d: got %d, want %d", v, got, want)
		}
		if got, want := uvarintLen(uint64(v)), len(binary.AppendUvarint(nil, uint64(v))); got != want {
			t.Errorf("uvarint %d: got %d, want %d", v, got, want)
		}
	}
}

func TestRefusalsAreCheckedBeforeTheyAreApplied(t *testing.T) {
	o := Origin{1, 1, 1}
	for name, all := range map[string][]Refusal{
		"twice":               {{0, 0, false}, {0, 0, true}},
		"queues out of order": {{1, 2, false}, {1, 1, false}},
	} {
		s := New()
		err := s.Apply(term, AppendRefusing(AppendEntry(nil, term, 0), o, all, enqueued(2, 1, 2, 3)), &Effects{})
		if err == nil || len(s.Queues()) != 0 {
			t.Errorf("%s: applied, %v", name, err)
		}
	}
	for _, payload := range [][]byte{
		{1, 1, 1, 200},
		{1, 1, 1, 2, 0, 0},
		binary.AppendUvarint([]byte{1, 1, 1, 2, 1, 0}, 1<<63),
		binary.AppendUvarint([]byte{1, 1, 1, 1, 0}, 1<<40),
	} {
		entry := append(AppendEntry(nil, term, 0), partRefusing, byte(len(payload)))
		if New().Apply(term, append(entry, payload...), &Effects{}) == nil {
			t.Errorf("%v was applied", payload)
		}
	}
}

func TestRefusalsAreKeptForAsManyBatchesAsCanBeUnanswered(t *testing.T) {
	s := New()
	const n = RefusalsKept + 5
	for seq := range uint64(n) {
		// Batches in between that are taken whole use up nothing.
		apply(t, s,
			AppendRefusing(nil, Origin{1, 1, 2*seq + 1}, []Refusal{{1, 0, false}}, enqueued(3, 1)),
			AppendBatch(nil, Origin{1, 1, 2*seq + 2}, enqueued(1, 1)))
	}
	for seq := range uint64(n) {
		fx := apply(t, s, AppendBatch(nil, Origin{1, 1, 2*seq + 1}, enqueued(3, 1)))
		want := []Run{{1, 1}}
		if seq < n-RefusalsKept {
			want = nil
		}
		if r := fx.Results[0]; r.Code != Duplicate || !slices.Equal(r.Refused, want) {
			t.Errorf("batch %d: got %+v", 2*seq+1, r)
		}
	}
	if got := len(s.nodes[0].refused); got != RefusalsKept {
		t.Errorf("%d batches are remembered", got)
	}
}

func TestRunsReadWhatTheyWrote(t *testing.T) {
	for _, runs := range [][]Run{nil, {{0, 0}}, {{0, math.MaxUint32}}, {{3, 4}, {6, 6}, {100, 1 << 31}}, {{math.MaxUint32, math.MaxUint32}}} {
		got, rest := ParseRuns(append(AppendRuns(nil, runs), 'x'))
		if !slices.Equal(got, runs) || string(rest) != "x" {
			t.Errorf("%v: got %v and %q", runs, got, rest)
		}
	}
	for _, b := range [][]byte{nil, {1}, {1, 0}, {2, 0, 0, 0, 0}, {2, 0, 0, 1, 0}, {200, 1, 0}, binary.AppendUvarint([]byte{1, 1}, math.MaxUint32), binary.AppendUvarint([]byte{1, 0}, math.MaxUint64)} {
		if runs, rest := ParseRuns(b); rest != nil {
			t.Errorf("%v was read as %v", b, runs)
		}
	}
}

// The bytes are what the first version of ours wrote.
func TestAStateOfTheFirstVersionIsRead(t *testing.T) {
	old, err := hex.DecodeString("010101010303802004810801040480400100008060000100")
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	if err := s.Restore(old); err != nil {
		t.Fatal(err)
	}
	if got := s.AppendTo(nil); !bytes.Equal(got, old) {
		t.Errorf("nothing is refused, and the state is written as %x", got)
	}
	apply(t, s, AppendRefusing(nil, Origin{1, 1, 4}, []Refusal{{0, 0, false}}, enqueued(1, 4096)))
	if got := s.AppendTo(nil); got[0] != 2 {
		t.Errorf("version %d", got[0])
	}
}

func TestADamagedNewSnapshotIsRefused(t *testing.T) {
	s := New()
	apply(t, s, AppendRefusing(nil, Origin{1, 1, 1}, []Refusal{{0, 0, true}, {2, 0, true}, {2, 1, false}}, enqueued(1500, 1, 2)),
		AppendReturn(nil, 1, []Returned{{1, 1, 1, 2, 0}, {1, 1400, 0, 1, 0}}), AppendReturnLater(nil, 1, []Returned{{1, 3, 0, 1, 9}, {1, 1300, 0, 1, 1 << 50}}))
	good := s.AppendTo(nil)
	for n := range good {
		if New().Restore(good[:n]) == nil {
			t.Errorf("cut at %d: no error", n)
		}
		for _, v := range []byte{0, 1, 7, 0xff} {
			r := New()
			bad := slices.Clone(good)
			bad[n] = v
			if r.Restore(bad) == nil && New().Restore(r.AppendTo(nil)) != nil {
				t.Errorf("byte %d as %d makes a state that cannot be restored", n, v)
			}
		}
	}
}

func TestReturnsAreCheckedBeforeTheyAreApplied(t *testing.T) {
	for _, payload := range [][]byte{
		nil, {1}, {1, 1}, {1, 1, 0, 1, 1}, {1, 1, 1, 0, 0}, {1, 1, 1, 1}, {1, 1, 1, 1, 1, 7}, {1, 200, 1, 1, 1, 1},
		binary.AppendUvarint([]byte{1, 1, 1, 0}, 1<<32),
		append(binary.AppendUvarint([]byte{1, 2, 9, 0, 1}, math.MaxUint64), 0, 1),
	} {
		entry := append(AppendEntry(nil, term, 0), partReturn, byte(len(payload)))
		if New().Apply(term, append(entry, payload...), &Effects{}) == nil {
			t.Errorf("%v was applied", payload)
		}
	}
}

func TestWhatIsRefusedIsNotInTheLog(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 100)
	ops := AppendEnqueue(nil, []mq.QueueID{1, 2}, 0, 0, 0, content)
	ops = AppendSettle(ops, 1, 5, 5)
	ops = AppendEnqueue(ops, []mq.QueueID{1}, 0, 0, 0, content)
	for _, c := range []struct {
		refusals []Refusal
		contents int // that the entry has
	}{
		{[]Refusal{{0, 0, false}, {0, 1, false}, {1, 0, false}}, 0},
		{[]Refusal{{0, 1, false}, {1, 0, false}}, 1},
		{[]Refusal{{1, 0, true}}, 2},
		{[]Refusal{{0, 0, true}, {0, 1, false}, {1, 0, false}}, 1},
	} {
		part := AppendRefusing(nil, Origin{1, 1, 1}, c.refusals, ops)
		if got := bytes.Count(part, content); got != c.contents {
			t.Errorf("%v: %d contents in the entry, want %d", c.refusals, got, c.contents)
		}
		s := New()
		fx := apply(t, s, part)
		want := []Run{{c.refusals[0].Message, 1}}
		if got := fx.Results[0].Refused; !slices.Equal(got, want) {
			t.Errorf("%v: refused %v, want %v", c.refusals, got, want)
		}
	}
}
