package queue

import (
	"bytes"
	"slices"
	"testing"

	"warren/mq"
)

// large is a content for tests that comes in parts of partOf bytes.
func large(body string) mq.Content {
	return append(mq.NewContent("x", "key", []byte{0, 0}, len(body)), body...)
}

// partsOf are the operations that bring a content, without its end.
func partsOf(c []byte, partBytes int) (ops [][]byte) {
	for at := 0; at < len(c); at += partBytes {
		ops = append(ops, AppendPart(nil, at, len(c), c[at:min(at+partBytes, len(c))]))
	}
	return ops
}

func endOf(c mq.Content, queues ...mq.QueueID) []byte {
	return AppendWhole(nil, len(c), len(c.Body()), AppendEnqueue(nil, queues, 1, 2, 3, nil))
}

// sender is a home node whose batches come one after the other.
type sender struct {
	t      *testing.T
	s      *State
	origin Origin
}

// send applies operations as one batch, and returns what came of it.
func (x *sender) send(ops ...[]byte) *Effects {
	x.t.Helper()
	x.origin.Seq++
	fx := new(Effects)
	if err := x.s.Apply(term, AppendBatch(AppendEntry(nil, term, 0), x.origin, slices.Concat(ops...)), fx); err != nil {
		x.t.Fatal(err)
	}
	if fx.Results[0].Code != Applied {
		x.t.Fatalf("batch %d: code %d", x.origin.Seq, fx.Results[0].Code)
	}
	return fx
}

// entered are the contents that entered a queue.
func entered(fx *Effects) (all []string) {
	for i := range fx.Enqueued {
		all = append(all, string(fx.Enqueued[i].Content))
	}
	return all
}

func (x *sender) wantRefused(fx *Effects, runs ...Run) {
	x.t.Helper()
	if got := fx.Results[0].Refused; !slices.Equal(got, runs) {
		x.t.Errorf("refused %v, want %v", got, runs)
	}
	if len(x.s.stagedBytes()) > 0 {
		x.t.Error("something of it is left")
	}
}

func TestAMessageInPartsEntersItsQueuesWithItsEnd(t *testing.T) {
	x := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
	y := &sender{t: t, s: x.s, origin: Origin{Node: 2, Session: 6}}
	a, b := large("the one of the first node"), large("another one")
	pa, pb := partsOf(a, 10), partsOf(b, 10)
	x.send(pa[0])
	y.send(pb[0], AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, []byte("between")))
	x.send(pa[1], pa[2])
	y.send(pb[1])
	y.send(slices.Concat(pb[2:]...))
	got := entered(x.send(slices.Concat(pa[3:]...), AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, []byte("before")), endOf(a, 1, 2)))
	if want := []string{"before", string(a), string(a)}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	fx := y.send(endOf(b, 1))
	if got := entered(fx); !slices.Equal(got, []string{string(b)}) {
		t.Errorf("got %q", got)
	}
	if e := fx.Enqueued[0]; e.Flags != 1 || e.Priority != 2 || e.ExpiryMs != 3 {
		t.Errorf("got %+v", e)
	}
	if x.s.AppendTo(nil)[0] != snapshotVersion {
		t.Error("older builds could not read the state, though no part is left")
	}
}

func TestAMessageThatLacksAPartIsRefusedAndNotOthers(t *testing.T) {
	c := large("0123456789012345678901234567890123456789")
	parts := partsOf(c, 10)
	unsound := slices.Clone(c)
	unsound[0] = 200
	for name, ops := range map[string][][]byte{
		"nothing":                  nil,
		"the first":                parts[1:],
		"one in the middle":        {parts[0], slices.Concat(parts[2:]...)},
		"the last":                 parts[:len(parts)-1],
		"its order":                {parts[1], parts[0], slices.Concat(parts[2:]...)},
		"a part came twice":        {parts[0], parts[1], parts[1], slices.Concat(parts[2:]...)},
		"another one began":        {slices.Concat(parts...), AppendPart(nil, 0, 9, []byte("x"))},
		"the length is another":    {slices.Concat(parts[:2]...), AppendPart(nil, 20, len(c)+1, c[20:])},
		"it is none":               partsOf(unsound, 10),
		"the end tells another":    partsOf(append(slices.Clone(c), '!'), 10),
		"there are others' parts":  partsOf(large("of another message"), 10),
		"a session has ended with": {slices.Concat(parts[:2]...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			x := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
			for _, op := range ops {
				if op == nil {
					x.origin.Session, x.origin.Seq = 6, 0
					op = slices.Concat(parts[2:]...)
				}
				x.send(op)
			}
			before := AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, []byte("before"))
			fx := x.send(before, endOf(c, 1, 2), before)
			if got := entered(fx); !slices.Equal(got, []string{"before", "before"}) {
				t.Errorf("got %q", got)
			}
			x.wantRefused(fx, Run{1, 1})
			x.send(slices.Concat(parts...))
			if got := entered(x.send(endOf(c, 1))); !slices.Equal(got, []string{string(c)}) {
				t.Errorf("the next one: got %q", got)
			}
		})
	}
}

func TestAQueueMayRefuseAMessageInParts(t *testing.T) {
	c := large("0123456789012345678901234567890123456789")
	for name, x := range map[string]struct {
		refusals []Refusal
		want     []string
	}{
		"one of two":       {[]Refusal{{0, 1, false}}, []string{string(c)}},
		"all of them":      {[]Refusal{{0, 0, false}, {0, 1, false}}, nil},
		"and bury it":      {[]Refusal{{0, 0, true}, {0, 1, false}}, []string{string(c)}},
		"the one after it": {[]Refusal{{1, 0, false}}, []string{string(c), string(c)}},
	} {
		t.Run(name, func(t *testing.T) {
			y := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
			y.send(slices.Concat(partsOf(c, 10)...))
			y.origin.Seq++
			ops := append(endOf(c, 1, 2), AppendEnqueue(nil, []mq.QueueID{3}, 0, 0, 0, []byte("next"))...)
			entry := AppendRefusing(AppendEntry(nil, term, 0), y.origin, x.refusals, ops)
			var fx Effects
			if err := y.s.Apply(term, entry, &fx); err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(entered(&fx), func(c string) bool { return c == "next" })
			if !slices.Equal(got, x.want) {
				t.Errorf("got %q, want %q", got, x.want)
			}
			m := x.refusals[0].Message
			y.wantRefused(&fx, Run{m, m})
			if got := y.s.node(1).refusedOf(y.origin.Seq); !slices.Equal(got, []Run{{m, m}}) {
				t.Errorf("remembered %v", got)
			}
		})
	}
}

func TestAReplicaThatIsRestoredBetweenPartsComesToTheSame(t *testing.T) {
	c := large("0123456789012345678901234567890123456789")
	parts := partsOf(c, 10)
	x := &sender{t: t, s: New(), origin: Origin{Node: 3, Session: 5}}
	y := &sender{t: t, s: x.s, origin: Origin{Node: 9, Session: 6}}
	y.send(parts[0])
	for i, p := range append(parts, endOf(c, 1)) {
		r := New()
		if err := r.Restore(slices.Concat(x.s.Capture()...)); err != nil {
			t.Fatal(err)
		}
		if r.Digest() != x.s.Digest() || r.Hash() != x.s.Hash() {
			t.Fatalf("before part %d: restored to another state", i)
		}
		x.s, y.s = r, r
		fx := x.send(p)
		if last := i == len(parts); last != slices.Equal(entered(fx), []string{string(c)}) {
			t.Fatalf("part %d: %q entered", i, entered(fx))
		}
	}
	y.send(slices.Concat(parts[1:]...))
	if got := entered(y.send(endOf(c, 1))); !slices.Equal(got, []string{string(c)}) {
		t.Errorf("the other node's: got %q", got)
	}
}

func TestWhatASnapshotHasCapturedDoesNotChange(t *testing.T) {
	c := large("0123456789012345678901234567890123456789")
	parts := partsOf(c, 10)
	x := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
	x.send(parts[0], parts[1])
	captured := x.s.Capture()
	want := slices.Concat(captured...)
	if !bytes.Equal(want, x.s.AppendTo(nil)) {
		t.Fatal("it is not what AppendTo says")
	}
	x.send(slices.Concat(parts[2:]...))
	x.send(endOf(c, 1))
	other := large("another message that has as many bytes as that")
	x.send(slices.Concat(partsOf(other, 10)...))
	if !bytes.Equal(slices.Concat(captured...), want) {
		t.Error("it has")
	}
	if &captured[1][0] == &x.s.stagedBytes()[0][0] {
		t.Error("the next message is put where the one before was")
	}
}

func TestSnapshotsOfStagedPartsThatMakeNoSenseAreRefused(t *testing.T) {
	x := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
	x.send(partsOf(large("0123456789"), 100)[0])
	good := x.s.AppendTo(nil)
	n := len(large("0123456789"))
	for name, b := range map[string][]byte{
		"cut":           good[:len(good)-1],
		"with a tail":   append(slices.Clone(good), 0),
		"of nobody":     bytes.Replace(good, append([]byte{1, 1, byte(n), byte(n)}, large("0")[0]), append([]byte{1, 2, byte(n), byte(n)}, large("0")[0]), 1),
		"longer as all": bytes.Replace(good, []byte{1, 1, byte(n), byte(n)}, []byte{1, 1, byte(n - 1), byte(n)}, 1),
		"of no bytes":   append(slices.Clone(good[:len(good)-n-1]), 0),
	} {
		if bytes.Equal(b, good) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := New().Restore(b); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

func TestWhatASessionLeavesBehindIsDroppedWithIt(t *testing.T) {
	parts := partsOf(large("0123456789012345678901234567890123456789"), 10)
	x := &sender{t: t, s: New(), origin: Origin{Node: 1, Session: 5}}
	x.send(parts[0])
	var node uint32
	var session mq.SessionID
	x.s.EachStaged(func(n uint32, s mq.SessionID) { node, session = n, s })
	if node != 1 || session != 5 {
		t.Fatalf("node %d, session %d have sent it", node, session)
	}
	apply(t, x.s, AppendUnstage(AppendUnstage(nil, 1, 4), 2, 5))
	if len(x.s.stagedBytes()) != 1 {
		t.Fatal("dropped with another one's")
	}
	apply(t, x.s, AppendUnstage(nil, 1, 5))
	if len(x.s.stagedBytes()) != 0 {
		t.Error("it stays")
	}
}

func TestPartsThatMakeNoSenseAreNotProposed(t *testing.T) {
	inner := AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, nil)
	for name, ops := range map[string][]byte{
		"an empty part":          AppendPart(nil, 0, 9, nil),
		"more than the total":    AppendPart(nil, 5, 9, []byte("12345")),
		"begins behind it":       AppendPart(nil, 10, 9, []byte("1")),
		"of too large a message": AppendPart(nil, 0, WholeBytesMax+1, []byte("1")),
		"too large a part":       AppendPart(nil, 0, WholeBytesMax, make([]byte, PartBytesMax+1)),
		"too large a message":    AppendWhole(nil, WholeBytesMax+1, 0, inner),
		"more body than message": AppendWhole(nil, 10, 11, inner),
		"no message":             AppendWhole(nil, 10, 1, nil),
		"a settlement":           AppendWhole(nil, 10, 1, AppendSettle(nil, 1, 1, 1)),
		"an end of an end":       AppendWhole(nil, 10, 1, AppendWhole(nil, 10, 1, inner)),
		"content with the end":   AppendWhole(nil, 10, 1, AppendEnqueue(nil, nil, 0, 0, 0, []byte("x"))),
		"two messages":           AppendWhole(nil, 10, 1, append(slices.Clone(inner), inner...)),
		"cut":                    {byte(EnqueuePart), 1, 0},
	} {
		if CheckOps(ops, nil) == nil {
			t.Errorf("%s: passes", name)
		}
		if New().Apply(term, AppendBatch(AppendEntry(nil, term, 0), Origin{1, 1, 1}, ops), new(Effects)) == nil {
			t.Errorf("%s: is applied", name)
		}
	}
}

func TestALeaderSeesTheEndAsTheMessageThatItIs(t *testing.T) {
	c := large("0123456789")
	windows := []Window{{ID: 9, Keys: 4, Key: Key{2}, Term: 6}}
	ops := slices.Concat(slices.Concat(partsOf(c, 9)...), endOf(c, 1, 300),
		AppendWhole(nil, len(c), 10, AppendEnqueueOnce(nil, 5, windows, []mq.QueueID{7}, 9, 8, 7, nil)))
	var parts, messages int
	err := CheckOps(ops, func(op Op) {
		switch op.Kind {
		case EnqueuePart:
			parts++
		case Enqueue:
			messages++
			if op.BodyBytes() != 10 {
				t.Errorf("%d bytes of body", op.BodyBytes())
			}
			if want := []mq.QueueID{1, 300}; messages == 1 && (!slices.Equal(op.Queues, want) || op.Flags != 1 || op.Priority != 2 || op.ExpiryMs != 3) {
				t.Errorf("got %+v", op)
			}
			if messages == 2 && (!slices.Equal(op.Queues, []mq.QueueID{7}) || op.Flags != 9 || op.Priority != 8 || op.ExpiryMs != 7) {
				t.Errorf("got %+v", op)
			}
		}
	})
	if err != nil || parts != 3 || messages != 2 {
		t.Errorf("%d parts, %d messages: %v", parts, messages, err)
	}
}

func BenchmarkAMessageOf128MiBInParts(b *testing.B) {
	c := append(mq.NewContent("", "q", []byte{0, 0}, BodyBytesMax), make([]byte, BodyBytesMax)...)
	s, o := New(), Origin{Node: 1, Session: 1}
	var fx Effects
	for b.Loop() {
		const part = 256 << 10
		for at := 0; at < len(c); at += part {
			o.Seq++
			entry := AppendBatch(AppendEntry(nil, term, 0), o, AppendPart(nil, at, len(c), c[at:min(at+part, len(c))]))
			fx.Reset()
			if err := s.Apply(term, entry, &fx); err != nil {
				b.Fatal(err)
			}
		}
		s.node(1).staged = nil
	}
}
