package segment

import "slices"

// View is the content of a store at one moment. It stays as it is while the
// store goes on, and may be read from another goroutine.
type View struct {
	queues []viewedQueue
	bytes  int64
}

type viewedQueue struct {
	id     uint64
	chunks []viewedChunk
}

// viewedChunk shares a chunk's records and bodies: those are only added to,
// beyond the lengths captured here. What is dropped later is told by prefix
// and dead, which are copies.
type viewedChunk struct {
	first  uint64
	recs   []rec
	blocks [][]byte
	dead   *[chunkSlots / 64]uint64
	prefix int
}

// View captures the store in time proportional to its chunks.
func (s *Store) View() *View {
	v := &View{queues: make([]viewedQueue, 0, len(s.queues)), bytes: s.total}
	for id, q := range s.queues {
		vq := viewedQueue{id: id, chunks: make([]viewedChunk, 0, len(q.chunks))}
		for _, c := range q.chunks {
			if c.live == 0 {
				continue
			}
			vc := viewedChunk{first: c.first, recs: c.recs[:len(c.recs):len(c.recs)], blocks: c.blocks, prefix: c.prefix}
			if c.dead != nil {
				d := *c.dead
				vc.dead = &d
			}
			c.shared = true
			vq.chunks = append(vq.chunks, vc)
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
// answers an error.
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
	for slot := c.prefix; slot < len(c.recs); slot++ {
		if c.dead != nil && c.dead[slot>>6]&(1<<(slot&63)) != 0 {
			continue
		}
		if err := f(q, c.first+uint64(slot), c.recs[slot].record(c.blocks)); err != nil {
			return err
		}
	}
	return nil
}

// Release lets go of what the view holds. The view is empty afterwards.
func (v *View) Release() { v.queues = nil }
