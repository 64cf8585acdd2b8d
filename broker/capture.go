package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"warren/fsm/queue"
	"warren/mq"
	"warren/storage/segment"
)

// A shard's snapshot is its state, and the bodies of what is live in it:
//
//	u8 version | u64 bytes | state
//	{ uvarint queue | uvarint seq | u8 flags | u8 priority | varint expiryMs | uvarint bytes | body }*
//	uvarint 0
const captureVersion = 1

// captured is a shard's state at one moment.
type captured struct {
	shard  *Shard
	state  []byte
	bodies *segment.View
}

// Snapshot captures the shard as it is now.
func (s *Shard) Snapshot() (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &captured{shard: s, state: s.state.AppendTo(nil), bodies: s.bodies.View()}, nil
}

// WriteTo writes the captured state, in the background.
func (c *captured) WriteTo(w io.Writer) (n int64, err error) {
	count := &countingWriter{w: w}
	out := bufio.NewWriterSize(count, 1<<20)
	head := binary.BigEndian.AppendUint64([]byte{captureVersion}, uint64(len(c.state)))
	out.Write(head) // bufio keeps the first error for Flush
	out.Write(c.state)
	var b []byte
	err = c.bodies.Each(func(q, seq uint64, r segment.Record) error {
		b = appendUint(appendUint(b[:0], q), seq)
		b = append(b, r.Flags, r.Priority)
		b = appendInt(b, r.ExpiryMs)
		out.Write(appendUint(b, uint64(len(r.Body))))
		_, err := out.Write(r.Body)
		return err
	})
	if errors.Is(err, segment.ErrDamaged) {
		c.shard.mu.Lock()
		pages{c.shard}.Damaged(err)
		c.shard.mu.Unlock()
	}
	if err != nil {
		return count.n, err
	}
	out.WriteByte(0)
	err = out.Flush()
	return count.n, err
}

// Release lets go of the captured bodies.
func (c *captured) Release() { c.bodies.Release() }

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// Restore replaces the shard's state by a snapshot. Only a follower is ever
// restored.
func (s *Shard) Restore(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	raw, err := readState(in)
	if err != nil {
		return err
	}
	state, prioritized := queue.New(), map[mq.QueueID]bool{}
	if err := state.Restore(raw); err != nil {
		return err
	}
	bodies := s.newBodies()
	err = s.readBodies(in, state, bodies, prioritized)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		bodies.Close()
		return err
	}
	s.bodies.Close()
	s.state, s.bodies, s.prioritized, s.marked, s.damaged = state, bodies, prioritized, 0, nil
	return nil
}

// readBodies keeps the bodies of a snapshot, as fast as they can be paged out
// if they are more than memory may hold.
func (s *Shard) readBodies(in *bufio.Reader, state *queue.State, bodies *segment.Store, prioritized map[mq.QueueID]bool) error {
	for {
		q, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("body in snapshot: %w", err)
		}
		if q == 0 {
			break
		}
		stated, err := s.readBody(in, q, state, bodies)
		if err != nil {
			return fmt.Errorf("body in snapshot: %w", err)
		}
		if stated {
			prioritized[mq.QueueID(q)] = true
		}
		s.ease()
	}
	_, err := io.Copy(io.Discard, in) // to the end, where damage shows
	return err
}

func readState(in *bufio.Reader) ([]byte, error) {
	var head [9]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, fmt.Errorf("snapshot's head: %w", err)
	}
	if head[0] != captureVersion {
		return nil, fmt.Errorf("snapshot of version %d, this build reads %d", head[0], captureVersion)
	}
	raw, err := io.ReadAll(io.LimitReader(in, int64(min(binary.BigEndian.Uint64(head[1:]), math.MaxInt64))))
	if err == nil && uint64(len(raw)) != binary.BigEndian.Uint64(head[1:]) {
		err = io.ErrUnexpectedEOF
	}
	return raw, err
}

// readBody keeps one body, if the state has it: bodies may be captured that
// were settled a moment before. It says whether the message stated a priority.
func (s *Shard) readBody(in *bufio.Reader, q uint64, state *queue.State, bodies *segment.Store) (stated bool, err error) {
	seq, err := binary.ReadUvarint(in)
	if err != nil {
		return false, err
	}
	flags, err := in.ReadByte()
	if err != nil {
		return false, err
	}
	priority, err := in.ReadByte()
	if err != nil {
		return false, err
	}
	expiry, err := binary.ReadVarint(in)
	if err != nil {
		return false, err
	}
	n, err := binary.ReadUvarint(in)
	if err != nil || n > math.MaxInt32 {
		return false, fmt.Errorf("body of %d bytes: %w", n, errFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(in, body); err != nil {
		return false, err
	}
	if st := state.Queue(mq.QueueID(q)); st != nil && st.Live(mq.Seq(seq)) {
		s.mu.Lock() // which the Pager relies on; the state is not the shard's yet
		bodies.Put(q, seq, flags, priority, expiry, body)
		s.mu.Unlock()
		stated = hasPriority(flags, priority)
	}
	return stated, nil
}

// MetadataSnapshot captures the metadata as it is now.
func (b *Broker) metadataSnapshot() Snapshot { return viewSnapshot{b.meta.View().AppendTo(nil)} }

type viewSnapshot struct{ b []byte }

func (v viewSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(v.b)
	return int64(n), err
}

func (v viewSnapshot) Release() {}
