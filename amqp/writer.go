package amqp

import (
	"net"
	"sync/atomic"
	"time"

	"warren/amqp/wire"
	"warren/mq"
)

const (
	// writeBytes is how much is gathered for one write to the socket.
	writeBytes = 64 << 10
	// drainedMessages and drainedBytes are how much of a consumer may be
	// written before the broker hears of it; it also does when all is written.
	drainedMessages = 64
	drainedBytes    = 256 << 10
)

// writer owns a connection's output. It runs on its own goroutine.
type writer struct {
	out      *outbox
	nc       net.Conn
	server   *Server
	session  Session
	frameMax uint32
	beat     time.Duration  // silence after which a heartbeat is due; 0: none
	sent     *atomic.Uint64 // bytes

	pooled *[]byte // where buf came from
	buf    []byte
	spoke  bool  // something else was written since the last beat
	plain  int64 // bytes of this batch that no link credit bounds
	// loose are confirms that had something decided beyond a gap.
	loose []*confirms
	// owed are consumers whose deliveries were encoded and not reported yet.
	owed []*consumer
}

// run writes until the outbox is over or the socket fails.
func (w *writer) run() {
	defer w.release()
	defer w.out.kill() // whoever waits for room need not
	var tick <-chan time.Time
	if w.beat > 0 {
		t := time.NewTicker(w.beat)
		defer t.Stop()
		tick = t.C
	}
	var batch []item
	for {
		var parked, over bool
		batch, parked, over = w.out.take(batch, len(w.buf) == 0 && len(w.loose) == 0 && len(w.owed) == 0)
		switch {
		case len(batch) > 0:
			if !w.encode(batch) {
				return
			}
		case parked:
			w.release()
			select {
			case <-w.out.wake:
			case <-tick:
				w.heartbeat()
			}
		default: // nothing more for now: what was put off is due
			w.tellLoose()
			if !w.flush() {
				return
			}
			w.report(true)
			if over {
				return
			}
		}
	}
}

func (w *writer) heartbeat() {
	if !w.spoke {
		w.acquire()
		w.buf = wire.AppendHeartbeat(w.buf)
	}
	w.spoke = false
}

// encode encodes a batch, writing whenever the buffer is full. False means
// that the socket failed.
func (w *writer) encode(batch []item) bool {
	w.acquire()
	w.spoke = true
	for i := range batch {
		if !w.item(&batch[i]) {
			return false
		}
		if len(w.buf) >= writeBytes && !w.flush() {
			return false
		}
	}
	w.out.written(w.plain)
	w.plain = 0
	return true
}

func (w *writer) item(it *item) bool {
	n := &w.server.count
	switch it.kind {
	case itemMethod:
		w.plain += itemBytes
		if it.confirms != nil { // the channel's last method
			w.buf, _ = it.confirms.collect(w.buf, n)
			w.buf = it.confirms.collectLoose(w.buf, n)
			it.confirms.silence()
		}
		w.buf = wire.AppendMethod(w.buf, it.channel, it.method)
	case itemDeliver:
		if it.consumer.noAck {
			n.deliveredAutoAck.Add(1)
		} else {
			n.deliveredManualAck.Add(1)
		}
		if it.redelivered {
			n.redelivered.Add(1)
		}
		w.buf = wire.AppendDeliver(w.buf, it.channel, it.consumer.tag, it.tag, it.redelivered, it.content.Exchange(), it.content.RoutingKey())
		ok := w.content(it)
		w.owe(it)
		return ok
	case itemDropped:
		w.owe(it)
	case itemGetOk:
		if it.noAck {
			n.gotAutoAck.Add(1)
		} else {
			n.gotManualAck.Add(1)
		}
		if it.redelivered {
			n.redelivered.Add(1)
		}
		w.plain += itemBytes + int64(len(it.content))
		w.buf = wire.AppendGetOk(w.buf, it.channel, it.tag, it.redelivered, it.content.Exchange(), it.content.RoutingKey(), it.remaining)
		return w.content(it)
	case itemReturn:
		n.returned.Add(1)
		w.plain += itemBytes + int64(len(it.content))
		w.buf = wire.AppendReturn(w.buf, it.channel, mq.NoRoute, "NO_ROUTE", it.content.Exchange(), it.content.RoutingKey())
		if !w.content(it) {
			return false
		}
		if it.tag != 0 { // the return has gone before its ack
			it.confirms.Confirm(it.tag, mq.Confirmed)
		}
	case itemConfirms:
		var more bool
		if w.buf, more = it.confirms.collect(w.buf, n); more {
			w.loose = append(w.loose, it.confirms)
		}
	}
	return true
}

// content encodes header and body, writing in between if the body is large.
func (w *writer) content(it *item) bool {
	body := it.content.Body()
	w.buf = wire.AppendHeader(w.buf, it.channel, classBasic, uint64(len(body)), it.content.Properties())
	chunk := int(w.frameMax) - wire.FrameOverhead
	for len(body) > chunk {
		w.buf = wire.AppendBody(w.buf, it.channel, body[:chunk], w.frameMax)
		body = body[chunk:]
		if len(w.buf) >= writeBytes && !w.flush() {
			return false
		}
	}
	w.buf = wire.AppendBody(w.buf, it.channel, body, w.frameMax)
	return true
}

// owe notes a delivery that the broker has to hear of.
func (w *writer) owe(it *item) {
	c := it.consumer
	if c.owedMessages == 0 {
		w.owed = append(w.owed, c)
	}
	c.owedID = it.link
	c.owedMessages++
	c.owedBytes += len(it.content)
}

// report tells the broker what the socket took: of every consumer if all is
// set, otherwise of those where it is much. What is encoded must be written.
func (w *writer) report(all bool) {
	keep := w.owed[:0]
	for _, c := range w.owed {
		if !all && c.owedMessages < drainedMessages && c.owedBytes < drainedBytes {
			keep = append(keep, c)
			continue
		}
		w.session.Drained(c.owedID, c.owedMessages, c.owedBytes)
		c.owedMessages, c.owedBytes = 0, 0
	}
	clear(w.owed[len(keep):])
	w.owed = keep
}

// tellLoose encodes the confirms that waited behind a gap.
func (w *writer) tellLoose() {
	for _, c := range w.loose {
		w.acquire()
		w.buf = c.collectLoose(w.buf, &w.server.count)
	}
	clear(w.loose)
	w.loose = w.loose[:0]
}

// flush writes the buffer. If the socket blocks, so does the writer: nothing
// is drained, and deliveries stop. False means that the socket failed; it is
// closed then, which ends the reader.
func (w *writer) flush() bool {
	if len(w.buf) == 0 {
		return true
	}
	n, err := w.nc.Write(w.buf)
	w.server.count.bytesSent.Add(uint64(n))
	w.sent.Add(uint64(n))
	w.buf = w.buf[:0]
	if err != nil {
		w.nc.Close() // the reader says what became of the connection
		return false
	}
	w.report(false)
	return true
}

// acquire borrows a buffer for as long as there is something to write.
func (w *writer) acquire() {
	if w.pooled == nil {
		w.pooled = w.server.buffers.Get().(*[]byte)
		w.buf = (*w.pooled)[:0]
	}
}

// release gives the buffer back while the connection is idle.
func (w *writer) release() {
	if w.pooled == nil {
		return
	}
	if *w.pooled = w.buf[:0]; cap(w.buf) <= 4*writeBytes {
		w.server.buffers.Put(w.pooled)
	}
	w.pooled, w.buf = nil, nil
}
