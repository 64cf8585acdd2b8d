package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"warren/storage/vfs"
)

// What peers send of snapshots is gathered next to the folder of snapshots:
//
//	<dir>/../incoming/<hash of the ID>        a file: synced, as long as it was asked for
//	                 /<hash of the ID>.part   its beginning
//	                 /state                   the state, not synced
//
// A file counts here once it has lost its ".part": it is synced, then renamed.
// It is linked into a snapshot under the name that the sender gives it, and goes
// from here once Raft has that snapshot, or a later one. Files survive the end
// of the process; beginnings of files do not, since what a crash leaves of them
// is anybody's guess. What a later snapshot does not list goes when that arrives.
const (
	incomingDir   = "incoming"
	partSuffix    = ".part"
	incomingState = "state"
	// fileBytesMax bounds what a peer may say that a file has.
	fileBytesMax = 1 << 40
	// copyBytes is how much is copied at a time.
	copyBytes = 128 << 10
)

// ErrRefused says that what a peer sends makes no sense.
var ErrRefused = errors.New("a peer's snapshot makes no sense")

// FileCheck says whether a file is the one that its ID promises, at least as
// many bytes of it. It knows what files hold.
type FileCheck func(f io.ReaderAt, bytes int64, id string) error

// CheckFiles sets who checks files before they are linked into a snapshot that
// arrives. To be called before anything does.
func (s *Store) CheckFiles(check FileCheck) { s.check = check }

// refuse checks a list of files from a peer.
func refuse(files []File) error {
	names, ids := map[string]bool{}, map[string]bool{}
	for i := range files {
		f := &files[i]
		switch {
		case !f.valid() || !segmentName(f.Name):
			return fmt.Errorf("%w: file %.120q of %d bytes, identity %.120q", ErrRefused, f.Name, f.Bytes, f.ID)
		case f.Bytes > fileBytesMax:
			return fmt.Errorf("%w: file %s of %d bytes", ErrRefused, f.Name, f.Bytes)
		case names[f.Name] || ids[f.ID]:
			return fmt.Errorf("%w: file %s is there twice", ErrRefused, f.Name)
		}
		names[f.Name], ids[f.ID] = true, true
	}
	return nil
}

// segmentName reports whether a name has the form of a segment's.
func segmentName(name string) bool {
	base, ok := strings.CutSuffix(name, ".seg")
	return ok && base != "" && strings.Trim(base, "0123456789abcdefghijklmnopqrstuvwxyz-") == ""
}

// Clear removes the snapshots in dir and what peers have sent of theirs: a file
// of those may be a link to one of these, and so have its damage. No Store may
// be open there.
func Clear(files vfs.FS, dir string) error {
	parent := filepath.Dir(dir)
	return errors.Join(files.Remove(dir), files.Remove(filepath.Join(parent, incomingDir)), files.SyncDir(parent))
}

// incoming is the folder of what peers send.
func (s *Store) incoming() string { return filepath.Join(filepath.Dir(s.dir), incomingDir) }

// cleanIncoming removes what does not survive the end of a process.
func (s *Store) cleanIncoming() error {
	names, err := s.fs.List(s.incoming())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if name == incomingState || strings.HasSuffix(name, partSuffix) {
			err = errors.Join(err, s.fs.Remove(filepath.Join(s.incoming(), name)))
		}
	}
	return err
}

// dropIncoming removes what came of snapshots that never landed, unless one is
// arriving: there is a later one.
func (s *Store) dropIncoming() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.fs.List(s.incoming()); s.arriving || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.fs.Remove(s.incoming())
}

// place is where a file is gathered. A hash, because a peer's words are not for
// paths; of the ID alone, because a longer file of the same ID goes on where
// this one ends.
func (a *Arrival) place(f *File) string {
	sum := sha256.Sum256([]byte(f.ID))
	return filepath.Join(a.dir, hex.EncodeToString(sum[:16]))
}

// survey finds out what is here, and removes what nobody asks for any more. It
// writes nothing before room has said that all that is to be written fits.
func (a *Arrival) survey(room func(bytes int64) error) error {
	wanted := map[string]bool{}
	for i := range a.files {
		at := filepath.Base(a.place(&a.files[i]))
		wanted[at], wanted[at+partSuffix] = true, true
	}
	names, err := a.store.fs.List(a.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !wanted[name] {
			if err := a.store.fs.Remove(filepath.Join(a.dir, name)); err != nil {
				return err
			}
		}
	}
	own := a.store.linkedByID()
	begun := make([]begun, len(a.files))
	need := int64(0)
	for i := range a.files {
		b, err := a.look(i, own[a.files[i].ID])
		if err != nil {
			return err
		}
		begun[i] = b
		need += b.need
	}
	if err := room(need); err != nil {
		return err
	}
	for i := range a.files {
		if err := a.goOnWith(i, begun[i]); err != nil {
			return err
		}
	}
	return nil
}

// begun is what there is of a file that is not here as a whole.
type begun struct {
	whole   bool     // or all of it is
	part    int64    // bytes in the folder
	shorter heldFile // the longest whole file of the same ID
	need    int64    // bytes that are to be written
}

// heldFile is a file that this node has, and how much of it belongs to its ID.
type heldFile struct {
	path  string
	bytes int64
}

// linkedByID finds the longest file of each ID in this node's snapshots. There
// is no need to look elsewhere: what a peer can name was in a snapshot before
// it was anywhere else on this node, and is in every later one that needs it.
func (s *Store) linkedByID() map[string]heldFile {
	out := map[string]heldFile{}
	metas, err := s.List()
	if err != nil {
		s.log.Warn("what is in this node's snapshots is not known", "err", err)
		return out
	}
	for _, m := range metas {
		files, err := s.Files(m.ID)
		if err != nil { // it was removed meanwhile
			continue
		}
		for _, f := range files {
			if f.Bytes > out[f.ID].bytes {
				out[f.ID] = heldFile{filepath.Join(s.dir, m.ID, f.Name), f.Bytes}
			}
		}
	}
	return out
}

// look finds out how much of a file is here: in the folder, or in a snapshot of
// this node's, from which all of it is linked.
func (a *Arrival) look(i int, linked heldFile) (b begun, err error) {
	f, place := &a.files[i], a.place(&a.files[i])
	whole, err := a.size(place)
	if err != nil || whole >= f.Bytes {
		return begun{whole: true}, err
	}
	if err := a.checkHeld(linked, f.ID); err != nil {
		a.store.log.Warn("a file of this node's is not taken for one that a peer has", "file", linked.path, "err", err)
		linked = heldFile{}
	}
	if linked.bytes >= f.Bytes {
		err := errors.Join(a.store.fs.Remove(place), a.store.fs.Link(linked.path, place))
		if !errors.Is(err, fs.ErrNotExist) {
			return begun{whole: true}, err
		}
		linked = heldFile{} // the snapshot was removed meanwhile
	}
	b.shorter = linked
	if whole > b.shorter.bytes { // of an earlier snapshot, when it was shorter
		b.shorter = heldFile{place, whole}
	}
	b.part, err = a.size(place + partSuffix)
	b.need = max(0, f.Bytes-b.part) // also if it is begun anew with a copy: that empties it
	return b, err
}

// checkHeld checks a file in a snapshot of this node's, if there is one.
func (a *Arrival) checkHeld(held heldFile, id string) error {
	if a.store.check == nil || held.bytes == 0 {
		return nil
	}
	in, err := a.store.fs.Open(held.path)
	if err != nil {
		return err
	}
	return errors.Join(a.store.check(in, held.bytes, id), in.Close())
}

// goOnWith notes what there is of a file: all of it, or its beginning, in the
// folder or as the whole of a shorter one.
func (a *Arrival) goOnWith(i int, b begun) (err error) {
	f, place, from := &a.files[i], a.place(&a.files[i]), b.part
	if b.whole {
		a.noteHere(f.Bytes)
		return nil
	}
	if from < b.shorter.bytes {
		from, err = a.copyBeginning(b.shorter, place+partSuffix)
	}
	if err == nil {
		err = a.store.fs.Remove(place)
	}
	if err != nil {
		return err
	}
	if from >= f.Bytes { // it was to become longer; what is behind f.Bytes does no harm
		a.noteHere(f.Bytes)
		return a.Finish(i)
	}
	a.bytes += from
	a.lacks = append(a.lacks, Lack{File: *f, Index: i, From: from})
	return nil
}

func (a *Arrival) noteHere(bytes int64) {
	a.here++
	a.bytes += bytes
}

// size is that of a file in the folder, 0 if it is not there.
func (a *Arrival) size(name string) (int64, error) {
	f, err := a.store.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := f.Size()
	return n, errors.Join(err, f.Close())
}

// copyBeginning begins a file with a shorter one of the same ID. It is not
// linked: a snapshot, or whoever wrote it, must not see what is written behind it.
func (a *Arrival) copyBeginning(from heldFile, to string) (int64, error) {
	in, err := a.store.fs.Open(from.path)
	if errors.Is(err, fs.ErrNotExist) {
		return a.size(to)
	}
	if err != nil {
		return 0, err
	}
	out, err := a.store.fs.Create(to)
	if err != nil {
		return 0, errors.Join(err, in.Close())
	}
	n, err := copyTo(out, io.LimitReader(in, from.bytes))
	return n, errors.Join(err, in.Close(), out.Close())
}

// copyTo copies with a buffer of its own, whatever the two ends offer.
func copyTo(w io.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, copyBytes))
}

// FileReader reads a linked file of a snapshot that is open.
type FileReader struct {
	snapshot *Reader
	about    File
	file     vfs.File
}

// OpenFile opens a linked file, by its place in Files. To be closed before the
// Reader is.
func (r *Reader) OpenFile(index int) (*FileReader, error) {
	about := r.about.Files[index]
	f, err := r.store.fs.Open(filepath.Join(r.Folder(), about.Name))
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", r.about.ID, err)
	}
	return &FileReader{r, about, f}, nil
}

// ReadAt fills b. A file that ends too early is damaged, and with it the
// snapshot: it is set aside.
func (f *FileReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = f.snapshot.judge(fmt.Errorf("%w: %s ends before %d", ErrDamaged, f.about.Name, off+int64(len(b))))
	}
	return n, fmt.Errorf("read snapshot %s: %w", f.snapshot.about.ID, err)
}

// Close closes the file.
func (f *FileReader) Close() error { return f.file.Close() }
