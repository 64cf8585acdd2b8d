//go:build !linux

package node

import (
	"errors"
	"os"
)

// diskFree does not know: there is no disk alarm on this system.
func diskFree(string) (free, size uint64, ok bool) { return 0, 0, false }

// reserve cannot.
func reserve(*os.File, int64) error { return errors.ErrUnsupported }
