package node

import (
	"errors"
	"os"
	"syscall"
)

// diskFree is what an ordinary user may still write on the disk of a folder,
// and the disk's size, in bytes.
func diskFree(dir string) (free, size uint64, ok bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, 0, false
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), true
}

// reserve gives a file blocks of its own. Where the file system cannot, the
// file is as good as none.
func reserve(f *os.File, bytes int64) error {
	for {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, bytes); !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fallocate", err)
		}
	}
}
