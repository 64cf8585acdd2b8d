package queue

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"warren/mq"
)

// model is the slow definition of State: every live message by itself.
type model struct {
	queues map[mq.QueueID]*modelQueue
	nodes  map[uint32]*modelNode
}

type modelNode struct {
	session mq.SessionID
	last    uint64
	refused map[uint64][]Run // of every batch; nil of one that was taken whole
	staged  []byte           // of a message in parts
	total   int              // of that message; 0 if there is none
}

type modelQueue struct {
	last, highWater mq.Seq
	live            map[mq.Seq]bool
	notes           map[mq.Seq]Note
	due             map[mq.Seq]int64
	windows         map[uint64][]seenKey
	terms           map[uint64]uint64 // of the windows' sources
}

func newModel() *model {
	return &model{queues: map[mq.QueueID]*modelQueue{}, nodes: map[uint32]*modelNode{}}
}

func (m *model) make(id mq.QueueID) *modelQueue {
	if m.queues[id] == nil {
		m.queues[id] = &modelQueue{live: map[mq.Seq]bool{}, notes: map[mq.Seq]Note{}, due: map[mq.Seq]int64{}, windows: map[uint64][]seenKey{}, terms: map[uint64]uint64{}}
	}
	return m.queues[id]
}

// part is one part of an entry, or one operation of a batch.
type part struct {
	kind        byte
	queues      []mq.QueueID
	first, last mq.Seq
	except      []mq.Seq
	origin      Origin
	ops         []part
	refusals    []Refusal
	back        []Returned
	once        *modelOnce // of an Enqueue
	at, total   int        // of an EnqueuePart; total also of an EnqueueWhole
	bytes       []byte     // of an EnqueuePart
	stale       bool       // decided in another term
}

type modelOnce struct {
	nowMs   int64
	windows []Window
}

func (p part) append(dst []byte) []byte {
	switch p.kind {
	case byte(Enqueue):
		if o := p.once; o != nil {
			return AppendEnqueueOnce(dst, o.nowMs, o.windows, p.queues, Persistent, 3, -7, []byte("body"))
		}
		return AppendEnqueue(dst, p.queues, Persistent, 3, -7, []byte("body"))
	case byte(EnqueuePart):
		return AppendPart(dst, p.at, p.total, p.bytes)
	case byte(EnqueueWhole):
		inner := AppendEnqueue(nil, p.queues, Persistent, 3, -7, nil)
		if o := p.once; o != nil {
			inner = AppendEnqueueOnce(nil, o.nowMs, o.windows, p.queues, Persistent, 3, -7, nil)
		}
		return AppendWhole(dst, p.total, min(p.total, 3), inner)
	case byte(Settle):
		return AppendSettle(dst, p.queues[0], p.first, p.last)
	case partUnstage:
		return AppendUnstage(dst, p.origin.Node, p.origin.Session)
	case partDrop:
		return AppendDrop(dst, p.queues[0], p.first, p.last)
	case partReserve:
		return AppendReserve(dst, p.queues[0], p.last)
	case partPurge:
		return AppendPurge(dst, p.queues[0], p.last, p.except, 99)
	case partDelete:
		return AppendDelete(dst, p.queues[0])
	case partReturn:
		return AppendReturn(dst, p.queues[0], p.back)
	case partReturnLater:
		return AppendReturnLater(dst, p.queues[0], p.back)
	}
	var ops []byte
	for _, op := range p.ops {
		ops = op.append(ops)
	}
	if p.kind == partRefusing {
		return AppendRefusing(dst, p.origin, p.refusals, ops)
	}
	return AppendBatch(dst, p.origin, ops)
}

type modelSeq struct {
	queue mq.QueueID
	seq   mq.Seq
}

type modelMessage struct {
	modelSeq
	flags, priority uint8
	buried          bool
	expiryMs        int64
	content         string
}

// happened is what came of a run of parts, in a form that batching leaves alone.
type happened struct {
	results  []Result
	enqueued []modelMessage
	settled  map[modelSeq]bool
	reserved []Reserved
	returned []Returned
	purged   []Purged
	deleted  []mq.QueueID
}

func (h *happened) add(t *rapid.T, fx *Effects) {
	if h.settled == nil {
		h.settled = map[modelSeq]bool{}
	}
	h.results = append(h.results, fx.Results...)
	h.reserved = append(h.reserved, fx.Reserved...)
	h.returned = append(h.returned, fx.Returned...)
	h.purged = append(h.purged, fx.Purged...)
	h.deleted = append(h.deleted, fx.Deleted...)
	for _, e := range fx.Enqueued {
		h.enqueued = append(h.enqueued, modelMessage{modelSeq{e.Queue, e.Seq}, e.Flags, e.Priority, e.Buried, e.ExpiryMs, string(e.Content)})
	}
	for i, r := range fx.Settled {
		if r.First > r.Last {
			t.Fatalf("empty range %v", r)
		}
		if i > 0 && fx.Settled[i-1].Queue == r.Queue && fx.Settled[i-1].Last+1 == r.First {
			t.Fatalf("ranges %v and %v are one", fx.Settled[i-1], r)
		}
		for seq := r.First; seq <= r.Last; seq++ {
			h.settled[modelSeq{r.Queue, seq}] = true
		}
	}
}

func (m *model) apply(p part, h *happened) {
	switch p.kind {
	case partUnstage:
		if n := m.nodes[p.origin.Node]; n != nil && n.session == p.origin.Session {
			n.staged, n.total = nil, 0
		}
	case byte(Settle), partDrop:
		m.settle(p.queues[0], p.first, p.last, nil, h)
	case partReserve:
		q := m.make(p.queues[0])
		q.highWater = max(q.highWater, p.last)
		h.reserved = append(h.reserved, Reserved{p.queues[0], q.highWater})
	case partReturn, partReturnLater:
		q := m.queues[p.queues[0]]
		for _, r := range p.back {
			if q == nil || !q.live[r.Seq] {
				continue
			}
			n := q.notes[r.Seq]
			if p.kind == partReturnLater && (r.Acquired > n.Acquired || r.Acquired == n.Acquired && r.DueMs > q.due[r.Seq]) {
				q.due[r.Seq] = r.DueMs
			}
			n.Failed, n.Acquired = max(n.Failed, r.Failed), max(n.Acquired, r.Acquired)
			q.notes[r.Seq] = n
			h.returned = append(h.returned, Returned{p.queues[0], r.Seq, n.Failed, n.Acquired, q.due[r.Seq]})
		}
	case partPurge:
		if !p.stale {
			n := m.settle(p.queues[0], 0, p.last, p.except, h)
			h.purged = append(h.purged, Purged{p.queues[0], 99, n})
		}
	case partDelete:
		m.settle(p.queues[0], 0, 1<<62, nil, h)
		delete(m.queues, p.queues[0])
		h.deleted = append(h.deleted, p.queues[0])
	case partBatch, partRefusing:
		m.batch(p, h)
	}
}

// enqueue puts a message into its queues, but for those that refuse it, and
// says whether one does, or it comes too late for one.
func (m *model) enqueue(p part, content string, refusals []Refusal, h *happened) (refused bool) {
	refused = len(refusals) > 0
	for place, id := range p.queues {
		at := slices.IndexFunc(refusals, func(r Refusal) bool { return int(r.Queue) == place })
		if at >= 0 && !refusals[at].Bury {
			continue
		}
		q := m.make(id)
		if p.once != nil {
			enters, late := q.admits(p.once, at >= 0)
			if refused = refused || late; !enters {
				continue
			}
		}
		q.last++
		q.live[q.last] = true
		if at >= 0 {
			q.notes[q.last] = Note{Buried: true}
		}
		h.enqueued = append(h.enqueued, modelMessage{modelSeq{id, q.last}, Persistent, 3, at >= 0, -7, content})
	}
	return refused
}

// admits is the definition of what a queue remembers.
func (q *modelQueue) admits(o *modelOnce, bury bool) (enters, late bool) {
	if bury { // what leaves at once is not for the queue's own window
		o = &modelOnce{nowMs: o.nowMs, windows: slices.DeleteFunc(slices.Clone(o.windows), func(w Window) bool { return w.ID == OwnWindow })}
	}
	same := func(w Window) func(s seenKey) bool { return func(s seenKey) bool { return s.key == w.Key } }
	for _, w := range o.windows {
		if i := slices.IndexFunc(q.windows[w.ID], same(w)); i >= 0 {
			if at := q.windows[w.ID][i].expiresMs; at == 0 || at > o.nowMs {
				return false, false
			}
		}
	}
	for _, w := range o.windows {
		if w.Term != 0 && w.Term < q.terms[w.ID] {
			return false, true
		}
	}
	for _, w := range o.windows {
		s := seenKey{key: w.Key, expiresMs: w.ExpiresMs}
		if w.ID == OwnWindow {
			s.expiresMs, s.seq = 0, q.last+1
		}
		all := append(slices.DeleteFunc(q.windows[w.ID], same(w)), s)
		for (w.ID != OwnWindow || w.Keys > 0) && len(all) > 1 && (len(all) > int(w.Keys) || all[0].expiresMs != 0 && all[0].expiresMs <= o.nowMs) {
			all = all[1:]
		}
		q.windows[w.ID], q.terms[w.ID] = all, max(q.terms[w.ID], w.Term)
	}
	return true, false
}

func (m *model) settle(id mq.QueueID, first, last mq.Seq, except []mq.Seq, h *happened) (n uint64) {
	if q := m.queues[id]; q != nil {
		for seq := range q.live {
			if seq >= first && seq <= last && !slices.Contains(except, seq) {
				delete(q.live, seq)
				delete(q.notes, seq)
				delete(q.due, seq)
				q.windows[OwnWindow] = slices.DeleteFunc(q.windows[OwnWindow], func(s seenKey) bool { return s.seq == seq })
				h.settled[modelSeq{id, seq}] = true
				n++
			}
		}
	}
	return n
}

func (m *model) batch(p part, h *happened) {
	n := m.nodes[p.origin.Node]
	if n == nil {
		n = &modelNode{refused: map[uint64][]Run{}}
		m.nodes[p.origin.Node] = n
	}
	if p.origin.Session > n.session {
		*n = modelNode{session: p.origin.Session, refused: map[uint64][]Run{}}
	}
	r := Result{Origin: p.origin, Last: n.last}
	switch {
	case p.origin.Session < n.session:
		r.Code, r.Last = Ended, 0
	case p.origin.Seq <= n.last:
		r.Code, r.Refused = Duplicate, n.refused[p.origin.Seq]
	case p.origin.Seq != n.last+1:
		r.Code = Gap
	default:
		n.last++
		r.Last = n.last
		r.Refused = m.refusing(n, p, h)
		if r.Refused != nil {
			n.refused[n.last] = r.Refused
			n.forgetOld()
		}
	}
	h.results = append(h.results, r)
}

func (m *model) refusing(n *modelNode, p part, h *happened) (runs []Run) {
	message := uint32(0)
	for _, op := range p.ops {
		content, whole := "body", true
		switch op.kind {
		case byte(Enqueue):
		case byte(EnqueueWhole):
			_, ok := mq.ParseContent(n.staged)
			content, whole = string(n.staged), ok && n.total == op.total && len(n.staged) == op.total
			n.staged, n.total = nil, 0
		case byte(EnqueuePart):
			n.stage(op)
			continue
		default:
			m.apply(op, h)
			continue
		}
		var here []Refusal
		for _, r := range p.refusals {
			if r.Message == message {
				here = append(here, r)
			}
		}
		if !whole || m.enqueue(op, content, here, h) {
			runs = appendRun(runs, message)
		}
		message++
	}
	return runs
}

// stage is the definition of how parts go together.
func (n *modelNode) stage(op part) {
	if op.at == 0 {
		n.staged, n.total = nil, op.total
	}
	if n.total != op.total || len(n.staged) != op.at {
		n.staged, n.total = nil, 0
		return
	}
	n.staged = append(n.staged, op.bytes...)
}

// forgetOld keeps the last RefusalsKept batches that were refused in part.
func (n *modelNode) forgetOld() {
	all := slices.Sorted(maps.Keys(n.refused))
	for len(all) > RefusalsKept {
		delete(n.refused, all[0])
		all = all[1:]
	}
}

// check holds a state against the model.
func (m *model) check(t *rapid.T, s *State) {
	var ids []mq.QueueID
	for id, want := range m.queues {
		ids = append(ids, id)
		got := s.Queue(id)
		if got == nil {
			t.Fatalf("queue %d is missing", id)
		}
		if got.Count() != uint64(len(want.live)) || got.Last() != want.last || got.HighWater() != want.highWater {
			t.Fatalf("queue %d: got count %d last %d high water %d, want %d %d %d", id,
				got.Count(), got.Last(), got.HighWater(), len(want.live), want.last, want.highWater)
		}
		notes := map[mq.Seq]Note{}
		var noted []mq.Seq
		got.EachNote(func(seq mq.Seq, n Note) {
			noted = append(noted, seq)
			if notes[seq] = n; got.Note(seq) != n {
				t.Fatalf("queue %d: note of %d is %v and %v", id, seq, n, got.Note(seq))
			}
		})
		if !maps.Equal(notes, want.notes) || !slices.IsSorted(noted) || got.Noted() != (len(noted) > 0) {
			t.Fatalf("queue %d: got notes %v, want %v", id, notes, want.notes)
		}
		due := map[mq.Seq]int64{}
		got.EachDue(func(seq mq.Seq, dueMs int64) {
			if due[seq] = dueMs; got.Due(seq) != dueMs {
				t.Fatalf("queue %d: %d is due at %d and %d", id, seq, dueMs, got.Due(seq))
			}
		})
		maps.DeleteFunc(want.due, func(_ mq.Seq, dueMs int64) bool { return dueMs == 0 })
		if !maps.Equal(due, want.due) {
			t.Fatalf("queue %d: got due times %v, want %v", id, due, want.due)
		}
		var live, next []mq.Seq
		for seq := range want.last + 3 {
			if want.live[seq] {
				live = append(live, seq)
			}
			if got.Live(seq) != want.live[seq] {
				t.Fatalf("queue %d: Live(%d) is %v", id, seq, got.Live(seq))
			}
		}
		for seq, ok := got.Next(0); ok; seq, ok = got.Next(seq + 1) {
			next = append(next, seq)
		}
		if !slices.Equal(next, live) {
			t.Fatalf("queue %d: Next walks %v, want %v", id, next, live)
		}
	}
	slices.Sort(ids)
	if got := s.Queues(); !slices.Equal(got, ids) {
		t.Fatalf("got queues %v, want %v", got, ids)
	}
}

// program draws the parts of a log. Enqueues come in bulk, so that queues
// reach over several chunks.
func program(t *rapid.T) []part {
	var parts []part
	next := map[uint32]*Origin{}
	queue := rapid.SampledFrom([]mq.QueueID{1, 2, 7 << 12})
	seq := rapid.Custom(func(t *rapid.T) mq.Seq {
		if rapid.Bool().Draw(t, "low") {
			return mq.Seq(rapid.IntRange(0, 70).Draw(t, "seq"))
		}
		return mq.Seq(rapid.IntRange(0, 5000).Draw(t, "seq"))
	})
	for range rapid.IntRange(1, 25).Draw(t, "parts") {
		q := queue.Draw(t, "queue")
		p := part{queues: []mq.QueueID{q}, first: seq.Draw(t, "first")}
		p.last = p.first + mq.Seq(rapid.SampledFrom([]int{0, 0, 1, 5, 64, 700, 2048}).Draw(t, "span"))
		p.kind = rapid.SampledFrom([]byte{partBatch, partBatch, partBatch, partRefusing, partRefusing, partReturn, partReturnLater, partReturnLater, partDrop, partReserve, partPurge, partDelete, partUnstage}).Draw(t, "kind")
		switch p.kind {
		case partPurge:
			p.except = slices.Sorted(slices.Values(rapid.SliceOfN(seq, 0, 5).Draw(t, "except")))
			p.stale = rapid.Bool().Draw(t, "stale")
		case partReturn, partReturnLater:
			for at := p.first; at <= min(p.last, p.first+80); at += mq.Seq(rapid.IntRange(1, 40).Draw(t, "step")) {
				failed := rapid.Uint32Range(0, 3).Draw(t, "failed")
				if at > 0 {
					p.back = append(p.back, Returned{q, at, failed, failed + rapid.Uint32Range(1, 3).Draw(t, "nacked"), 0})
					if p.kind == partReturnLater {
						p.back[len(p.back)-1].DueMs = rapid.SampledFrom([]int64{0, 5, 9, 1 << 62}).Draw(t, "due")
					}
				}
			}
		case partUnstage:
			p.origin = Origin{Node: uint32(rapid.IntRange(1, 3).Draw(t, "node")), Session: mq.SessionID(rapid.IntRange(4, 6).Draw(t, "session"))}
		case partDelete:
			if rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
				continue
			}
		case partBatch, partRefusing:
			number := uint32(rapid.IntRange(1, 2).Draw(t, "node"))
			if next[number] == nil {
				next[number] = &Origin{Node: number, Session: 5}
			}
			o := next[number]
			switch rapid.IntRange(0, 11).Draw(t, "doubt") {
			case 0: // again, or not the next
				p.origin = *o
				p.origin.Seq = uint64(rapid.IntRange(0, int(o.Seq)+3).Draw(t, "seq"))
				o.Seq = max(o.Seq, min(p.origin.Seq, o.Seq+1))
			case 1: // an older session
				p.origin = Origin{number, o.Session - 1, 1}
			case 2: // a newer one
				o.Session, o.Seq = o.Session+1, 0
				fallthrough
			default:
				o.Seq++
				p.origin = *o
			}
			p.ops = batch(t, queue, seq)
			if p.kind == partRefusing {
				p.refusals = drawRefusals(t)
			}
		}
		parts = append(parts, p)
	}
	return parts
}

// drawRefusals also names messages and queues that a batch may not have.
func drawRefusals(t *rapid.T) (all []Refusal) {
	message := rapid.SampledFrom([]uint32{0, 1, 2, 3, 29, 30, 40, 1000, 1100})
	for _, m := range slices.Sorted(slices.Values(rapid.SliceOfNDistinct(message, 0, 6, rapid.ID[uint32]).Draw(t, "messages"))) {
		for place := range uint32(4) {
			if rapid.Bool().Draw(t, "refuse") {
				all = append(all, Refusal{m, place, rapid.Bool().Draw(t, "bury")})
			}
		}
	}
	return all
}

func batch(t *rapid.T, queue *rapid.Generator[mq.QueueID], seq *rapid.Generator[mq.Seq]) (ops []part) {
	for range rapid.IntRange(0, 4).Draw(t, "ops") {
		if rapid.Bool().Draw(t, "settle") {
			first := seq.Draw(t, "first")
			last := first + mq.Seq(rapid.SampledFrom([]int{0, 0, 1, 9, 64, 1500}).Draw(t, "span"))
			ops = append(ops, part{kind: byte(Settle), queues: []mq.QueueID{queue.Draw(t, "queue")}, first: first, last: last})
			continue
		}
		ids := rapid.SliceOfNDistinct(queue, 1, 3, rapid.ID[mq.QueueID]).Draw(t, "queues")
		if rapid.IntRange(0, 2).Draw(t, "in parts") == 0 {
			ops = append(ops, inParts(t, ids)...)
			continue
		}
		for range rapid.SampledFrom([]int{1, 1, 2, 30, 70, 1100}).Draw(t, "messages") {
			ops = append(ops, part{kind: byte(Enqueue), queues: ids, once: drawOnce(t)})
		}
	}
	return ops
}

// inParts draws some of the parts of a message, and perhaps its end: from one
// batch to the next they may go on, or not.
func inParts(t *rapid.T, ids []mq.QueueID) (ops []part) {
	content := append(mq.NewContent("x", "k", []byte{0, 0}, 0), rapid.SampledFrom([]string{"0123456789", "abcdefghij"}).Draw(t, "body")...)
	if rapid.IntRange(0, 9).Draw(t, "unsound") == 0 {
		content[0] = 200 // its name would be longer than all of it
	}
	const parts, partBytes = 3, 7
	first := rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "first part")
	last := rapid.SampledFrom([]int{0, 1, 2, 2, 2}).Draw(t, "last part")
	for i := first; i <= last; i++ {
		b := content[i*partBytes:]
		if i < parts-1 {
			b = b[:partBytes]
		}
		ops = append(ops, part{kind: byte(EnqueuePart), at: i * partBytes, total: len(content), bytes: b})
	}
	if last == parts-1 && rapid.IntRange(0, 3).Draw(t, "end") > 0 {
		total := len(content) - rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "other length")
		ops = append(ops, part{kind: byte(EnqueueWhole), total: total, queues: ids, once: drawOnce(t)})
	}
	return ops
}

// drawOnce is nil mostly: messages come in bulk.
func drawOnce(t *rapid.T) *modelOnce {
	if rapid.IntRange(0, 3).Draw(t, "once") > 0 {
		return nil
	}
	o := &modelOnce{nowMs: int64(rapid.IntRange(0, 9).Draw(t, "now"))}
	for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom([]uint64{OwnWindow, 1, 2}), 1, 2, rapid.ID[uint64]).Draw(t, "windows") {
		o.windows = append(o.windows, Window{
			Term: uint64(max(0, rapid.IntRange(-3, 3).Draw(t, "term"))),
			ID:   id, Keys: uint32(rapid.IntRange(0, 4).Draw(t, "keys")), ExpiresMs: int64(rapid.IntRange(0, 12).Draw(t, "expires")),
			Key: Key{byte(rapid.IntRange(0, 9).Draw(t, "key"))},
		})
	}
	return o
}

const term = 4

// run applies parts one to an entry, or several where join says so.
func run(t *rapid.T, s *State, parts []part, join func(i int) bool) (h happened) {
	var fx Effects
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
		if i+1 < len(parts) && join(i) && parts[i].stale == parts[i+1].stale {
			continue
		}
		fx.Reset()
		if err := s.Apply(term, entry, &fx); err != nil {
			t.Fatal(err)
		}
		h.add(t, &fx)
		entry = nil
	}
	return h
}

func never(int) bool { return false }

func TestStateAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := program(t)
		m, want := newModel(), happened{settled: map[modelSeq]bool{}}
		for _, p := range parts {
			m.apply(p, &want)
		}
		s := New()
		got := run(t, s, parts, never)
		m.check(t, s)
		if len(parts) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("effects:\n got %v\nwant %v", got, want)
		}
	})
}

func TestAnyBatchingGivesTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := program(t)
		one, many := New(), New()
		h1 := run(t, one, parts, never)
		h2 := run(t, many, parts, func(i int) bool { return rapid.Bool().Draw(t, "join") })
		if !bytes.Equal(one.AppendTo(nil), many.AppendTo(nil)) || one.Hash() != many.Hash() {
			t.Fatal("states differ")
		}
		if !reflect.DeepEqual(h1, h2) {
			t.Fatalf("effects differ:\n%v\n%v", h1, h2)
		}
	})
}

func TestARestoredStateGoesOnTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := program(t)
		whole, s := New(), New()
		run(t, whole, parts, never)
		for i := range parts {
			run(t, s, parts[i:i+1], never)
			if rapid.IntRange(0, 3).Draw(t, "restart") > 0 {
				continue
			}
			b := s.AppendTo(nil)
			s = New()
			if err := s.Restore(b); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(s.AppendTo(nil), b) {
				t.Fatal("restored state has other bytes")
			}
		}
		if !bytes.Equal(whole.AppendTo(nil), s.AppendTo(nil)) {
			t.Fatal("states differ")
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	entry := AppendEntry(nil, term, 1)
	entry = AppendBatch(entry, Origin{1, 2, 1}, AppendSettle(AppendEnqueue(nil, []mq.QueueID{1, 300}, 1, 2, 3, []byte("xy")), 1, 1, 9))
	entry = AppendRefusing(entry, Origin{1, 2, 2}, []Refusal{{0, 1, true}, {1, 0, false}}, enqueued(2, 1, 300))
	entry = AppendReturn(entry, 1, []Returned{{1, 1, 0, 1, 0}, {1, 300, 5, 6, 0}})
	entry = AppendReturnLater(entry, 1, []Returned{{1, 1, 0, 2, 1 << 40}, {1, 300, 5, 7, 0}})
	parts := AppendPart(AppendPart(nil, 0, 9, []byte("\x00\x00\x00\x00")), 4, 9, []byte("\x00\x00xyz"))
	entry = AppendBatch(entry, Origin{1, 2, 3}, AppendPart(AppendWhole(parts, 9, 3, AppendEnqueue(nil, []mq.QueueID{1}, 0, 0, 0, nil)), 0, 9, []byte{7}))
	entry = AppendUnstage(entry, 3, 4)
	entry = AppendReserve(entry, 1, 1000)
	entry = AppendPurge(entry, 300, 9, []mq.Seq{1, 4}, 5)
	entry = AppendDrop(entry, 1, 0, 1<<63)
	f.Add(AppendDelete(entry, 1), uint8(4))
	f.Fuzz(func(t *testing.T, entry []byte, flip uint8) {
		s := New()
		var fx Effects
		start := AppendEntry(nil, term, 0)
		start = AppendBatch(start, Origin{1, 1, 1}, AppendEnqueue(nil, []mq.QueueID{1, 300}, 0, 0, 0, nil))
		if err := s.Apply(term, start, &fx); err != nil {
			t.Fatal(err)
		}
		fx.Reset()
		before := s.AppendTo(nil)
		if err := s.Apply(term, entry, &fx); err != nil {
			if !bytes.Equal(before, s.AppendTo(nil)) || len(fx.Results)+len(fx.Enqueued)+len(fx.Settled)+len(fx.Deleted) > 0 {
				t.Fatalf("half applied: %v", err)
			}
			return
		}
		r := New()
		if err := r.Restore(s.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		_ = CheckOps(entry, func(op Op) { _ = op.Content })
	})
}
