package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"warren/mq"
)

// A message whose content would be too much for one entry comes in parts, each
// an operation of a batch of its own, and then an EnqueueWhole, which is the
// Enqueue of what they make together. Batches of a node are applied in order,
// each once, so that a node has one message in parts at a time: its parts are
// put together where all replicas find them, node.staged, and enter their queues
// when all are there. Other messages of the node, and all others, go in between.
//
// A part that does not go on where the one before it ended drops what was put
// together, and an EnqueueWhole that does not find all of its content is refused
// like a message that comes too late: each replica comes to the same, and whoever
// sent it hears that it has not entered.

const (
	// BodyBytesMax is the largest body of a message: what a state keeps of parts is
	// one for each node, in memory.
	BodyBytesMax = 128 << 20
	// WholeBytesMax is the most that a content in parts may have: a body, and names
	// and properties, of which a client can send no more than fit its frame.
	WholeBytesMax = BodyBytesMax + 32<<20
	// PartBytesMax is the most that one part may have.
	PartBytesMax = 1 << 20
)

var (
	errPart  = errors.New("part of a message is malformed")
	errWhole = errors.New("end of a message in parts is malformed")
)

// AppendPart appends an operation that brings the bytes from at on of a content
// of total bytes.
//
//	uvarint len | ...: uvarint at | uvarint total | bytes
func AppendPart(dst []byte, at, total int, b []byte) []byte {
	dst = append(dst, byte(EnqueuePart))
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(at))+uvarintLen(uint64(total))+len(b)))
	dst = binary.AppendUvarint(dst, uint64(at))
	dst = binary.AppendUvarint(dst, uint64(total))
	return append(dst, b...)
}

// AppendWhole appends the end of a content that came in parts: enqueue is the
// operation that it belongs to, made without content. bodyBytes is what of the
// total is the body: a leader has to know before it has the content.
//
//	uvarint len | ...: uvarint total | uvarint body bytes | an Enqueue, EnqueueOnce or EnqueueFenced
func AppendWhole(dst []byte, total, bodyBytes int, enqueue []byte) []byte {
	dst = append(dst, byte(EnqueueWhole))
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(total))+uvarintLen(uint64(bodyBytes))+len(enqueue)))
	dst = binary.AppendUvarint(dst, uint64(total))
	dst = binary.AppendUvarint(dst, uint64(bodyBytes))
	return append(dst, enqueue...)
}

// piece is the payload of an EnqueuePart.
type piece struct {
	at, total uint64
	bytes     []byte
}

func parsePiece(b []byte) (p piece, err error) {
	p.at, b = uvarint(b)
	p.total, b = uvarint(b)
	p.bytes = b
	if len(b) == 0 || len(b) > PartBytesMax || p.total > WholeBytesMax || p.at > p.total || uint64(len(b)) > p.total-p.at {
		return p, errPart
	}
	return p, nil
}

// wholeEnd is the payload of an EnqueueWhole: of an operation of that kind, and
// its payload, which has no content.
type wholeEnd struct {
	total, bodyBytes uint64
	kind             OpKind
	enqueue          []byte
}

func parseWhole(b []byte) (w wholeEnd, err error) {
	w.total, b = uvarint(b)
	w.bodyBytes, b = uvarint(b)
	if len(b) == 0 || w.total > WholeBytesMax || w.bodyBytes > w.total {
		return w, errWhole
	}
	opcode, payload, rest, err := nextPart(b)
	w.kind, w.enqueue = OpKind(opcode), payload
	if err != nil || len(rest) > 0 || w.kind != Enqueue && !w.kind.once() {
		return w, errWhole
	}
	if e, _, err := parseAnyEnqueue(w.kind, payload); err != nil || len(e.content) > 0 {
		return w, errWhole
	}
	return w, nil
}

// staged is a content that is being put together. What is in bytes is never
// changed, only added to, in room that was made for all of it: so whoever has
// taken a slice of it (a snapshot) goes on having the same while more is added.
type staged struct {
	bytes []byte // cap is total
	total uint64
	sum   uint32 // of bytes, for the digest
}

// castagnoli is the polynomial that processors work out by themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newStaged(total uint64) *staged {
	return &staged{bytes: mq.Room(int(total)), total: total}
}

func (g *staged) add(b []byte) {
	g.bytes = append(g.bytes, b...)
	g.sum = crc32.Update(g.sum, castagnoli, b)
}

// stage takes the next part.
func (n *node) stage(p piece) {
	if p.at == 0 {
		n.staged = newStaged(p.total)
	}
	g := n.staged
	if g == nil || g.total != p.total || uint64(len(g.bytes)) != p.at {
		n.staged = nil
		return
	}
	g.add(p.bytes)
}

// unstage takes out a content of total bytes, if all of it is there and it is
// one: a home node decides what it sends, and whoever reads it later relies on
// that. Whatever was there is not any more.
func (n *node) unstage(total uint64) (content []byte, ok bool) {
	g := n.staged
	n.staged = nil
	if g == nil || g.total != total || uint64(len(g.bytes)) != total {
		return nil, false
	}
	_, ok = mq.ParseContent(g.bytes)
	return g.bytes, ok
}

// message reads an operation that brings a message; ok is false if it lacks its
// content, and then it enters no queue.
func (n *node) message(kind OpKind, payload []byte) (e enqueue, o *once, ok bool) {
	if kind != EnqueueWhole {
		e, o, _ = parseAnyEnqueue(kind, payload)
		return e, o, true
	}
	w, _ := parseWhole(payload)
	e, o, _ = parseAnyEnqueue(w.kind, w.enqueue)
	if e.content, ok = n.unstage(w.total); !ok {
		e.queues = nil
	}
	return e, o, ok
}

// AppendUnstage appends the end of what a session of a node has sent of a message
// whose rest nobody sends any more, because the session is over. It says so of
// that session only, so that it may be proposed late, and twice.
func AppendUnstage(dst []byte, node uint32, session mq.SessionID) []byte {
	dst = append(dst, partUnstage)
	dst = binary.AppendUvarint(dst, uint64(uvarintLen(uint64(node))+uvarintLen(uint64(session))))
	dst = binary.AppendUvarint(dst, uint64(node))
	return binary.AppendUvarint(dst, uint64(session))
}

func parseUnstage(b []byte) (node uint32, session mq.SessionID, err error) {
	number, b := uvarint(b)
	id, b := uvarint(b)
	if b == nil || len(b) != 0 || number > 1<<32-1 {
		return 0, 0, errors.New("end of what is staged is malformed")
	}
	return uint32(number), mq.SessionID(id), nil
}

func (s *State) unstage(number uint32, session mq.SessionID) {
	i := slices.IndexFunc(s.nodes, func(n node) bool { return n.number == number })
	if i >= 0 && s.nodes[i].session == session {
		s.nodes[i].staged = nil
	}
}

// EachStaged calls f with every node that has sent some of a message in parts
// and not yet the end, and the session that has.
func (s *State) EachStaged(f func(node uint32, session mq.SessionID)) {
	for i := range s.nodes {
		if n := &s.nodes[i]; n.staged != nil {
			f(n.number, n.session)
		}
	}
}

// appendStaged appends what is put together, but for the bytes, which follow
// all else, in the same order:
//
//	uvarint nodes, each: uvarint number | uvarint total | uvarint bytes
func (s *State) appendStaged(dst []byte) []byte {
	count := uint64(0)
	s.EachStaged(func(uint32, mq.SessionID) { count++ })
	dst = binary.AppendUvarint(dst, count)
	for i := range s.nodes {
		if n := &s.nodes[i]; n.staged != nil {
			dst = binary.AppendUvarint(dst, uint64(n.number))
			dst = binary.AppendUvarint(dst, n.staged.total)
			dst = binary.AppendUvarint(dst, uint64(len(n.staged.bytes)))
		}
	}
	return dst
}

// stagedBytes are the bytes of what is put together.
func (s *State) stagedBytes() (all [][]byte) {
	for i := range s.nodes {
		if g := s.nodes[i].staged; g != nil {
			all = append(all, g.bytes[:len(g.bytes):len(g.bytes)])
		}
	}
	return all
}

// restoreStaged reads what appendStaged wrote, and the bytes, up to the last one.
func (s *State) restoreStaged(b []byte) error {
	count, b := uvarint(b)
	if b == nil || count > uint64(len(s.nodes)) {
		return errSnapshot
	}
	sizes := make(map[uint32]uint64, count)
	var order []*node
	for range count {
		var number, total, size uint64
		number, b = uvarint(b)
		total, b = uvarint(b)
		size, b = uvarint(b)
		i := slices.IndexFunc(s.nodes, func(n node) bool { return uint64(n.number) == number })
		if b == nil || i < 0 || total > WholeBytesMax || size == 0 || size > total || size > uint64(len(b)) {
			return errSnapshot
		}
		if k := len(order); k > 0 && order[k-1].number >= s.nodes[i].number {
			return errSnapshot
		}
		s.nodes[i].staged = newStaged(total)
		sizes[s.nodes[i].number] = size
		order = append(order, &s.nodes[i])
	}
	for _, n := range order {
		size := sizes[n.number]
		if size > uint64(len(b)) {
			return errSnapshot
		}
		n.staged.add(b[:size])
		b = b[size:]
	}
	if len(b) != 0 {
		return errSnapshot
	}
	return nil
}
