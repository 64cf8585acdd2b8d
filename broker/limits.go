package broker

import (
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// rules are what a queue's arguments and policies say of how messages leave it without
// being consumed.
type rules struct {
	maxLength, maxBytes int64 // of ready messages, and of their bodies; negative means no limit
	refuse              bool  // a message that would be one too many is refused, instead of the head dropped
	bury                bool  // and goes to the dead-letter exchange
	deadLetter          bool  // there is a dead-letter exchange
	expiresMs           int64 // how long nobody may use the queue; negative means for ever
	deliveries          int64 // x-delivery-limit: attempts that may fail; negative means any number
	retry               retry // which messages that come back have to wait
}

func rulesOf(q *meta.Queue) rules {
	r := rules{maxLength: limit(q, "x-max-length"), maxBytes: limit(q, "x-max-length-bytes")}
	_, r.deadLetter = q.Effective().String(deadLetterExchange)
	r.deadLetter = r.deadLetter || q.Keeper == meta.KeepsDelayed // what is due goes the same way
	r.expiresMs = queueExpires(q)
	r.deliveries = deliveryLimit(q)
	r.retry = retryOf(q)
	r.refuse, r.bury = refuses(q)
	r.bury = r.bury && r.deadLetter
	return r
}

// refuses reports whether a queue that is full refuses what comes, and whether
// that goes to the dead-letter exchange.
func refuses(q *meta.Queue) (refuse, bury bool) {
	overflow, _ := q.Effective().String("x-overflow")
	if overflow != "reject-publish" && overflow != "reject-publish-dlx" {
		return false, false
	}
	refuse = limit(q, "x-max-length") >= 0 || limit(q, "x-max-length-bytes") >= 0
	return refuse, refuse && overflow == "reject-publish-dlx"
}

// limited reports whether the queue has a length limit.
func (r rules) limited() bool { return r.maxLength >= 0 || r.maxBytes >= 0 }

// dropsHead reports whether messages leave the queue because of its limit.
func (r rules) dropsHead() bool { return r.limited() && !r.refuse }

// limit is a number that a queue works by; negative means that there is none.
func limit(q *meta.Queue, key string) int64 {
	if n, ok := q.Effective().Int(key); ok {
		return n
	}
	return -1
}

// excess is by how much a queue is over its limits.
type excess struct{ messages, bytes int64 }

func (e excess) any() bool { return e.messages > 0 || e.bytes > 0 }

// less takes one message off.
func (e *excess) less(q *ledQueue, seq mq.Seq) {
	e.messages--
	if q.weights != nil {
		e.bytes -= q.weights.of(seq)
	}
}

// excess compares what is ready with the queue's limits, if its head is to be
// dropped. Runs with mu held.
func (s *Shard) excess(q *ledQueue, st *queue.Queue) (e excess) {
	if !q.rules.dropsHead() {
		return e
	}
	if q.rules.maxLength >= 0 {
		e.messages = int64(st.Count()) - int64(q.d.Unacked()) - q.rules.maxLength
	}
	if w := q.weights; w != nil && w.known && w.total > q.rules.maxBytes {
		e.bytes = q.readyBytes() - q.rules.maxBytes
	}
	return e
}

// readyBytes is the size of the bodies that are ready, of a queue with a limit
// in bytes; what is checked out does not count (RabbitMQ, "Queue Length
// Limit").
func (q *ledQueue) readyBytes() int64 {
	n := q.weights.total
	for _, seq := range q.d.HeldSeqs() {
		n -= q.weights.of(seq)
	}
	return n
}

// bodySize is the size of the body in a stored message.
func bodySize(content []byte) int64 { return int64(len(mq.Content(content).Body())) }
