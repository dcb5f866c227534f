package container

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// HostFacts is what BuildSpec needs to know of the host, read once when the engine starts.
type HostFacts struct {
	CPUs         int    // that davit may use
	OnlineCPUs   string // "0-3", or empty if the host does not say
	OnlineNodes  string // of memory, likewise
	CgroupV2     bool   // the unified hierarchy alone
	CgroupParent string // where containers' cgroups go unless they say otherwise, "/davit"
	Systemd      bool   // cgroups are made by systemd: CgroupsPath is slice:prefix:name
	// Capabilities are those the engine itself may give away, "CAP_..." names.
	Capabilities []string
	// Devices lists the host's device nodes, for --privileged.
	Devices func() []specs.LinuxDevice
	// Device returns the device node at a path of the host, or of all nodes below a directory.
	Device func(path string) ([]specs.LinuxDevice, error)
	// HasPath says whether a path exists on the host; masked paths that do not are left out.
	HasPath func(string) bool
}

// User is a process's user as numbers.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// Files are the files on the host that are mounted over a container's own; an empty path mounts none.
type Files struct {
	Hostname, Hosts, Resolv string
}

// Join holds the paths of namespaces of other containers; an empty path joins none.
type Join struct {
	Net, PID, IPC, User string
}

// SpecInput is everything that a spec is made of.
type SpecInput struct {
	Record  *Record
	User    User
	Files   Files
	Join    Join
	Seccomp *specs.LinuxSeccomp // nil: unconfined
	LinkEnv []string            // variables that describe linked containers
	ShmDir  string              // mounted on /dev/shm in place of a tmpfs, when IPC is shared
	Facts   HostFacts
}
