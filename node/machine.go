package node

import (
	"io"

	"warren/broker"
	"warren/cluster"
)

// This file fits rooms together whose types differ by name only.

// shardMachine lets a Raft group drive a shard.
type shardMachine struct{ *broker.Shard }

// Apply hands committed entries on. The shard answers the nodes that sent
// them itself, so there are no results.
func (m shardMachine) Apply(batch []cluster.Entry) []any {
	m.Shard.Apply(entries(batch))
	return make([]any, len(batch))
}

// Snapshot captures the shard.
func (m shardMachine) Snapshot() (cluster.Snapshot, error) { return m.Shard.Snapshot() }

// metadataMachine lets the metadata group drive this node's metadata.
type metadataMachine struct{ broker.Metadata }

// Apply hands committed entries on.
func (m metadataMachine) Apply(batch []cluster.Entry) []any { return m.Metadata.Apply(entries(batch)) }

// Snapshot captures the metadata.
func (m metadataMachine) Snapshot() (cluster.Snapshot, error) { return m.Metadata.Snapshot() }

func entries(batch []cluster.Entry) []broker.Entry {
	out := make([]broker.Entry, len(batch))
	for i, e := range batch {
		out[i] = broker.Entry{Index: e.Index, Term: e.Term, Data: e.Data}
	}
	return out
}

var (
	_ cluster.Machine = shardMachine{}
	_ cluster.Machine = metadataMachine{}
	_ io.WriterTo     = (cluster.Snapshot)(nil)
)
