package dispatch

import "warren/mq"

// span stands for the seqs first..last, of which some may be gone.
type span struct{ first, last mq.Seq }

const (
	// blockSpans is how many spans are kept together: 4 KiB.
	blockSpans = 256
	// spansKept is how many an empty list keeps room for.
	spansKept = 16
)

// spans is a queue of spans in rising order, in blocks so that a long one is
// neither copied when it grows nor kept when it shrinks. A span takes 16 bytes:
// that is the most that a message costs, if no two neighbours are of one rank.
type spans struct {
	blocks [][]span // none is empty, but perhaps the only one
	head   int      // in the first block
}

// push adds a span at the end.
func (r *spans) push(x span) {
	if n := len(r.blocks); n == 0 || len(r.blocks[n-1]) == blockSpans {
		r.blocks = append(r.blocks, nil)
	}
	b := &r.blocks[len(r.blocks)-1]
	*b = append(*b, x)
}

// first returns the first span, nil if there is none.
func (r *spans) first() *span {
	if len(r.blocks) == 0 || len(r.blocks[0]) == 0 {
		return nil
	}
	return &r.blocks[0][r.head]
}

// last returns the last span, nil if there is none.
func (r *spans) last() *span {
	if r.first() == nil {
		return nil
	}
	b := r.blocks[len(r.blocks)-1]
	return &b[len(b)-1]
}

// advance takes the first seq off the first span.
func (r *spans) advance() {
	x := r.first()
	if x.first++; x.first > x.last {
		r.pop()
	}
}

// pop removes the first span.
func (r *spans) pop() {
	r.head++
	switch {
	case r.head < len(r.blocks[0]):
	case len(r.blocks) == 1:
		r.clear()
	default:
		r.head, r.blocks[0] = 0, nil
		r.blocks = r.blocks[1:]
	}
}

// clear removes all spans. A small block stays for the next ones.
func (r *spans) clear() {
	if len(r.blocks) != 1 || cap(r.blocks[0]) > spansKept {
		*r = spans{}
		return
	}
	r.blocks[0], r.head = r.blocks[0][:0], 0
}
