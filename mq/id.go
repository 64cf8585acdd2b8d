package mq

// NodeID names a node for ever: 16 lower-case hex digits, drawn when its data
// directory is made. Names and addresses may change, a NodeID may not.
type NodeID string

// SessionID names one run of one node: the index of the metadata entry that
// opened it, so a later session always has the higher number.
type SessionID uint64

// GroupID names the log that a queue lives in. The metadata group is 0 and
// holds no queues, Raft queue groups count from 1. A group with LocalBit set
// is the memory of one node session.
type GroupID uint64

// LocalBit marks a GroupID that stands for the memory of a node session.
const LocalBit GroupID = 1 << 63

// LocalGroup is the group of the queues that live in the memory of session s.
func LocalGroup(s SessionID) GroupID { return LocalBit | GroupID(s) }

// Local reports whether g is the memory of one node session, and of which.
func (g GroupID) Local() (SessionID, bool) {
	return SessionID(g &^ LocalBit), g&LocalBit != 0
}

// QueueID names a queue for ever: metadata log index << 12 | number of the
// operation in that entry. A queue declared again under its old name has a new one.
type QueueID uint64

// Seq is a message's place in its queue, counted from 1.
type Seq uint64

// ConsumerID names a consumer on its home node, for one session of that node.
type ConsumerID uint64
