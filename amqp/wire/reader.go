package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"warren/mq"
)

const (
	bufferBytesMin = 4 << 10   // of a new or an idle connection
	bufferBytesMax = 128 << 10 // of a busy one; beyond it only a larger frame grows the buffer
	// smallReadsMax is how many reads in a row may leave a buffer mostly unused
	// before it is halved.
	smallReadsMax = 8
	// emptyReadsMax is how often an io.Reader may answer nothing and no error.
	emptyReadsMax = 100
)

// Reader takes frames out of a stream of bytes. It holds one buffer, which
// starts small, doubles when a read fills it and shrinks again when the
// connection falls idle; it grows with what arrived, never with what a peer
// announces. Frames are slices of it. Not safe for concurrent use.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int // what is read and not yet answered
	frameMax   uint32
	smallReads int
	err        error // a fault of the bytes; every later Next answers it again
}

// NewReader returns a Reader of the frames in r, none larger than frameMax
// octets; 0 means FrameMaxDefault.
func NewReader(r io.Reader, frameMax uint32) *Reader {
	f := &Reader{r: r, buf: make([]byte, bufferBytesMin)}
	f.SetFrameMax(frameMax)
	return f
}

// SetFrameMax changes the largest frame that is taken, once tune has settled
// it. 0 means FrameMaxDefault; less than FrameMin means FrameMin.
func (r *Reader) SetFrameMax(octets uint32) {
	if octets == 0 {
		octets = FrameMaxDefault
	}
	r.frameMax = max(octets, FrameMin)
}

// Buffered is how many bytes were read and are not yet answered.
func (r *Reader) Buffered() int { return r.end - r.start }

// Ready reports whether Next will answer without reading: a whole frame, or a
// fault, is in the buffer.
func (r *Reader) Ready() bool {
	if r.err != nil {
		return true
	}
	n, err := r.frameBytes()
	return err != nil || n > 0 && n <= r.end-r.start
}

// Next answers the next frame, whose payload is valid until Next is called
// again. io.EOF means that the stream ended between two frames. A frame that
// breaks the rules is an *mq.Error. After one of a wrong type Next goes on
// with the frame behind it; after a wrong size or end it answers the same
// error for ever, as nobody knows where the next frame begins. Other errors
// are the io.Reader's, and Next may be called again after them.
func (r *Reader) Next() (Frame, error) {
	for r.err == nil {
		n, err := r.frameBytes()
		if err == nil && n > 0 && n <= r.end-r.start {
			return r.take(n)
		}
		if err != nil {
			r.err = err
			break
		}
		if err := r.fill(n); err != nil {
			return Frame{}, err
		}
	}
	return Frame{}, r.err
}

// frameBytes is the size of the frame at start, 0 if its header has not
// arrived.
//
// The payload may be as large as the whole frame may be: RabbitMQ lets
// clients exceed the limit by the 8 octets around a payload, because many
// count them wrong (rabbit_reader, FRAME_SIZE_FUDGE).
func (r *Reader) frameBytes() (int, error) {
	if r.end-r.start < frameHeaderBytes {
		return 0, nil
	}
	h := r.buf[r.start:]
	n := binary.BigEndian.Uint32(h[3:])
	if n > r.frameMax {
		cause := fmt.Sprintf("{frame_too_large,%d,%d}", n, r.frameMax-FrameOverhead)
		return 0, frameError(h[0], nil, cause)
	}
	return int(n) + FrameOverhead, nil
}

// take answers the frame of n bytes at start and moves behind it.
func (r *Reader) take(n int) (Frame, error) {
	b := r.buf[r.start : r.start+n : r.start+n]
	f := Frame{
		Type:    b[0],
		Channel: binary.BigEndian.Uint16(b[1:]),
		Payload: b[frameHeaderBytes : n-1 : n-1],
	}
	if b[n-1] != FrameEnd {
		r.err = frameError(f.Type, f.Payload, fmt.Sprintf("{invalid_frame_end_marker,%d}", b[n-1]))
		return Frame{}, r.err
	}
	r.start += n
	if err := checkType(f); err != nil {
		return Frame{}, err
	}
	return f, nil
}

// checkType refuses what rabbit_reader:handle_frame refuses: unknown types
// and heartbeats with a payload as 501, heartbeats on a channel as 505.
func checkType(f Frame) error {
	switch f.Type {
	case FrameMethod, FrameHeader, FrameBody:
		return nil
	case FrameHeartbeat:
		if len(f.Payload) > 0 {
			break
		}
		if f.Channel != 0 {
			return mq.Errorf(mq.UnexpectedFrame, "type %d, %s", f.Type, snippet(f.Payload))
		}
		return nil
	}
	return frameError(f.Type, f.Payload, "unknown_frame")
}

// frameError words a fault of framing as rabbit_reader:frame_error does.
func frameError(typ uint8, payload []byte, cause string) *mq.Error {
	return mq.Errorf(mq.FrameError, "type %d, %s: %s", typ, snippet(payload), cause)
}

// snippet shows the beginning of a payload as Erlang prints a binary: as text
// if all of it is printable.
func snippet(payload []byte) string {
	which := "all"
	if len(payload) > 16 {
		which, payload = "first 16", payload[:16]
	}
	text := []byte(which + " octets = <<")
	if quoted := strconv.QuoteToASCII(string(payload)); len(payload) > 0 && !strings.Contains(quoted, `\`) {
		return string(append(text, quoted+">>"...))
	}
	for i, b := range payload {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, uint64(b), 10)
	}
	return string(append(text, ">>"...))
}

// fill reads more. want is the size of the frame at start, 0 if unknown.
func (r *Reader) fill(want int) error {
	r.makeRoom(want)
	room := len(r.buf) - r.end
	for range emptyReadsMax {
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			r.noteRead(n, room)
			return nil // an error comes again with the next Read
		}
		if err == io.EOF && r.end > r.start {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// noteRead doubles the buffer after a read that filled it, and halves it after
// many that were small. Growing waits for the bytes, so an announced size
// costs nothing.
func (r *Reader) noteRead(n, room int) {
	switch {
	case n == room && len(r.buf) < bufferBytesMax:
		r.resize(2 * len(r.buf))
	case r.end-r.start > len(r.buf)/4:
		r.smallReads = 0
	default:
		r.smallReads++
	}
}

// makeRoom moves what is left to the front and grows or shrinks the buffer
// where a whole frame needs or permits it.
func (r *Reader) makeRoom(want int) {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	switch {
	case r.end == len(r.buf): // full of one frame that is larger still
		r.resize(min(2*len(r.buf), max(want, bufferBytesMin)))
	case r.smallReads >= smallReadsMax && len(r.buf) > bufferBytesMin && r.end <= len(r.buf)/4:
		r.resize(len(r.buf) / 2)
	}
}

func (r *Reader) resize(n int) {
	buf := make([]byte, n)
	r.end = copy(buf, r.buf[r.start:r.end])
	r.start = 0
	r.buf = buf
	r.smallReads = 0
}
