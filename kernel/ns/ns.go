// Package ns names the namespaces of a process and compares them.
package ns

import (
	"fmt"
	"os"
	"strconv"

	"davit/kernel/sys"
)

// Kind is one kind of namespace: its file name below /proc/PID/ns and its clone(2) flag.
type Kind struct {
	Name string
	Flag int
}

// Kinds are all kinds, in the order in which a process's namespaces are best entered: the user
// namespace last, because the others may belong to a more privileged one.
var Kinds = [...]Kind{
	{"cgroup", sys.NewCgroup},
	{"ipc", sys.NewIPC},
	{"uts", sys.NewUTS},
	{"net", sys.NewNet},
	{"pid", sys.NewPid},
	{"mnt", sys.NewMount},
	{"time", sys.NewTime},
	{"user", sys.NewUser},
}

// Open returns a namespace of a process.
func Open(pid int, name string) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + name)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	return f, nil
}

// Differing returns the flags of the kinds in which a process is in another namespace than the caller.
func Differing(pid int) (int, error) {
	flags := 0
	for _, kind := range Kinds {
		theirs, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/" + kind.Name)
		if os.IsNotExist(err) && kind.Name == "time" { // before Linux 5.6
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read namespaces: %w", err)
		}
		ours, err := os.Stat("/proc/self/ns/" + kind.Name)
		if err != nil {
			return 0, fmt.Errorf("read namespaces: %w", err)
		}
		if !os.SameFile(theirs, ours) {
			flags |= kind.Flag
		}
	}
	return flags, nil
}

// OwnedBy reports whether the namespace is owned by the user namespace.
func OwnedBy(namespace, user *os.File) (bool, error) {
	owner, err := sys.NamespaceOwner(namespace)
	if err != nil {
		return false, fmt.Errorf("read owner of namespace: %w", err)
	}
	defer owner.Close()
	return sys.SameFile(owner, user)
}
