package broker

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strconv"

	"warren/amqp/wire"
	"warren/fsm/meta"
	"warren/fsm/queue"
	"warren/mq"
)

// Duplicates that publishers make are filtered by exchanges of the type
// x-message-deduplication and by queues with the argument of that name, both as
// the plugin for RabbitMQ does. What was seen is remembered, and replicated,
// with each queue that a message reaches (queue.Window); an exchange is a
// fanout, so what was seen for one queue was seen for all that were bound then.
const (
	dedupExchange = "x-message-deduplication" // also the argument of a queue
	dedupHeader   = "x-deduplication-header"
	cacheSize     = "x-cache-size"
	cacheTTL      = "x-cache-ttl" // milliseconds; also a header
	cachePersists = "x-cache-persistence"
)

// filtersMax is how many exchanges filter a message on its way; more of them in
// a row let it through. It is less than what an enqueue can name, with the
// queue's own memory and a dead letter's.
const filtersMax = 32

// lettersRemembered is how many dead letters of one group a queue remembers.
// It is safe because of how many can have arrived without having left their
// queue for good: see deadLetters.room.
const lettersRemembered = 4 * lettersBusy

// checkDedup checks the arguments of an exchange that filters duplicates.
func checkDedup(args mq.Table) error {
	size, _ := args.Get(cacheSize)
	if n, ok := number(size); !ok || n <= 0 || n > queue.KeysMax {
		return mq.Errorf(mq.PreconditionFailed, "Missing or invalid argument, '%s' must be an integer from 1 to %d", cacheSize, queue.KeysMax)
	}
	if v, ok := args.Get(cacheTTL); ok {
		if n, ok := number(v); !ok || n <= 0 {
			return mq.Errorf(mq.PreconditionFailed, "Invalid argument, '%s' must be an integer greater than 0", cacheTTL)
		}
	}
	if v, ok := args.Get(cachePersists); ok && v != "memory" && v != "disk" {
		return mq.Errorf(mq.PreconditionFailed, "Invalid argument, '%s' must be either 'memory' or 'disk'", cachePersists)
	}
	return nil
}

// number is a whole number, also one that is written as a string.
func number(v any) (int64, bool) {
	if s, ok := v.(string); ok {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil
	}
	return mq.Int(v)
}

// dedupKey is the key of a message that is to be filtered, and whether it is.
func dedupKey(headers mq.Table) (k queue.Key, ok bool) {
	v, ok := headers.Get(dedupHeader)
	if !ok {
		return k, false
	}
	sum := sha256.Sum256(wire.AppendTable(nil, mq.Table{{Value: v}}))
	copy(k[:], sum[:])
	return k, true
}

// filter notes that what the walk reaches from here is filtered by an
// exchange, unless filtersMax have been passed.
func (w *walk) filter(x *meta.Exchange, id mq.QueueID) {
	if len(w.windows) >= filtersMax {
		return
	}
	if window, ok := w.dedupWindow(x, id); ok {
		w.windows = append(w.windows[:len(w.windows):len(w.windows)], window)
	}
}

func (w *walk) dedupWindow(x *meta.Exchange, id mq.QueueID) (win queue.Window, ok bool) {
	headers := w.Headers()
	if win.Key, ok = dedupKey(headers); !ok {
		return win, false
	}
	size, _ := x.Args.Get(cacheSize)
	n, _ := number(size)
	win.ID, win.Keys = uint64(id), uint32(min(max(n, 1), queue.KeysMax))
	ttl, ok := headers.Get(cacheTTL)
	if !ok {
		ttl, _ = x.Args.Get(cacheTTL)
	}
	if ms, ok := number(ttl); ok && ms > 0 {
		win.ExpiresMs = w.broker.nowMs() + min(ms, math.MaxInt64/2)
	}
	return win, true
}

// filtersOwn reports whether a queue takes no duplicate of what is in it.
func filtersOwn(q *meta.Queue) bool {
	v, _ := q.Args.Get(dedupExchange)
	on, _ := v.(bool)
	return on
}

// windowsOf are the memories that decide whether a message enters q.
func (w *walk) windowsOf(q *meta.Queue) []queue.Window {
	// A dead letter's original may be in the very queue that the letter comes
	// back to, or have left it so lately that its key is still known there: it is
	// no duplicate of itself.
	if w.died || !filtersOwn(q) {
		return w.windows
	}
	w.byKey = false
	k, ok := dedupKey(w.Headers())
	if !ok {
		return w.windows
	}
	own := queue.Window{ID: queue.OwnWindow, Key: k}
	if levelOf(w.view) >= levelFenced {
		own.Keys = queue.KeysMax // 80 MiB
	}
	return append(w.windows[:len(w.windows):len(w.windows)], own)
}

// window makes a dead letter, or a message whose delay is over, enter each of
// its queues once, however many leaders send it: its name in the group that it
// leaves is never used again. What leaves a node's memory ends with the node,
// and is sent by nobody else. The term keeps out what comes so late that it is
// forgotten by then: from then on a queue takes nothing of earlier leaders, and
// says that it has not taken it.
func (x *letter) window(level int) []queue.Window {
	if _, local := x.queue.Group.Local(); local {
		return nil
	}
	w := queue.Window{ID: uint64(x.queue.Group), Keys: lettersRemembered}
	if level >= levelFenced {
		w.Term = x.term
	}
	binary.BigEndian.PutUint64(w.Key[:], uint64(x.id))
	binary.BigEndian.PutUint64(w.Key[8:], uint64(x.seq))
	return []queue.Window{w}
}

// place names a message of a group.
type place struct {
	queue mq.QueueID
	seq   mq.Seq
}

// room reports whether one more letter may be sent. In flight, or arrived and
// not yet gone from their queue by a committed entry, are lettersBusy at most:
// these, a next leader may send again. And none is in flight while half of what
// is remembered is sent after it. So no queue forgets a letter that may come
// once more. (Except one that another queue refuses for that long: letters that
// wait for room are not in flight.) Runs with Shard.mu held.
func (d *deadLetters) room(f *flights) bool {
	if len(f.byTag)+len(d.gone) >= lettersBusy || f.bytes >= lettersBusyBytes {
		return false
	}
	if f.last-f.oldest < lettersRemembered/2 {
		return true
	}
	f.oldest = f.last
	for tag := range f.byTag {
		f.oldest = min(f.oldest, tag)
	}
	return f.last-f.oldest < lettersRemembered/2
}

// settled hears that first..last of a queue are gone by a committed entry.
func (d *deadLetters) settled(id mq.QueueID, first, last mq.Seq) {
	before := len(d.gone)
	if before == 0 {
		return
	}
	if last-first < mq.Seq(before) {
		for seq := first; seq <= last; seq++ {
			delete(d.gone, place{id, seq})
		}
	} else {
		for p := range d.gone {
			if p.queue == id && first <= p.seq && p.seq <= last {
				delete(d.gone, p)
			}
		}
	}
	if len(d.gone) < before && len(d.lines.of) > 0 {
		d.wake()
	}
}
