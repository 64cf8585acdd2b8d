package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// Whichever bit of node.json goes bad, the node knows who it is; and it does
// not take what is worse than that for an identity.
func TestAFlippedBitInNodeJSONIsMended(t *testing.T) {
	dir := t.TempDir()
	i, err := openIdentity(dir)
	must(t, err)
	must(t, i.update(func(f *nodeFile) bool {
		f.ClusterID, f.Founders, f.Founded = newID(), []string{newID(), newID(), f.ID}, true
		f.Members = map[string]string{newID(): "10.0.0.1:25672", newID(): "host.example:25672"}
		return true
	}))
	want := *i.get()
	must(t, i.close())
	path := filepath.Join(dir, nodeFileName)
	good, err := os.ReadFile(path)
	must(t, err)
	for at := 0; at < len(good); at += 11 {
		bad := append([]byte(nil), good...)
		bad[at] ^= 1 << (at % 8)
		f, err := decodeNodeFile(bad)
		if err != nil {
			f = mendNodeFile(bad)
		}
		if f == nil {
			t.Fatalf("byte %d: not mended: %v", at, err)
		}
		f.Checksum = want.Checksum // damage to its name alone looks like an old file
		if !reflect.DeepEqual(*f, want) {
			t.Fatalf("byte %d: read as %+v", at, *f)
		}
	}
	good[20] ^= 1
	must(t, os.WriteFile(path, good, 0o600))
	i, err = openIdentity(dir)
	must(t, err)
	must(t, i.close())
	if now, err := os.ReadFile(path); err != nil || string(now) == string(good) {
		t.Errorf("the mended file was not written: %v", err)
	}
	good[30] ^= 1
	must(t, os.WriteFile(path, good, 0o600))
	if _, err := openIdentity(dir); err == nil {
		t.Error("a file with two wrong bits was taken")
	}
}

func TestANodeJSONFromBeforeTheChecksumIsTaken(t *testing.T) {
	dir := t.TempDir()
	id := newID()
	b, err := json.Marshal(map[string]any{"id": id, "incarnation": 3})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, nodeFileName), b, 0o600))
	for range 2 {
		i, err := openIdentity(dir)
		must(t, err)
		if f := i.get(); f.ID != id || f.Incarnation != 3 || f.Checksum == "" {
			t.Errorf("read as %+v", *f)
		}
		must(t, i.close())
	}
}
