// Package broker is what a message goes through between a client's connection
// and the queues: sessions and routing on the client's node, an outbox for
// each group of queues, and shards, which are a log, a state machine, bodies
// and a dispatcher.
//
// It knows neither sockets nor Raft: frames go over a Lane, entries into a
// Log, and a shard cannot tell whether its log is a Raft group's or the local
// one that commits at once. docs/ARCHITECTURE.md follows a message through it.
package broker
