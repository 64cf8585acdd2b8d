package broker

import (
	"time"

	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/internal/fields"
	"warren/mq"
)

// resumeWait is how long a new leader waits for the nodes to say what their
// clients hold before it hands out again what nobody has claimed.
const resumeWait = 2 * time.Second

// lead is what a shard knows only while it leads: consumers, what is checked
// out, proposals. It is made new for every term and thrown away after it;
// nothing in it is a promise to anybody. All of it is guarded by Shard.mu.
type lead struct {
	term   uint64
	began  time.Time
	opened bool // every live node has resumed, or resumeWait is over
	// awaiting are the nodes that have not resumed yet.
	awaiting map[mq.NodeID]bool
	// announced are the nodes that were told of this leader since their
	// connection came up. A second time would do harm: a node answers with what
	// it holds, without the deliveries that are on their way to it.
	announced map[mq.NodeID]bool
	homes     map[mq.NodeID]mq.SessionID // nodes that have resumed, by session
	nodeOf    map[mq.SessionID]mq.NodeID // and back: where deliveries go
	origins   map[uint32]mq.NodeID       // node numbers seen in batches
	queues    map[mq.QueueID]*ledQueue
	dirty     []*ledQueue // queues that dispatch has to look at
	retrying  bool        // a timer will look again
	proposer  proposer
	results   map[mq.NodeID][]byte // answers gathered over one Apply
	frames    map[mq.NodeID][]byte // deliveries gathered over one dispatch
	purges    map[uint64]asked     // by token
	// farewells are for who ended the last consumer of an auto-delete queue, and
	// waits for its deletion.
	farewells map[mq.QueueID][]asked
	removals  map[uint64]*removal // by token
	tokens    uint64
	heldUp    int // queues that are, for their removals
	// heldBatches are the batches that wait for that, by node and in order.
	heldBatches map[mq.NodeID][]heldBatch
	expiries    expiries
	letters     *deadLetters // nil until something is dead-lettered

	admissions uint64                      // how many there have been
	admitted   map[queue.Origin][]admitted // into queues that refuse, and not applied yet
	early      []part                      // batches that wait until opened, in order
}

// ledQueue is one queue under its leader.
type ledQueue struct {
	id       mq.QueueID
	rec      *meta.Queue
	d        *dispatch.Queue
	rules    rules
	ranking  ranking
	asked    mq.Seq // delivered high-water mark proposed so far
	gets     []getRequest
	dirty    bool
	left     bool       // an auto-delete queue that consumers have left since one came
	unused   bool       // it is being deleted, for that or by a client with a condition
	heldUp   bool       // no message may come in: see removal
	dropped  []seqRange // handed out without ack, expired or too many: to be settled by the leader
	weights  *weights   // nil if the queue has no limit in bytes
	admitted admitted   // and not applied yet; kept only if the queue refuses
	room     room       // scratch of decide
	// returning are messages whose return is not committed yet, and what it
	// makes of their counts; nil unless the queue counts.
	returning map[mq.Seq]queue.Returned
	// mayExpire is false only if no message in the queue has an expiry.
	mayExpire bool
	delays    *delaying // of a delayed exchange's messages; nil until they were looked at
	cancels   map[mq.Seq]asked
	listings  []listing // at most listingsMax
	unjudged  bool      // nobody has looked for what failed too often under an earlier leader
	waits     *waits    // messages that are held back before they are tried again; nil if none ever were
	retryMs   int64     // when the first of them is due
	headMs    int64     // when the head expires, if it is watched
	leaseMs   int64     // when a queue with x-expires has not been used for so long, while that runs
	used      bool      // it has had a consumer since leaseMs was set
	dueMs     int64     // the first of the three, while the queue is in expiries
	expiryAt  int       // its place there
	// lastLetter is the last message that left for the dead-letter exchange.
	lastLetter mq.Seq
	// shortest is the least patience of its consumers that have one, and overdue
	// is set while one of them may hold something. nil and 0 if none has.
	shortest uint32
	overdue  *time.Timer
}

type seqRange struct{ first, last mq.Seq }

// Lead makes this node the group's dispatcher in term. Every entry of earlier
// terms has been applied.
func (s *Shard) Lead(term uint64) {
	<-s.ready
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &lead{
		term: term, began: time.Now(), awaiting: map[mq.NodeID]bool{s.lane.Self(): true}, announced: map[mq.NodeID]bool{},
		homes: map[mq.NodeID]mq.SessionID{}, nodeOf: map[mq.SessionID]mq.NodeID{}, origins: map[uint32]mq.NodeID{},
		queues: map[mq.QueueID]*ledQueue{}, admitted: map[queue.Origin][]admitted{},
		results: map[mq.NodeID][]byte{}, frames: map[mq.NodeID][]byte{}, purges: map[uint64]asked{}, farewells: map[mq.QueueID][]asked{},
		removals: map[uint64]*removal{}, heldBatches: map[mq.NodeID][]heldBatch{},
	}
	s.lead, s.led = l, term
	l.proposer.init(s, l)
	for _, p := range s.lane.Peers() {
		l.awaiting[p] = true
	}
	for p := range l.awaiting {
		s.announce(p)
	}
	time.AfterFunc(resumeWait, func() { s.openAnyway(l) })
	s.slog.Info("leading", "term", term, "entries", s.applied)
}

// Follow ends this node's leadership.
func (s *Shard) Follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil {
		return
	}
	s.lead = nil
	l.proposer.stop()
	l.expiries.stop()
	if l.letters != nil {
		l.letters.stop()
	}
	for _, a := range l.purges {
		a.notLead()
	}
	for _, r := range l.removals {
		if !r.looked { // else it is answered when its outcome is known
			r.asked.notLead()
		}
	}
	for _, as := range l.farewells {
		for _, a := range as {
			a.notLead()
		}
	}
	for _, q := range l.queues {
		q.stopWatching()
		for _, g := range q.gets {
			g.asked.notLead()
		}
		for _, a := range q.cancels {
			a.notLead()
		}
		for i := range q.listings {
			q.listings[i].asked.notLead()
		}
	}
	s.slog.Info("no longer leading", "term", l.term)
}

// announce tells a node who leads. Runs with mu held.
func (s *Shard) announce(to mq.NodeID) {
	f := fields.AppendUint([]byte{frameLead}, uint64(s.group))
	s.lead.announced[to] = s.lane.Send(to, fields.AppendUint(f, s.lead.term))
}

// askAgain makes every node send again what is unanswered, which repairs
// whatever a failed proposal left unknown. It is no announcement: a node would
// answer that with what it holds, and deliveries that are on their way to it
// would not be listed and be handed out twice. Runs with mu held.
func (s *Shard) askAgain() {
	for _, p := range append(s.lane.Peers(), s.lane.Self()) {
		f := fields.AppendUint([]byte{frameAgain}, uint64(s.group))
		s.lane.Send(p, fields.AppendUint(f, s.lead.term))
	}
}

// peerUp hears that a node can be reached (again).
func (s *Shard) peerUp(id mq.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != nil && !s.lead.announced[id] {
		s.announce(id)
	}
}

// peerDown hears that the connection to a node is lost: its consumers get
// nothing until it has resumed, and keep what they hold until its session ends.
func (s *Shard) peerDown(id mq.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil {
		return
	}
	s.suspend(id)
	delete(l.announced, id)
	delete(l.results, id)
	delete(l.frames, id)
	delete(l.heldBatches, id) // sent again when it is back
	if l.awaiting[id] {
		delete(l.awaiting, id)
		s.openIfResumed()
	}
}

// openAnyway starts dispatch although somebody did not answer.
func (s *Shard) openAnyway(l *lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l || l.opened {
		return
	}
	s.slog.Warn("not all nodes said what their clients hold, dispatching without them", "term", l.term, "silent", len(l.awaiting))
	clear(l.awaiting)
	s.openIfResumed()
}

// openIfResumed starts dispatch when every node has resumed. Runs with mu held.
func (s *Shard) openIfResumed() {
	l := s.lead
	if l.opened || len(l.awaiting) > 0 {
		return
	}
	l.opened = true
	s.slog.Debug("dispatching", "term", l.term, "queues", len(l.queues))
	s.findDue()
	for _, q := range l.queues {
		l.touch(q)
		s.noticeUnused(q)
	}
	for _, x := range l.early {
		s.takeIn(x)
	}
	l.early = nil
	s.dispatch()
}

// touch puts a queue on the list that dispatch works off.
func (l *lead) touch(q *ledQueue) {
	if !q.dirty {
		q.dirty = true
		l.dirty = append(l.dirty, q)
	}
}

// queue returns the queue under its leader, made at its first use. Runs with
// mu held.
func (s *Shard) queue(rec *meta.Queue) *ledQueue {
	l := s.lead
	if q := l.queues[rec.ID]; q != nil {
		return q
	}
	q := &ledQueue{id: rec.ID, rec: rec, rules: rulesOf(rec), ranking: rankingOf(rec)}
	q.d = s.dispatcher(q)
	q.weights = s.newWeights(q)
	if st := s.state.Queue(rec.ID); st != nil {
		q.mayExpire = st.Count() > 0 // nobody has looked
		s.rankAll(q, st)
		// What an earlier leader may have handed out is told as redelivered.
		q.d.OpenAt(st.HighWater())
		q.asked = st.HighWater()
	}
	l.queues[rec.ID] = q
	if st := s.state.Queue(rec.ID); st != nil && st.Noted() {
		s.carryOut(q, st)
	}
	s.renew(q)
	return q
}

// applied takes over what one entry did. Runs with mu held.
func (l *lead) applied(s *Shard, fx *queue.Effects) {
	for i := range fx.Results {
		l.discharge(fx.Results[i].Origin)
		l.result(&fx.Results[i])
	}
	s.stats.Enqueued += uint64(len(fx.Enqueued))
	s.stats.Deduplicated += fx.Filtered
	for i := range fx.Enqueued {
		m := &fx.Enqueued[i]
		q := l.queues[m.Queue]
		if q == nil {
			rec := s.topics.View().QueueByID(m.Queue)
			if rec == nil {
				continue // deleted
			}
			q = s.queue(rec)
		}
		if m.ExpiryMs != 0 {
			q.mayExpire = true
		}
		if q.ranking.max > 0 {
			q.d.Enqueued(m.Seq, q.ranking.rank(m.Flags, m.Priority))
		}
		if q.delays != nil {
			q.delays.add(delayed{m.ExpiryMs, m.Seq})
		}
		if m.Buried {
			s.takeOut(q, m.Seq, tooMany)
		}
		l.touch(q)
	}
	for i := range fx.Settled {
		r := &fx.Settled[i]
		s.stats.Settled += uint64(r.Last-r.First) + 1
		if l.letters != nil {
			l.letters.settled(r.Queue, r.First, r.Last)
		}
		if q := l.queues[r.Queue]; q != nil {
			q.d.Settled(r.First, r.Last)
			q.forgetReturns(r.First, r.Last)
			q.cancelled(r.First, r.Last)
			l.touch(q)
		}
	}
	for i := range fx.Returned {
		l.cameBack(s, &fx.Returned[i])
	}
	for i := range fx.Reserved {
		if q := l.queues[fx.Reserved[i].Queue]; q != nil {
			l.touch(q)
		}
	}
	for _, p := range fx.Purged {
		if a, ok := l.purges[p.Token]; ok {
			delete(l.purges, p.Token)
			a.ok(fields.AppendUint(nil, p.Count))
		}
		if r, ok := l.removals[p.Token]; ok && !r.looked {
			s.removeNow(l, r)
		}
	}
	for _, id := range fx.Deleted {
		s.forgetQueue(id)
	}
}

// forgetQueue drops what the leader knows of a queue that is gone.
func (s *Shard) forgetQueue(id mq.QueueID) {
	q := s.lead.queues[id]
	if q == nil {
		return
	}
	delete(s.lead.queues, id)
	if d := s.lead.letters; d != nil {
		d.lines.look(id) // its letters go too
		d.wake()
	}
	s.lead.expiries.forget(q)
	q.stopWatching()
	for _, g := range q.gets {
		g.asked.fail(meta.NoQueue(q.rec.VHost, q.rec.Name))
	}
	for _, a := range q.cancels {
		a.fail(meta.NoExchange(q.rec.VHost, q.rec.Name))
	}
	for i := range q.listings {
		q.listings[i].asked.fail(meta.NoExchange(q.rec.VHost, q.rec.Name))
	}
	q.gets, q.cancels, q.listings = nil, nil, nil
}

// result gathers the answer to one batch for the node that sent it.
func (l *lead) result(r *queue.Result) {
	node, ok := l.origins[r.Origin.Node]
	if !ok {
		return // replayed from an earlier term; that node asks again
	}
	f := l.results[node]
	f = fields.AppendUint(f, uint64(r.Origin.Session))
	f = fields.AppendUint(f, r.Origin.Seq)
	if len(r.Refused) == 0 {
		f = append(f, byte(r.Code))
		l.results[node] = fields.AppendUint(f, r.Last)
		return
	}
	f = append(f, byte(r.Code)|someRefused)
	l.results[node] = queue.AppendRuns(fields.AppendUint(f, r.Last), r.Refused)
}

// sendResults answers the nodes whose batches this Apply committed.
func (l *lead) sendResults(s *Shard) {
	for node, r := range l.results {
		if len(r) == 0 {
			continue
		}
		f := make([]byte, 0, 24+len(r))
		f = fields.AppendUint(append(f, frameResults), uint64(s.group))
		f = fields.AppendUint(f, l.term)
		s.lane.Send(node, append(f, r...))
		l.results[node] = r[:0]
	}
}

// singleActive reports whether a queue was declared with a single active consumer.
func singleActive(q *meta.Queue) bool {
	v, _ := q.Args.Get("x-single-active-consumer")
	on, _ := v.(bool)
	return on
}
