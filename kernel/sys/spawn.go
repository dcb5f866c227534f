package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Spawn describes a process to be cloned into namespaces.
//
// A program with threads, as every Go program is, can neither join a user namespace nor enter a pid
// namespace itself. When Join is not empty there is therefore a helper between caller and process:
//
//	caller --clone--> helper (one thread): cgroup; setns ...; clone(CLONE_PARENT, New) --> process; exit
//
// and the process is the caller's child in both cases. Neither helper nor process runs Go code before
// execve: both do a short list of system calls with prepared arguments, all signals blocked. The program
// finds its signals blocked and must unblock them.
//
// A process that joins nothing is alone in its namespaces until execve, and so may share the caller's
// memory until then, on a stack of its own. One that joins others could be looked into by them: it, and
// the helper, have a copy.
type Spawn struct {
	Exe       *os.File   // the program, executed by descriptor
	Argv, Env []string   // of the program; Argv[0] is the usual name
	Files     []*os.File // become descriptors 0, 1, 2, ... of the program; none is nil
	Join      []Join     // namespaces entered first, in this order
	New       uint64     // kinds of new namespaces
	Cgroup    *os.File   // a cgroup v2 directory to start in (Linux 5.7), or nil
	Tasks     []*os.File // cgroup v1 "tasks" files, open for writing: the process moves itself there
	Root      bool       // become user and group 0 before execve; for new and joined user namespaces

	// MapIDs is called with the process's id while that waits, to write its id maps. May be nil.
	MapIDs func(pid int) error
}

// Join is one namespace, or by a pidfd several, to be entered.
type Join struct {
	FD    *os.File
	Kinds int
}

// Child is a cloned process. It runs; whether it got as far as execve is told by Failure once it
// exited.
type Child struct {
	Pid   int
	PidFD *os.File
	board *board
	page  []byte
	call  *spawnCall // what the process reads until execve
}

// board is shared by the caller, the helper and the process; the rest of its page, and the pages after
// it, are the stack of a process that shares memory.
type board struct {
	pid   int32 // of the process, when a helper cloned it
	step  int32 // where a failure happened: one of the steps below
	errno int32 // why; 0: no failure
	using int32 // not 0 while a process that shares memory may read it; the kernel clears it (clone(2), CLONE_CHILD_CLEARTID)
}

// boardSize is the board's page and a stack.
const boardSize = 4 * 4096

const (
	stepJoin = iota + 1
	stepClone
	stepGate
	stepCgroup
	stepIDs
	stepFiles
	stepExec
)

var stepNames = [...]string{
	stepJoin: "join namespace", stepClone: "clone into namespaces", stepGate: "wait for id maps",
	stepCgroup: "enter cgroup", stepIDs: "become root of user namespace", stepFiles: "place files", stepExec: "execute init",
}

// Failure returns why the process never reached its program; nil when it did, or has not yet.
func (c *Child) Failure() error {
	if c.board == nil {
		return nil
	}
	return c.board.failure()
}

func (b *board) failure() error {
	if b.errno == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", stepNames[b.step], syscall.Errno(b.errno))
}

// Close releases what c holds beside the process itself; PidFD stays open. The process has reached its
// program or exited, or is about to.
func (c *Child) Close() {
	if c.page == nil {
		return
	}
	c.awaitProgram()
	unix.Munmap(c.page)
	c.page, c.board, c.call = nil, nil, nil
}

// awaitProgram waits until the process does not share memory any more. futex(2): the kernel wakes whoever
// waits for the word that it clears.
func (c *Child) awaitProgram() {
	for using := atomic.LoadInt32(&c.board.using); using != 0; using = atomic.LoadInt32(&c.board.using) {
		syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&c.board.using)), 0, uintptr(using), 0, 0, 0)
	}
}

// Start clones the process. clone3(2), Linux 5.3 (with Cgroup 5.7); setns(2) with a pidfd, 5.8;
// execveat(2).
func (s *Spawn) Start() (*Child, error) {
	call, err := s.prepare()
	if err != nil {
		return nil, err
	}
	defer call.close()
	child, err := call.clone()
	if err != nil {
		unix.Munmap(call.page)
		return nil, err
	}
	if s.MapIDs == nil {
		return child, nil
	}
	if err := s.openGate(child, call); err != nil {
		SignalPidFD(child.PidFD, syscall.SIGKILL)
		Reap(child.PidFD)
		err = errors.Join(child.Failure(), err)
		child.PidFD.Close()
		child.Close()
		return nil, err
	}
	return child, nil
}

// openGate writes the id maps and lets the process go on.
func (s *Spawn) openGate(child *Child, call *spawnCall) error {
	if err := s.MapIDs(child.Pid); err != nil {
		return err
	}
	_, err := unix.Write(call.gateOut, []byte{1})
	return err
}

// spawnCall holds every argument of the system calls between clone and execve, so that nothing is
// allocated there.
type spawnCall struct {
	board  *board
	page   []byte
	args   cloneArgs // of the process's own clone
	helper cloneArgs // of the helper's; unused when nothing is joined
	joins  []joinCall
	tasks  []int32
	files  []int32 // source descriptors, all above len(files)
	argv   []*byte
	env    []*byte
	empty  [1]byte
	exe    uintptr
	gateIn uintptr // 0: no gate
	byte   [1]byte
	zero   [1]byte
	root   bool
	pidfd  int32

	gateOut int
	opened  []int // duplicates to close in the caller
	keep    *Spawn
}

type joinCall struct{ fd, kinds uintptr }

// cloneArgs is struct clone_args of clone3(2), up to Linux 5.7.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal     uint64
	stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

func (s *Spawn) prepare() (call *spawnCall, err error) {
	call = &spawnCall{root: s.Root, gateOut: -1, keep: s, zero: [1]byte{'0'}}
	defer func() {
		if err != nil {
			call.close()
		}
	}()
	if call.argv, err = syscall.SlicePtrFromStrings(s.Argv); err != nil {
		return call, err
	}
	if call.env, err = syscall.SlicePtrFromStrings(s.Env); err != nil {
		return call, err
	}
	if err = call.placeFiles(s); err != nil {
		return call, err
	}
	for _, j := range s.Join {
		call.joins = append(call.joins, joinCall{j.FD.Fd(), uintptr(j.Kinds)})
	}
	call.page, err = unix.Mmap(-1, 0, boardSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return call, err
	}
	call.board = (*board)(unsafe.Pointer(&call.page[0]))
	call.setCloneArgs(s)
	return call, nil
}

func (c *spawnCall) setCloneArgs(s *Spawn) {
	first := &c.args // enters the cgroup: from inside the joined namespaces it may be out of sight
	c.args.flags = s.New
	if len(s.Join) > 0 {
		c.helper = cloneArgs{flags: unix.CLONE_VFORK, exitSignal: uint64(unix.SIGCHLD)}
		first = &c.helper
	}
	if s.Cgroup != nil {
		const intoCgroup = 1 << 33 // CLONE_INTO_CGROUP
		first.flags |= intoCgroup
		first.cgroup = uint64(s.Cgroup.Fd())
	}
	if len(s.Join) == 0 {
		c.args.flags |= unix.CLONE_PIDFD
		c.args.pidFD = uint64(uintptr(unsafe.Pointer(&c.pidfd)))
		c.args.exitSignal = uint64(unix.SIGCHLD)
		c.shareMemory()
		return
	}
	c.args.flags |= unix.CLONE_PARENT // and with it the helper's exit signal
}

// shareMemory lets the process run in the caller's memory until execve. A new time namespace needs
// memory of its own (time_namespaces(7)).
func (c *spawnCall) shareMemory() {
	if !sharesMemory || c.args.flags&unix.CLONE_NEWTIME != 0 {
		return
	}
	c.board.using = 1
	c.args.flags |= unix.CLONE_VM | unix.CLONE_CHILD_SETTID | unix.CLONE_CHILD_CLEARTID
	c.args.childTID = uint64(uintptr(unsafe.Pointer(&c.board.using)))
	c.args.stack, c.args.stackSize = uint64(uintptr(unsafe.Pointer(&c.page[0]))), uint64(len(c.page))
}

// placeFiles moves every descriptor that the child uses above the numbers that it will place files at.
func (c *spawnCall) placeFiles(s *Spawn) error {
	above := func(fd int) (int, error) {
		if fd > len(s.Files) {
			return fd, nil
		}
		moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, len(s.Files)+1)
		if err == nil {
			c.opened = append(c.opened, moved)
		}
		return moved, err
	}
	for _, f := range s.Files {
		fd, err := above(int(f.Fd()))
		if err != nil {
			return err
		}
		c.files = append(c.files, int32(fd))
	}
	for _, f := range s.Tasks {
		fd, err := above(int(f.Fd()))
		if err != nil {
			return err
		}
		c.tasks = append(c.tasks, int32(fd))
	}
	exe, err := above(int(s.Exe.Fd()))
	c.exe = uintptr(exe)
	if err != nil || s.MapIDs == nil {
		return err
	}
	var gate [2]int
	if err := unix.Pipe2(gate[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	c.opened = append(c.opened, gate[:]...)
	in, err := above(gate[0])
	if err != nil {
		return err
	}
	c.gateIn, c.gateOut = uintptr(in), gate[1]
	return nil
}

func (c *spawnCall) close() {
	for _, fd := range c.opened {
		unix.Close(fd)
	}
}

// clone does the fork. No other thread may open a descriptor without close-on-exec meanwhile, hence
// the lock that the standard library has for the same purpose.
func (c *spawnCall) clone() (*Child, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	pid, errno := c.forkBlocked()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(c.keep)
	if errno != 0 {
		return nil, fmt.Errorf("clone: %w", errno)
	}
	if len(c.joins) == 0 {
		return &Child{pid, os.NewFile(uintptr(c.pidfd), "pidfd"), c.board, c.page, c}, nil
	}
	return c.adopt(pid)
}

// adopt reaps the helper and takes over the process that it left behind.
func (c *spawnCall) adopt(helper int) (*Child, error) {
	err := retry(func() error {
		_, err := unix.Wait4(helper, nil, 0, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for helper: %w", err)
	}
	pid := int(c.board.pid)
	if pid == 0 {
		return nil, errors.Join(c.board.failure(), errors.New("helper died"))
	}
	pidfd, err := OpenPid(pid)
	if err != nil {
		return nil, err
	}
	return &Child{pid, pidfd, c.board, c.page, c}, nil
}

// forkBlocked clones with all signals blocked, so that no handler of the caller runs in the child.
func (c *spawnCall) forkBlocked() (int, syscall.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, errno := c.fork()
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return int(pid), errno
}

// fork returns in the caller only.
//
//go:norace
//go:nosplit
func (c *spawnCall) fork() (uintptr, syscall.Errno) {
	args := &c.args
	if len(c.joins) != 0 {
		args = &c.helper
	}
	if args.stack != 0 {
		pid, errno := cloneOnStack(args, unsafe.Sizeof(*args), c)
		return pid, syscall.Errno(errno)
	}
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	c.enterCgroups()
	if len(c.joins) != 0 {
		c.joinAndClone()
	}
	c.becomeProgram()
	return 0, 0
}

// enterCgroups moves the process into its v1 groups. Moving oneself, and one's only thread, needs no
// grace period of the kernel.
//
//go:norace
//go:nosplit
func (c *spawnCall) enterCgroups() {
	for i := range c.tasks {
		_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.tasks[i]), uintptr(unsafe.Pointer(&c.zero[0])), 1)
		if errno != 0 {
			c.die(stepCgroup, errno)
		}
	}
}

// joinAndClone is the helper's life; it returns in the process.
//
//go:norace
//go:nosplit
func (c *spawnCall) joinAndClone() {
	for i := range c.joins {
		_, _, errno := syscall.RawSyscall(unix.SYS_SETNS, c.joins[i].fd, c.joins[i].kinds, 0)
		if errno != 0 {
			c.die(stepJoin, errno)
		}
	}
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.args)), unsafe.Sizeof(c.args), 0)
	if errno != 0 {
		c.die(stepClone, errno)
	}
	if pid != 0 {
		c.board.pid = int32(pid)
		c.die(0, 0)
	}
}

// becomeProgram is the process's life up to execve; it does not return.
//
//go:norace
//go:nosplit
func (c *spawnCall) becomeProgram() {
	if c.gateIn != 0 {
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(c.gateOut), 0, 0)
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, c.gateIn, uintptr(unsafe.Pointer(&c.byte[0])), 1)
		if n != 1 {
			c.die(stepGate, errno)
		}
	}
	if c.root {
		c.becomeRoot()
	}
	for i := range c.files {
		if _, _, errno := syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.files[i]), uintptr(i), 0); errno != 0 {
			c.die(stepFiles, errno)
		}
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVEAT, c.exe, uintptr(unsafe.Pointer(&c.empty[0])),
		uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])), unix.AT_EMPTY_PATH, 0)
	c.die(stepExec, errno)
}

//go:norace
//go:nosplit
func (c *spawnCall) becomeRoot() {
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		c.die(stepIDs, errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
		c.die(stepIDs, errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
		c.die(stepIDs, errno)
	}
}

// die ends the helper or process with what happened on the board.
//
//go:norace
//go:nosplit
func (c *spawnCall) die(step int32, errno syscall.Errno) {
	if errno != 0 {
		c.board.step, c.board.errno = step, int32(errno)
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
