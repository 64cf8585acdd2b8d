package queue

import (
	"encoding/binary"
	"testing"
)

func TestDueTimesAreCheckedBeforeTheyAreApplied(t *testing.T) {
	for _, payload := range [][]byte{
		nil, {1, 1}, {1, 1, 1, 1, 1}, {1, 1, 0, 1, 1, 0}, {1, 1, 1, 0, 0, 5}, {1, 1, 1, 0, 1, 5, 7}, {1, 2, 1, 0, 1, 5, 1, 0, 1},
		binary.AppendUvarint([]byte{1, 1, 1, 0, 1}, dueMax+1),
	} {
		entry := append(AppendEntry(nil, term, 0), partReturnLater, byte(len(payload)))
		if New().Apply(term, append(entry, payload...), &Effects{}) == nil {
			t.Errorf("%v was applied", payload)
		}
	}
}

// A version before knows no due times: who has none writes what it can read.
func TestOnlyDueTimesNeedTheirVersion(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(3, 1)), AppendReturn(nil, 1, []Returned{{1, 1, 1, 1, 0}}))
	if v := s.AppendTo(nil)[0]; v != snapshotVersionNotes {
		t.Errorf("version %d", v)
	}
	apply(t, s, AppendReturnLater(nil, 1, []Returned{{1, 2, 0, 1, 77}}))
	if v := s.AppendTo(nil)[0]; v != snapshotVersionDue {
		t.Errorf("version %d", v)
	}
	apply(t, s, AppendReturnLater(nil, 1, []Returned{{1, 2, 0, 2, 0}}))
	if v := s.AppendTo(nil)[0]; v != snapshotVersionNotes {
		t.Errorf("version %d, though what had to wait came back and need not any more", v)
	}
}

// A snapshot of an older version with the bit of a due time is damaged.
func TestADueTimeInAnOlderSnapshotIsRefused(t *testing.T) {
	s := New()
	apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(1, 1)), AppendReturnLater(nil, 1, []Returned{{1, 1, 0, 1, 77}}))
	b := s.AppendTo(nil)
	if err := New().Restore(b); err != nil {
		t.Fatal(err)
	}
	for _, older := range []byte{snapshotVersionNotes, snapshotVersionWindows} {
		b[0] = older
		if New().Restore(b) == nil {
			t.Errorf("version %d was read", older)
		}
	}
}

// The return that counts most says when a message is due, in whatever order and
// however often the returns are applied.
func TestAnOlderReturnChangesNoDueTime(t *testing.T) {
	first, second := []Returned{{1, 1, 1, 1, 9000}}, []Returned{{1, 1, 1, 2, 3000}}
	for _, order := range [][][]Returned{{first, second}, {second, first}, {first, second, first, second}, {first, first, second, second, first}} {
		s := New()
		apply(t, s, AppendBatch(nil, Origin{1, 1, 1}, enqueued(1, 1)))
		for _, back := range order {
			apply(t, s, AppendReturnLater(nil, 1, back))
		}
		if got := s.Queue(1).Due(1); got != 3000 {
			t.Errorf("%v: due at %d", order, got)
		}
	}
}
