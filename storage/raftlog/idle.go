package raftlog

import "time"

// A log that has been busy leaves files behind: spare ones, and files that stay
// because a few entries of a group that is idle are in one before them. While it
// is busy both are worth their room; when it rests they go.
const (
	// idleEvery is how long no file must have been begun for the log to rest.
	idleEvery = 15 * time.Second
	// idleSpares is how many spare files stay then. With the one that is ready
	// already, and what is left of the one that is written to, they are for the
	// beginning of a burst; a file that has no blocks yet can be made meanwhile.
	idleSpares = 1
	// idleFiles is how much room more than twice what is needed a log that rests
	// may take, in files: the last one is partly empty, and so may be the first.
	idleFiles = 2
)

// rests reports whether no file has been begun since it was called last.
func (k *keeper) rests() bool {
	begun := k.begun.Load()
	same := begun == k.seen
	k.seen = begun
	return same
}

// rest lets go of what a log that rests does not need. It carries what is in as
// many files as there are now at the most, so that it ends.
func (k *keeper) rest() {
	k.w.mu.Lock()
	k.sweep = len(k.w.files)
	k.w.mu.Unlock()
	k.cleanAll()
	k.sweep = 0
	k.dropSpares(idleSpares)
}

// dropSpares removes spare files beyond so many. Whoever needs one meanwhile
// may take it from under it.
func (k *keeper) dropSpares(keep int) {
	for len(k.spares) > keep {
		select {
		case f := <-k.spares:
			k.discard(f)
		default:
		}
	}
}

// sparse reports whether more than half of what the files take, and some, is
// needed by nobody. What is carried then comes to less than what goes.
func (k *keeper) sparse() bool {
	w := k.w
	w.mu.Lock()
	defer w.mu.Unlock()
	unneeded, live := -idleFiles*w.opts.FileBytes, int64(0)
	for _, f := range w.files {
		unneeded += f.size - f.live.Load()
		live += f.live.Load()
	}
	return unneeded > live
}
