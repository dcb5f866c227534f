// Package op carries out the steps of a build that make layers: COPY and ADD, RUN and WORKDIR. A step
// starts from the layers so far and ends with one layer more, or none if it changed nothing.
package op

import (
	"context"
	"io"

	"davit/oci"
	"davit/oci/rootfs"
)

// Layers makes and keeps layers. The engine gives the one of its stores.
type Layers interface {
	// Prepare makes a writable snapshot over layers, lowest first, named by an unused key. Its Upper
	// directory is there, empty, and has the metadata of the root directory below.
	Prepare(ctx context.Context, key string, layers []oci.DiffID) (rootfs.Rootfs, error)
	// Commit turns the snapshot's upper directory into a layer, without copying it; the key is free
	// again afterwards.
	Commit(ctx context.Context, key string) (oci.DiffID, error)
	// Remove drops a snapshot with all that was written to it; one that is gone is no error.
	Remove(ctx context.Context, key string) error
	// Dirs returns the directories of layers, lowest first, in overlayfs form (whiteouts are character
	// devices 0/0, opaque directories have the xattr trusted.overlay.opaque=y). They never change. A
	// layer that is not here is errdefs.ErrNotFound.
	Dirs(ctx context.Context, layers []oci.DiffID) ([]string, error)
	// Size returns the bytes of the files in the topmost of layers.
	Size(ctx context.Context, layers []oci.DiffID) (int64, error)
	// Lease keeps every layer that is made or asked for from now on until release is called.
	Lease() (release func())
}

// Runner runs the process of a RUN step in a container and waits for its end. The container has the
// engine's defaults: namespaces, capabilities, seccomp filter, /proc, /dev, /sys, and /etc/hosts,
// /etc/hostname and /etc/resolv.conf of its network. When ctx ends the container is killed. The exit
// code is 128+n after signal n; err is for a process that could not be run.
type Runner interface {
	Run(ctx context.Context, spec RunSpec, stdout, stderr io.Writer) (exitCode int, err error)
}

// RunSpec is the container of one RUN step.
type RunSpec struct {
	ID     string // 64 hexadecimal digits, unique
	Rootfs rootfs.Rootfs
	Args   []string
	Env    []string // complete, with PATH and HOME
	Cwd    string   // absolute; exists
	UID    uint32   // as the image numbers its users
	GID    uint32
	Groups []uint32 // supplementary
	Mounts []Mount

	Network    string   // "" or "default", "none", "host", or the name or id of a network
	ExtraHosts []string // name:address
	Hostname   string   // empty: the engine chooses
	Insecure   bool     // RUN --security=insecure: as --privileged
	Limits     Limits
}

// MountType says what a Mount is.
type MountType string

// The kinds of mounts.
const (
	MountBind  MountType = "bind"
	MountTmpfs MountType = "tmpfs"
)

// Mount is one mount of a RUN step beside the engine's own. Owners in a bind mount are as in the
// image: the runner maps them when the container has a user namespace.
type Mount struct {
	Type     MountType
	Source   string // bind: a file or directory of the host, absolute
	Target   string // absolute in the container; symbolic links are resolved inside its root
	ReadOnly bool
	Size     int64 // tmpfs: bytes; 0: the kernel's default
}

// Limits are the resources that `docker build` can limit; zero values limit nothing.
type Limits struct {
	Memory       int64 // bytes
	MemorySwap   int64 // bytes of memory and swap together; -1: unlimited
	CPUShares    int64
	CPUPeriod    int64 // microseconds
	CPUQuota     int64 // microseconds
	CPUSetCPUs   string
	CPUSetMems   string
	CgroupParent string
	ShmSize      int64 // bytes of /dev/shm; 0: the engine's default
	Ulimits      []Ulimit
}

// Ulimit is one resource limit, by its name without RLIMIT_ in lower case ("nofile").
type Ulimit struct {
	Name string
	Soft int64
	Hard int64
}
