// Package cluster is one node's place among the others: who they are, the
// connections to them, and the Raft groups that the node takes part in. It
// moves bytes, and does not know AMQP, queues, or what an entry means.
package cluster
