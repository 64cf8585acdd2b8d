package snapshot

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// A snapshot that a peer sent is on disk and in the list before anybody has
// tried to restore it. Until that is done nothing depends on it: the state, and
// the log behind the snapshot before, are what they were.

// land notes that a snapshot of a peer's is about to be in the list. One before
// it that was not restored goes: there is one at most that nothing depends on.
func (s *Store) land(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.discardLanded()
	if err == nil {
		s.landed = id
	}
	return err
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
	return s.discardLanded()
}

// discardLanded runs with mu held. That the snapshot has lost its name is durable
// before the first of its files goes, as with discard.
func (s *Store) discardLanded() error {
	if s.landed == "" {
		return nil
	}
	path := filepath.Join(s.dir, s.landed)
	for _, name := range []string{path, path + damagedSuffix} {
		if err := s.fs.Rename(name, path+tmpSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	s.landed = ""
	return s.fs.Remove(path + tmpSuffix)
}
