package raftlog

import (
	"fmt"
	"math"
	"slices"

	"github.com/hashicorp/raft"
)

// request is something to be written. It is its maker's again after wake.
type request struct {
	group       *GroupLog
	do          doing
	logs        []*raft.Log // doStore
	first, last uint64      // doDelete
	carry       []carriage  // doCarry
	bytes       int         // the room that it may take
	was         plan        // the group's, before this was encoded

	// wake has room for one. True: nobody writes, do it; false: it is done.
	wake chan bool
	done bool // owned by whoever writes
	err  error
	cut  deletion // what doDelete came to
}

type doing uint8

const (
	doStore doing = iota
	doDelete
	doCarry // in a write of its own
	doDrop
	doEnd // nothing but to note what is synced
)

// deletion is what a DeleteRange means for a log as it is when it is written.
type deletion struct {
	kind  kind // 0: nothing
	index uint64
}

// submit has r written, and answers when it is on disk. The last request is
// the one that goes with closing the WAL.
func (w *WAL) submit(r *request, last bool) error {
	r.wake = make(chan bool, 1)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.closed = last
	w.queue = append(w.queue, r)
	wait := w.writing
	w.writing = true
	w.mu.Unlock()
	if wait && !<-r.wake {
		return r.err
	}
	for !r.done { // once: r is the first in the queue
		w.take()
		w.round()
		for _, other := range w.batch {
			if other != r {
				other.wake <- false
			}
		}
		clear(w.batch)
	}
	w.mu.Lock()
	var next *request
	if len(w.queue) > 0 {
		next = w.queue[0]
	}
	w.writing = next != nil
	w.mu.Unlock()
	if next != nil {
		next.wake <- true
	}
	return r.err
}

// take moves the next batch out of the queue. What is carried was found to be
// needed before anything else in its batch would be in effect: it goes alone.
func (w *WAL) take() {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, bytes := 0, 0
	for ; n < len(w.queue); n++ {
		r := w.queue[n]
		if n > 0 && (r.do == doCarry || w.queue[0].do == doCarry || bytes+r.bytes > batchBytesMax) {
			break
		}
		bytes += r.bytes
	}
	w.batch = append(w.batch[:0], w.queue[:n]...)
	rest := copy(w.queue, w.queue[n:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
}

// round writes the batch, syncs it, and only then lets the logs show it and
// its makers go on: whoever hears of an entry, by an answer or by a read, hears
// of what a power cut leaves. Every reader of the file after a crash sees the
// writes in this order, so what was answered is below the end that it finds.
func (w *WAL) round() {
	err := w.prepare()
	var buf []byte
	if err == nil {
		buf = w.encode()
		last := w.batch[len(w.batch)-1]
		ending := last.do == doEnd && last.err == nil
		if len(buf) > recordHead || ending {
			err = w.write(buf)
		}
		if err != nil {
			w.unencode()
		}
	}
	for _, r := range w.batch {
		r.done = true
		if err != nil && r.err == nil {
			r.err = err
		}
	}
	if err == nil {
		w.publish()
	}
}

// use makes f the file that is written to.
func (w *WAL) use(f *walFile) {
	if w.off > headerBytes {
		w.prevSeq, w.prevEnd = w.file.seq, w.off
	}
	w.file, w.off, w.spent = f, headerBytes, false
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files, f)
}

func (w *WAL) appendBatch(dst []byte) []byte {
	return appendMark(dst, kindBatch, w.prevSeq, uint64(w.off), uint64(w.prevEnd), w.file.seed)
}

// encode makes the batch's records, and refs of its entries.
func (w *WAL) encode() []byte {
	buf := w.appendBatch(w.buf[:0])
	w.placed = w.placed[:0]
	for _, r := range w.batch {
		if r.err != nil || r.group == nil {
			continue
		}
		r.was = r.group.plan
		switch r.do {
		case doStore:
			buf = w.encodeStore(buf, r)
		case doDelete:
			buf = w.encodeDelete(buf, r)
		case doCarry:
			buf = w.encodeCarry(buf, r)
		case doDrop:
			buf = w.encodeDrop(buf, r.group)
		}
	}
	w.buf = buf
	if cap(buf) > 2*batchBytesMax {
		w.buf = nil
	}
	return buf
}

func (w *WAL) place(at int, l *raft.Log) {
	w.placed = append(w.placed, ref{
		term: l.Term, file: w.file, off: uint32(w.off + int64(at)), size: uint32(len(l.Data) + len(l.Extensions)),
	})
}

func (w *WAL) encodeStore(buf []byte, r *request) []byte {
	g, seed := r.group, w.file.seed
	for _, l := range r.logs {
		switch {
		case g.next == 0:
			g.begin = l.Index
		case l.Index > g.next: // a snapshot stands for all before it
			buf = appendMark(buf, kindTruncPrefix, g.gid, l.Index-1, 0, seed)
			g.begin = l.Index
		case l.Index < g.next:
			buf = appendMark(buf, kindTruncSuffix, g.gid, l.Index, 0, seed)
			g.begin = min(g.begin, l.Index)
		}
		w.place(len(buf), l)
		buf = appendEntry(buf, kindEntry, g.gid, l, seed)
		g.next = l.Index + 1
	}
	w.setCut(g, false)
	return buf
}

func (w *WAL) encodeDelete(buf []byte, r *request) []byte {
	g := r.group
	switch {
	case g.next == 0 || r.first > r.last || r.last < g.begin || r.first >= g.next:
		return buf // nothing is there
	case r.first <= g.begin:
		r.cut = deletion{kindTruncPrefix, min(r.last, g.next-1)}
		g.begin = r.cut.index + 1
		if g.begin == g.next {
			g.next = 0
		}
	case r.last >= g.next-1:
		r.cut = deletion{kindTruncSuffix, r.first}
		g.next = r.first
		w.setCut(g, true)
	default:
		r.err = fmt.Errorf("the log has entries %d..%d: that is neither its beginning nor its end", g.begin, g.next-1)
		return buf
	}
	return appendMark(buf, r.cut.kind, g.gid, r.cut.index, 0, w.file.seed)
}

// write puts buf at the end of the file and syncs it, under the watchdog. After
// an error the kernel may call pages clean that it could not write: nothing is
// written any more. Only a full disk that refuses the write itself, which can
// be where blocks cannot be reserved, costs no more than the file.
func (w *WAL) write(buf []byte) error {
	w.dog.begin()
	_, err := w.file.f.WriteAt(w.pad(buf), w.off)
	refused := isFull(err)
	if err == nil {
		err = w.file.f.SyncData()
	}
	w.dog.end()
	switch {
	case refused && !w.promised():
		// The file may hold records of this write behind its end, which a later
		// write must not lead recovery to: the next one begins a file, and that
		// says where this one ends.
		w.spent = true
		if err := w.dropUnused(); err != nil {
			return w.fail(err)
		}
		return w.full(err)
	case err != nil:
		return w.fail(fmt.Errorf("%s: %w", w.file.path, err))
	}
	if w.off += int64(len(buf)); !w.file.begun.Load() {
		w.file.begun.Store(true)
		w.keeper.wake()
	}
	w.rounds.Add(1)
	w.written.Add(uint64(len(buf)))
	return nil
}

// pad has buf end where a page ends: of a page that is written in part, and not
// in memory, the kernel has to read the rest first. That is safe: behind the end
// of a file, nothing was ever written that counts, and what recovery finds there
// is zeros, as in a new file. The next write goes where buf ended.
func (w *WAL) pad(buf []byte) []byte {
	end := w.off + int64(len(buf))
	page := (end + pageBytes - 1) / pageBytes * pageBytes
	return append(buf, make([]byte, max(0, min(page, w.file.size)-end))...)
}

func (w *WAL) fail(err error) error {
	w.failed = fmt.Errorf("write the log: %w", err)
	w.opts.Fatal(w.failed)
	return w.failed
}

// publish shows the logs what was written.
func (w *WAL) publish() {
	placed := w.placed
	shrunk := false
	for _, r := range w.batch {
		if r.err != nil || r.group == nil {
			continue
		}
		switch g := r.group; r.do {
		case doStore:
			w.showEntries(g, r.logs, placed)
			placed = placed[len(r.logs):]
		case doDelete:
			w.showDeletion(g, r.cut)
			shrunk = true
		case doCarry:
			w.showCarried(g, r.carry)
			shrunk = true
		case doDrop:
			w.showDrop(g)
			shrunk = true
		}
	}
	for w.cached > w.opts.CacheBytes && len(w.cache) > 0 {
		oldest := w.cache[0]
		w.cache[0] = cachedEntry{}
		w.cache = w.cache[1:]
		w.changeTail(oldest.group, func(t *tail) { t.evict(oldest.index) })
	}
	if shrunk {
		w.keeper.wake()
	}
}

// changeTail keeps count of the bytes in all tails.
func (w *WAL) changeTail(g *GroupLog, change func(t *tail)) {
	before := g.tail.size()
	change(&g.tail)
	w.cached += g.tail.size() - before
}

func (w *WAL) showEntries(g *GroupLog, logs []*raft.Log, placed []ref) {
	if w.opts.CacheBytes > 0 { // first: it may still have what these entries replace
		w.changeTail(g, func(t *tail) { t.add(logs) })
		for _, l := range logs {
			w.cache = append(w.cache, cachedEntry{g, l.Index})
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, l := range logs {
		g.put(l.Index, placed[i])
	}
}

func (w *WAL) showDeletion(g *GroupLog, d deletion) {
	// Memory first: an entry must not be found there that is going.
	switch d.kind {
	case kindTruncPrefix:
		w.changeTail(g, func(t *tail) { t.evict(d.index) })
	case kindTruncSuffix:
		w.changeTail(g, func(t *tail) { t.cut(d.index, math.MaxUint64) })
	}
	w.cache = slices.DeleteFunc(w.cache, func(c cachedEntry) bool {
		return c.group == g && (d.kind == kindTruncPrefix && c.index <= d.index || d.kind == kindTruncSuffix && c.index >= d.index)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	switch d.kind {
	case kindTruncPrefix:
		g.dropTo(d.index)
	case kindTruncSuffix:
		g.dropFrom(d.index)
	}
}
