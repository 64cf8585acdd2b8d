package broker

// localLog is the log of the queues in a node's memory: it commits at once,
// and ends with the run of the node.
type localLog struct {
	shard *Shard
	term  uint64
	index uint64 // touched by the shard's proposer only
}

// Propose applies the entry before it returns.
func (l *localLog) Propose(entry []byte, done func(result any, err error)) {
	l.index++
	l.shard.Apply([]Entry{{Index: l.index, Term: l.term, Data: entry}})
	done(nil, nil)
}

// Lease always holds: nobody else can lead a node's memory.
func (l *localLog) Lease() bool { return true }
