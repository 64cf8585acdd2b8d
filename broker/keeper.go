package broker

import (
	"fmt"

	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// Exchanges that keep messages have a queue of their own for that, which no
// client can name (meta.Keeper). What is in it is replicated like any other
// message, and its leader decides when it goes.
const (
	delayedExchange = "x-delayed-message"
	historyExchange = "x-recent-history"
	// dedupExchange keeps nothing in its queue, whose id names what it has seen.
)

// keeperOf is what an exchange of a type keeps.
func keeperOf(kind string) meta.Keeper {
	switch kind {
	case delayedExchange:
		return meta.KeepsDelayed
	case historyExchange:
		return meta.KeepsRecent
	case dedupExchange:
		return meta.KeepsSeen
	}
	return meta.NoKeeper
}

// routedAs is the type that an exchange routes by.
func routedAs(x *meta.Exchange) string {
	switch x.Type {
	case delayedExchange:
		kind, _ := x.Args.String(delayedType)
		return kind
	case historyExchange, dedupExchange:
		return "fanout"
	}
	return x.Type
}

// checkKeeper checks the arguments of an exchange that keeps messages.
func checkKeeper(kind string, args mq.Table) error {
	switch kind {
	case delayedExchange:
		inner, ok := args.String(delayedType)
		if !ok || keeperOf(inner) != meta.NoKeeper { // one queue of its own is what an exchange can have
			return mq.Errorf(mq.PreconditionFailed, "Invalid argument, '%s' must be an existing exchange type", delayedType)
		}
		return checkExchangeType(inner)
	case dedupExchange:
		return checkDedup(args)
	case historyExchange:
		v, ok := args.Get(historyLength)
		if !ok {
			return nil
		}
		if n, ok := mq.Int(v); !ok || n <= 0 {
			if s, ok := v.(string); ok {
				v = fmt.Sprintf("<<%q>>", s) // as Erlang, and so RabbitMQ, shows it
			}
			return mq.Errorf(mq.PreconditionFailed, "Invalid argument %v, '%s' must be a positive integer", v, historyLength)
		}
	}
	return nil
}

// declaring is the operation that makes an exchange, with the queue that it
// keeps messages in.
func (t *Topology) declaring(d meta.ExchangeDeclare) meta.Op {
	k := keeperOf(d.Type)
	if k == meta.NoKeeper {
		return d
	}
	return meta.ExchangeDeclareKeeping{ExchangeDeclare: d, Keeper: k, Group: t.place.GroupFor(d.VHost, d.Name, nil)}
}

// Values of target.keepMs besides the time that a message is kept.
const (
	notKept     int64 = 0 // the target's queues are clients' queues
	keptForGood int64 = -1
)

// keep puts a message into the queue of an exchange that keeps messages, or
// notes that what it reaches from here is to be filtered. It says whether the
// message stays there and is not routed yet.
func (w *walk) keep(x *meta.Exchange) (stays bool) {
	k := keeperOf(x.Type)
	if k == meta.NoKeeper {
		return false
	}
	w.byKey = false // headers decide
	q := w.view.KeeperOf(x.VHost, x.Name)
	if q == nil {
		return false
	}
	switch k {
	case meta.KeepsDelayed:
		if delayMs, ok := delayOf(w.Headers()); ok {
			w.reachKept(q, delayMs)
			return true
		}
	case meta.KeepsSeen:
		w.filter(x, q.ID)
	case meta.KeepsRecent:
		if !storesNothing(w.Headers()) {
			w.reachKept(q, keptForGood)
		}
	}
	return false
}

func (w *walk) reachKept(q *meta.Queue, keepMs int64) {
	if !w.seenQueue[q.ID] {
		w.seenQueue[q.ID] = true
		w.targets = append(w.targets, target{group: q.Group, ttlMs: -1, keepMs: keepMs, queues: []mq.QueueID{q.ID}})
	}
}

// historyOnly reports whether all that a message reaches are copies for later:
// it is unroutable then.
func historyOnly(targets []target) bool {
	for i := range targets {
		if targets[i].keepMs != keptForGood {
			return false
		}
	}
	return true
}

// dispatchKept is dispatchQueue for a queue that an exchange keeps messages in.
func (s *Shard) dispatchKept(q *ledQueue, st *queue.Queue) {
	switch q.rec.Keeper {
	case meta.KeepsDelayed:
		s.releaseDue(q, st)
	case meta.KeepsRecent:
		s.forgetOld(q, st)
	}
	q.goOnListing()
	s.settleDropped(q)
}

// serveKept answers questions about a queue that an exchange keeps messages in.
func (s *Shard) serveKept(a asked, kind byte, rec *meta.Queue, p *parser) {
	switch {
	case kind == callDelayed && rec.Keeper == meta.KeepsDelayed:
		s.listDelayed(a, rec, p)
	case kind == callCancelDelayed && rec.Keeper == meta.KeepsDelayed:
		s.cancelDelayed(a, rec, p)
	case kind == callRecent && rec.Keeper == meta.KeepsRecent:
		s.listRecent(a, rec)
	default:
		a.fail(errFrame)
	}
}

// keeper finds the queue of an exchange that keeps messages.
func (b *Broker) keeper(vhost, exchange string, k meta.Keeper) (*meta.Queue, error) {
	v := b.View()
	if v.Exchange(vhost, exchange) == nil {
		return nil, meta.NoExchange(vhost, exchange)
	}
	q := v.KeeperOf(vhost, exchange)
	if q == nil || q.Keeper != k {
		return nil, fmt.Errorf("exchange '%s' in vhost '%s' keeps no such messages", exchange, vhost)
	}
	return q, nil
}
