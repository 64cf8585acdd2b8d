package segment

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func TestAFileFromElsewhereIsCheckedByItsHead(t *testing.T) {
	id := [fileIDBytes]byte{1, 2, 3}
	good := append(appendHead(nil, 7, id), make([]byte, 100)...)
	own, bytesAll := hex.EncodeToString(id[:]), int64(len(good))
	check := func(b []byte, n int64, id string) error { return CheckFile(bytes.NewReader(b), n, id) }
	if err := check(good, bytesAll, own); err != nil {
		t.Error(err)
	}
	flipped := slices.Clone(good)
	flipped[fileIDAt] ^= 1
	for what, err := range map[string]error{
		"another id":     check(good, bytesAll, hex.EncodeToString(make([]byte, fileIDBytes))),
		"a flipped bit":  check(flipped, bytesAll, own),
		"half a head":    check(good[:fileHead/2], fileHead/2, own),
		"too few bytes":  check(good, bytesAll+1, own),
		"nothing":        check(nil, 1, own),
		"another format": check(make([]byte, 200), 200, own),
	} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
