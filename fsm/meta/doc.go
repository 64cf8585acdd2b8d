// Package meta is the replicated metadata of a cluster: vhosts, users,
// permissions, exchanges, queues, bindings, nodes and their sessions, groups
// and settings. It is a pure state machine: the same log gives the same bytes
// on every node. It knows no clock, no network and no Raft, no messages, and
// not whether a client may do what it asks; that is decided before an
// operation is proposed, on a View.
package meta
