package dispatch

import "warren/mq"

// What leaves a queue by the leader's own decision, because it has expired or
// is one too many, or because it was rejected and goes to another queue first,
// is withdrawn: checked out to the leader itself until it is settled. No
// consumer gets it any more, and no session's end or resume brings it back.

// leaderKey is the leader itself. Sessions count from 1, so nobody else has it.
func leaderKey() Key { return Key{} }

// First returns the ready seq that comes first, the head of the queue. It
// stays ready.
func (q *Queue) First(live Live) (seq mq.Seq, ok bool) {
	if q.sorted() {
		seq, _, ok = q.FirstFrom(live, 0)
		return seq, ok
	}
	q.trimReturns(&q.returns, live)
	fresh, any := q.fresh(live)
	if len(q.returns) > 0 && (!any || q.returns[0] < fresh) {
		return q.returns[0], true
	}
	return fresh, any
}

// Withdraw takes a live seq from whoever has it and checks it out to the
// leader. If that was a consumer, its prefetch credit is free.
func (q *Queue) Withdraw(seq mq.Seq) {
	s := q.out.get(seq)
	if by, held := s.held(); held {
		if q.holders[by].Key == leaderKey() {
			return
		}
		q.checkIn(s)
	} else {
		q.leaveOut(s)
	}
	q.checkOut(seq, q.holder(leaderKey()), true)
}

// WithdrawFrom withdraws what k holds of seqs and has not settled, and calls
// each with it.
func (q *Queue) WithdrawFrom(k Key, seqs []mq.Seq, each func(mq.Seq)) {
	i, ok := q.byKey[k]
	if !ok {
		return
	}
	for _, seq := range seqs {
		// Without settling: what is on its way out needs no second decision.
		// With its last seq the holder itself may go, and then nothing is its.
		if q.out.get(seq) == holders+slot(i) {
			q.Withdraw(seq)
			each(seq)
		}
	}
}

// WithdrawAll withdraws all that k holds and has not settled, and calls each
// with it.
func (q *Queue) WithdrawAll(k Key, each func(mq.Seq)) {
	i, ok := q.byKey[k]
	if !ok {
		return
	}
	var seqs []mq.Seq
	q.eachOf(i, func(seq mq.Seq, s slot) {
		if s&settling == 0 {
			seqs = append(seqs, seq)
		}
	})
	q.WithdrawFrom(k, seqs, each)
}

// Restore makes what was withdrawn or deferred ready again, at its place and
// redelivered.
func (q *Queue) Restore(seq mq.Seq) {
	s := q.out.get(seq)
	if s == deferred {
		q.nDeferred--
		q.makeReady(seq)
	} else if i, held := s.held(); held && q.holders[i].Key == leaderKey() {
		q.giveBack(seq, s)
	}
}

// Defer makes a live seq that is ready, or withdrawn, nobody's: it is not ready
// and not checked out until Restore, or until somebody's claim to it.
func (q *Queue) Defer(seq mq.Seq) {
	s := q.out.get(seq)
	i, held := s.held()
	switch {
	case s == deferred, held && q.holders[i].Key != leaderKey():
		return
	case held:
		q.checkIn(s)
		q.forgetTime(seq)
	default:
		q.leaveOut(s)
	}
	q.out.set(seq, deferred)
	q.nDeferred++
}

// Deferred is how many seqs are deferred.
func (q *Queue) Deferred() int { return q.nDeferred }

// IsDeferred reports whether seq is deferred.
func (q *Queue) IsDeferred(seq mq.Seq) bool { return q.out.get(seq) == deferred }

// Withdrawn is how many seqs are checked out to the leader itself.
func (q *Queue) Withdrawn() int {
	if i, ok := q.byKey[leaderKey()]; ok {
		return q.holders[i].held
	}
	return 0
}

// Able reports whether there is a consumer that would get the next message.
func (q *Queue) Able() bool { return q.turn() != nobody }

// Credit is how many messages the consumers would take if they were ready.
func (q *Queue) Credit() (n int) {
	if q.turn() == nobody {
		return 0
	}
	if q.singleActive {
		return q.holders[q.active].credit()
	}
	for i := range q.holders {
		if h := &q.holders[i]; h.queued {
			n += h.credit()
		}
	}
	return n
}
