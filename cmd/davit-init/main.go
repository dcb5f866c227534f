// Davit-init is the first program in a container's namespaces. It receives a list of steps from the
// runtime (package davit/ociruntime/step), does them one after the other, and becomes the user's
// program. It starts in a millisecond because it links the system call packages and nothing else.
//
// It is executed from a sealed memfd with the user's streams as descriptors 0-2 and the control socket
// as 3, all signals blocked, and user and group 0 of its user namespace.
package main

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// process is the state that steps leave for later steps.
type process struct {
	control  control
	files    []int // descriptors that came with the program
	root     int   // the container's root; -1 before AttachRoot
	hostNull int   // the host's /dev/null
	hostRoot int   // the host's root, until it is pivoted away
	proc     int   // a procfs of this pid namespace, or -1
	empty    int   // an attached empty read-only directory for Mask, or -1
	inCwd    bool  // Chdir succeeded
	links    int   // dangling links followed while making directories
	program  string
	argv     []*byte
	env      []*byte
}

// Credentials, filters and namespaces belong to threads: everything happens on the one that executes
// the user's program.
func init() { runtime.LockOSThread() }

func main() {
	name := [16]byte{} // what ps shows of a tiny init, in place of the memfd's name; main begins on the leading thread
	copy(name[:], "davit-init")
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	p := &process{control: control{fd: 3}, root: -1, proc: -1, empty: -1, hostNull: -1, hostRoot: -1}
	syscall.CloseOnExec(3)
	files, steps, err := p.control.receiveProgram()
	if err != nil {
		p.control.fail(&step.Step{}, err)
	}
	p.files = files
	for i := range steps {
		err := p.do(&steps[i])
		switch {
		case err == nil:
		case steps[i].Soft:
			p.control.warn(&steps[i], err)
		default:
			p.control.fail(&steps[i], err)
		}
	}
	p.control.fail(&step.Step{}, detail("program ended", nil))
}

// do executes one step. Run does not return when it succeeds.
func (p *process) do(s *step.Step) error {
	if s.Op >= step.TimeOffsets {
		return p.become(s)
	}
	switch s.Op {
	case step.HostHooks:
		return p.control.ask(step.Hooks, -1)
	case step.Hook:
		return runHook(s)
	case step.Hostname:
		return unix.Sethostname([]byte(s.Source))
	case step.Domainname:
		return unix.Setdomainname([]byte(s.Source))
	case step.NewCgroupNS:
		return unix.Unshare(unix.CLONE_NEWCGROUP)
	case step.Sysctl:
		return p.sysctl(s.Path, s.Source)
	case step.Console:
		return p.console(s)
	case step.MakeDevice:
		return p.makeDevice(s)
	}
	return p.build(s)
}

// build executes the steps that put the root file system together.
func (p *process) build(s *step.Step) error {
	switch s.Op {
	case step.Propagation:
		return unix.Mount("", "/", "", uintptr(s.Words[0]), "")
	case step.AttachRoot:
		return p.attachRoot(p.files[s.File], s.Path)
	case step.MakeDir:
		return p.makeDir(s.Path, uint32(s.Words[0]))
	case step.MountNew:
		return p.mountNew(s, false)
	case step.CopyUp:
		return p.mountNew(s, true)
	case step.MountFile:
		return p.mountFile(s)
	case step.MakeLink:
		return p.makeLink(s.Path, s.Source)
	case step.ReadOnly:
		return p.readOnly(s.Path)
	case step.Mask:
		return p.mask(s.Path)
	case step.RootMount:
		return setAttr(p.root, false, s.Words[0], s.Words[1])
	case step.RemountReadOnly:
		return p.remountReadOnly(s.Path)
	case step.PivotRoot:
		return p.pivot()
	case step.ChangeRoot:
		return p.changeRoot()
	}
	return detail("unknown step", nil)
}

// become executes the steps that turn init into the user's program.
func (p *process) become(s *step.Step) error {
	switch s.Op {
	case step.TimeOffsets:
		return timeOffsets(s.Source)
	case step.Session:
		return session(s.Words[0] == 1)
	case step.Label:
		return p.label(s.Path, s.Source)
	case step.Chdir:
		return p.chdir(s.Path, s.Words[0] == 1)
	case step.Seccomp:
		return p.seccomp(s)
	case step.Find:
		return p.find(s.Source, s.Env)
	case step.Limits:
		return p.control.ask(step.Grant, -1)
	case step.Park:
		return p.park(p.files[s.File])
	case step.Settle:
		return p.settle(s)
	case step.Run:
		return p.run()
	case step.RunAsChild:
		return p.runAsChild()
	}
	return setAttribute(s)
}
