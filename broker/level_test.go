package broker

import (
	"strconv"
	"sync/atomic"
	"testing"

	"warren/fsm/meta"
	"warren/mq"
)

// raise does what a node does every second or so.
func (h *house) raise(t *testing.T) {
	t.Helper()
	n := h.nodes[0]
	if _, err := n.Propose(t.Context(), n.RaiseLevel()...); err != nil {
		t.Fatal(err)
	}
}

// told waits until the metadata leader, the first node, knows every node's level.
func (h *house) told(t *testing.T) {
	t.Helper()
	_, heard := h.nodes[0].meta.leader()
	for _, n := range h.nodes {
		eventually(t, "levels", func() bool { return n.dead() || heard.level(n.id) > 0 })
	}
}

func TestTheLevelIsWhatTheLastMemberKnows(t *testing.T) {
	h := buildHouse(t, 3, 1, 0, func(i int, o *Options) {
		if i == 2 {
			o.Level = 1
		}
	})
	h.told(t)
	first, old := h.nodes[0], h.nodes[2]
	if ops := first.RaiseLevel(); ops != nil {
		t.Fatalf("with an older member: %v", ops)
	}
	h.end(old)
	if ops := first.RaiseLevel(); ops != nil {
		t.Fatalf("with an older member that may come back: %v", ops)
	}
	if _, err := first.Propose(t.Context(), meta.NodeRemove{ID: old.id}); err != nil {
		t.Fatal(err)
	}
	h.raise(t)
	for _, n := range h.nodes[:2] {
		if got := levelOf(n.View()); got != Level {
			t.Errorf("level %d at %s", got, n.id)
		}
	}
	if ops := first.RaiseLevel(); ops != nil {
		t.Errorf("raised again: %v", ops)
	}
	if ops := h.nodes[1].RaiseLevel(); ops != nil {
		t.Errorf("raised by a node that does not lead: %v", ops)
	}
}

func TestANodeOfALowerLevelThanTheClustersEnds(t *testing.T) {
	var ended atomic.Bool
	h := buildHouse(t, 1, 1, 0, func(_ int, o *Options) { o.Fatal = func(error) { ended.Store(true) } })
	for _, c := range []struct {
		level int
		want  bool
	}{{Level, false}, {Level + 1, true}} {
		if _, err := h.nodes[0].Propose(t.Context(), meta.SettingPut{Name: levelSetting, Value: strconv.Itoa(c.level)}); err != nil {
			t.Fatal(err)
		}
		if got := ended.Load(); got != c.want {
			t.Errorf("with the cluster at level %d it ended: %v", c.level, got)
		}
	}
}

// What an older member of a group could not read is not in its log.
func TestTermsOfDeadLettersWaitForTheLevel(t *testing.T) {
	h := buildHouse(t, 3, 2, 0, func(i int, o *Options) {
		if i == 2 {
			o.Level = 1
		}
	})
	withDeadLetters(t, h, "x-max-length", int32(0))
	h.told(t)
	h.raise(t)
	s := h.nodes[0].open(t)
	s.publishTo(t, "", "q", "m", -1)
	eventually(t, "dead letter", func() bool { return s.ready(t, "dead") == 1 })
	dead := h.nodes[1].Shard(h.nodes[1].View().Queue("/", "dead").Group)
	dead.mu.Lock()
	version := dead.state.AppendTo(nil)[0]
	dead.mu.Unlock()
	if version > 4 {
		t.Errorf("the state needs version %d", version)
	}
}

// The first leader's letter cannot be sent before more letters of the second one
// are than the queue remembers.
func TestADeposedLeadersLateLetterIsNoSecondOne(t *testing.T) {
	h := newHouse(t, 3, 2)
	withDeadLetters(t, h)
	h.told(t)
	h.raise(t)
	h.cut(h.nodes[0], h.nodes[1])
	s := h.nodes[2].open(t)
	s.publishTo(t, "", "q", "m", -1)
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	late := func() *outbox { return h.nodes[0].knownOutbox(2) }
	eventually(t, "the letter to wait", func() bool {
		o := late()
		if o == nil {
			return false
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.window) > 0
	})
	h.lead(1, h.nodes[2])
	eventually(t, "the second leader", func() bool {
		leader, _, known := h.nodes[2].Leader(1)
		return known && leader == h.nodes[2].id
	})
	eventually(t, "the message to be there again", func() bool { return s.ready(t, "q") == 1 })
	s.settle(t, mq.Discard, s.mustGet(t, "q"))
	eventually(t, "its letter", func() bool { return s.ready(t, "dead") == 1 })
	for range lettersRemembered {
		p := &mq.Publish{Content: mq.NewContent("", "q", []byte{0, 0}, 0), ExpirationMs: 0}
		if _, err := s.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	s.Flush()
	const all = lettersRemembered + 1
	eventually(t, "the letters after it", func() bool { return s.ready(t, "dead") == all })
	h.mend(h.nodes[0], h.nodes[1])
	eventually(t, "the late letter to be answered", func() bool {
		o := late()
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.window) == 0
	})
	if n := s.ready(t, "dead"); n != all {
		t.Errorf("%d dead letters of %d", n, all)
	}
}
