package amqp

import (
	"cmp"
	"slices"

	"warren/mq"
)

// Channel is an open channel as operators see it: a copy.
type Channel struct {
	Connection Connection
	Number     uint16

	Transactional, Confirm bool
	Consumers              int
	Unacked, Unconfirmed   int
	Prefetch, GlobalLimit  int // basic.qos; 0 for none
}

// ConsumerTag is what a client calls one of its consumers.
type ConsumerTag struct {
	ID         mq.ConsumerID // the broker's name for it
	Connection string        // its name
	Channel    uint16
	Tag        string
}

// list notes an open channel for operators, and unlist takes it off the list.
func (c *conn) list(ch *channel) {
	c.listMu.Lock()
	defer c.listMu.Unlock()
	if c.listed == nil {
		c.listed = map[uint16]*channel{}
	}
	c.listed[ch.number] = ch
}

func (c *conn) unlist(ch *channel) {
	c.listMu.Lock()
	defer c.listMu.Unlock()
	delete(c.listed, ch.number)
}

// openChannels are the open channels by number.
func (c *conn) openChannels() []*channel {
	c.listMu.Lock()
	defer c.listMu.Unlock()
	all := make([]*channel, 0, len(c.listed))
	for _, ch := range c.listed {
		all = append(all, ch)
	}
	slices.SortFunc(all, func(a, b *channel) int { return cmp.Compare(a.number, b.number) })
	return all
}

// Channels are the open channels, those of the oldest connection first.
func (s *Server) Channels() []Channel {
	var all []Channel
	s.eachConn(func(c *conn) {
		about := c.now()
		for _, ch := range c.openChannels() {
			x := Channel{
				Connection: about, Number: ch.number,
				Transactional: ch.transactional.Load(), Prefetch: int(ch.shownPrefetch.Load()),
			}
			if k := ch.confirming.Load(); k != nil {
				x.Confirm, x.Unconfirmed = true, k.unanswered()
			}
			c.out.describe(ch, &x)
			all = append(all, x)
		}
	})
	slices.SortFunc(all, func(a, b Channel) int {
		return cmp.Or(cmp.Compare(a.Connection.ID, b.Connection.ID), cmp.Compare(a.Number, b.Number))
	})
	return all
}

// describe fills in what mu guards.
func (o *outbox) describe(ch *channel, x *Channel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &ch.ledger
	x.Consumers, x.GlobalLimit = len(l.consumers), l.limit
	x.Unacked = len(l.unacked.entries) - l.unacked.head - l.unacked.gone
}

// unanswered is how many publishes wait for their confirms.
func (c *confirms) unanswered() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.window[c.head:] {
		if k == confirmWaits {
			n++
		}
	}
	return n
}

// ConsumerTags are the consumers of queues that clients have, in the order of
// their IDs.
func (s *Server) ConsumerTags() []ConsumerTag {
	var all []ConsumerTag
	s.eachConn(func(c *conn) {
		for _, ch := range c.openChannels() {
			all = c.out.tags(ch, c.about.Name, all)
		}
	})
	slices.SortFunc(all, func(a, b ConsumerTag) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (o *outbox) tags(ch *channel, connection string, to []ConsumerTag) []ConsumerTag {
	o.mu.Lock()
	defer o.mu.Unlock()
	for tag, k := range ch.ledger.consumers {
		to = append(to, ConsumerTag{ID: k.id, Connection: connection, Channel: ch.number, Tag: tag})
	}
	return to
}
