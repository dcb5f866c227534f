package stage

import (
	"fmt"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/ns"
	"davit/kernel/sys"
)

// UserNamespace returns a new user namespace with the mappings. A process that only waits holds it until
// it has been opened.
func UserNamespace(init, null *os.File, uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	ours, theirs, err := sys.StreamPair()
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	defer ours.Close()
	defer theirs.Close()
	spawn := sys.Spawn{
		Exe: init, Argv: []string{"davit-init"}, Files: []*os.File{null, null, null, theirs}, New: sys.NewUser,
		MapIDs: func(pid int) error { return mapIDs(pid, uids, gids) },
	}
	child, err := spawn.Start()
	if err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	defer func() {
		sys.SignalPidFD(child.PidFD, syscall.SIGKILL)
		sys.Reap(child.PidFD)
		child.PidFD.Close()
		child.Close()
	}()
	return ns.Open(child.Pid, "user")
}
