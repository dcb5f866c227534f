package engine

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"syscall"

	"davit/oci/errdefs"
	"davit/store/volume"
)

// mountDevice mounts what a volume's options name over its directory, once however many containers use
// it.
func (s *shared) mountDevice(v volume.Volume, m volume.Mount) error {
	if mounted(v.Path) {
		return nil
	}
	flags, data := mountFlags(m.Options)
	kind := m.Type
	if kind == "none" {
		kind = ""
	}
	if err := syscall.Mount(m.Device, v.Path, kind, flags, data); err != nil {
		return errdefs.New(errdefs.ErrInvalid, "error while mounting volume '%s': failed to mount local volume: mount %s:%s, data: %s: %w", v.Path, m.Device, v.Path, data, err)
	}
	return nil
}

func (s *shared) unmountDevice(v volume.Volume) {
	if err := syscall.Unmount(v.Path, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		s.Log.Error("unmount volume", "volume", v.Name, "error", err)
	}
}

// mounted says whether something is mounted on a directory (proc_pid_mountinfo(5), field 5).
func mounted(dir string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == dir {
			return true
		}
	}
	return false
}

// mountFlags parts the options of mount(8) into flags and the file system's own data.
func mountFlags(options string) (flags uintptr, data string) {
	known := map[string]uintptr{
		"ro": syscall.MS_RDONLY, "nosuid": syscall.MS_NOSUID, "nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC,
		"bind": syscall.MS_BIND, "rbind": syscall.MS_BIND | syscall.MS_REC, "noatime": syscall.MS_NOATIME,
		"nodiratime": syscall.MS_NODIRATIME, "relatime": syscall.MS_RELATIME, "sync": syscall.MS_SYNCHRONOUS,
		"rw": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "defaults": 0,
	}
	var rest []string
	for option := range strings.SplitSeq(options, ",") {
		if flag, ok := known[option]; ok {
			flags |= flag
		} else if option != "" {
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ",")
}
