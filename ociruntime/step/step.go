// Package step is the vocabulary in which the runtime tells davit-init what to do: a program is a list
// of steps, each one operation with its operands. Package plan writes programs, davit-init executes
// them, and both name a step the same way in messages.
//
// davit-init links this package, so it imports next to nothing.
package step

// Op is an operation. The comment says which fields of Step it uses, and how.
type Op uint8

// The operations, about in the order of a container's life. "Target" is a path inside the container's
// root, resolved there without ever leaving it.
const (
	_               Op = iota
	Propagation        // Words[0]: MS_ flags for every mount of the new namespace, so that nothing propagates to the host
	AttachRoot         // File: the root file system, a detached mount; Path: the host directory to attach it at
	NewCgroupNS        // a cgroup namespace rooted where the process has been put
	MakeDir            // Path: target, made with its parents; Words[0]: mode
	MountNew           // Type, Source, Path: target; List: file system options; Words: attributes set, cleared, propagation
	CopyUp             // as MountNew, and copies into the new tmpfs what the target held
	MountFile          // File: a detached mount; Path: target, made if missing
	MakeLink           // Path: target of the new symbolic link; Source: what it says
	MakeDevice         // Path: target; Type: c, b or p; Words: mode, major, minor, uid, gid
	Console            // a pseudo-terminal of the container's devpts becomes /dev/console and streams 0-2; Words: rows, columns, uid; Path: where it is bound, or empty
	Sysctl             // Path: below /proc/sys; Source: value
	ReadOnly           // Path: target, made read-only with what is mounted below; none is fine
	Mask               // Path: target, hidden under /dev/null or an empty directory; none is fine
	RootMount          // Words: attributes set, propagation, of the root's own mount
	RemountReadOnly    // Path: target, a mount of the container, made read-only itself
	Hostname           // Source
	Domainname         // Source
	HostHooks          // the runtime runs the hooks that run outside, while init waits
	Hook               // Path: program; List: arguments; Env; Data: standard input; Words[0]: time limit in ms, 0 for none
	PivotRoot          // the attached root becomes the root; the host's tree goes out of reach
	ChangeRoot         // the same by chroot, for a host root that cannot be pivoted away
	TimeOffsets        // a time namespace; Source: lines of timens_offsets
	Session            // a session of its own; Words[0]: 1 to make stream 0 its terminal
	Label              // Path: attribute file of the process below /proc; Source: label for the program
	Personality        // Words[0]
	Scheduler          // Words: policy, flags, nice, priority, runtime, deadline, period
	IOPriority         // Words[0]: class and level as ioprio_set takes them
	CPUAffinity        // Words: mask words
	Chdir              // Path: working directory; the first that succeeds counts, Words[0]: 1 if a later one may still
	Bounding           // Words[0]: capabilities that stay in the bounding set
	NoNewPrivs         // no more privileges through set-id files
	Seccomp            // Data: struct sock_filter array; Words: seccomp(2) flags; Source: what the listener is told, if any
	User               // Words: uid, gid, groups...
	Capabilities       // Words: effective, permitted, inheritable, ambient
	Umask              // Words[0]
	Find               // Source: program name; Env: holds PATH. Later Run executes what was found
	Limits             // the runtime sets resource limits, which it may and init may not, while init waits
	Park               // File: listening socket; says ready and waits for a connection and a byte on it
	Settle             // descriptors and arguments ready for Run: List: arguments; Env; File: first extra descriptor; Words[0]: how many, they become 3, 4, ...
	Run                // executes what Find found; a seccomp filter may stand before it that allows little else
	RunAsChild         // the same in a child; init stays, passes signals on and reaps orphans
)

// Files that every container's program comes with; a plan's mount sources follow.
const (
	FileRoot    = 0
	FileListen  = 1
	FirstSource = 2
)

// Step is one operation with its operands. Unused fields are zero.
type Step struct {
	Op           Op
	Soft         bool // a failure is a warning
	Path, Source string
	Type         string
	List, Env    []string
	Words        []uint64
	Data         []byte
	File         int // index of a file passed along
}

var names = [...]string{
	Propagation: "set propagation", AttachRoot: "attach root", NewCgroupNS: "unshare cgroup namespace",
	MakeDir: "make directory", MountNew: "mount", CopyUp: "mount with copy-up", MountFile: "bind",
	MakeLink: "link", MakeDevice: "make device", Console: "set up terminal", Sysctl: "set sysctl",
	ReadOnly: "make read-only", Mask: "mask", RootMount: "set root mount", RemountReadOnly: "make read-only", Hostname: "set hostname",
	Domainname: "set domain name", HostHooks: "run hooks", Hook: "run hook", PivotRoot: "pivot root",
	ChangeRoot: "change root", TimeOffsets: "set time offsets", Session: "start session", Label: "set label",
	Personality: "set personality", Scheduler: "set scheduler", IOPriority: "set I/O priority",
	CPUAffinity: "set CPU affinity", Chdir: "chdir to cwd", Bounding: "drop bounding capabilities",
	NoNewPrivs: "set no_new_privs", Seccomp: "load seccomp filter", User: "set user",
	Capabilities: "set capabilities", Umask: "set umask", Find: "exec", Limits: "set resource limits", Park: "park", Settle: "settle", Run: "exec", RunAsChild: "exec",
}

// String names the step for messages: what is done to which object.
func (s Step) String() string {
	name := names[s.Op]
	switch s.Op {
	case MountNew, CopyUp:
		return name + " " + s.Type + " at " + s.Path
	case MountFile:
		return name + " " + s.Source + " at " + s.Path
	case Chdir:
		return name + ` ("` + s.Path + `") set in config.json failed`
	case Hostname, Domainname, Find:
		return name + " " + s.Source
	}
	if s.Path == "" {
		return name
	}
	return name + " " + s.Path
}
