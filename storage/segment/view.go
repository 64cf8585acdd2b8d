package segment

import "slices"

// View is the content of a store at one moment. It stays as it is while the
// store goes on, and may be read from another goroutine.
type View struct {
	store  *Store
	queues []viewedQueue
	bytes  int64
	saved  []savedFile // what Save has synced, and AppendTo refers to
}

type viewedQueue struct {
	id     uint64
	chunks []viewedChunk
}

// viewedChunk shares a chunk's records and bodies: those are only added to,
// beyond the lengths captured here. What is dropped later is told by prefix
// and dead, which are copies. Of a chunk that is paged out it holds the extent.
type viewedChunk struct {
	first         uint64
	slots, prefix int
	dead          *bitmap
	live          uint16 // messages when it was captured
	liveBytes     int64
	expires       bool
	alike         mark
	marks         *marks
	chunk         *chunk // that it was captured from; for Save, under the owner's lock

	recs   []rec // nil if it is paged out
	blocks [][]byte

	file     *file
	at, size uint32
	stored   uint16
}

// View captures the store in time proportional to its chunks.
func (s *Store) View() *View {
	v := &View{store: s, queues: make([]viewedQueue, 0, len(s.queues)), bytes: s.total}
	for id, q := range s.queues {
		vq := viewedQueue{id: id, chunks: make([]viewedChunk, 0, len(q.chunks))}
		for _, c := range q.chunks {
			if c.live == 0 {
				continue
			}
			vq.chunks = append(vq.chunks, c.captureSaved())
		}
		v.queues = append(v.queues, vq)
	}
	slices.SortFunc(v.queues, func(a, b viewedQueue) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return v
}

// Bytes is the size of the live bodies in the view.
func (v *View) Bytes() int64 { return v.bytes }

// Each calls f for every live message, by queue and sequence number, until f
// answers an error. It reads what is paged out, and answers ErrDamaged if that
// is not what was written.
func (v *View) Each(f func(q, seq uint64, r Record) error) error {
	for _, q := range v.queues {
		for i := range q.chunks {
			if err := q.chunks[i].each(q.id, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *viewedChunk) each(q uint64, f func(q, seq uint64, r Record) error) error {
	recs, blocks := c.recs, c.blocks
	if recs == nil {
		l, err := c.load(q)
		if err != nil {
			return err
		}
		recs, blocks = l.recs, l.blocks
	}
	for slot := c.prefix; slot < c.slots; slot++ {
		if c.isDead(slot) {
			continue
		}
		if err := f(q, c.first+uint64(slot), recs[slot].record(blocks)); err != nil {
			return err
		}
	}
	return nil
}

func (c *viewedChunk) isDead(slot int) bool {
	return slot < c.prefix || c.dead != nil && c.dead.has(slot)
}

// letGo lets go of the extent.
func (c *viewedChunk) letGo() {
	if c.file != nil {
		c.file.letGo()
		c.file = nil
	}
}

// Release lets go of what the view holds. The view is empty afterwards.
func (v *View) Release() {
	for _, q := range v.queues {
		for i := range q.chunks {
			q.chunks[i].letGo()
		}
	}
	v.queues = nil
}
