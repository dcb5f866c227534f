package metadata

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// lockHolder returns the process that holds a flock(2) on path, from /proc/locks (proc_locks(5)):
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:00:131079 0 EOF
func lockHolder(path string) (pid int, err error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	inode := fmt.Sprintf(":%d", st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], inode) {
			continue
		}
		if _, err := fmt.Sscan(fields[4], &pid); err == nil && pid > 0 {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no holder of a lock on %s is visible", path)
}

func trimNewline(b []byte) string { return string(bytes.TrimSuffix(b, []byte("\n"))) }
