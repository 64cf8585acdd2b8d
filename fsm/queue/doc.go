// Package queue is the replicated state of one queue group: for each queue
// the next seq, the delivered high-water mark and which messages are live, and
// for each node the last batch that was applied, what was refused of those
// before it, and what has come of a message in parts.
//
// It is pure and total. It does not know the time, Raft, consumers, what a
// message looks like inside, where bodies are kept, or which queues exist in
// the topology: it obeys what the leader proposed and says what came of it
// (Effects).
package queue
