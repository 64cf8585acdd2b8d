package broker

import (
	"warren/mq"
	"warren/storage/segment"
)

// Dead letters stand in a line for each queue, so that those of one queue go in
// the order in which they left it, and none waits for a message of another
// queue that has to come from disk.

const (
	// lettersTurn is how many letters of one line are taken before the next
	// line has its turn.
	lettersTurn = 16
	// lettersNear is how close to the last letter of its queue one is that comes
	// with the messages around it. Others are read by themselves.
	lettersNear = 64
	// lettersAhead is how many letters of a line may be read before their turn,
	// if all that are read so are about lettersAheadBytes at most.
	lettersAhead      = 64
	lettersAheadBytes = 2 << 20
)

// lines are the letters that wait for their turn. Guarded by Shard.mu.
type lines struct {
	of    map[mq.QueueID]*line // none is empty
	turns []*line              // to be looked at
	bytes int                  // about; of what is read by itself
}

// line are the letters of one queue. It is looked at in turn, unless it waits
// for its first letter's message.
type line struct {
	id      mq.QueueID
	letters []letter
	waiting bool // in lines.turns
	reads   map[mq.Seq]*letterRead
}

// letterRead is a message that is read from disk by itself.
type letterRead struct {
	record segment.Record
	here   bool
	bytes  int // as counted in lines.bytes
}

// add puts letters of one queue at the end of its line, or at its front.
func (ls *lines) add(first bool, xs ...letter) {
	ln := ls.of[xs[0].id]
	if ln == nil {
		ln = &line{id: xs[0].id}
		ls.of[ln.id] = ln
	}
	switch {
	case len(ln.letters) == 0 || first:
		ln.letters = append(xs, ln.letters...)
		ls.look(ln.id)
	default:
		ln.letters = append(ln.letters, xs...)
	}
}

// look gives the line of a queue its turn, if there is one.
func (ls *lines) look(id mq.QueueID) {
	if ln := ls.of[id]; ln != nil && !ln.waiting {
		ln.waiting = true
		ls.turns = append(ls.turns, ln)
	}
}

// next is the line whose turn it is, nil if it is nobody's.
func (ls *lines) next() *line {
	if len(ls.turns) == 0 {
		return nil
	}
	ln := ls.turns[0]
	ls.turns[0] = nil
	if ls.turns = ls.turns[1:]; len(ls.turns) == 0 {
		ls.turns = nil
	}
	ln.waiting = false
	return ln
}

// pop takes the first letter off a line.
func (ls *lines) pop(ln *line) {
	x := &ln.letters[0]
	if r := ln.reads[x.seq]; r != nil {
		ls.bytes -= r.bytes
		delete(ln.reads, x.seq)
	}
	*x = letter{}
	if ln.letters = ln.letters[1:]; len(ln.letters) == 0 {
		delete(ls.of, ln.id)
	}
}

// takeFrom takes letters of one line into batch, until its turn is over. Runs
// with mu held.
func (s *Shard) takeFrom(l *lead, f *flights, ln *line, batch []letter) []letter {
	d := l.letters
	for n := 0; len(ln.letters) > 0; n++ {
		if n == lettersTurn || len(batch) == lettersBatch || !d.room(f) {
			d.lines.look(ln.id)
			return batch
		}
		x := ln.letters[0]
		ok := l.queues[x.id] != nil
		if ok {
			var wait bool
			if x.record, ok, wait = s.letterRecord(l, ln, &x); wait {
				return batch // it has another turn when the message has come
			}
		}
		d.lines.pop(ln)
		if !ok { // gone, with its queue
			f.done(&x)
			continue
		}
		f.last++
		x.tag, x.term = f.last, l.term
		f.byTag[x.tag] = x
		f.bytes += len(x.record.Body)
		batch = append(batch, x)
	}
	return batch
}

// letterRecord is the message of the first letter in a line, and whether it is
// there. If it is on disk, it is asked for, with those that come next: wait.
func (s *Shard) letterRecord(l *lead, ln *line, x *letter) (r segment.Record, ok, wait bool) {
	if read := ln.reads[x.seq]; read != nil {
		if read.here {
			return read.record, true, false
		}
		s.readLetters(l, ln)
		return r, false, true
	}
	if r, ok = s.bodies.Get(uint64(x.id), uint64(x.seq)); ok {
		return r, true, false
	}
	if _, away := s.bodies.Away(uint64(x.id), uint64(x.seq)); !away {
		return r, false, false
	}
	if x.near {
		return r, false, !s.bodies.Here(uint64(x.id), uint64(x.seq)) // Arrived gives the line its turn
	}
	s.readLetters(l, ln)
	return r, false, true
}

// readLetters has the messages of the first letters in a line read that stand
// alone in their queue. The very first is read in any case.
func (s *Shard) readLetters(l *lead, ln *line) {
	ls := &l.letters.lines
	for i := range ln.letters[:min(len(ln.letters), lettersAhead)] {
		x := &ln.letters[i]
		if i > 0 && (x.near || ls.bytes >= lettersAheadBytes) {
			return
		}
		if ln.reads[x.seq] != nil {
			continue
		}
		bytes, away := s.bodies.Away(uint64(x.id), uint64(x.seq))
		if !away {
			continue
		}
		if ln.reads == nil {
			ln.reads = map[mq.Seq]*letterRead{}
		}
		read := &letterRead{bytes: bytes}
		ln.reads[x.seq] = read
		ls.bytes += bytes
		s.bodies.Fetch(uint64(x.id), uint64(x.seq), func(r segment.Record) { s.letterCame(l, ln, read, r) })
	}
}

// letterCame takes in a message that was read for a letter. Runs with mu held.
func (s *Shard) letterCame(l *lead, ln *line, read *letterRead, r segment.Record) {
	if s.lead != l {
		return
	}
	read.record, read.here = r, true
	if len(ln.letters) > 0 && ln.reads[ln.letters[0].seq] == read {
		l.letters.lines.look(ln.id)
		l.letters.wake()
	}
}
