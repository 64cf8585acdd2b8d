package broker

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"warren/fsm/queue"
	"warren/mq"
)

// logWriter makes a log of a group by chance: every part and operation that
// there is, those that make no sense as well, and batches that come twice, late
// or from a session that is over. It applies what it writes, so that it knows
// what replicas have to come to.
type logWriter struct {
	t       *testing.T
	rng     *rand.Rand
	index   uint64
	term    uint64
	nowMs   int64
	state   *queue.State
	bodies  map[bodyKey]body
	origins map[uint32]*queue.Origin
	entries []Entry
}

type bodyKey struct {
	queue mq.QueueID
	seq   mq.Seq
}

type body struct {
	flags, priority uint8
	expiryMs        int64
	content         string
}

func newLogWriter(t *testing.T, seed uint64) *logWriter {
	return &logWriter{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), term: 1, nowMs: 1, state: queue.New(),
		bodies: map[bodyKey]body{}, origins: map[uint32]*queue.Origin{},
	}
}

func (w *logWriter) oneIn(n int) bool { return w.rng.IntN(n) == 0 }

func (w *logWriter) queue() mq.QueueID { return mq.QueueID(1 + w.rng.IntN(4)) }

// seq is one that a queue has, mostly.
func (w *logWriter) seq(id mq.QueueID) mq.Seq {
	q := w.state.Queue(id)
	if q == nil || q.Count() == 0 || w.oneIn(10) {
		return mq.Seq(w.rng.IntN(4000))
	}
	first, _ := q.Next(0)
	if w.oneIn(2) {
		return first
	}
	return first + mq.Seq(w.rng.Uint64N(uint64(q.Last()-first)+2))
}

// next writes one entry. Indexes are left out, as those of Raft's own entries
// are.
func (w *logWriter) next() Entry {
	if w.index++; w.oneIn(50) {
		w.index += uint64(w.rng.IntN(1500))
		w.term++
	}
	w.nowMs += int64(w.rng.IntN(3))
	decided := w.term
	if w.oneIn(20) {
		decided-- // what it decides is void
	}
	b := queue.AppendEntry(nil, decided, w.nowMs)
	for range 1 + w.rng.IntN(3) {
		b = w.part(b)
	}
	if w.oneIn(60) {
		b = queue.AppendDelete(b, w.queue()) // the last: see part.last
	}
	e := Entry{Index: w.index, Term: w.term, Data: b}
	w.apply(e)
	w.entries = append(w.entries, e)
	return e
}

func (w *logWriter) part(b []byte) []byte {
	q := w.queue()
	first := w.seq(q)
	last := first + mq.Seq(w.rng.IntN(1+w.rng.IntN(40)))
	switch w.rng.IntN(16) {
	case 0:
		return queue.AppendDrop(b, q, first, last)
	case 1:
		return queue.AppendReserve(b, q, first)
	case 2:
		if w.oneIn(5) {
			return queue.AppendPurge(b, q, last, []mq.Seq{first, w.seq(q)}, 7)
		}
		return queue.AppendReserve(b, q, last)
	case 3, 4:
		return queue.AppendReturn(b, q, w.back(q, first, last))
	case 5, 6:
		return queue.AppendReturnLater(b, q, w.back(q, first, last))
	case 7, 8:
		ops := w.ops()
		return queue.AppendRefusing(b, w.origin(), w.refusals(), ops)
	default:
		return queue.AppendBatch(b, w.origin(), w.ops())
	}
}

func (w *logWriter) back(q mq.QueueID, first, last mq.Seq) (out []queue.Returned) {
	for seq := max(first, 1); seq <= last; seq += mq.Seq(1 + w.rng.IntN(5)) {
		failed := uint32(w.rng.IntN(4))
		out = append(out, queue.Returned{Queue: q, Seq: seq, Failed: failed, Acquired: failed + uint32(1+w.rng.IntN(2)), DueMs: int64(w.rng.IntN(3)) * w.nowMs})
	}
	return out
}

func (w *logWriter) refusals() (out []queue.Refusal) {
	for message := range uint32(12) {
		for place := range uint32(3) {
			if w.oneIn(4) {
				out = append(out, queue.Refusal{Message: message, Queue: place, Bury: w.oneIn(2)})
			}
		}
	}
	return out
}

// origin is the next batch of some node; or one again, one too early, one of a
// session that is over.
func (w *logWriter) origin() queue.Origin {
	node := uint32(1 + w.rng.IntN(3))
	o := w.origins[node]
	if o == nil {
		o = &queue.Origin{Node: node, Session: 5}
		w.origins[node] = o
	}
	switch w.rng.IntN(40) {
	case 0:
		return queue.Origin{Node: node, Session: o.Session, Seq: w.rng.Uint64N(o.Seq + 3)}
	case 1:
		return queue.Origin{Node: node, Session: o.Session - 1, Seq: 1}
	case 2:
		o.Session, o.Seq = o.Session+1, 0
	}
	o.Seq++
	return *o
}

func (w *logWriter) ops() (ops []byte) {
	for range w.rng.IntN(10) {
		q := w.queue()
		if w.oneIn(3) {
			first := w.seq(q)
			ops = queue.AppendSettle(ops, q, first, first+mq.Seq(w.rng.IntN(1+w.rng.IntN(30))))
			continue
		}
		queues := []mq.QueueID{q}
		for id := q + 1; id <= 4; id++ {
			if w.oneIn(4) {
				queues = append(queues, id)
			}
		}
		flags, priority, expiry := uint8(w.rng.IntN(2)), uint8(w.rng.IntN(3)), int64(w.rng.IntN(2))*w.nowMs
		content := w.content()
		if !w.oneIn(5) {
			ops = queue.AppendEnqueue(ops, queues, flags, priority, expiry, content)
			continue
		}
		windows := []queue.Window{{ID: uint64(w.rng.IntN(3)), Keys: uint32(w.rng.IntN(6)), ExpiresMs: int64(w.rng.IntN(2)) * (w.nowMs + 30), Key: queue.Key{byte(w.rng.IntN(20))}}}
		ops = queue.AppendEnqueueOnce(ops, w.nowMs, windows, queues, flags, priority, expiry, content)
	}
	return ops
}

func (w *logWriter) content() []byte {
	n := w.rng.IntN(300)
	if w.oneIn(100) {
		n = 40 << 10 // more than is copied
	}
	return append(mq.NewContent("x", "key", []byte{0, 0}, n), bytes.Repeat([]byte{byte(w.rng.IntN(256))}, n)...)
}

// apply takes the entry over into what replicas have to come to.
func (w *logWriter) apply(e Entry) {
	var fx queue.Effects
	if err := w.state.Apply(e.Term, e.Data, &fx); err != nil {
		w.t.Fatalf("entry %d: %v", e.Index, err)
	}
	for _, m := range fx.Enqueued {
		w.bodies[bodyKey{m.Queue, m.Seq}] = body{m.Flags, m.Priority, m.ExpiryMs, string(m.Content)}
	}
	for _, r := range fx.Settled {
		for seq := r.First; seq <= r.Last; seq++ {
			delete(w.bodies, bodyKey{r.Queue, seq})
		}
	}
}
