package broker

import (
	"io"

	"warren/mq"
)

// Lane carries frames between nodes. Frames from one node to another arrive in
// order or, when the connection between the two is lost, not at all; both
// sides hear of it (PeerDown, PeerUp). A frame to the own node takes the same
// way, through a goroutine of its own.
type Lane interface {
	Self() mq.NodeID
	// Send never blocks and takes frame over; false means the peer is down.
	Send(to mq.NodeID, frame []byte) bool
	// Peers are the other nodes whose connection is up.
	Peers() []mq.NodeID
	// Dead says that a node is known to have ended, not merely silent.
	Dead(id mq.NodeID) bool
}

// Log is what a shard proposes its entries to.
type Log interface {
	// Propose may block for a moment. done runs once for each call, in the
	// order of the calls, after Apply has seen the entry if there is no error.
	// An error means: unknown whether it was committed.
	Propose(entry []byte, done func(result any, err error))
	// Lease says that no other node can lead this log at this moment.
	Lease() bool
}

// Entry is a committed entry of a log.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Snapshot is a state captured in a moment and written at leisure.
type Snapshot interface {
	io.WriterTo
	Release()
}
