package segment

import (
	"fmt"
	"io"
)

// CheckFile says whether a file begins as a segment of that id does, and holds
// as many bytes: for files that came from elsewhere, before they are relied on.
// What is wrong behind the head shows when a message is read.
func CheckFile(f io.ReaderAt, bytes int64, id string) error {
	var head [fileHead]byte
	if n, err := f.ReadAt(head[:], 0); n < len(head) {
		return fmt.Errorf("%w: no head of a segment: %w", ErrDamaged, err)
	}
	var last [1]byte
	if n, err := f.ReadAt(last[:], bytes-1); n < len(last) {
		return fmt.Errorf("%w: a segment of fewer than %d bytes: %w", ErrDamaged, bytes, err)
	}
	return checkHead(head[:], id)
}
