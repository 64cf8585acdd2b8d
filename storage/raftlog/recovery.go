package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Recovery reads all files once, in order. What it must tell apart is the end
// of what was written, which a crash may have torn and nobody was answered for,
// from damage to what somebody was answered for:
//
//   - Every write begins with a batch record, and was begun when all before it
//     in its file was synced. So a bad record with a good batch record anywhere
//     behind it is damage; one with none is the end of the last file.
//   - The first batch record of a file says where the file before it ends. It
//     was written after the last answer for that file, or by a recovery that had
//     found its end; so a bad record before that end is damage, and what is
//     behind the end is nothing.
//
// The last write before a crash has nothing behind it: damage to it looks like
// a torn write. Close and OpenWAL write a batch record, so that this is so only
// for a process that was killed and a disk that went bad before its next start.
//
// A bad payload under a good header damages one group. Behind a bad header
// records could be missed of any group, so that all are damaged. Recovery goes
// on at the next batch record all the same, for a group whose log was dropped
// behind the damage: that one needs nothing of what lies before.

// readAheadBytes is how much recovery reads at once.
const readAheadBytes = 1 << 20

// reader reads a file from its beginning to its end.
type reader struct {
	f    io.ReaderAt
	size int64
	buf  []byte
	base int64 // offset of buf
}

// at returns n bytes at off, or fewer at the end of the file, until the next call.
func (r *reader) at(off int64, n int64) ([]byte, error) {
	n = max(0, min(n, r.size-off))
	if off < r.base || off+n > r.base+int64(len(r.buf)) {
		want := min(max(n, readAheadBytes), r.size-off)
		if int64(cap(r.buf)) < want {
			r.buf = make([]byte, want)
		}
		r.buf, r.base = r.buf[:want], off
		if got, err := r.f.ReadAt(r.buf, off); int64(got) < want {
			r.buf = r.buf[:0]
			return nil, fmt.Errorf("read at %d: %w", off, err)
		}
	}
	return r.buf[off-r.base:][:n], nil
}

// head reads the header of the record at off.
func (r *reader) head(off int64, seed uint32) (record, bool, error) {
	b, err := r.at(off, recordHead)
	if err != nil {
		return record{}, false, err
	}
	rec, ok := readHead(b, seed)
	return rec, ok && rec.bytes() <= r.size-off, nil
}

// batches finds the batch records at off or behind it: where the first one
// begins, and where the last one ends; 0 if there is none.
func (r *reader) batches(off int64, seed uint32) (first, end int64, err error) {
	for ; off+recordHead <= r.size; off += 8 {
		rec, ok, err := r.head(off, seed)
		if err != nil {
			return 0, 0, err
		}
		if ok && rec.kind == kindBatch && rec.index == uint64(off) {
			if end = off + recordHead; first == 0 {
				first = off
			}
		}
	}
	return first, end, nil
}

// found is a file as recovery meets it.
type found struct {
	*walFile
	used    bool   // it holds records, or did
	intact  bool   // its first batch record can be read
	prevSeq uint64 // what that record says
	prevEnd int64
	blind   bool  // its header cannot be read, and so nothing in it
	lost    error // why records may be missing in it, or before it
}

// recover reads the files and fills in the groups, and returns the number for
// the next file. Files that were never used, and spare ones, are removed.
func (w *WAL) recover() (next uint64, err error) {
	names, err := w.fs.List(w.dir)
	if err != nil {
		return 0, err
	}
	next = 1
	var files []found
	removed := false
	for _, name := range names {
		seq, err := strconv.ParseUint(strings.TrimSuffix(name, walSuffix), 16, 64)
		if err != nil || !strings.HasSuffix(name, walSuffix) {
			if strings.HasSuffix(name, newSuffix) || strings.HasSuffix(name, spareSuffix) {
				removed = true
				if err := w.fs.Remove(filepath.Join(w.dir, name)); err != nil {
					return 0, err
				}
			}
			continue
		}
		f, err := w.meet(seq, filepath.Join(w.dir, name))
		if err != nil {
			return 0, err
		}
		next = max(next, seq+1)
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b found) int { return cmp.Compare(a.seq, b.seq) })
	for _, f := range files {
		if f.used {
			continue
		}
		if i := slices.IndexFunc(files, func(o found) bool { return o.intact && o.prevSeq == f.seq }); i >= 0 {
			files[i].lost = fmt.Errorf("%s: the file before it, %s, holds nothing: %w", files[i].path, f.path, ErrDamaged)
			continue
		}
		removed = true
		if err := w.fs.Remove(f.path); err != nil {
			return 0, err
		}
	}
	used := slices.DeleteFunc(slices.Clone(files), func(f found) bool { return !f.used })
	w.fresh = len(used) == 0
	if removed {
		if err := w.fs.SyncDir(w.dir); err != nil {
			return 0, err
		}
	}
	if err := w.replay(used); err != nil {
		return 0, err
	}
	w.settle()
	w.files = w.files[:0] // from here on these alone are to be closed
	for _, f := range files {
		if f.used {
			w.files = append(w.files, f.walFile)
		} else {
			err = errors.Join(err, f.f.Close())
		}
	}
	return next, err
}

// meet opens a file and finds out whether it was used.
func (w *WAL) meet(seq uint64, path string) (found, error) {
	f, err := w.fs.Edit(path)
	if err != nil {
		return found{}, err
	}
	file := found{walFile: &walFile{seq: seq, path: path, f: f}}
	w.files = append(w.files, file.walFile) // to be closed; recover sets the list anew
	if file.size, err = f.Size(); err != nil {
		return found{}, err
	}
	r := &reader{f: f, size: file.size}
	b, err := r.at(0, headerBytes)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", path, err)
	}
	said, seed, ok := readFileHeader(b)
	if !ok || said != seq {
		// A file gets its name after its header is synced.
		file.used, file.blind = true, true
		file.lost = fmt.Errorf("%s: the file's header: %w", path, ErrDamaged)
		return file, nil
	}
	file.seed = seed
	rec, ok, err := r.head(headerBytes, seed)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", path, err)
	}
	if ok && rec.kind == kindBatch && rec.index == headerBytes {
		file.used, file.intact, file.prevSeq, file.prevEnd = true, true, rec.gid, int64(rec.term)
		return file, nil
	}
	_, end, err := r.batches(headerBytes, seed)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", path, err)
	}
	if file.used = end > 0; file.used {
		file.lost = fmt.Errorf("%s at %d: %w", path, headerBytes, ErrDamaged)
	}
	return file, nil
}

// lose marks every group as damaged, but those that are dropped later on.
func (w *WAL) lose(err error) {
	clear(w.anew)
	if w.damage == nil {
		w.damage = err
	}
}

// replay reads the used files in order.
func (w *WAL) replay(files []found) error {
	for i, f := range files {
		f.begun.Store(true)
		if i > 0 && f.intact && f.prevSeq != files[i-1].seq {
			w.lose(fmt.Errorf("%s: the file before it, number %x, is missing: %w", f.path, f.prevSeq, ErrDamaged))
		}
		if f.lost != nil {
			w.lose(f.lost)
		}
		last := i == len(files)-1
		end := int64(-1)
		if !last && files[i+1].intact && files[i+1].prevSeq == f.seq {
			end = files[i+1].prevEnd
		}
		newest := end
		if f.blind {
			end = f.size // so that the next start finds the damage, too
			newest = end
		} else {
			var err error
			if newest, end, err = w.replayFile(f.walFile, end); err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
		}
		if last {
			if err := f.renew(newest, end); err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
			w.prevSeq, w.prevEnd = f.seq, end
		}
	}
	return nil
}

// renew makes the newest write of the last file durable: what a killed process
// wrote and did not sync was found now, and will be answered for. All before it
// was synced when it began.
//
// A sync alone would not do. One that fails ends the process, and leaves pages
// that are not on disk and that the kernel takes for clean: this process has read
// them, and no sync of its own would write them. So they are written again, each
// byte in its place: a crash meanwhile leaves what it might have left before.
func (f *found) renew(from, end int64) error {
	r := &reader{f: f.f, size: f.size}
	for from < end {
		b, err := r.at(from, min(readAheadBytes, end-from))
		if err == nil {
			_, err = f.f.WriteAt(b, from)
		}
		if err != nil {
			return err
		}
		from += int64(len(b))
	}
	return f.f.SyncData()
}

// replayFile applies a file's records up to end, or to the end that it finds
// if end is negative, and returns where the newest write begins, and the end.
func (w *WAL) replayFile(f *walFile, end int64) (newest, _ int64, err error) {
	r := &reader{f: f.f, size: f.size}
	off := int64(headerBytes)
	newest = off
	next, synced := int64(-1), int64(0) // the next batch record and the end of the last one, once they were looked for
	for end < 0 || off < end {
		rec, ok, whole, err := r.record(off, f.seed)
		if err != nil {
			return 0, 0, err
		}
		if !whole {
			if next != 0 && next <= off {
				if next, synced, err = r.batches(off+8, f.seed); err != nil {
					return 0, 0, err
				}
			}
			switch {
			case end < 0 && next == 0 && off >= synced:
				return newest, off, nil // the end, torn or not
			case !ok:
				w.lose(fmt.Errorf("%s at %d: %w", f.path, off, ErrDamaged))
				if next == 0 || end >= 0 && next >= end {
					return newest, max(end, off), nil
				}
				off = next
				continue
			}
			w.damageGroup(rec.gid, fmt.Errorf("%s at %d: %w", f.path, off, ErrDamaged))
		}
		if rec.kind == kindBatch {
			newest = off
		}
		w.redo(&rec, f, off)
		off += rec.bytes()
	}
	if off != end {
		w.lose(fmt.Errorf("%s at %d: the last record ends behind the file's end at %d: %w", f.path, off, end, ErrDamaged))
	}
	return newest, end, nil
}

// record reads the record at off. ok says that its header is good, and whole
// that its payload is, too.
func (r *reader) record(off int64, seed uint32) (rec record, ok, whole bool, err error) {
	rec, ok, err = r.head(off, seed)
	if err != nil || !ok || rec.payloadLen == 0 {
		return rec, ok, ok, err
	}
	b, err := r.at(off+recordHead, int64(rec.payloadLen))
	return rec, ok, err == nil && rec.payloadOK(b, seed), err
}

func (w *WAL) damageGroup(gid uint64, err error) {
	if w.damaged[gid] == nil {
		w.damaged[gid] = err
	}
}

// redo does what a record says.
func (w *WAL) redo(rec *record, f *walFile, off int64) {
	if rec.kind == kindBatch {
		return
	}
	g := w.group(rec.gid)
	at := ref{term: rec.term, file: f, off: uint32(off), size: rec.payloadLen}
	switch rec.kind {
	case kindEntry:
		g.fill(rec.index)
		g.dropFrom(rec.index)
		if len(g.refs) == 0 {
			g.first = rec.index
		}
		g.refs = append(g.refs, at)
		g.hold(at)
	case kindCarry:
		// The file that it was carried from may be gone: then this entry is
		// before, or behind, what is known of the log so far.
		g.fill(rec.index + 1)
		if rec.index < g.first {
			g.refs = append(make([]ref, g.first-rec.index), g.refs...)
			g.first = rec.index
		}
		old := &g.refs[rec.index-g.first]
		g.release(*old)
		*old = at
		g.hold(at)
	case kindTruncPrefix:
		g.dropTo(rec.index)
	case kindTruncSuffix:
		g.dropFrom(rec.index)
	case kindDrop:
		g.dropFrom(0)
		delete(w.damaged, rec.gid)
		w.anew[rec.gid] = true
	}
}

// fill makes the log reach up to before end, with holes. A hole that no later
// record fills or drops is damage.
func (g *GroupLog) fill(end uint64) {
	if len(g.refs) == 0 {
		g.first = end
		return
	}
	for g.first+uint64(len(g.refs)) < end {
		g.refs = append(g.refs, ref{})
	}
}

// settle checks that every group's log is whole, and has it go on from there.
func (w *WAL) settle() {
	if w.damage != nil {
		w.opts.Log.Error("the log is damaged: only groups that began anew since can be trusted", "err", w.damage)
	}
	for gid, g := range w.groups {
		for i := range g.refs {
			if g.refs[i].file == nil {
				w.damageGroup(gid, fmt.Errorf("%s: entry %d of group %d is missing: %w", w.dir, g.first+uint64(i), gid, ErrDamaged))
				break
			}
		}
		if len(g.refs) > 0 {
			g.begin, g.next = g.first, g.first+uint64(len(g.refs))
		}
	}
	for gid, err := range w.damaged {
		w.opts.Log.Error("the log of a group is damaged", "group", gid, "err", err)
	}
}
