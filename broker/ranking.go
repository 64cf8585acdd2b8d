package broker

import (
	"warren/broker/dispatch"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

const (
	// priorityMax is the highest x-max-priority.
	priorityMax = 255
	// What a queue of type quorum has without asking for it (RabbitMQ 4.3,
	// "Priority Support in Queues"): the priorities 0 to 31, and 4 for messages
	// that state none.
	quorumPriorityMax   = 31
	quorumPriorityUsual = 4
)

// statesPriority is the bit of a stored message's flags that says that its
// properties have a priority, which may be 0. No replica acts on it but a
// leader, in memory: entries without it, of a version that did not set it,
// are read as they were, as stating a priority if that is not 0.
const statesPriority uint8 = 4

// priorityFlag looks for the priority in a message's property flags: bit 11
// of the first word (AMQP 0-9-1 §4.2.6.1).
func priorityFlag(c mq.Content) uint8 {
	if p := c.Properties(); len(p) > 0 && p[0]&0x08 != 0 {
		return statesPriority
	}
	return 0
}

// hasPriority reports whether a stored message states a priority.
func hasPriority(flags, priority uint8) bool { return flags&statesPriority != 0 || priority != 0 }

// ranking is what a queue's arguments say of priorities.
type ranking struct {
	max   uint8 // the highest priority; 0 if all messages are alike
	usual uint8 // of messages that state none
}

func rankingOf(q *meta.Queue) ranking {
	if n, ok := q.Args.Int("x-max-priority"); ok {
		return ranking{max: uint8(min(max(n, 0), priorityMax))}
	}
	if kind, _ := q.Args.String("x-queue-type"); kind == "quorum" {
		return ranking{quorumPriorityMax, quorumPriorityUsual}
	}
	return ranking{}
}

// rank is a message's rank in dispatch: how far its priority is from the highest.
func (r ranking) rank(flags, priority uint8) uint8 {
	if !hasPriority(flags, priority) {
		priority = r.usual
	}
	return r.max - min(priority, r.max)
}

// dispatcher makes the dispatcher of a queue.
func (s *Shard) dispatcher(q *ledQueue) *dispatch.Queue {
	if q.ranking.max == 0 {
		return dispatch.New(singleActive(q.rec))
	}
	usual := q.ranking.rank(0, 0)
	return dispatch.NewRanked(singleActive(q.rec), dispatch.Ranks{
		N: int(q.ranking.max) + 1, Usual: usual,
		Of: func(seq mq.Seq) uint8 {
			if flags, priority, ok := s.bodies.Mark(uint64(q.id), uint64(seq)); ok {
				return q.ranking.rank(flags, priority)
			}
			return usual // gone, so it is never looked for
		},
	})
}

// rankAll tells the dispatcher of a new leader the rank of every message. A
// queue that none has stated a priority in is not looked through.
func (s *Shard) rankAll(q *ledQueue, st *queue.Queue) {
	if q.ranking.max == 0 {
		return
	}
	if s.prioritized[q.id] {
		for seq, ok := st.Next(1); ok; seq, ok = st.Next(seq + 1) {
			flags, priority, _ := s.bodies.Mark(uint64(q.id), uint64(seq))
			q.d.Enqueued(seq, q.ranking.rank(flags, priority))
		}
	}
	q.d.Enqueued(st.Last(), q.ranking.rank(0, 0)) // all up to here, if none was named
}
