package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"warren/fsm/meta"
	"warren/internal/fields"
	"warren/mq"
)

// slowLog commits when it is told to.
type slowLog struct{ waiting chan slowEntry }

type slowEntry struct {
	entry []byte
	done  func(any, error)
}

func (l *slowLog) Propose(entry []byte, done func(any, error)) { l.waiting <- slowEntry{entry, done} }
func (l *slowLog) Lease() bool                                 { return true }

// repliesLane keeps what is answered.
type repliesLane struct {
	mu    sync.Mutex
	kinds []byte
}

func (l *repliesLane) Self() mq.NodeID     { return "a" }
func (l *repliesLane) Peers() []mq.NodeID  { return nil }
func (l *repliesLane) Dead(mq.NodeID) bool { return false }
func (l *repliesLane) answers() (ok, again int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kinds {
		switch k {
		case answerOK:
			ok++
		case answerTryAgain:
			again++
		}
	}
	return ok, again
}

func (l *repliesLane) Send(_ mq.NodeID, frame []byte) bool {
	if frame[0] == frameReply {
		l.mu.Lock()
		defer l.mu.Unlock()
		p := parser{fields.Read(frame[1:])}
		p.Uint()
		l.kinds = append(l.kinds, p.Rest()[0])
	}
	return true
}

// leadingMetadata is a metadata leader on its own.
func leadingMetadata(t *testing.T) (*metadata, *slowLog, *repliesLane) {
	lane, log := &repliesLane{}, &slowLog{waiting: make(chan slowEntry, 100)}
	m := newMetadata(lane, func() int64 { return 1 }, slog.New(slog.DiscardHandler))
	m.changed = func([]meta.Change) {}
	m.report = func(index uint64) {
		if _, v := m.leader(); v != nil {
			v.reached("a", index, 1)
		}
	}
	m.start(log)
	m.lead(1)
	t.Cleanup(m.stop)
	return m, log, lane
}

// ask has changes come in.
func (m *metadata) ask(lane Lane, count, each int) {
	for i := range count {
		var ops []meta.Op
		for j := range each {
			ops = append(ops, meta.SettingPut{Name: fmt.Sprint(i, j), Value: "x"})
		}
		m.propose(asked{lane: lane, from: "a", id: uint64(i)}, meta.AppendOps(nil, ops...))
	}
	synctest.Wait()
}

// commit has the entry in flight applied, and returns how many operations it has.
func (m *metadata) commit(t *testing.T, log *slowLog, index uint64) int {
	t.Helper()
	e := <-log.waiting
	result := m.apply([]Entry{{Index: index, Term: 1, Data: e.entry}})[0]
	e.done(result, nil)
	synctest.Wait()
	return len(result.(committed).results)
}

func TestChangesThatComeWhileAnEntryIsInFlightShareTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, log, lane := leadingMetadata(t)
		m.ask(lane, 1, 1)
		m.ask(lane, 7, 1)
		if n := len(log.waiting); n != metadataBusy {
			t.Fatalf("%d entries are in flight", n)
		}
		for index, want := range []int{1, 7} {
			if got := m.commit(t, log, uint64(index+1)); got != want {
				t.Errorf("entry %d has %d changes, want %d", index+1, got, want)
			}
		}
		if ok, _ := lane.answers(); ok != 8 {
			t.Errorf("%d of 8 changes are answered", ok)
		}
	})
}

func TestChangesGoOnAfterAnEntryThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, log, lane := leadingMetadata(t)
		m.ask(lane, 1, 1)
		m.ask(lane, 2, 1)
		(<-log.waiting).done(nil, errors.New("for the test"))
		synctest.Wait()
		if got := m.commit(t, log, 1); got != 2 {
			t.Errorf("the next entry has %d changes", got)
		}
		if ok, again := lane.answers(); ok != 2 || again != 1 {
			t.Errorf("%d changes are answered, %d are to be asked for again", ok, again)
		}
	})
}

func TestChangesAreAnsweredWhenLeadershipGoesWhileTheyGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, log, lane := leadingMetadata(t)
		m.ask(lane, 1, 1)
		m.ask(lane, 2, 1)
		m.follow()
		(<-log.waiting).done(nil, errors.New("for the test"))
		synctest.Wait()
		lane.mu.Lock()
		answered := len(lane.kinds)
		lane.mu.Unlock()
		if answered != 3 || len(log.waiting) > 0 {
			t.Errorf("%d of 3 changes are answered, %d entries are in flight", answered, len(log.waiting))
		}
		m.lead(2)
		m.ask(lane, 1, 1)
		if len(log.waiting) != 1 {
			t.Error("nothing is proposed in the next term")
		}
	})
}

func TestWhatDoesNotFitIntoAnEntryIsInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, log, lane := leadingMetadata(t)
		m.ask(lane, 1, 1)
		m.ask(lane, 5, meta.OpsMax/2)
		for index, want := range []int{1, meta.OpsMax, meta.OpsMax, meta.OpsMax / 2} {
			if got := m.commit(t, log, uint64(index+1)); got != want {
				t.Errorf("entry %d has %d changes, want %d", index+1, got, want)
			}
		}
	})
}
