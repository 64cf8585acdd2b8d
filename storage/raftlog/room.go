package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// A full disk is met when a file is to be begun, because a file's blocks are
// reserved before it is used. An append fails then, which Raft survives: a
// leader steps down, a follower answers that it could not, and both try again.
// What must not fail has room in every file that nothing else takes:
//
//   - The beginning of a log can be deleted, and a damaged log dropped: it is
//     what lets files go.
//   - What replaces the end of a log can be stored. Raft deletes the one and
//     stores the other, and takes the end that it deleted for its log's if the
//     second fails: its next entries would leave a gap.
const (
	deletionRoom = 64 << 10
	// replaceRoom is more than what comes in one AppendEntries, but for large messages.
	replaceRoom = 16 << 20
)

// isFull reports whether an error says that a disk, or what may be used of it, is full.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// deletionRoom is what every file keeps for deletions, and replaceRoom for
// each log whose end is being replaced.
func (w *WAL) deletionRoom() int64 { return min(deletionRoom, w.opts.FileBytes/16) }
func (w *WAL) replaceRoom() int64  { return min(replaceRoom, w.opts.FileBytes/4) }

// setCut notes that a group's log has lost its end, or has it again.
func (w *WAL) setCut(g *GroupLog, cut bool) {
	switch {
	case cut && !g.cut:
		w.cuts++
	case !cut && g.cut:
		w.cuts--
	}
	g.cut = cut
}

// room is what a request may take.
func (r *request) room() int64 {
	n := int64(r.bytes)
	if r.do == doStore {
		// One that begins the log anew, or replaces its end, says so first.
		n += recordHead * int64(len(r.logs))
	}
	return n
}

// cutsEnd reports whether a request deletes the end of a log, and not all of it.
func (r *request) cutsEnd() bool { return r.do == doDelete && r.first > r.group.begin }

// replaces reports whether a request stores what replaces a deleted end.
func (r *request) replaces() bool { return r.do == doStore && r.group.cut }

// promised reports whether something in the batch must not fail.
func (w *WAL) promised() bool {
	for _, r := range w.batch {
		if r.err == nil && r.do == doStore && (r.group.cut || r.was.cut) {
			return true
		}
	}
	return false
}

// prepare makes sure that the batch fits the file. Its error has changed
// nothing. On a full disk what may fail of the batch has an error then, and the
// rest fits.
func (w *WAL) prepare() error {
	if w.failed != nil {
		return w.failed
	}
	room, kept := int64(recordHead), w.deletionRoom()+int64(w.cuts)*w.replaceRoom()
	for _, r := range w.batch {
		room += r.room()
		if r.cutsEnd() {
			kept += w.replaceRoom()
		}
	}
	fresh := w.off <= headerBytes+recordHead // it is as large as it will be
	if !w.spent && (fresh || w.off+room+kept <= w.file.size) {
		return nil
	}
	w.dog.begin()
	f, err := w.keeper.next(headerBytes + room + kept)
	w.dog.end()
	if err == nil {
		w.use(f)
		w.keeper.wake()
		return nil
	}
	err = fmt.Errorf("begin a file: %w", err)
	if !isFull(err) {
		return w.fail(err)
	}
	return w.squeeze(err)
}

// squeeze lets only what must not fail go on, and nothing into the room that is
// kept for others.
func (w *WAL) squeeze(why error) error {
	why = w.full(why)
	end, kept := w.off+recordHead, int64(w.cuts)*w.replaceRoom()
	for _, r := range w.batch {
		must := r.do == doEnd || r.do == doDrop || r.do == doDelete && !r.cutsEnd()
		limit := w.file.size - kept
		if r.replaces() {
			must = true
			kept -= w.replaceRoom()
			if limit = w.file.size - kept; r.room() > w.replaceRoom() {
				limit -= w.deletionRoom()
			}
		}
		switch fits := !w.spent && end+r.room() <= limit; {
		case must && fits:
			end += r.room()
		case r.replaces():
			return w.fail(fmt.Errorf("the disk is full between a deleted suffix and its replacement: %w", why))
		default:
			r.err = why
		}
	}
	return nil
}

// full says that the disk is full, and asks for snapshots, which let files go.
func (w *WAL) full(err error) error {
	w.opts.Log.Error("disk is full", "what", "write the log", "folder", w.dir, "err", err)
	w.keeper.wantRoom()
	return err
}

// unencode takes back what encode has noted of a batch that was not written.
func (w *WAL) unencode() {
	for i := len(w.batch) - 1; i >= 0; i-- {
		r := w.batch[i]
		if r.err == nil && r.group != nil {
			w.setCut(r.group, r.was.cut)
			r.group.plan = r.was
		}
	}
}

// dropUnused removes the file if its first write was refused: no later file
// could say where the one before it ends.
func (w *WAL) dropUnused() error {
	if w.off > headerBytes {
		return nil
	}
	w.mu.Lock()
	w.files = slices.DeleteFunc(w.files, func(f *walFile) bool { return f == w.file })
	w.mu.Unlock()
	err := errors.Join(w.file.f.Close(), w.fs.Remove(w.file.path), w.fs.SyncDir(w.dir))
	if err != nil {
		return fmt.Errorf("%s: %w", w.file.path, err)
	}
	return nil
}
