package broker

import (
	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
)

// weights are the sizes of the bodies in a queue that has a limit in bytes. Its
// leader has to know them of what is on disk, too: 4 bytes for each message.
// Other queues have none.
type weights struct {
	blocks map[uint64]*weightBlock // by seq / weightSeqs
	last   mq.Seq                  // highest that was added
	total  int64
	known  bool // of all that was there when this leader began
}

const weightSeqs = 256

type weightBlock struct {
	bytes [weightSeqs]uint32 // and one more; 0 for a message that is not there
	live  int
}

// add notes a message; a second time changes nothing.
func (w *weights) add(seq mq.Seq, bytes int64) {
	number := uint64(seq) / weightSeqs
	b := w.blocks[number]
	if b == nil {
		b = new(weightBlock)
		w.blocks[number] = b
	}
	w.last = max(w.last, seq)
	if at := &b.bytes[seq%weightSeqs]; *at == 0 {
		*at = uint32(bytes) + 1
		b.live++
		w.total += bytes
	}
}

// of is the size of a message, 0 if it is not there.
func (w *weights) of(seq mq.Seq) int64 {
	b := w.blocks[uint64(seq)/weightSeqs]
	if b == nil {
		return 0
	}
	return max(0, int64(b.bytes[seq%weightSeqs])-1)
}

// remove forgets messages that are gone.
func (w *weights) remove(first, last mq.Seq) {
	last = min(last, w.last)
	for number := uint64(first) / weightSeqs; number <= uint64(last)/weightSeqs && len(w.blocks) > 0; number++ {
		b := w.blocks[number]
		if b == nil {
			continue
		}
		from, to := max(uint64(first), number*weightSeqs), min(uint64(last), number*weightSeqs+weightSeqs-1)
		for at := from % weightSeqs; at <= to%weightSeqs; at++ {
			if n := b.bytes[at]; n > 0 {
				w.total -= int64(n) - 1
				b.bytes[at] = 0
				b.live--
			}
		}
		if b.live == 0 {
			delete(w.blocks, number)
		}
	}
}

// BodySense is what leaders have to know of messages that are on disk.
func BodySense() segment.Sense { return segment.Sense{Weigh: bodyWeight, Flags: statesPriority} }

// bodyWeight is what a stored message counts for in a limit in bytes: the size
// of its body without its properties.
func bodyWeight(content []byte) uint32 { return uint32(bodySize(content)) }

// newWeights finds out the sizes of what is in a queue, nil if it has no limit
// in bytes. Until they are known, which takes a new leader a moment if some are
// on disk, no head is dropped for it, and what is not known yet makes nothing
// be refused.
func (s *Shard) newWeights(q *ledQueue) *weights {
	if q.rules.maxBytes < 0 {
		return nil
	}
	w := &weights{blocks: map[uint64]*weightBlock{}}
	s.scan(q, func(seq mq.Seq, r *segment.Record) {
		if r.Body == nil {
			w.add(seq, int64(r.Weight))
		} else {
			w.add(seq, int64(bodyWeight(r.Body)))
		}
	}, &w.known)
	return w
}

// weigh keeps the weights of the queues that have a limit in bytes. It runs
// when an entry's new bodies are kept.
func (l *lead) weigh(fx *queue.Effects) {
	for i := range fx.Enqueued {
		m := &fx.Enqueued[i]
		if q := l.queues[m.Queue]; q != nil && q.weights != nil {
			q.weights.add(m.Seq, int64(bodyWeight(m.Content)))
		}
	}
	for _, r := range fx.Settled {
		if q := l.queues[r.Queue]; q != nil && q.weights != nil {
			q.weights.remove(r.First, r.Last)
		}
	}
}
