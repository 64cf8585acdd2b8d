package snapshot

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"warren/storage/vfs"
)

// land lets a snapshot arrive up to where Raft would have it restored, which
// answers restored.
func land(t *testing.T, s *Store, index uint64, restored func() error, files ...File) (pulled int64) {
	t.Helper()
	a, err := s.Arrive(files, anyRoom)
	if err != nil {
		t.Fatal(err)
	}
	if pulled, err = pull(a); err == nil {
		err = a.KeepState(bytes.NewReader(state(index, 100)), 100)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Offer(index, 3)
	if err == nil {
		err = install(s, index, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(restored(), a.Close(false)); err != nil {
		t.Fatal(err)
	}
	return pulled
}

func TestWhatIsDiscardedIsGatheredAgainIfItIsNotSound(t *testing.T) {
	s := open(t, newFS(t))
	mustTake(t, s, 10, 100)
	files := []File{sent(1, 5000), sent(2, 3000)}
	for i, c := range []struct {
		sound  bool
		pulled int64
	}{{true, 8000}, {false, 0}, {true, 8000}, {true, 0}} {
		pulled := land(t, s, 20, func() error { return s.Discard(c.sound) }, files...)
		if newest, err := s.Newest(); err != nil || newest != 10 || !slices.Equal(indexes(t, s), []uint64{10}) {
			t.Fatalf("the newest is of %d, in the list are %v; %v", newest, indexes(t, s), err)
		}
		if pulled != c.pulled {
			t.Errorf("try %d pulled %d bytes, want %d", i, pulled, c.pulled)
		}
	}
}

func TestASnapshotThatWasSetAsideIsDiscardedAsWell(t *testing.T) {
	s := open(t, newFS(t))
	mustTake(t, s, 10, 100)
	land(t, s, 20, func() error {
		list, err := s.List()
		s.setAside(list[0].ID, ErrDamaged)
		return errors.Join(err, s.Discard(false))
	}, sent(1, 500))
	if newest, err := s.Newest(); err != nil || newest != 10 {
		t.Errorf("the newest is of %d, %v", newest, err)
	}
}

func TestOnlyWhatAPeerSentAndNobodyRestoredIsDiscarded(t *testing.T) {
	s := open(t, newFS(t))
	land(t, s, 20, func() error { s.Restored(); return nil }, sent(1, 500))
	mustTake(t, s, 30, 100)
	if err := s.Discard(false); err != nil || !slices.Equal(indexes(t, s), []uint64{30, 20}) {
		t.Errorf("in the list are %v; %v", indexes(t, s), err)
	}
}

func TestWhatIsOldStaysUntilANewerOneIsRestored(t *testing.T) {
	s := open(t, newFS(t))
	mustTake(t, s, 10, 100)
	land(t, s, 20, func() error { return nil }, sent(1, 500))
	if err := s.Trim(); err != nil || !slices.Equal(indexes(t, s), []uint64{20, 10}) {
		t.Errorf("in the list are %v; %v", indexes(t, s), err)
	}
	s.Restored()
	if err := s.Trim(); err != nil || !slices.Equal(indexes(t, s), []uint64{20}) {
		t.Errorf("once it is restored, in the list are %v; %v", indexes(t, s), err)
	}
}

func TestOfTwoThatNobodyRestoredOneStays(t *testing.T) {
	s := open(t, newFS(t))
	mustTake(t, s, 10, 100)
	land(t, s, 20, func() error { return nil }, sent(1, 500))
	land(t, s, 30, func() error { return nil }, sent(1, 600))
	if got := indexes(t, s); !slices.Equal(got, []uint64{30, 10}) {
		t.Errorf("in the list are %v", got)
	}
}

// Its name may be durable all the same.
func TestOneThatCouldNotBeFinishedIsNotInTheList(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpRename, vfs.OpSyncDir} {
		fs := newFS(t)
		s := open(t, fs)
		mustTake(t, s, 10, 100)
		k, err := s.Create(raft.SnapshotVersionMax, 20, 3, members, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		k.(*Sink).received = true
		if _, err := k.Write(state(20, 100)); err != nil {
			t.Fatal(err)
		}
		renamed := false
		fs.Inject(func(now vfs.Op, name string) error {
			renamed = renamed || now == vfs.OpRename && strings.HasSuffix(name, tmpSuffix)
			if now == op && renamed {
				fs.Inject(nil)
				return &vfs.Done{Err: errInject}
			}
			return nil
		})
		if err := k.Close(); !errors.Is(err, errInject) {
			t.Fatalf("%s: %v", op, err)
		}
		for _, fs := range []*vfs.Mem{fs, fs.Crash(vfs.LoseAll), fs.Crash(vfs.LoseNothing)} {
			if got := indexes(t, open(t, fs)); !slices.Equal(got, []uint64{10}) {
				t.Errorf("%s: in the list are %v", op, got)
			}
		}
	}
}
