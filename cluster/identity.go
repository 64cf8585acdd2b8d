package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	nodeFileName = "node.json"
	lockFileName = "LOCK"
	// groupsDir holds one directory per Raft group.
	groupsDir = "groups"
	// idBytes is the length of a node or cluster id: 16 lower-case hex digits.
	idBytes = 16
	// mendBytesMax is the longest node.json that is tried with each bit turned.
	mendBytesMax = 16 << 10
)

// founding is a cluster that this node promised to help to found, and has not
// heard the commit of.
type founding struct {
	ClusterID string   `json:"cluster_id"`
	Founders  []string `json:"founders"` // sorted ids, this node among them
}

// nodeFile is what node.json holds. A value is never changed once published.
type nodeFile struct {
	ID          string    `json:"id"`
	ClusterID   string    `json:"cluster_id,omitempty"` // empty: fresh or prepared
	Incarnation uint32    `json:"incarnation"`          // raised when survivors cut the others off
	Founders    []string  `json:"founders,omitempty"`   // empty: this node joined later
	Founded     bool      `json:"founded,omitempty"`    // the founders' groups exist on this node
	Prepared    *founding `json:"prepared,omitempty"`
	// Members are the last known addresses of the others, for the day when
	// every node is down and every name has changed but one.
	Members map[string]string `json:"members,omitempty"`
	// Checksum is CRC-32C, as 8 hex digits, of the file with this one empty. A
	// file without it is from an earlier version.
	Checksum string `json:"checksum,omitempty"`
}

// identity is who this node is, kept in its data directory. One process at a
// time may hold it.
type identity struct {
	dir  string
	lock *os.File
	now  atomic.Pointer[nodeFile]

	// saving makes one writer wait for the other. It is held over the fsync on
	// purpose: writers are rare, and readers use now.
	saving sync.Mutex
}

// openIdentity locks dir and reads node.json, or draws a new id if there is none.
func openIdentity(dir string) (*identity, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	i := &identity{dir: dir, lock: lock}
	if err := i.load(); err != nil {
		lock.Close()
		return nil, err
	}
	return i, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFileName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("data directory %s is in use by another process", dir)
	}
	return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
}

func (i *identity) load() error {
	path := filepath.Join(i.dir, nodeFileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(i.dir, groupsDir)); err == nil {
			// A new id would forget the votes that the old one cast.
			return fmt.Errorf("%s is missing but %s has groups: restore it, or start with an empty directory", path, i.dir)
		}
		return i.save(&nodeFile{ID: newID()})
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	f, err := decodeNodeFile(b)
	if err == nil && f.Checksum != "" {
		i.now.Store(f)
		return nil
	}
	if err != nil {
		mended := mendNodeFile(b)
		if mended == nil {
			return fmt.Errorf("read identity %s: %w: restore it from a copy, or start with an empty directory", path, err)
		}
		f = mended
	}
	return i.save(f)
}

func decodeNodeFile(b []byte) (*nodeFile, error) {
	f := new(nodeFile)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, err
	}
	if !validID(f.ID) || (f.ClusterID != "" && !validID(f.ClusterID)) {
		return nil, fmt.Errorf("id %q or cluster id %q is not 16 hex digits", f.ID, f.ClusterID)
	}
	if f.Checksum == "" {
		return f, nil
	}
	sum, err := f.sum()
	if err == nil && sum != f.Checksum {
		err = fmt.Errorf("its checksum is %s, and it says %s", sum, f.Checksum)
	}
	return f, err
}

// mendNodeFile turns each bit of a damaged file until its checksum fits: an
// identity cannot be rebuilt from anybody. CRC-32C tells all texts of this size
// apart that differ in up to three bits, so that one wrong bit has one mend, and
// two have none. Nil: more than a bit is wrong.
func mendNodeFile(b []byte) *nodeFile {
	if len(b) > mendBytesMax {
		return nil
	}
	for at := range b {
		for bit := range 8 {
			b[at] ^= 1 << bit
			f, err := decodeNodeFile(b)
			b[at] ^= 1 << bit
			if err == nil && f.Checksum != "" {
				return f
			}
		}
	}
	return nil
}

// sum is the checksum of what f says.
func (f *nodeFile) sum() (string, error) {
	bare := *f
	bare.Checksum = ""
	b, err := json.Marshal(&bare)
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), err
}

func newID() string {
	var b [idBytes / 2]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}

func validID(s string) bool {
	if len(s) != idBytes {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// get is the identity as it is on disk.
func (i *identity) get() *nodeFile { return i.now.Load() }

// update lets change edit a copy, makes the copy durable, and publishes it.
// change returns false to leave everything as it is.
func (i *identity) update(change func(*nodeFile) bool) error {
	i.saving.Lock()
	defer i.saving.Unlock()
	next := *i.now.Load()
	next.Founders = slices.Clone(next.Founders)
	if !change(&next) {
		return nil
	}
	return i.save(&next)
}

// save writes node.json so that a crash leaves the old one or the new one.
func (i *identity) save(f *nodeFile) error {
	sum, err := f.sum()
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	f.Checksum = sum
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	path := filepath.Join(i.dir, nodeFileName)
	if err := writeSynced(path+".tmp", append(b, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := syncDir(i.dir); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	i.now.Store(f)
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close lets another process have the directory.
func (i *identity) close() error { return i.lock.Close() }
