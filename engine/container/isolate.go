package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// hostOnly are the capabilities that the kernel heeds in the first user namespace alone. Who adds one
// by name wants its effect, so the container stays in the host's user namespace.
func hostOnly(capability string) bool {
	name := strings.TrimPrefix(strings.ToUpper(capability), "CAP_")
	return slices.Contains([]string{
		"ALL", "SYS_MODULE", "SYS_RAWIO", "SYS_TIME", "SYS_BOOT", "SYSLOG", "SYS_PACCT", "SYS_RESOURCE",
		"SYS_NICE", "IPC_LOCK", "SYS_TTY_CONFIG", "MAC_ADMIN", "MAC_OVERRIDE", "WAKE_ALARM", "BLOCK_SUSPEND",
		"AUDIT_CONTROL", "AUDIT_READ", "PERFMON", "BPF", "LINUX_IMMUTABLE", "DAC_READ_SEARCH",
	}, name)
}

// Peer is a container whose namespaces another one joins.
type Peer struct {
	ID     string
	UserNS UserNamespace
}

// Isolate decides in which user namespace a container lives: its own, unless the request needs
// something that only root of the host can do (the Reason says what), or joins another container.
// A private one is returned without its range; the engine's allocator gives that.
func Isolate(h *container.HostConfig, peers []Peer, mode UserMode) UserNamespace {
	if len(peers) > 0 {
		p := peers[0] // all of them live in one: each was made to share it
		if p.UserNS.Mode == UserHost {
			return host("it shares a namespace with container %s, which is in the host's", short(p.ID))
		}
		return UserNamespace{Mode: UserShared, Base: p.UserNS.Base, Size: p.UserNS.Size, Joined: owner(p)}
	}
	switch {
	case h.UsernsMode == "host":
		return host("--userns=host")
	case h.Privileged:
		return host("--privileged")
	case h.PidMode.IsHost():
		return host("--pid=host: the host's processes belong to ids outside a container's range")
	case h.IpcMode.IsHost():
		return host("--ipc=host: the host's shared memory belongs to ids outside a container's range")
	case h.NetworkMode.IsHost() && h.UsernsMode != "private":
		return host("--network=host: ports below 1024 and the host's interfaces need it (--userns=private for one of its own)")
	}
	for _, c := range h.CapAdd {
		if hostOnly(c) && h.UsernsMode != "private" {
			return host("--cap-add=%s has no effect in another", c)
		}
	}
	if mode == UserHost {
		return host("the engine was told so, or the kernel or file system has no idmapped mounts")
	}
	return UserNamespace{Mode: UserPrivate}
}

func owner(p Peer) string {
	if p.UserNS.Joined != "" {
		return p.UserNS.Joined
	}
	return p.ID
}

func host(format string, args ...any) UserNamespace {
	return UserNamespace{Mode: UserHost, Reason: fmt.Sprintf(format, args...)}
}

func short(id string) string { return id[:min(12, len(id))] }
