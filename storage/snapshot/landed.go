package snapshot

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// A snapshot that a peer sent is on disk and in the list before anybody has
// tried to restore it. Until that is done nothing depends on it: the state, and
// the log behind the snapshot before, are what they were.

// noteLanded notes that a snapshot of a peer's is here.
func (s *Store) noteLanded(id string) {
	s.mu.Lock()
	s.landed = id
	s.mu.Unlock()
}

// Restored says that the state is that of the newest snapshot that a peer sent.
func (s *Store) Restored() {
	s.mu.Lock()
	s.landed = ""
	s.mu.Unlock()
}

// Discard removes the newest snapshot that a peer sent unless it was restored,
// also if it was set aside: no later start is to miss what it stood for. With
// sound what was gathered for it is good for the next try; else that gets all of
// it anew.
func (s *Store) Discard(sound bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offered != nil && !sound {
		s.offered.arrival.unsound = true
	}
	if s.landed == "" {
		return nil
	}
	path := filepath.Join(s.dir, s.landed)
	for _, name := range []string{path, path + damagedSuffix} {
		if err := s.fs.Rename(name, path+tmpSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.landed = ""
	return errors.Join(s.fs.Remove(path+tmpSuffix), s.fs.SyncDir(s.dir))
}
