// Package ociruntime makes, runs and removes containers as the OCI runtime specification describes
// them. It is used in-process by the monitor and by the davit-oci command line.
//
//	Create -> created --Start--> running <--Pause/Resume--> paused
//	             |                  |
//	             +------------------+-- first process exits --> stopped --Delete--> gone
//
// Create clones davit-init into the container's namespaces and returns at once: the caller can give
// the network namespace its interfaces while init mounts the file systems. Ready waits until init is
// parked before its last step; Start lets it go. A container belongs to no process: any process with
// the same StateRoot may Load it and start, signal or delete it. Only its parent can reap it.
//
// How a container is made is decided in package plan (pure), said in package step (the vocabulary
// that parent and init share), set in motion by package stage, and recorded by package state.
package ociruntime

import (
	"log/slog"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/rootfs"
)

// Options configure a Runtime.
type Options struct {
	// StateRoot is the directory that holds one directory per container. It is made if missing,
	// readable by its owner only, and should not outlive a reboot: /run/davit/oci.
	StateRoot string

	// Init is the davit-init program, best in a sealed memfd (initbin.Open). The Runtime does not
	// close it. Required.
	Init *os.File

	// SystemdCgroup makes systemd create the cgroups; Spec.Linux.CgroupsPath is then slice:prefix:name.
	SystemdCgroup bool

	// Logger gets warnings: settings that this host cannot give and a container can do without.
	// Nil discards them.
	Logger *slog.Logger
}

// CreateOptions say what a container is made of.
type CreateOptions struct {
	Spec   *specs.Spec // required; not changed
	Bundle string      // the bundle directory; recorded, and what a relative Spec.Root.Path is relative to

	// Rootfs is mounted as the container's root, idmapped when the spec has a user namespace with
	// mappings. The zero value means Spec.Root.Path, as it is on disk.
	Rootfs rootfs.Rootfs

	Stdio Stdio

	// NoPivot uses a mount move and chroot in place of pivot_root, for an initramfs root.
	NoPivot bool

	// ExtraFiles become file descriptors 3, 4, ... of the program.
	ExtraFiles []*os.File
}

// Stdio is what a program's streams are connected to. A nil file is /dev/null. When the process has
// a terminal all three are ignored and the terminal's master side appears as Console.
type Stdio struct {
	Stdin, Stdout, Stderr *os.File
}

// ExecOptions describe one more process in a running container.
type ExecOptions struct {
	// Process is the program with its numeric user, capabilities, limits and terminal. Nil
	// Capabilities means those of the container's own process.
	Process    *specs.Process
	Stdio      Stdio
	ExtraFiles []*os.File // file descriptors 3, 4, ...
}

// Process is a started process of a container. It is a child of the calling process: whoever called
// Exec must Wait.
type Process struct {
	Pid   int      // in the caller's pid namespace
	PidFD *os.File // readable when the process has exited; closed by Close

	// Console is the terminal's master side, when the process has one; closed by Close.
	Console *os.File
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code   int       // 0-255; 128+n after signal n
	Signal int       // 0 when it exited by itself
	Time   time.Time // when the exit was seen
}

// Container is one container. Its exported fields do not change after Create or Load returned, but
// for Console, which is set when Ready returns.
type Container struct {
	ID  string
	Pid int // of its first process, in the caller's pid namespace

	// PidFD holds the first process; it is readable when that has exited. Nil when the process was
	// gone before Load.
	PidFD *os.File

	// NetNS is the container's network namespace, open from the moment Create returns. Nil when
	// the container uses the host's, and after Load.
	NetNS *os.File

	// Console is the master side of the first process's terminal, or nil. It belongs to the caller
	// of Create; Close does not close it.
	Console *os.File

	// Cgroup is what kernel/cgroup.Load takes.
	Cgroup string

	inner
}
