package broker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"warren/internal/fields"
	"warren/mq"
	"warren/storage/segment"
)

// A shard's snapshot is its state, and the bodies of what is live in it. In
// version 1, which is written where no files can be linked, these follow:
//
//	u8 version | u64 bytes | state
//	{ uvarint queue | uvarint seq | u8 flags | u8 priority | varint expiryMs | uvarint bytes | body }*
//	uvarint 0
//
// In version 2 they are in segment files that the snapshot links, and a manifest
// says where:
//
//	u8 version | u64 bytes | state
//	uvarint queues that some message stated a priority in, each: uvarint id
//	u64 bytes | manifest of the segments
//	the segments, one after the other, if they could not be linked: it was sent
//
// Where bodies are is a matter of this node: the state knows nothing of it.
const (
	captureVersion       = 1
	captureVersionLinked = 2
)

// linker is a snapshot being written that takes files as they are: the first
// bytes of the one at path, which are durable and never change.
type linker interface {
	Link(name, path string, bytes int64, id string) error
}

// captured is a shard's state at one moment.
type captured struct {
	shard       *Shard
	state       [][]byte // in pieces: see queue.State.Capture
	prioritized []mq.QueueID
	bodies      *segment.View
}

// LinkedBytes is how much is in segments that some paged-out message is in.
func (s *Shard) LinkedBytes() int64 {
	if s.folder == nil {
		return 0
	}
	return s.folder.Bytes()
}

// BodyBytes is how much the bodies of all live messages take, wherever they are.
func (s *Shard) BodyBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bodies.Total()
}

// Snapshot captures the shard as it is now.
func (s *Shard) Snapshot() (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sound(); err != nil {
		return nil, err
	}
	c := &captured{shard: s, state: s.state.Capture(), bodies: s.bodies.View()}
	for id := range s.prioritized {
		c.prioritized = append(c.prioritized, id)
	}
	return c, nil
}

// WriteTo writes the captured state, in the background. That of a damaged
// replica is refused: the snapshot before, and the log after it, may still have
// what is lost.
func (c *captured) WriteTo(w io.Writer) (n int64, err error) {
	if err := c.shard.Damaged(); err != nil {
		return 0, fmt.Errorf("this replica is damaged: %w", err)
	}
	count := &countingWriter{w: w}
	out := bufio.NewWriterSize(count, 1<<20)
	if l, ok := w.(linker); ok && c.shard.folder != nil {
		err = c.writeLinked(out, l)
	} else {
		err = c.writeBodies(out)
	}
	if errors.Is(err, segment.ErrDamaged) {
		c.shard.mu.Lock()
		pages{c.shard}.Damaged(err)
		c.shard.mu.Unlock()
	}
	if err == nil {
		err = out.Flush()
	}
	return count.n, err
}

// writeState writes what both versions begin with. bufio keeps the first error
// for Flush.
func (c *captured) writeState(out *bufio.Writer, version byte) {
	n := 0
	for _, b := range c.state {
		n += len(b)
	}
	out.Write(binary.BigEndian.AppendUint64([]byte{version}, uint64(n)))
	for _, b := range c.state {
		out.Write(b)
	}
}

// writeLinked writes bodies to segments that are not on disk yet, links all of
// them, and writes where they are. Once they are linked, the Pager may do with
// the segments what it likes.
func (c *captured) writeLinked(out *bufio.Writer, l linker) error {
	if err := c.bodies.Save(); err != nil {
		return fmt.Errorf("save bodies: %w", err)
	}
	for _, f := range c.bodies.Files() {
		if err := l.Link(f.Name, f.Path, f.Bytes, f.ID); err != nil {
			return err
		}
	}
	c.writeState(out, captureVersionLinked)
	slices.Sort(c.prioritized)
	b := fields.AppendUint(nil, uint64(len(c.prioritized)))
	for _, id := range c.prioritized {
		b = fields.AppendUint(b, uint64(id))
	}
	out.Write(b)
	b = c.bodies.AppendTo(make([]byte, 8, 1<<16))
	binary.BigEndian.PutUint64(b, uint64(len(b)-8))
	_, err := out.Write(b)
	return err
}

func (c *captured) writeBodies(out *bufio.Writer) error {
	c.writeState(out, captureVersion)
	var b []byte
	err := c.bodies.Each(func(q, seq uint64, r segment.Record) error {
		b = fields.AppendUint(fields.AppendUint(b[:0], q), seq)
		b = append(b, r.Flags, r.Priority)
		b = fields.AppendInt(b, r.ExpiryMs)
		out.Write(fields.AppendUint(b, uint64(len(r.Body))))
		_, err := out.Write(r.Body)
		return err
	})
	if err == nil {
		err = out.WriteByte(0)
	}
	return err
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

// MetadataSnapshot captures the metadata as it is now.
func (b *Broker) metadataSnapshot() Snapshot { return viewSnapshot{b.meta.View().AppendTo(nil)} }

type viewSnapshot struct{ b []byte }

func (v viewSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(v.b)
	return int64(n), err
}

func (v viewSnapshot) Release() {}
