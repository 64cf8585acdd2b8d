package snapshot

import (
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

const (
	fileNameMax = 100 // bytes
	fileIDMax   = 100
)

// File is a file that is linked into a snapshot: its first Bytes bytes belong
// to the snapshot, whatever was appended behind them since.
type File struct {
	Name  string // in the snapshot's folder
	Bytes int64
	// ID is the same for two files only if the shorter of them, as long as Bytes
	// says, is the beginning of the other.
	ID string
}

// valid says that a File can be one of a snapshot: its name leads nowhere else.
func (f *File) valid() bool {
	return f.Name != "" && len(f.Name) <= fileNameMax && f.Name == filepath.Base(f.Name) &&
		!strings.HasPrefix(f.Name, ".") && !strings.ContainsAny(f.Name, "/\\") &&
		f.Name != stateFile && f.Name != metaFile &&
		f.ID != "" && len(f.ID) <= fileIDMax && f.Bytes > 0
}

// description is what meta.json holds. One from before files were linked has
// none.
type description struct {
	raft.SnapshotMeta
	Files []File `json:",omitempty"`
}
