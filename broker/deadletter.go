package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"warren/fsm/meta"
	"warren/mq"
	"warren/storage/segment"
)

// Dead letters are handed over once. The leader withdraws the message
// from its queue, publishes it to the dead-letter exchange through the
// outboxes of its own node, and only when every queue that it reaches has it
// committed does it propose to drop the original. A leader that ends in
// between takes its knowledge of the withdrawal with it: the message is in its
// queue again, and is handed out, or expires, once more; the queues that have its
// letter already remember that (letter.window).

// Bounds of what is on its way to dead-letter exchanges from one group. The
// rest waits as names of messages that are still in their queues.
const (
	lettersBusy      = 512
	lettersBusyBytes = 4 << 20
	// lettersBatch is how many are looked up at once, which is done while
	// nothing else happens in the group.
	lettersBatch = 64
	// lettersRetry is how long a letter waits that could not be delivered
	// because a node had just ended or no metadata leader answered, or for the
	// first time because a queue was full.
	lettersRetry = 200 * time.Millisecond
)

// letter is a message that leaves its queue for the dead-letter exchange.
type letter struct {
	id     mq.QueueID
	seq    mq.Seq
	why    reason
	near   bool // the letter that left the queue before it was of a message close by
	queue  *meta.Queue
	term   uint64         // of the leader that sends it
	record segment.Record // set when its turn has come
	tag    uint64         // of its confirm
	// owed are those of its queues that have not got it, if others have.
	owed  []mq.QueueID
	tries uint // how often a full queue refused it
}

// deadLetters is a leading shard's way to the dead-letter exchanges. Its
// goroutine lives from the first dead letter to Follow.
type deadLetters struct {
	kick  chan struct{} // cap 1: there is something to do
	stop  context.CancelFunc
	lines lines // guarded by Shard.mu
	// gone are letters that need not be sent again and whose originals are still
	// there: dropping them is not committed yet. Guarded by Shard.mu.
	gone map[place]struct{}

	mu      sync.Mutex
	answers []lettersAnswer // guarded by mu; at most lettersBusy
}

type lettersAnswer struct {
	tag     uint64
	outcome mq.Outcome
	owed    []mq.QueueID
}

// leave takes a message out of its queue by the leader's decision: to the
// dead-letter exchange if there is one, and else for good. Runs with mu held;
// the caller ends with settleDropped.
func (s *Shard) leave(q *ledQueue, seq mq.Seq, why reason) {
	switch why {
	case timedOut:
		s.stats.Expired++
	case tooMany:
		s.stats.Overflowed++
	}
	q.d.Withdraw(seq)
	if !q.rules.deadLetter {
		q.drop(seq)
		return
	}
	l := s.lead
	if l.letters == nil {
		ctx, stop := context.WithCancel(context.Background())
		l.letters = &deadLetters{
			kick: make(chan struct{}, 1), stop: stop, lines: lines{of: map[mq.QueueID]*line{}}, gone: map[place]struct{}{},
		}
		go l.letters.run(ctx, s, l) // ends at Follow
	}
	near := max(seq, q.lastLetter)-min(seq, q.lastLetter) <= lettersNear
	q.lastLetter = seq
	l.letters.lines.add(false, letter{id: q.id, seq: seq, why: why, near: near, queue: q.rec})
	l.letters.wake()
}

func (d *deadLetters) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Confirm hears that a letter has arrived, or may not have.
func (d *deadLetters) Confirm(tag uint64, o mq.Outcome) {
	d.hear(lettersAnswer{tag: tag, outcome: o})
}

func (d *deadLetters) hear(a lettersAnswer) {
	d.mu.Lock()
	d.answers = append(d.answers, a)
	d.mu.Unlock()
	d.wake()
}

// flights are the letters that await their confirms. They belong to the
// goroutine of deadLetters.
type flights struct {
	byTag   map[uint64]letter
	last    uint64 // tag
	oldest  uint64 // none in flight has a lower tag
	bytes   int
	refused int  // letters, in flight or not, that a full queue has refused
	lossy   bool // some were dropped since refused was 0
}

func (d *deadLetters) run(ctx context.Context, s *Shard, l *lead) {
	f := flights{byTag: map[uint64]letter{}}
	for {
		select {
		case <-d.kick:
		case <-ctx.Done():
			return
		}
		d.answered(s, l, &f)
		for {
			batch := s.takeLetters(l, &f)
			if len(batch) == 0 {
				break
			}
			d.forward(ctx, s, l, &f, batch)
		}
	}
}

// answered ends the flights whose confirms have come in.
func (d *deadLetters) answered(s *Shard, l *lead, f *flights) {
	d.mu.Lock()
	answers := d.answers
	d.answers = nil
	d.mu.Unlock()
	var arrived, again, refused []letter
	for _, a := range answers {
		x := f.land(a.tag)
		if len(a.owed) > 0 {
			x.owed = a.owed
		}
		switch a.outcome {
		case mq.Confirmed:
			f.done(&x)
			arrived = append(arrived, x)
		case mq.Refused:
			refused = append(refused, x)
		default:
			again = append(again, x) // the node that held one of its queues has ended
		}
	}
	s.lettersGone(l, arrived, len(arrived))
	s.lettersLater(l, again, lettersRetry)
	s.lettersRefused(l, f, refused)
}

// land takes a letter off what is in flight.
func (f *flights) land(tag uint64) letter {
	x := f.byTag[tag]
	delete(f.byTag, tag)
	f.bytes -= len(x.record.Body)
	x.record = segment.Record{}
	return x
}

// forward sends a batch. That a letter reaches no queue counts only if a View
// says so that is certainly new enough.
func (d *deadLetters) forward(ctx context.Context, s *Shard, l *lead, f *flights, batch []letter) {
	nowhere := s.topics.Forward(batch, d)
	if len(nowhere) == 0 {
		return
	}
	err := s.topics.ReadIndex(ctx)
	if err == nil {
		nowhere = s.topics.Forward(nowhere, d)
	}
	for i := range nowhere {
		nowhere[i] = f.land(nowhere[i].tag)
	}
	if err != nil {
		s.lettersLater(l, nowhere, lettersRetry)
		return
	}
	for i := range nowhere {
		f.done(&nowhere[i])
	}
	s.lettersGone(l, nowhere, 0)
}

// takeLetters takes the next letters that may be sent. Those whose messages
// have gone meanwhile, with their queues, are forgotten.
func (s *Shard) takeLetters(l *lead, f *flights) (batch []letter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l {
		return nil
	}
	for d := l.letters; len(batch) < lettersBatch && d.room(f); {
		ln := d.lines.next()
		if ln == nil {
			break
		}
		batch = s.takeFrom(l, f, ln, batch)
	}
	return batch
}

// lettersGone drops the originals of letters that need not be sent again.
func (s *Shard) lettersGone(l *lead, gone []letter, arrived int) {
	if len(gone) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.DeadLettered += uint64(arrived)
	if s.lead != l {
		return // sent again by whoever leads now
	}
	for _, x := range gone {
		st := s.state.Queue(x.id)
		if q := l.queues[x.id]; q != nil && st != nil && st.Live(x.seq) { // not settled by somebody else meanwhile
			q.drop(x.seq)
			l.letters.gone[place{x.id, x.seq}] = struct{}{}
		}
	}
	for _, x := range gone {
		if q := l.queues[x.id]; q != nil {
			s.settleDropped(q) // does nothing the second time
		}
	}
}

// lettersLater puts letters back to be sent again after a while, in front of
// those that have not been, unless they may have to wait for long.
func (s *Shard) lettersLater(l *lead, again []letter, wait time.Duration) {
	if len(again) == 0 {
		return
	}
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lead != l {
			return
		}
		first := again[0].tries == 0
		if first {
			slices.Reverse(again) // one after the other to the front
		}
		for _, x := range again {
			l.letters.lines.add(first, x)
		}
		l.letters.wake()
	})
}

// deadLetters reports whether a queue has a dead-letter exchange.
func (b *Broker) deadLetters(id mq.QueueID) bool {
	q := b.View().QueueByID(id)
	return q != nil && rulesOf(q).deadLetter
}

// Forward publishes dead letters, each to all queues that it reaches from its
// dead-letter exchange, and returns those that reach none: the exchange is not
// there, nothing is bound, or the letter would go round for ever.
func (b *Broker) Forward(letters []letter, to *deadLetters) (nowhere []letter) {
	v := b.View()
	var touched []*outbox
	for i := range letters {
		x := &letters[i]
		dead, err := b.burial(x)
		var targets []target
		if err == nil {
			targets, err = dead.destinations(b, v, x.queue)
			targets = x.aims(v, &dead, targets)
		}
		if err != nil {
			b.slog.Error("dead letter dropped", "vhost", x.queue.VHost, "queue", x.queue.Name, "err", err)
		}
		if len(targets) == 0 || err != nil {
			nowhere = append(nowhere, *x)
			continue
		}
		w := waiter{confirm: to, tag: x.tag}
		if len(targets) > 1 {
			w = waiter{confirm: &posting{to: to, letter: x.tag, targets: targets, left: len(targets)}}
		}
		m := dead.outgoing(x.record.Priority)
		m.windows, m.nowMs = x.window(levelOf(v)), b.nowMs()
		for j := range targets {
			if len(targets) > 1 {
				w.tag = uint64(j)
			}
			touched = b.forward(&targets[j], &m, w, touched)
		}
	}
	for _, o := range touched {
		o.flush()
	}
	return nowhere
}

// burial is a letter as it goes on.
func (b *Broker) burial(x *letter) (burial, error) {
	if x.why == delayOver {
		return undelay(x.queue, x.record.Flags, mq.Content(x.record.Body))
	}
	return bury(x.queue, x.why, x.record.Flags, mq.Content(x.record.Body), b.nowMs())
}

// forward puts a dead letter into one outbox, and that to touched.
func (b *Broker) forward(t *target, m *outgoing, w waiter, touched []*outbox) []*outbox {
	o, err := b.outbox(t.group)
	if err == nil {
		err = o.forward(t, m, m.expiry(t, b.nowMs), w)
	}
	if err != nil { // the node that held these queues has ended, and they with it
		w.confirm.Confirm(w.tag, mq.Gone)
		return touched
	}
	for _, known := range touched {
		if known == o {
			return touched
		}
	}
	return append(touched, o)
}
