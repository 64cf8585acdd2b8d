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

// Restore replaces the shard's state by a snapshot. Only a follower is ever
// restored.
func (s *Shard) Restore(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	version, raw, err := readState(in)
	if err != nil {
		return err
	}
	state, prioritized := queue.New(), map[mq.QueueID]bool{}
	if err := state.Restore(raw); err != nil {
		return err
	}
	var bodies *segment.Store
	if version == captureVersionLinked {
		linked := ""
		if f, ok := r.(linkedFolder); ok {
			linked = f.Folder()
		}
		bodies, err = s.openBodies(in, linked, state, prioritized)
	} else {
		bodies = s.newBodies()
		err = s.readBodies(in, state, bodies, prioritized)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, in) // to the end, where damage shows
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if bodies != nil {
			bodies.Close()
		}
		return err
	}
	s.bodies.Close()
	s.state, s.bodies, s.prioritized, s.marked, s.damaged = state, bodies, prioritized, 0, nil
	s.milestones = milestones{}
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
	return nil
}

func readState(in *bufio.Reader) (version byte, raw []byte, err error) {
	if version, err = in.ReadByte(); err != nil {
		return 0, nil, fmt.Errorf("snapshot's head: %w", err)
	}
	if version != captureVersion && version != captureVersionLinked {
		return 0, nil, fmt.Errorf("snapshot of version %d, this build reads %d and %d", version, captureVersion, captureVersionLinked)
	}
	raw, err = readSized(in)
	return version, raw, err
}

// readSized reads a part of a snapshot that has its length before it. Memory
// grows with what is there, not with what the length says.
func readSized(in *bufio.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, fmt.Errorf("snapshot's head: %w", err)
	}
	n := binary.BigEndian.Uint64(head[:])
	raw, err := io.ReadAll(io.LimitReader(in, int64(min(n, math.MaxInt64))))
	if err == nil && uint64(len(raw)) != n {
		err = io.ErrUnexpectedEOF
	}
	return raw, err
}

// linkedFolder is a snapshot being read whose files are at hand.
type linkedFolder interface {
	// Folder is where they are, empty if the snapshot has none.
	Folder() string
}

// openBodies opens the segments of a snapshot. It reads no body of those that
// are linked: what is wrong with one shows when somebody wants it.
func (s *Shard) openBodies(in *bufio.Reader, linked string, state *queue.State, prioritized map[mq.QueueID]bool) (*segment.Store, error) {
	if s.folder == nil {
		return nil, errors.New("snapshot with segments, and this shard has no folder for them")
	}
	n, err := binary.ReadUvarint(in)
	for ; err == nil && n > 0; n-- {
		var id uint64
		if id, err = binary.ReadUvarint(in); err == nil {
			prioritized[mq.QueueID(id)] = true
		}
	}
	if err != nil {
		return nil, fmt.Errorf("priorities in snapshot: %w", err)
	}
	manifest, err := readSized(in)
	if err != nil {
		return nil, err
	}
	bodies, err := s.folder.Restore(pages{s}, manifest, linked)
	if err != nil {
		return nil, err
	}
	return bodies, sameMessages(state, bodies)
}

// sameMessages checks that what is live in the state has a body, and nothing
// else: the two were captured in the same moment.
func sameMessages(state *queue.State, bodies *segment.Store) (err error) {
	left := map[mq.QueueID]uint64{}
	for _, id := range state.Queues() {
		left[id] = state.Queue(id).Count()
	}
	bodies.Live(func(q, first, last uint64) bool {
		st := state.Queue(mq.QueueID(q))
		for seq := first; seq <= last; seq++ {
			if st == nil || !st.Live(mq.Seq(seq)) {
				err = fmt.Errorf("snapshot has a body of message %d of queue %d, which its state does not have", seq, q)
				return false
			}
		}
		left[mq.QueueID(q)] -= last - first + 1
		return true
	})
	for id, n := range left {
		if n != 0 && err == nil {
			err = fmt.Errorf("snapshot lacks the bodies of %d messages of queue %d", n, id)
		}
	}
	return err
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
