package mq

// Delivery is a message on its way to a client.
type Delivery struct {
	Consumer    ConsumerID // the same for all that basic.get took on one Session
	Group       GroupID
	Queue       QueueID
	Seq         Seq
	Redelivered bool // false means: never handed out before (a promise)
	Content     Content
	// Remaining is how many ready messages the queue still had; only for basic.get.
	Remaining uint32
}

// Held names a delivery that a client has not settled yet.
type Held struct {
	Consumer ConsumerID
	Group    GroupID
	Queue    QueueID
	Seq      Seq
}

// Held names d for its settlement.
func (d *Delivery) Held() Held { return Held{d.Consumer, d.Group, d.Queue, d.Seq} }

// Verdict is what a client says of a delivery.
type Verdict uint8

const (
	Ack     Verdict = iota // processed: forget it
	Requeue                // back to its place in the queue (nack with requeue, recover)
	Discard                // nack or reject without requeue: dead-letter or drop it
	Fail                   // like Requeue, and counted as a failed attempt (reject with requeue, a closed channel)
)

// Settlement settles deliveries of one session.
type Settlement struct {
	Verdict Verdict
	Held    []Held // the broker does not keep the slice
	// Confirm, if set, is called with Tag once the settlement is committed; tx needs it.
	Confirm Confirmer
	Tag     uint64
}

// Publish is a message on its way in, with what the broker needs to know of it.
type Publish struct {
	Content    Content // the broker keeps it
	Mandatory  bool
	Persistent bool
	Priority   uint8
	// ExpirationMs is the message's own time to live; negative means none.
	ExpirationMs int64
	// Fault, if set, is what is wrong with the properties. It is answered once
	// the exchange is known to take messages from the publisher.
	Fault *Error
	// Confirm, if set, is called once with Tag and Confirmed, Rejected, Refused or Gone when
	// Session.Publish answered Pending, and never otherwise.
	Confirm Confirmer
	Tag     uint64
	// Waits, if set, is called before Session.Publish waits because a node is
	// short of memory or disk, with the reason; at most once for each publish.
	Waits func(reason string)
}

// Outcome is what became of a publish.
type Outcome uint8

const (
	Pending    Outcome = iota // routed; Confirm will be called
	Confirmed                 // kept by every queue that it was routed to, as DESIGN's first promise says; a direct reply: handed on
	Rejected                  // at least one queue did not take it: basic.nack
	Unroutable                // no queue; nothing will be called. Mandatory: return it. Otherwise it counts as confirmed
	Refused                   // at least one queue was full and did not take it: basic.nack
	Gone                      // all its queues ended with the node that held them: basic.nack
)

// Nacked reports whether the publisher has to hear that its message was not taken.
func (o Outcome) Nacked() bool { return o == Rejected || o == Refused || o == Gone }

// Confirmer hears of outcomes. Called from the broker's goroutines, any
// number at once; must not block and must not call the Session.
type Confirmer interface {
	Confirm(tag uint64, o Outcome)
}

// ConsumeSpec is what basic.consume asks for.
type ConsumeSpec struct {
	Queue     string
	NoAck     bool
	Exclusive bool
	Prefetch  uint32 // unsettled deliveries allowed; 0 means no limit
	Priority  int32  // x-priority
	Args      Table
}

// Sink is where the deliveries of one consumer go. Calls for one consumer
// never overlap and come in the order of delivery, but they may come before
// Session.Consume has returned. Neither method may block or call the Session.
type Sink interface {
	Deliver(Delivery)
	// Cancelled says that the broker ended the consumer (its queue is gone).
	// Nothing is delivered after it.
	Cancelled(reason error)
}

// Recaller is a Sink that minds when the broker takes deliveries back from a
// consumer that held them for too long. Recalled comes after their Deliver and
// before any Deliver of the same messages anew; a settlement of the earlier
// ones is of nothing from then on. It is called as Deliver is.
type Recaller interface {
	Recalled([]Seq)
}
