package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetModTime sets the modification time of a file, not following a symbolic link at the end of path,
// and leaves its access time alone (utimensat(2), Linux 2.6.22).
func SetModTime(path string, modified time.Time) error {
	ts, err := unix.TimeToTimespec(modified)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
