package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// rebuildFile in a group's folder says that the replica is being rebuilt from
// its peers: a line with how far that has come, and why it began. What the file
// says may be damaged like any other; that it is there is what counts, and the
// first step is always a right one.
const rebuildFile = "rebuild"

// rebuildStep is how far a rebuild has come.
type rebuildStep string

const (
	stepNone rebuildStep = "" // there is no note
	// stepForgotten: the term and the vote are lost. Nothing may be answered to
	// anybody before the others have said in what terms they are.
	stepForgotten rebuildStep = "forgotten"
	// stepDrop: what there is of the log and of snapshots is to be removed.
	stepDrop rebuildStep = "drop"
	// stepRefill: all of that is gone; what is there now came from a leader since.
	stepRefill rebuildStep = "refill"
)

// rebuildNote is a rebuild that goes on, over any number of starts.
type rebuildNote struct {
	step rebuildStep
	why  string
}

func readRebuildNote(dir string) (rebuildNote, error) {
	b, err := os.ReadFile(filepath.Join(dir, rebuildFile))
	if errors.Is(err, os.ErrNotExist) {
		return rebuildNote{}, nil
	}
	if err != nil {
		return rebuildNote{}, err
	}
	step, why, _ := strings.Cut(string(b), "\n")
	n := rebuildNote{step: rebuildStep(step), why: strings.TrimSpace(why)}
	if n.step != stepForgotten && n.step != stepRefill {
		// One wrong bit makes no word of the three into another. A note that said
		// "forgotten" and is damaged is met again: the vote is still missing then.
		n.step = stepDrop
	}
	return n, nil
}

// write makes the note durable. A crash leaves the old one or the new one.
func (n rebuildNote) write(dir string) error {
	path := filepath.Join(dir, rebuildFile)
	if err := writeSynced(path+".tmp", fmt.Appendf(nil, "%s\n%s\n", n.step, n.why)); err != nil {
		return fmt.Errorf("note a rebuild: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("note a rebuild: %w", err)
	}
	return syncDir(dir)
}

func removeRebuildNote(dir string) error {
	if err := os.Remove(filepath.Join(dir, rebuildFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}
