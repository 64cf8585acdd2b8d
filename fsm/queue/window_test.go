package queue

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"warren/mq"
)

// onceLog applies one message that enters queue 1 once to each call.
type onceLog struct {
	t   *testing.T
	s   *State
	seq uint64

	last    []byte // batch
	refused []Run  // of it
}

// put says whether the message entered.
func (l *onceLog) put(key string, nowMs int64, windows ...Window) bool {
	l.t.Helper()
	windows = slices.Clone(windows)
	for i := range windows {
		copy(windows[i].Key[:], key)
	}
	l.seq++
	ops := AppendEnqueueOnce(nil, nowMs, windows, []mq.QueueID{1}, 0, 0, 0, []byte("body"))
	if err := CheckOps(AppendEnqueueOnce(nil, nowMs, windows, []mq.QueueID{1}, 0, 0, 0, mq.NewContent("x", "k", []byte{0, 0}, 0)), nil); err != nil {
		l.t.Fatal(err)
	}
	var fx Effects
	l.last = AppendBatch(AppendEntry(nil, 1, 0), Origin{1, 1, l.seq}, ops)
	if err := l.s.Apply(1, l.last, &fx); err != nil {
		l.t.Fatal(err)
	}
	if fx.Results[0].Code != Applied {
		l.t.Fatalf("batch was answered %v", fx.Results)
	}
	l.refused = fx.Results[0].Refused
	return len(fx.Enqueued) == 1
}

// again says what is refused of the last batch when it comes once more.
func (l *onceLog) again() []Run {
	l.t.Helper()
	var fx Effects
	if err := l.s.Apply(1, l.last, &fx); err != nil || fx.Results[0].Code != Duplicate {
		l.t.Fatal(err, fx.Results)
	}
	return fx.Results[0].Refused
}

func (l *onceLog) settle(first, last mq.Seq) {
	l.t.Helper()
	var fx Effects
	if err := l.s.Apply(1, AppendDrop(AppendEntry(nil, 1, 0), 1, first, last), &fx); err != nil {
		l.t.Fatal(err)
	}
}

// restart goes on from a snapshot, which must say the same again.
func (l *onceLog) restart() {
	l.t.Helper()
	raw := l.s.AppendTo(nil)
	l.s = New()
	if err := l.s.Restore(raw); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(raw, l.s.AppendTo(nil)) {
		l.t.Fatal("restored state differs")
	}
}

func TestAMessageEntersOnceWhileItsKeyIsRemembered(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	window := Window{ID: 7, Keys: 2}
	for _, c := range []struct {
		key  string
		want bool
	}{
		{"a", true}, {"a", false}, {"b", true}, {"a", false}, {"c", true}, // a is forgotten
		{"a", true}, {"c", false}, {"b", true},
	} {
		l.restart()
		if got := l.put(c.key, 0, window); got != c.want {
			t.Fatalf("%s entered: %v", c.key, got)
		}
	}
}

func TestAKeyIsForgottenWhenItExpires(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	until := func(ms int64) Window { return Window{ID: 7, Keys: 100, ExpiresMs: ms} }
	for _, c := range []struct {
		nowMs, expiresMs int64
		want             bool
	}{
		{10, 20, true}, {19, 30, false}, {20, 40, true}, {39, 50, false}, {41, 0, true}, {1 << 40, 0, false},
	} {
		l.restart()
		if got := l.put("a", c.nowMs, until(c.expiresMs)); got != c.want {
			t.Fatalf("at %d entered: %v", c.nowMs, got)
		}
	}
}

func TestAQueuesOwnWindowIsWhatIsInIt(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	own := Window{ID: OwnWindow}
	for i := range 3000 {
		if !l.put(fmt.Sprint(i), 0, own) {
			t.Fatalf("%d did not enter", i)
		}
	}
	l.settle(10, 2900)
	l.restart()
	for key, want := range map[string]bool{"0": false, "8": false, "9": true, "1500": true, "2899": true, "2900": false, "2999": false} {
		if got := l.put(key, 0, own); got != want {
			t.Errorf("%s entered: %v", key, got)
		}
	}
	l.settle(1, 1<<40)
	if w := l.s.Queue(1).window(OwnWindow); len(w.seen) != 0 || len(w.byKey) != 0 {
		t.Errorf("an empty queue remembers %d keys in %d places", len(w.byKey), len(w.seen))
	}
}

func TestWhatAQueueRemembersIsBounded(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	l.put("own", 0, Window{ID: OwnWindow})
	for id := range uint64(3 * windowsMax) {
		for i := range 200 {
			l.put(fmt.Sprint(i), 0, Window{ID: id + 1, Keys: 3})
		}
	}
	q := l.s.Queue(1)
	all := q.remembered()
	if len(all) != windowsMax || all[0].id != OwnWindow {
		t.Fatalf("%d windows, the first is %d", len(all), all[0].id)
	}
	for _, w := range all[1:] {
		if len(w.byKey) != 3 || len(w.seen) > 3+64 {
			t.Fatalf("%d keys in %d places", len(w.byKey), len(w.seen))
		}
	}
}

// A leader's message that another leader of its source has sent meanwhile may
// come after so many others that its key is forgotten.
func TestNothingEntersFromAnEarlierTermOfItsSource(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	in := func(term uint64) Window { return Window{ID: 7, Keys: 2, Term: term} }
	for i, c := range []struct {
		key     string
		term    uint64
		want    bool
		refused bool
	}{
		{"a", 3, true, false}, {"b", 5, true, false}, {"c", 5, true, false},
		{"a", 3, false, true},  // forgotten: it may have been here
		{"z", 4, false, true},  // not taken, and not said to be
		{"c", 3, false, false}, // it has certainly been here
		{"z", 5, true, false},
		{"y", 0, true, false}, // of a node that knows no terms
		{"x", 4, false, true},
	} {
		l.restart()
		if got := l.put(c.key, 0, in(c.term)); got != c.want || (len(l.refused) > 0) != c.refused {
			t.Fatalf("%d: %s of term %d entered: %v, refused %v", i, c.key, c.term, got, l.refused)
		}
	}
	if l.restart(); l.again() == nil {
		t.Error("a batch sent again is answered as taken")
	}
	if !l.put("x", 0, Window{ID: 8, Keys: 2, Term: 1}) {
		t.Error("the term of another source counts")
	}
}

func TestAQueuesOwnWindowCanBeBounded(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	own := Window{ID: OwnWindow, Keys: 3}
	for i := range 500 {
		if !l.put(fmt.Sprint(i), 0, own) {
			t.Fatalf("%d did not enter", i)
		}
	}
	l.restart()
	if w := l.s.Queue(1).window(OwnWindow); len(w.byKey) != 3 || len(w.seen) > 3+64 {
		t.Fatalf("%d keys in %d places", len(w.byKey), len(w.seen))
	}
	l.settle(499, 499) // 498
	for _, c := range []struct {
		key  string
		want bool
	}{{"499", false}, {"497", false}, {"498", true}, {"3", true}} {
		if got := l.put(c.key, 0, own); got != c.want {
			t.Errorf("%s entered: %v", c.key, got)
		}
	}
}

// An operation in the form of before has the meaning of before.
func TestABoundCountsOnlyWhereItIsKnown(t *testing.T) {
	b := AppendEnqueueOnce(nil, 1, []Window{{ID: OwnWindow}}, []mq.QueueID{1}, 0, 0, 0, nil)
	at := 1 + 1 + 1 + 1 + 1 // opcode, length, nowMs, n, id
	b[at] = 2               // keys
	s, fx := New(), Effects{}
	for i := range uint64(4) {
		b[at+2] = byte(i) // key
		if err := s.Apply(1, AppendBatch(AppendEntry(nil, 1, 0), Origin{1, 1, i + 1}, b), &fx); err != nil {
			t.Fatal(err)
		}
	}
	if w := s.Queue(1).window(OwnWindow); len(w.byKey) != 4 {
		t.Errorf("%d keys", len(w.byKey))
	}
}

// The version before has no windows: who needs none writes what it can read.
func TestOnlyWindowsNeedTheNewVersion(t *testing.T) {
	l := &onceLog{t: t, s: New()}
	if v := l.s.AppendTo(nil)[0]; v != snapshotVersion {
		t.Errorf("version %d", v)
	}
	l.put("a", 0, Window{ID: 7, Keys: 1})
	if v := l.s.AppendTo(nil)[0]; v != snapshotVersionWindows {
		t.Errorf("version %d", v)
	}
	l.put("b", 0, Window{ID: 7, Keys: 1, Term: 1})
	if v := l.s.AppendTo(nil)[0]; v != snapshotVersionTerms {
		t.Errorf("version %d", v)
	}
}

// Such a message would make a snapshot that nobody can restore. What is in the
// log is applied all the same.
func TestAMessageThatNamesAWindowTwiceIsRefused(t *testing.T) {
	content := mq.NewContent("x", "k", []byte{0, 0}, 0)
	for _, term := range []uint64{0, 300} {
		for _, id := range []uint64{OwnWindow, 7} {
			windows := []Window{{ID: id, Key: Key{1}, Term: term}, {ID: 9, Key: Key{1}}, {ID: id, Key: Key{2}, Term: term}}
			ops := AppendEnqueueOnce(nil, 5, windows, []mq.QueueID{1}, 0, 0, 0, content)
			if err := CheckOps(ops, nil); !errors.Is(err, errWindowTwice) {
				t.Errorf("window %d, term %d: %v", id, term, err)
			}
			if err := CheckOps(AppendEnqueueOnce(nil, 5, windows[1:], []mq.QueueID{1}, 0, 0, 0, content), nil); err != nil {
				t.Errorf("two windows: %v", err)
			}
			s := New()
			apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, ops))
			if err := New().Restore(s.AppendTo(nil)); (err != nil) != (id == OwnWindow) {
				t.Errorf("window %d, term %d: restored with %v", id, term, err)
			}
		}
	}
}

func TestMalformedEnqueuesOnceAreRefused(t *testing.T) {
	for _, term := range []uint64{0, 300} {
		whole := AppendEnqueueOnce(nil, 5, []Window{{ID: 7, Keys: 3, ExpiresMs: 9, Key: Key{1}, Term: term}}, []mq.QueueID{1}, 0, 0, 0, mq.NewContent("x", "k", []byte{0, 0}, 0))
		if err := CheckOps(whole, nil); err != nil {
			t.Fatal(err)
		}
		_, payload, _, _ := nextPart(whole)
		for n := range payload {
			cut := append([]byte{whole[0], byte(n)}, payload[:n]...)
			if err := CheckOps(cut, nil); err == nil {
				t.Errorf("cut after %d bytes: no error", n)
			}
		}
	}
	none := AppendEnqueueOnce(nil, 5, nil, []mq.QueueID{1}, 0, 0, 0, mq.NewContent("x", "k", []byte{0, 0}, 0))
	if err := CheckOps(none, nil); err == nil {
		t.Error("without a window: no error")
	}
}
