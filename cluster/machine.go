package cluster

import "io"

// Entry is one committed command of a group's log.
type Entry struct {
	Index uint64
	Term  uint64 // of the leader that appended it, not of the one that proposed it
	Data  []byte // never empty; shared and immutable, may be kept
}

// Machine is what a group replicates. Apply, Snapshot and Restore never
// overlap each other. Lead and Follow never overlap each other, but may
// overlap Apply. All of them may take a moment; none may call Group.Close.
type Machine interface {
	// Apply applies committed entries in order and answers one result per
	// entry. It must be deterministic and cannot fail: a refusal is a result.
	Apply(batch []Entry) []any
	// Snapshot captures the state as it is now. It holds up Apply: quick.
	Snapshot() (Snapshot, error)
	// Restore replaces the whole state by what Snapshot.WriteTo once wrote. It
	// must read to the end: r answers an error instead of io.EOF if what it
	// gave was damaged. After an error the state is what it was. If files were linked into
	// the snapshot, r has the method Folder, which says where they are until
	// Restore returns.
	Restore(r io.Reader) error
	// Lead says that this node leads the group in term, and has applied every
	// entry of earlier terms.
	Lead(term uint64)
	// Follow says that what Lead said is over. There is always one between two Leads.
	Follow()
}

// Linker is a Machine that links files into its snapshots.
type Linker interface {
	// LinkedBytes is about how much a snapshot that is taken now would link, as
	// long as nothing is written for it.
	LinkedBytes() int64
	// BodyBytes is how much the messages take that there are.
	BodyBytes() int64
}

// Snapshot is a captured state. WriteTo runs in the background while Apply
// goes on; Release is called once, also when WriteTo never was.
type Snapshot interface {
	WriteTo(w io.Writer) (int64, error)
	Release()
}
