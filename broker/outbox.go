package broker

import (
	"context"
	"sync"
	"time"

	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// Bounds of an outbox.
const (
	// outboxBytes is how much a group may owe answers for before publishers wait.
	outboxBytes = 8 << 20
	// batchBytes is when a batch is sent although others are in flight.
	batchBytes = 256 << 10
	// batchesBusy is how many batches with messages are in flight before smaller
	// ones gather (those of settlements alone are not in a hurry to be answered):
	// batching without a timer.
	batchesBusy = 2
	// batchesMax is how many may be in flight at all, but for those of
	// settlements that cannot wait. Of those with messages there are never more:
	// the state machine remembers what was refused of that many.
	batchesMax = queue.RefusalsKept
)

// Origin names an outbox in the state machines: they remember, per node, which
// of its batches they have seen.
type Origin struct {
	Node    uint32 // the node's number in the metadata
	Session mq.SessionID
}

// outbox is the way from this node to one group. It numbers batches of
// enqueues and settlements, keeps each until the group's leader says that it is
// committed, and after any doubt (a new leader, a lost connection) sends all
// that is unanswered again, in order: the numbers make a second copy harmless.
type outbox struct {
	group  mq.GroupID
	origin Origin
	lane   Lane

	mu     sync.Mutex
	room   *sync.Cond // signalled when owed falls or the outbox ends
	ended  bool
	to     mq.NodeID // leader; "" while there is none
	term   uint64
	next   uint64      // number of the next batch
	batch              // gathering
	window []sentBatch // not all answered, in order
	busy   int         // how many of them hold messages, and not only parts of one
	owed   int         // bytes gathering and in the window
	large  largeLine
	free   [][]waiter // emptied slices to use again

	looking bool        // a timer will look for waiters whose time is over
	looks   *time.Timer // that timer, once there was need of it
	heard   bool        // a leader has answered since the last look
	behind  uint64      // how far the group was when it last missed batches
	marks   []mark      // of earlier looks, oldest first; at most answerDeadline / lookEvery + 1
}

// waiter is told once what becomes of one operation.
type waiter struct {
	confirm mq.Confirmer
	tag     uint64
	message uint32 // which one of its batch it waits for
}

// batch is settlements and messages. They are apart because settlements can go
// without the messages, never the other way round.
type batch struct {
	settles     []byte
	settleWait  []waiter
	messages    []byte
	messageWait []waiter
	count       uint32 // of messages
	parts       int    // of messages that go in parts
}

func (b *batch) size() int { return len(b.settles) + len(b.messages) }

type sentBatch struct {
	batch
	seq      uint64
	answered bool
	refused  []queue.Run // of its messages, once answered
}

// hurried is set beside the node's number in a batch if somebody waits for one of
// its settlements. Leaders of older builds read 32 bits of that field and treat
// the batch like any other, which costs whoever waits settleWait and nothing else.
const hurried = 1 << 32

// hurry is hurried if the batch is.
func (s *sentBatch) hurry() uint64 {
	if len(s.settleWait) > 0 {
		return hurried
	}
	return 0
}

func newOutbox(g mq.GroupID, o Origin, lane Lane) *outbox {
	b := &outbox{group: g, origin: o, lane: lane, next: 1}
	b.room = sync.NewCond(&b.mu)
	return b
}

// outgoing is a message on its way to its queues.
type outgoing struct {
	flags, priority uint8
	ttlMs           int64 // its own; negative means none
	content         mq.Content
	windows         []queue.Window // of the message, besides those of its targets
	nowMs           int64          // set if there are any
}

// enqueue adds one message to the queues of a target in the group; it waits
// while the group owes too much.
func (b *outbox) enqueue(ctx context.Context, t *target, m *outgoing, expiryMs int64, w waiter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owed >= outboxBytes {
		if err := b.awaitRoom(ctx); err != nil {
			return err
		}
	}
	if !b.ended && b.large.takes(m) {
		return b.enqueueLarge(ctx, t, m, expiryMs, w)
	}
	return b.put(t, m, expiryMs, w)
}

// forward is enqueue that never waits; its callers have a bound of their own.
// What is forwarded keeps its order: behind what is in line it stands in line.
func (b *outbox) forward(t *target, m *outgoing, expiryMs int64, w waiter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended && (b.large.takes(m) || b.large.forwarded > 0) {
		b.line(t, m, expiryMs, w).forwarded = true
		b.large.forwarded++
		b.feed()
		return nil
	}
	return b.put(t, m, expiryMs, w)
}

// offer is enqueue for what may be lost: if there is no room, it is.
func (b *outbox) offer(t *target, m *outgoing, expiryMs int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owed+b.large.owed < outboxBytes {
		_ = b.put(t, m, expiryMs, waiter{}) // the group is gone, and who would have read it
	}
}

// put runs with mu held.
func (b *outbox) put(t *target, m *outgoing, expiryMs int64, w waiter) error {
	if b.ended {
		return errGroupGone
	}
	if b.large.takes(m) {
		b.line(t, m, expiryMs, w)
		b.feed()
		return nil
	}
	before := b.size()
	b.messages = appendMessage(b.messages, t, m, expiryMs, m.content)
	b.awaitMessage(w)
	b.added(before)
	return nil
}

// appendMessage appends the operation of one message.
func appendMessage(dst []byte, t *target, m *outgoing, expiryMs int64, content []byte) []byte {
	if len(t.windows)+len(m.windows) == 0 {
		return queue.AppendEnqueue(dst, t.queues, m.flags|t.flags, m.priority, expiryMs, content)
	}
	windows := append(t.windows[:len(t.windows):len(t.windows)], m.windows...)
	return queue.AppendEnqueueOnce(dst, m.nowMs, windows, t.queues, m.flags|t.flags, m.priority, expiryMs, content)
}

// awaitMessage counts a message that was put, and notes who waits for it. Runs
// with mu held.
func (b *outbox) awaitMessage(w waiter) {
	if w.confirm != nil {
		w.message = b.count
		b.messageWait = append(b.messageWait, w)
		b.watch()
	}
	b.count++
}

// settle adds a range of settled messages. It never waits: a settlement frees
// memory, and there can be no more of them than there are deliveries.
func (b *outbox) settle(q mq.QueueID, first, last mq.Seq, w waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	before := b.size()
	b.settles = queue.AppendSettle(b.settles, q, first, last)
	if w.confirm != nil {
		b.settleWait = append(b.settleWait, w)
		b.watch()
	}
	b.added(before)
	return true
}

func (b *outbox) added(before int) {
	b.owed += b.size() - before
	if b.size() >= batchBytes {
		b.send(true)
	}
}

// flush sends what has gathered unless enough is in flight; then the next
// answer sends it.
func (b *outbox) flush() {
	b.mu.Lock()
	b.send(false)
	b.mu.Unlock()
}

// sendAll sends what has gathered, however much is in flight: all settlements,
// and the messages if there may be one more batch with messages.
func (b *outbox) sendAll() {
	b.mu.Lock()
	b.seal()
	b.mu.Unlock()
}

// send makes a batch of what has gathered and sends it. Runs with mu held.
func (b *outbox) send(full bool) {
	if len(b.window) < batchesMax && (full || len(b.messages) == 0 || b.busy < batchesBusy) {
		b.seal()
	}
}

// seal is sendAll. Runs with mu held.
func (b *outbox) seal() {
	s := sentBatch{seq: b.next, batch: batch{settles: b.settles, settleWait: b.settleWait}}
	b.settles, b.settleWait = nil, nil
	if len(b.messages) > 0 && b.busy < batchesMax {
		s.messages, s.messageWait, s.count, s.parts = b.messages, b.messageWait, b.count, b.parts
		b.batch = batch{}
		if s.count > 0 { // nothing can be refused of parts, and nobody waits for one
			b.busy++
		}
		if n := len(b.free); n > 0 {
			b.messageWait, b.free = b.free[n-1], b.free[:n-1]
		}
	}
	if s.size() == 0 {
		return
	}
	b.next++
	b.window = append(b.window, s)
	b.transmit(&s)
}

// transmit puts one batch on the way if there is a leader. Runs with mu held,
// which keeps batches in order on the lane.
func (b *outbox) transmit(s *sentBatch) {
	if b.to == "" {
		return
	}
	f := make([]byte, 0, 48+s.size())
	f = append(f, frameBatch)
	f = fields.AppendUint(f, uint64(b.group))
	f = fields.AppendUint(f, b.term)
	f = fields.AppendUint(f, uint64(b.origin.Node)|s.hurry())
	f = fields.AppendUint(f, uint64(b.origin.Session))
	f = fields.AppendUint(f, s.seq)
	f = append(f, s.settles...)
	b.lane.Send(b.to, append(f, s.messages...))
}

// lead points the outbox at a leader and sends everything unanswered again,
// and all that has gathered: what this node settled must be there before the
// leader hears what it still holds, or it would hand it out once more.
func (b *outbox) lead(node mq.NodeID, term uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to, b.term = node, term
	b.resend(0)
	b.seal()
}

// leaderless stops sending until a leader is known again.
func (b *outbox) leaderless(node mq.NodeID) {
	b.mu.Lock()
	if b.to == node {
		b.to = ""
	}
	b.mu.Unlock()
}

func (b *outbox) resend(after uint64) {
	for i := range b.window {
		if b.window[i].seq > after {
			b.transmit(&b.window[i])
		}
	}
}

// missed hears that the state machine misses batches after last.
func (b *outbox) missed(term uint64, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last > b.behind { // else the leader is there, and nothing moves
		b.behind, b.heard = last, true
	}
	if term == b.term {
		b.resend(last)
	}
}

// result hears that a batch of this outbox is committed (or was before), and
// which of its messages a full queue refused.
func (b *outbox) result(seq uint64, code queue.Code, refused []queue.Run) {
	if code == queue.Ended {
		b.end(mq.Rejected) // a later session of this node writes to the group: this one is over
		return
	}
	b.mu.Lock()
	b.heard = true
	done := b.answer(seq, refused)
	b.feed()
	b.send(false)
	b.room.Broadcast()
	b.mu.Unlock()
	for i := range done {
		done[i].tell()
	}
	b.reuse(done)
}

// answer notes the answer to a batch, and returns those that need not be kept
// any more. That a batch is committed says that those before it are, too, but
// not what was refused of them: each waits for its own answer. If that was lost
// with a connection, all is sent again anyway; if it was lost in any other way,
// this asks for it. Runs with mu held.
func (b *outbox) answer(seq uint64, refused []queue.Run) (done []sentBatch) {
	if len(b.window) == 0 || seq < b.window[0].seq || seq-b.window[0].seq >= uint64(len(b.window)) {
		return nil
	}
	i := int(seq - b.window[0].seq)
	if b.window[i].answered {
		return nil
	}
	b.window[i].answered, b.window[i].refused = true, refused
	if i > 0 && !b.window[i-1].answered {
		for j := range b.window[:i] {
			if !b.window[j].answered {
				b.transmit(&b.window[j])
			}
		}
	}
	for len(b.window) > 0 && b.window[0].answered {
		done = append(done, b.window[0])
		b.forget(&b.window[0])
		b.window[0] = sentBatch{}
		b.window = b.window[1:]
	}
	if len(b.window) == 0 {
		b.window = nil
	}
	return done
}

// forget takes a batch out of what is owed. Runs with mu held.
func (b *outbox) forget(s *sentBatch) {
	b.owed -= s.size()
	b.large.busy -= s.parts
	if s.count > 0 {
		b.busy--
	}
}

// tell passes an answer on.
func (s *sentBatch) tell() {
	tell(s.settleWait, mq.Confirmed)
	runs := s.refused
	for _, w := range s.messageWait { // in the order of messages, as runs are
		for len(runs) > 0 && runs[0].Last < w.message {
			runs = runs[1:]
		}
		switch {
		case w.confirm == nil: // it was given up
		case len(runs) > 0 && runs[0].First <= w.message:
			w.confirm.Confirm(w.tag, mq.Refused)
		default:
			w.confirm.Confirm(w.tag, mq.Confirmed)
		}
	}
}

func tell(ws []waiter, o mq.Outcome) {
	for _, w := range ws {
		if w.confirm != nil { // or it was given up
			w.confirm.Confirm(w.tag, o)
		}
	}
}

func (b *outbox) reuse(done []sentBatch) {
	b.mu.Lock()
	for i := range done {
		if w := done[i].messageWait; cap(w) > 0 && cap(w) <= 4096 && len(b.free) < 4 {
			clear(w)
			b.free = append(b.free, w[:0])
		}
	}
	b.mu.Unlock()
}

// end gives up: the group is gone for good (the node whose memory it was has
// ended), or this session of the node is over. What is unanswered has the
// outcome o; but what was settled in a group that is gone is settled.
func (b *outbox) end(o mq.Outcome) {
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return
	}
	b.ended = true
	all := append(b.window, sentBatch{batch: b.batch})
	lined := b.endLarge()
	b.window, b.batch, b.owed = nil, batch{}, 0
	if b.looks != nil {
		b.looks.Stop()
	}
	b.room.Broadcast()
	b.mu.Unlock()
	settled := o
	if o == mq.Gone {
		settled = mq.Confirmed
	}
	for i := range all {
		tell(all[i].settleWait, settled)
		tell(all[i].messageWait, o)
	}
	tell(lined, o)
}
