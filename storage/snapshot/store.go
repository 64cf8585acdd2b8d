// Package snapshot is a raft.SnapshotStore: each snapshot is a folder with the
// state in checked blocks, a small file that describes it, and any number of
// files that are linked in: bytes that the state refers to and that were on
// disk already. It does not know what state and files hold.
//
//	<dir>/<term %016x>-<index %016x>-<random>/state.bin   blocks: u32 bytes, u32 crc, payload
//	                                         /meta.json   a line with its checksum, then JSON
//	                                         /...         the linked files
//
// A snapshot counts once its folder has lost its ".tmp": state and description
// are synced, then the folder, then it is renamed, then the parent is synced.
// A linked file was synced before it was linked. It stays whole when its other
// names are removed, and goes with the folder.
//
// One that is found to be damaged gets a ".damaged" to its name, for a human to
// look at. The newest of these stays until as many whole ones that are no older
// are here as are kept.
package snapshot

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

const (
	tmpSuffix     = ".tmp"     // not finished, or being removed
	damagedSuffix = ".damaged" // set aside after a checksum failure

	stateFile = "state.bin"
	metaFile  = "meta.json"
	// metaBytesMax bounds what is read of a description.
	metaBytesMax = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that a snapshot's bytes are not those that were written.
var ErrDamaged = errors.New("snapshot is damaged")

// Store is a folder of snapshots. Safe for concurrent use.
type Store struct {
	fs     vfs.FS
	dir    string
	retain int
	log    *slog.Logger

	mu       sync.Mutex // guards moving and removing folders
	pins     map[string]pin
	check    FileCheck // of files that arrive; nil: none
	arriving bool      // an Arrival is open
	offered  *offer    // the one that Raft is about to make a snapshot of; nil: none
	landed   string    // a peer's snapshot that is not restored yet; "": none

	lost chan struct{} // cap 1
}

// pin keeps the folder of a snapshot.
type pin struct {
	readers int
	due     bool // to be removed when they have gone
}

// Lost says that a snapshot was found to be damaged and set aside.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// Open opens the snapshots in dir, makes the folder if need be, and removes
// what an earlier process left unfinished. It keeps the newest retain ones.
func Open(fs vfs.FS, dir string, retain int, log *slog.Logger) (*Store, error) {
	if retain < 1 {
		return nil, fmt.Errorf("keep %d snapshots: must be at least 1", retain)
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if err := fs.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := &Store{fs: fs, dir: dir, retain: retain, log: log, pins: map[string]pin{}, lost: make(chan struct{}, 1)}
	if err := s.cleanIncoming(); err != nil {
		return nil, fmt.Errorf("remove what was not received whole: %w", err)
	}
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, tmpSuffix) })
	if len(names) > 0 { // see discard: who gave one this name may have been killed before that was durable
		if err := fs.SyncDir(dir); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	for _, name := range names {
		if err := fs.Remove(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	return s, nil
}

// Newest is the highest index that any snapshot here was taken at, also one
// that is damaged since: its name says it. All entries up to there were
// committed, whatever is left of them.
func (s *Store) Newest() (index uint64, err error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, tmpSuffix) {
			index = max(index, indexOf(name))
		}
	}
	return index, nil
}

// indexOf is where a snapshot was taken, by its name; 0 if that does not say it.
func indexOf(name string) uint64 {
	var term, index uint64
	if _, err := fmt.Sscanf(name, "%016x-%016x-", &term, &index); err != nil {
		return 0
	}
	return index
}

// Create begins a snapshot. It is raft.SnapshotStore's.
func (s *Store) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("create snapshot: version %d is not supported", version)
	}
	id := fmt.Sprintf("%016x-%016x-%s", term, index, strings.ToLower(rand.Text()[:8]))
	tmp := filepath.Join(s.dir, id+tmpSuffix)
	if err := s.fs.MkdirAll(tmp); err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	f, err := s.fs.Create(filepath.Join(tmp, stateFile))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create snapshot: %w", err), s.fs.Remove(tmp))
	}
	return &Sink{
		store: s, tmp: tmp, file: f, block: make([]byte, blockHeader, blockHeader+blockBytes),
		meta: raft.SnapshotMeta{
			Version: version, ID: id, Index: index, Term: term,
			Configuration: c, ConfigurationIndex: configurationIndex,
		},
	}, nil
}

// List describes the snapshots, newest first. One whose description cannot be
// read is left out, with an error in the log.
func (s *Store) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var list []*raft.SnapshotMeta
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) || strings.HasSuffix(name, damagedSuffix) {
			continue
		}
		d, err := s.readMeta(name)
		if err != nil {
			s.log.Error("skip a snapshot", "snapshot", name, "err", err)
			continue
		}
		list = append(list, &d.SnapshotMeta)
	}
	slices.SortFunc(list, func(a, b *raft.SnapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index), cmp.Compare(b.ID, a.ID))
	})
	return list, nil
}

// Open opens a snapshot to send it, or to restore it. It is
// raft.SnapshotStore's; the reader is a Reader, and gives the state alone.
// Nothing is read of that yet: each block is checked before any byte of it is
// handed out.
func (s *Store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	r, err := s.LocalOpen(id)
	if err != nil {
		return nil, nil, err
	}
	meta := r.Meta()
	return &meta, r, nil
}

// LocalOpen is Open for those who want our own Reader. The snapshot's folder
// stays until it is closed.
func (s *Store) LocalOpen(id string) (*Reader, error) {
	s.mu.Lock()
	p := s.pins[id] // before anything is read: reap must not come between
	p.readers++
	s.pins[id] = p
	s.mu.Unlock()
	r, err := s.open(id)
	if err != nil {
		s.unpin(id)
		return nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return r, nil
}

func (s *Store) open(id string) (*Reader, error) {
	about, err := s.readMeta(id)
	if err != nil {
		return nil, err
	}
	f, err := s.fs.Open(filepath.Join(s.dir, id, stateFile))
	if err != nil {
		return nil, err
	}
	return &Reader{store: s, about: *about, file: f}, nil
}

// unpin takes one Reader's pin away, and removes what has waited for that.
func (s *Store) unpin(id string) {
	s.mu.Lock()
	p := s.pins[id]
	p.readers--
	if s.pins[id] = p; p.readers == 0 {
		delete(s.pins, id)
	}
	s.mu.Unlock()
	if p.readers == 0 && p.due {
		s.reapOrWarn()
	}
}

// Files lists the files that are linked into a snapshot, in the order in which
// they were.
func (s *Store) Files(id string) ([]File, error) {
	d, err := s.readMeta(id)
	if err != nil {
		return nil, fmt.Errorf("files of snapshot %s: %w", id, err)
	}
	return d.Files, nil
}

func (s *Store) readMeta(id string) (*description, error) {
	f, err := s.fs.Open(filepath.Join(s.dir, id, metaFile))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, metaBytesMax))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var sum uint32
	if len(b) < 9 {
		return nil, fmt.Errorf("%w: description has %d bytes", ErrDamaged, len(b))
	}
	if _, err := fmt.Sscanf(string(b[:8]), "%08x", &sum); err != nil || crc32.Checksum(b[9:], castagnoli) != sum {
		return nil, fmt.Errorf("%w: description", ErrDamaged)
	}
	var d description
	if err := json.Unmarshal(b[9:], &d); err != nil {
		return nil, fmt.Errorf("%w: description: %w", ErrDamaged, err)
	}
	for _, f := range d.Files {
		if !f.valid() {
			return nil, fmt.Errorf("%w: description of file %q", ErrDamaged, f.Name)
		}
	}
	return &d, nil
}

func (s *Store) writeMeta(dir string, d description) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if len(b)+9 > metaBytesMax {
		return fmt.Errorf("its description has %d bytes, %d are the most", len(b)+9, metaBytesMax)
	}
	f, err := s.fs.Create(filepath.Join(dir, metaFile))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%08x\n%s", crc32.Checksum(b, castagnoli), b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *Store) reapOrWarn() {
	if err := s.reap(); err != nil {
		s.log.Warn("old snapshots stay", "err", err)
	}
}

// reap removes the snapshots beyond the newest retain ones. One that is read
// just now stays until it is closed. What it cannot remove the next Open does.
func (s *Store) reap() error { return s.reapBeyond(s.retain) }

// Trim removes all snapshots but the newest.
func (s *Store) Trim() error { return s.reapBeyond(1) }

// Linked is how many bytes of files the snapshots have linked; one that several
// have counts once.
func (s *Store) Linked() (bytes int64, err error) {
	list, err := s.List()
	if err != nil {
		return 0, err
	}
	longest := map[string]int64{}
	for _, m := range list {
		files, err := s.Files(m.ID)
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			longest[f.ID] = max(longest[f.ID], f.Bytes)
		}
	}
	for _, n := range longest {
		bytes += n
	}
	return bytes, nil
}

func (s *Store) reapBeyond(retain int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.List()
	if err != nil {
		return err
	}
	if s.landed != "" {
		retain = max(retain, 2) // the log goes on from the one before
	}
	var due []string
	for _, old := range list[min(retain, len(list)):] {
		if p, read := s.pins[old.ID]; read {
			p.due = true
			s.pins[old.ID] = p
			continue
		}
		due = append(due, old.ID)
	}
	if err := s.discard(due); err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	return s.reapDamaged(list, retain)
}

// discard removes snapshots. That they have lost their names is durable before
// the first of their files goes: else a crash might bring the name back, and a
// snapshot would be listed that lacks a file.
func (s *Store) discard(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		path := filepath.Join(s.dir, id)
		if err := s.fs.Rename(path, path+tmpSuffix); err != nil {
			return err
		}
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.fs.Remove(filepath.Join(s.dir, id+tmpSuffix)); err != nil {
			return err
		}
	}
	return nil
}

// reapDamaged removes what is damaged once retain whole ones stand for what it
// stood for, and of those that were set aside all but the newest in any case: the
// segments that it links take room. What Newest says is the same without them.
func (s *Store) reapDamaged(whole []*raft.SnapshotMeta, retain int) error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(indexOf(b), indexOf(a)), cmp.Compare(b, a)) })
	aside := 0
	var due []string
	for _, name := range names {
		newer, listed := 0, strings.HasSuffix(name, tmpSuffix)
		for _, m := range whole {
			listed = listed || m.ID == name
			if m.Index >= indexOf(name) {
				newer++
			}
		}
		if strings.HasSuffix(name, damagedSuffix) {
			aside++
		} else if newer < retain {
			continue // its description could not be read just now
		}
		if !listed && (newer >= retain || aside >= 2) {
			due = append(due, name)
		}
	}
	if err := s.discard(due); err != nil {
		return fmt.Errorf("reap: %w", err)
	}
	return nil
}

// setAside takes a damaged snapshot out of the list, so that the one before it
// counts, here and for those that we send snapshots to.
func (s *Store) setAside(id string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, id)
	err := s.fs.Rename(path, path+damagedSuffix)
	s.log.Error("snapshot is damaged and set aside", "snapshot", id, "err", errors.Join(why, err))
	select {
	case s.lost <- struct{}{}:
	default:
	}
}
