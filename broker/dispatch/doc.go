// Package dispatch decides who gets which message of one queue next. A Queue
// is the memory of the leader of that queue's group: it is made when the
// leader begins and forgotten when it ends, and nothing of it is replicated.
//
// It is pure. It does not know the time, Raft, messages (only their seqs and
// sizes), clients, or how a delivery travels.
package dispatch
