package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// parked runs use with a child in a new user namespace that has not executed one instruction: it is
// stopped by ptrace at its exec. The child is gone afterwards.
func parked(use func(pid int) error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // ptrace(2) belongs to the thread, which ends here
		result <- func() error {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 20, Size: 1}}
			attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
				Ptrace: true, Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
			}}
			pid, err := syscall.ForkExec("/proc/self/exe", []string{"davit-probe"}, attr)
			if err != nil {
				return err
			}
			err = use(pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // our unreaped child: it exists
			_, waitErr := wait(pid)
			return errors.Join(err, waitErr)
		}()
	}()
	return <-result
}

// wait reaps a child, past the stop that ptrace reports first.
func wait(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) || (err == nil && status.Stopped()) {
			continue
		}
		return status, err
	}
}

func userNamespaces(*scratch) error {
	return parked(func(int) error { return nil })
}

func idmappedMounts(s *scratch) error {
	return parked(func(pid int) error {
		userns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
		if err != nil {
			return err
		}
		defer userns.Close()
		tree, err := sys.CloneTree(nil, s.dir, false)
		if err != nil {
			return fmt.Errorf("open_tree: %w", err)
		}
		defer tree.Close()
		if err := sys.MountSetattr(tree, false, sys.AttrIDMap, 0, 0, userns); err != nil {
			return fmt.Errorf("mount_setattr: %w", err)
		}
		return nil
	})
}

func overlayAppend(s *scratch) error {
	return withOverlay(func(fs *os.File) error { return sys.FsConfigString(fs, "lowerdir+", s.dir) })
}

func overlayByFD(s *scratch) error {
	dir, err := sys.OpenPath(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return withOverlay(func(fs *os.File) error { return sys.FsConfigFD(fs, "lowerdir+", dir) })
}

func withOverlay(use func(fs *os.File) error) error {
	fs, err := sys.FsOpen("overlay")
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer fs.Close()
	if err := use(fs); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	return nil
}

// pidfdExit asks for the exit status of a process that is reaped already.
func pidfdExit(*scratch) error {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"davit-probe"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Ptrace: true}, // it does nothing before the kill
	})
	if err != nil {
		return err
	}
	pidfd, openErr := sys.OpenPid(pid)
	_ = syscall.Kill(pid, syscall.SIGKILL) // our unreaped child: it exists
	if _, err := wait(pid); err != nil || openErr != nil {
		return errors.Join(openErr, err)
	}
	defer pidfd.Close()
	_, known, err := sys.ExitOf(pidfd)
	if err == nil && !known {
		return missing("PIDFD_INFO_EXIT")
	}
	return err
}

func cgroupKill(s *scratch) error {
	for _, h := range s.layout.Hierarchies {
		if !h.V2 {
			continue
		}
		// The file is in every group but the root.
		found, err := filepath.Glob(h.Mountpoint + "/*/cgroup.kill")
		if err != nil || len(found) > 0 {
			return err
		}
		dir, err := os.MkdirTemp(h.Mountpoint, "davit-probe-")
		if err != nil {
			return err
		}
		_, err = os.Stat(filepath.Join(dir, "cgroup.kill"))
		return errors.Join(err, os.Remove(dir))
	}
	return missing("cgroup v2")
}

func seccompFilters(*scratch) error {
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return err
	}
	if !bytes.Contains(actions, []byte("errno")) {
		return missing("SECCOMP_RET_ERRNO")
	}
	return nil
}

// nftables asks the subsystem for its generation: NFT_MSG_GETGEN of linux/netfilter/nf_tables.h.
func nftables(*scratch) error {
	const (
		netfilter = 12         // NETLINK_NETFILTER
		getGen    = 10<<8 | 16 // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
	)
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netfilter)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := make([]byte, syscall.NLMSG_HDRLEN+4) // struct nlmsghdr, struct nfgenmsg of zeros
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], getGen)
	binary.NativeEndian.PutUint16(request[6:], syscall.NLM_F_REQUEST)
	if err := syscall.Sendto(fd, request, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(reply[:n])
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4 {
			return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return nil
}

func appArmor(*scratch) error {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(enabled), "Y") {
		return missing("AppArmor (it is built in, but off)")
	}
	return nil
}

func seLinux(*scratch) error {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err
}

func missing(what string) error {
	return errdefs.New(errdefs.ErrUnsupported, "this kernel has no %s", what)
}
