package queue

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"warren/mq"
)

// KeyBytes is the size of a Key.
const KeyBytes = 16

// Key stands for a message that is to enter a queue once: whatever makes two
// messages the same for the source of a Window, or a hash of it.
type Key [KeyBytes]byte

// Bounds of what a queue remembers.
const (
	// KeysMax is the most keys that a window can be asked to hold: 64 MiB.
	KeysMax = 1 << 20
	// windowsMax is how many windows a queue has; the oldest goes for a new one.
	windowsMax = 64
)

// Window names a memory of keys that a queue has for one source of messages: a
// source group of dead letters, an exchange that filters duplicates.
type Window struct {
	// ID of the source. OwnWindow is the queue itself: it remembers the keys of
	// what is in it, and nothing else.
	ID uint64
	// Keys is how many keys are remembered; the oldest goes for a new one. For
	// OwnWindow, 0 is any number.
	Keys uint32
	// ExpiresMs is when the key of this message is forgotten, by the clocks of
	// home nodes; 0 means never.
	ExpiresMs int64
	Key       Key // of the message
	// Term is when the source's leader sent this message, 0 if it has none. Once
	// the window has seen a later one it takes nothing of an earlier one any more:
	// what a deposed leader sent may come so late that its key is forgotten.
	Term uint64
}

// OwnWindow is the ID of a queue's memory of what is in it.
const OwnWindow uint64 = 0

// window is the keys that a queue remembers of one source. What it answers
// depends on the keys in it and their order only, not on how they are kept, so
// that replicas agree whatever way they took.
type window struct {
	id     uint64
	byKey  map[Key]uint64 // number of arrival; never ranged over
	seen   []seenKey      // in the order of arrival, the first has number base
	base   uint64
	forgot int    // of seen, that are not in byKey any more
	sum    uint64 // of seenKey.weigh of each that is not forgotten
	term   uint64 // the latest one of the source, see Window.Term
}

type seenKey struct {
	key       Key
	expiresMs int64
	seq       mq.Seq // of the message, in its queue's own window
	forgotten bool
}

// has reports whether a key is remembered at nowMs.
func (w *window) has(k Key, nowMs int64) bool {
	n, ok := w.byKey[k]
	if !ok {
		return false
	}
	at := &w.seen[n-w.base].expiresMs
	return *at == 0 || *at > nowMs
}

// add remembers a key, and forgets what has expired at the front and what is
// more than keys.
func (w *window) add(k seenKey, keys uint32, nowMs int64) {
	if n, ok := w.byKey[k.key]; ok { // has expired
		w.forget(n)
	}
	w.byKey[k.key] = w.base + uint64(len(w.seen))
	w.seen = append(w.seen, k)
	w.sum += k.weigh()
	for w.id != OwnWindow || keys > 0 {
		w.trim()
		first := &w.seen[0]
		if uint32(len(w.byKey)) <= keys && (first.expiresMs == 0 || first.expiresMs > nowMs) {
			break
		}
		if len(w.byKey) == 1 { // the one that was added
			break
		}
		w.forget(w.base)
	}
}

func (w *window) forget(n uint64) {
	s := &w.seen[n-w.base]
	delete(w.byKey, s.key)
	s.forgotten = true
	w.sum -= s.weigh()
	w.forgot++
	w.trim()
}

// trim drops what is forgotten at the front, and all of it when that is most.
func (w *window) trim() {
	n := 0
	for n < len(w.seen) && w.seen[n].forgotten {
		n++
	}
	w.seen, w.base, w.forgot = w.seen[n:], w.base+uint64(n), w.forgot-n
	if len(w.seen) == 0 {
		w.seen = nil
	}
	if w.forgot < 64 || w.forgot < len(w.seen)/2 {
		return
	}
	kept := make([]seenKey, 0, len(w.seen)-w.forgot)
	for _, s := range w.seen {
		if !s.forgotten {
			w.byKey[s.key] = uint64(len(kept))
			kept = append(kept, s)
		}
	}
	w.seen, w.base, w.forgot = kept, 0, 0
}

// leave forgets the keys of messages first..last, which leave the queue.
func (w *window) leave(first, last mq.Seq) {
	i := sort.Search(len(w.seen), func(i int) bool { return w.seen[i].seq >= first })
	for n := w.base + uint64(i); n-w.base < uint64(len(w.seen)) && w.seen[n-w.base].seq <= last; n++ {
		if s := &w.seen[n-w.base]; !s.forgotten {
			delete(w.byKey, s.key)
			s.forgotten = true
			w.sum -= s.weigh()
			w.forgot++
		}
	}
	w.trim()
}

// remembered are a queue's windows, the oldest first.
func (q *Queue) remembered() []*window {
	if q.windows == nil {
		return nil
	}
	return *q.windows
}

// window returns the queue's memory of a source, nil if it has none.
func (q *Queue) window(id uint64) *window {
	for _, w := range q.remembered() {
		if w.id == id {
			return w
		}
	}
	return nil
}

// admits reports whether a message that may enter once may enter now, and
// remembers its key if so; seq is the place that it will have. One that is
// buried is in the queue only to leave it: that is not for the queue's own
// window, but a second copy is not to leave it again. late says that the
// message does not enter for its term, and that nobody knows whether it has been
// here.
func (q *Queue) admits(o *once, seq mq.Seq, bury bool) (enters, late bool) {
	for b := o.windows; len(b) > 0; {
		var want Window
		want, b = o.window(b)
		if bury && want.ID == OwnWindow {
			continue
		}
		w := q.window(want.ID)
		if w != nil && w.has(want.Key, o.nowMs) {
			return false, false
		}
		late = late || w != nil && want.Term != 0 && want.Term < w.term
	}
	if late {
		return false, true
	}
	for b := o.windows; len(b) > 0; {
		var want Window
		want, b = o.window(b)
		if bury && want.ID == OwnWindow {
			continue
		}
		w := q.window(want.ID)
		if w == nil {
			w = &window{id: want.ID, byKey: map[Key]uint64{}}
			q.addWindow(w)
		}
		k := seenKey{key: want.Key, expiresMs: want.ExpiresMs}
		if want.ID == OwnWindow {
			k.seq, k.expiresMs = seq, 0
		}
		w.term = max(w.term, want.Term)
		w.add(k, min(want.Keys, KeysMax), o.nowMs)
	}
	return true, false
}

// hasTerms reports whether some source of messages has told its term.
func (q *Queue) hasTerms() bool {
	return slices.ContainsFunc(q.remembered(), func(w *window) bool { return w.term != 0 })
}

// addWindow adds a window, and forgets the oldest if there are too many. That
// of the queue itself stays.
func (q *Queue) addWindow(w *window) {
	all := q.remembered()
	if len(all) == windowsMax {
		oldest := 0
		if all[0].id == OwnWindow {
			oldest = 1
		}
		all = slices.Delete(all, oldest, oldest+1)
	}
	all = append(all, w)
	q.windows = &all
}

// once is what an EnqueueOnce or EnqueueFenced has before its Enqueue.
type once struct {
	nowMs   int64
	windows []byte // well formed
	fenced  bool   // they have terms
}

// window reads the next of the windows.
func (o *once) window(b []byte) (Window, []byte) {
	w, rest := parseWindow(b, o.fenced)
	if w.ID == OwnWindow && !o.fenced {
		w.Keys = 0 // it was not looked at then
	}
	return w, rest
}

var errWindowTwice = errors.New("enqueue once names a window twice")

// repeats reports whether a window is named twice. Of two keys of one message in
// a queue's own window the state could be written, and not be read again.
func (o *once) repeats() bool {
	for b := o.windows; len(b) > 0; {
		var w, other Window
		w, b = o.window(b)
		for rest := b; len(rest) > 0; {
			if other, rest = o.window(rest); other.ID == w.ID {
				return true
			}
		}
	}
	return false
}

// AppendEnqueueOnce appends an enqueue that enters each of its queues only if
// that remembers the key of none of windows, of which there is at least one and
// no ID twice. nowMs is the clock of the home node: keys that have expired by
// then do not count. It is an EnqueueFenced, which older versions cannot read, if
// some window has a Term, or the queue's own one a bound.
//
//	uvarint len | ...: varint nowMs | uvarint n | n x (uvarint id | uvarint keys | varint expiresMs | key) | enqueue
//	EnqueueFenced: the same, with uvarint term before each key
func AppendEnqueueOnce(dst []byte, nowMs int64, windows []Window, queues []mq.QueueID, flags, priority uint8, expiryMs int64, content []byte) []byte {
	enqueue := AppendEnqueue(nil, queues, flags, priority, expiryMs, content[:0])
	_, head, _, _ := nextPart(enqueue)
	kind := EnqueueOnce
	if slices.ContainsFunc(windows, func(w Window) bool { return w.Term != 0 || w.ID == OwnWindow && w.Keys != 0 }) {
		kind = EnqueueFenced
	}
	n := varintLen(nowMs) + uvarintLen(uint64(len(windows))) + len(head) + len(content)
	for _, w := range windows {
		n += uvarintLen(w.ID) + uvarintLen(uint64(w.Keys)) + varintLen(w.ExpiresMs) + KeyBytes
		if kind == EnqueueFenced {
			n += uvarintLen(w.Term)
		}
	}
	dst = append(dst, byte(kind))
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendVarint(dst, nowMs)
	dst = binary.AppendUvarint(dst, uint64(len(windows)))
	for _, w := range windows {
		dst = binary.AppendUvarint(dst, w.ID)
		dst = binary.AppendUvarint(dst, uint64(w.Keys))
		dst = binary.AppendVarint(dst, w.ExpiresMs)
		if kind == EnqueueFenced {
			dst = binary.AppendUvarint(dst, w.Term)
		}
		dst = append(dst, w.Key[:]...)
	}
	return append(append(dst, head...), content...)
}

var errOnce = errors.New("enqueue once is malformed")

// parseOnce splits off what is before the enqueue.
func parseOnce(b []byte, fenced bool) (o once, rest []byte, err error) {
	o.fenced = fenced
	nowMs, size := binary.Varint(b)
	if size <= 0 {
		return o, nil, errOnce
	}
	o.nowMs = nowMs
	n, b := uvarint(b[size:])
	if b == nil || n == 0 || n > windowsMax {
		return o, nil, errOnce
	}
	o.windows = b
	for range n {
		if _, b = o.window(b); b == nil {
			return o, nil, errOnce
		}
	}
	o.windows = o.windows[:len(o.windows)-len(b)]
	return o, b, nil
}

// parseWindow reads one window; the rest is nil if it is malformed.
func parseWindow(b []byte, fenced bool) (w Window, rest []byte) {
	id, b := uvarint(b)
	keys, b := uvarint(b)
	if b == nil || keys > 1<<32-1 {
		return w, nil
	}
	expiresMs, size := binary.Varint(b)
	if size <= 0 {
		return w, nil
	}
	w = Window{ID: id, Keys: uint32(keys), ExpiresMs: expiresMs}
	b = b[size:]
	if fenced {
		w.Term, b = uvarint(b)
	}
	if len(b) < KeyBytes {
		return w, nil
	}
	copy(w.Key[:], b)
	return w, b[KeyBytes:]
}

// appendWindows appends what a queue remembers:
//
//	uvarint windows, each: uvarint id | uvarint keys, each: key | varint expiresMs | uvarint seq
//	                       and, since snapshotVersionTerms, uvarint term after id
func (q *Queue) appendWindows(dst []byte, version byte) []byte {
	all := q.remembered()
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, w := range all {
		dst = binary.AppendUvarint(dst, w.id)
		if version >= snapshotVersionTerms {
			dst = binary.AppendUvarint(dst, w.term)
		}
		dst = binary.AppendUvarint(dst, uint64(len(w.byKey)))
		for i := range w.seen {
			s := &w.seen[i]
			if s.forgotten {
				continue
			}
			dst = append(dst, s.key[:]...)
			dst = binary.AppendVarint(dst, s.expiresMs)
			dst = binary.AppendUvarint(dst, uint64(s.seq))
		}
	}
	return dst
}

func (q *Queue) restoreWindows(b []byte, version byte) ([]byte, error) {
	n, b := uvarint(b)
	if b == nil || n > windowsMax {
		return nil, errSnapshot
	}
	for range n {
		id, rest := uvarint(b)
		term := uint64(0)
		if version >= snapshotVersionTerms {
			term, rest = uvarint(rest)
		}
		keys, rest := uvarint(rest)
		if rest == nil || keys > uint64(len(rest))/(KeyBytes+2) || q.window(id) != nil {
			return nil, errSnapshot
		}
		w := &window{id: id, term: term, byKey: make(map[Key]uint64, keys)}
		for range keys {
			if rest = w.restore(rest, q); rest == nil {
				return nil, errSnapshot
			}
		}
		q.addWindow(w)
		b = rest
	}
	return b, nil
}

// restore reads one key; nil if it is malformed.
func (w *window) restore(b []byte, q *Queue) []byte {
	var s seenKey
	if len(b) < KeyBytes {
		return nil
	}
	copy(s.key[:], b)
	expiresMs, size := binary.Varint(b[KeyBytes:])
	if size <= 0 {
		return nil
	}
	seq, b := uvarint(b[KeyBytes+size:])
	s.expiresMs, s.seq = expiresMs, mq.Seq(seq)
	if _, twice := w.byKey[s.key]; b == nil || twice || w.id == OwnWindow && !w.follows(&s, q) {
		return nil
	}
	w.byKey[s.key] = uint64(len(w.seen))
	w.seen = append(w.seen, s)
	return b
}

// follows reports whether s can be the next key of a queue's own window.
func (w *window) follows(s *seenKey, q *Queue) bool {
	n := len(w.seen)
	return q.Live(s.seq) && (n == 0 || w.seen[n-1].seq < s.seq)
}
