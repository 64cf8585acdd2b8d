package broker

import (
	"slices"
	"time"

	"warren/fsm/queue"
)

// Bounds of a proposer.
const (
	// entryBytes is how large an entry grows before the next one is begun.
	entryBytes = 256 << 10
	// entriesBusy is how many entries are in flight: while they are, all that
	// arrives gathers into the next one.
	entriesBusy = 2
	// settleWait is how long settlements alone wait for company, unless they are
	// those of a transaction. Nobody else waits for their commit (the credit is
	// given back before it), and together with an enqueue they cost no entry and
	// no fsync of their own.
	settleWait = 5 * time.Millisecond
	// refusalBytes is about how much a refusal adds to an entry.
	refusalBytes = 2
	// settleCrowd is how many batches of settlements are company enough.
	settleCrowd = 16
	// proposeRetry is how long a leader waits after a refused proposal: a
	// leadership that is being handed over refuses all, and at once.
	proposeRetry = 10 * time.Millisecond
)

// proposer makes entries of what a leading shard has to commit. Its fields
// are guarded by Shard.mu; its goroutine lives from Lead to Follow.
type proposer struct {
	parts    []part
	urgent   int       // how many of them somebody waits for
	since    time.Time // when the oldest of the others came; zero if there is none
	inFlight int
	refused  bool          // nothing is proposed until proposeRetry is over
	again    []part        // the leader's own of what was refused
	kick     chan struct{} // cap 1: there may be something to propose
	done     chan struct{}
}

// part is one deduped batch of a node, or one part of the leader's own.
type part struct {
	origin queue.Origin
	ops    []byte
	// refusable: some of its messages may be refused; refusals are those that are.
	refusable bool
	refusals  []queue.Refusal

	own  bool
	idle bool // settlements only: nobody waits for them
	last bool // nothing may follow in its entry: it deletes a queue, and one entry has no order between that and an enqueue
}

func (p *proposer) init(s *Shard, l *lead) {
	p.kick, p.done = make(chan struct{}, 1), make(chan struct{})
	go p.run(s, l) // ends at stop; a Propose that it waits in is bounded by the log
}

func (p *proposer) stop() { close(p.done) }

// add queues a part. Runs with mu held.
func (p *proposer) add(x part) {
	p.parts = append(p.parts, x)
	switch {
	case !x.idle:
		p.urgent++
		p.wake()
	case p.since.IsZero():
		p.waitForCompany()
	case len(p.parts) >= settleCrowd:
		p.wake()
	}
}

// waits reports whether a node's batch is here and in no entry yet. Runs with
// mu held.
func (p *proposer) waits(o queue.Origin) bool {
	for i := range p.parts {
		if x := &p.parts[i]; x.origin == o && !x.own {
			return true
		}
	}
	return false
}

// waitForCompany begins the wait of settlements. Runs with mu held.
func (p *proposer) waitForCompany() {
	p.since = time.Now()
	time.AfterFunc(settleWait, p.wake)
}

func (p *proposer) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *proposer) run(s *Shard, l *lead) {
	for {
		select {
		case <-p.kick:
		case <-p.done:
			return
		}
		for {
			entry, own := p.next(s, l)
			if entry == nil {
				break
			}
			s.log.Propose(entry, func(_ any, err error) { p.proposed(s, l, own, err) })
		}
	}
}

// next builds one entry of what has gathered, unless enough is in flight. own
// are the leader's own parts in it.
func (p *proposer) next(s *Shard, l *lead) (entry []byte, own []part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l || p.refused || p.inFlight >= entriesBusy || len(p.parts) == 0 {
		return nil, nil
	}
	if p.urgent == 0 && len(p.parts) < settleCrowd && time.Since(p.since) < settleWait {
		return nil, nil
	}
	n, size := 0, 0
	for n < len(p.parts) && (n == 0 || size+len(p.parts[n].ops) <= entryBytes) {
		size += len(p.parts[n].ops) + 40 + refusalBytes*len(p.parts[n].refusals)
		if n++; p.parts[n-1].last {
			break
		}
	}
	// The term makes decisions of this leader void in any other term: an entry
	// can wait inside Raft while leadership is lost and won again.
	entry = queue.AppendEntry(make([]byte, 0, size+32), l.term, s.nowMs())
	for i := range p.parts[:n] {
		x := &p.parts[i]
		if !x.idle {
			p.urgent--
		}
		switch {
		case x.own:
			entry = append(entry, x.ops...)
			own = append(own, *x)
		case len(x.refusals) > 0:
			entry = queue.AppendRefusing(entry, x.origin, x.refusals, x.ops)
		default:
			entry = queue.AppendBatch(entry, x.origin, x.ops)
		}
	}
	rest := copy(p.parts, p.parts[n:])
	clear(p.parts[rest:])
	p.parts = p.parts[:rest]
	p.since = time.Time{}
	if rest > p.urgent {
		p.waitForCompany()
	}
	p.inFlight++
	return entry, own
}

// proposed hears what became of an entry.
func (p *proposer) proposed(s *Shard, l *lead, own []part, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l {
		return
	}
	p.inFlight--
	if err != nil {
		if !p.refused {
			s.slog.Warn("proposal failed, asking the nodes to send again", "term", l.term, "err", err)
		}
		p.refused = true
		p.again = append(p.again, own...)
	}
	switch {
	case p.refused && p.inFlight == 0:
		time.AfterFunc(proposeRetry, func() { p.retry(s, l) })
	case len(p.parts) > 0:
		p.wake()
	}
}

// retry goes on after a refusal whose outcome is unknown: the nodes send their
// batches again (numbered, so that twice is once), and the leader its own
// parts, each of which may be applied twice.
func (p *proposer) retry(s *Shard, l *lead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead != l {
		return
	}
	// What waits here of the nodes comes once more: two copies would become four.
	own := slices.DeleteFunc(p.parts, func(x part) bool { return !x.own })
	p.parts = append(p.again, own...)
	for i := range p.parts {
		p.parts[i].idle = false
	}
	p.urgent, p.since = len(p.parts), time.Time{}
	p.again, p.refused = nil, false
	l.early = nil
	l.dischargeAll()
	s.askAgain()
	p.wake()
}
