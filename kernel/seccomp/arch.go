package seccomp

import (
	"cmp"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// call is one line of a system call table. Tables are sorted by name.
type call struct {
	name   string
	number uint32
}

// arch is one system call ABI.
type arch struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_*, what seccomp_data.arch says
	calls []call
	wide  bool // arguments have 64 bits
	// demux maps names to sub-calls of old multiplexers: socketcall(2) and ipc(2).
	demux bool
	// x32 numbers share x86-64's audit value and have x32Bit.
	x32 bool
}

// x32Bit is __X32_SYSCALL_BIT.
const x32Bit = 0x40000000

// native returns the ABIs that a kernel for the Go architecture runs, its own first.
func native(goarch string) []*arch {
	switch goarch {
	case "amd64":
		return []*arch{
			{name: specs.ArchX86_64, audit: 0xc000003e, calls: callsX86_64, wide: true},
			{name: specs.ArchX86, audit: 0x40000003, calls: callsX86, demux: true},
			{name: specs.ArchX32, audit: 0xc000003e, calls: callsX32, wide: true, x32: true},
		}
	case "arm64":
		return []*arch{
			{name: specs.ArchAARCH64, audit: 0xc00000b7, calls: callsAARCH64, wide: true},
			{name: specs.ArchARM, audit: 0x40000028, calls: callsARM},
		}
	}
	return nil
}

func (a *arch) number(name string) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(a.calls, name, func(c call, name string) int { return cmp.Compare(c.name, name) })
	if !ok {
		return 0, false
	}
	return a.calls[i].number, true
}

// multiplexer is an old call whose first argument chooses another.
type multiplexer struct {
	name string
	sub  uint64
}

// multiplexed returns how the call can be made through socketcall(2) or ipc(2).
func (a *arch) multiplexed(name string) (multiplexer, bool) {
	if !a.demux {
		return multiplexer{}, false
	}
	if i := slices.Index(socketCalls, name); i >= 0 {
		return multiplexer{"socketcall", uint64(i + 1)}, true
	}
	for _, c := range ipcCalls {
		if c.name == name {
			return multiplexer{"ipc", uint64(c.number)}, true
		}
	}
	return multiplexer{}, false
}

// socketCalls are socketcall(2)'s sub-calls from 1 on, include/uapi/linux/net.h.
var socketCalls = []string{
	"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
	"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
}

// ipcCalls are ipc(2)'s sub-calls, include/uapi/linux/ipc.h.
var ipcCalls = []call{
	{"semop", 1},
	{"semget", 2},
	{"semctl", 3},
	{"semtimedop", 4},
	{"msgsnd", 11},
	{"msgrcv", 12},
	{"msgget", 13},
	{"msgctl", 14},
	{"shmat", 21},
	{"shmdt", 22},
	{"shmget", 23},
	{"shmctl", 24},
}
