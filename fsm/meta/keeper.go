package meta

import (
	"iter"

	"warren/internal/fields"
	"warren/mq"
)

// Keeper says what a queue keeps for the exchange that has its name. Such a
// queue is made and deleted with the exchange. It has an id and a group like
// any other, but clients cannot name it: it is not among the queues of its
// vhost, and nothing is bound to it.
type Keeper uint8

// The values of Keeper.
const (
	NoKeeper     Keeper = iota // a client's queue
	KeepsDelayed               // messages until their delay is over (x-delayed-message)
	KeepsRecent                // copies of the latest messages (x-recent-history)
	KeepsSeen                  // nothing: its id stands for what the exchange has seen (x-message-deduplication)
)

// ExchangeDeclareKeeping is an ExchangeDeclare of an exchange that keeps
// messages in a queue of its own, which lives in Group.
type ExchangeDeclareKeeping struct {
	ExchangeDeclare
	Keeper Keeper
	Group  mq.GroupID
}

func (o ExchangeDeclareKeeping) appendTo(dst []byte) []byte {
	dst = o.ExchangeDeclare.appendTo(dst)
	return fields.AppendUint(append(dst, byte(o.Keeper)), uint64(o.Group))
}

func (d *decoder) exchangeDeclareKeeping() ExchangeDeclareKeeping {
	o := ExchangeDeclareKeeping{ExchangeDeclare: d.exchangeDeclare(), Keeper: Keeper(d.Byte()), Group: mq.GroupID(d.Uint())}
	if o.Keeper == NoKeeper || o.Keeper > KeepsSeen {
		d.Fail()
	}
	return o
}

// exchangeDeclareKeeping adds exchange and queue in one step: no replica and
// no crash can have one without the other.
func (s *State) exchangeDeclareKeeping(op ExchangeDeclareKeeping) Result {
	if err := s.checkHome(op.Group, 0); err != nil {
		return refuse(err)
	}
	r := s.exchangeDeclare(op.ExchangeDeclare)
	if r.Err != nil || r.Value == false {
		return r
	}
	q := &Queue{ID: mq.QueueID(s.stamp), VHost: op.VHost, Name: op.Name, Durable: true, Group: op.Group, Keeper: op.Keeper}
	s.indexQueue(q)
	s.changed(QueueCreated{q})
	return r
}

// removeKeeper removes the queue of an exchange that goes, if it has one.
func (s *State) removeKeeper(x *Exchange) {
	if q, ok := s.keepers.get(nameKey(x.VHost, x.Name)); ok {
		s.removeQueue(q)
	}
}

// KeeperOf returns the queue in which an exchange keeps messages, nil if it
// has none.
func (v *View) KeeperOf(vhost, exchange string) *Queue {
	return find(v.keepers, nameKey(vhost, exchange))
}

// AllQueues goes through the queues of all vhosts by age, with those that
// exchanges keep messages in.
func (v *View) AllQueues() iter.Seq[*Queue] { return v.queueIDs.of(0) }
