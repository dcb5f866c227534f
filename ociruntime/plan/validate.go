package plan

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

func validateProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errdefs.Invalid("process property must not be empty")
	case len(p.Args) == 0 || p.Args[0] == "":
		return errdefs.Invalid("process args must not be empty")
	case p.Cwd == "":
		return errdefs.Invalid("process cwd must not be empty")
	case !path.IsAbs(p.Cwd):
		return errdefs.Invalid("process cwd %q must be an absolute path", p.Cwd)
	}
	for _, e := range p.Env {
		if strings.ContainsRune(e, 0) {
			return errdefs.Invalid("process env holds a zero byte: %q", e)
		}
	}
	for _, l := range p.Rlimits {
		if _, ok := resources[l.Type]; !ok {
			return errdefs.Invalid("unknown rlimit %q", l.Type)
		}
		if l.Soft > l.Hard {
			return errdefs.Invalid("rlimit %s: soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
	}
	return nil
}

func validateNamespaces(spec *specs.Spec) error {
	have := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		if _, ok := kinds[ns.Type]; !ok {
			return errdefs.Invalid("unknown namespace type %q", ns.Type)
		}
		if have[ns.Type] {
			return errdefs.Invalid("namespace %q is given twice", ns.Type)
		}
		have[ns.Type] = true
	}
	if !have[specs.MountNamespace] {
		return errdefs.Invalid("a container without a mount namespace of its own is not supported")
	}
	needs := map[specs.LinuxNamespaceType]bool{
		specs.UTSNamespace:  spec.Hostname != "" || spec.Domainname != "",
		specs.UserNamespace: len(spec.Linux.UIDMappings)+len(spec.Linux.GIDMappings) > 0,
		specs.TimeNamespace: len(spec.Linux.TimeOffsets) > 0,
	}
	for kind, needed := range needs {
		if needed && !have[kind] {
			return errdefs.Invalid("the spec sets what belongs to a %s namespace but has none", kind)
		}
	}
	return validateSysctls(spec, have)
}

// validateSysctls refuses sysctls that would change the host.
func validateSysctls(spec *specs.Spec, have map[specs.LinuxNamespaceType]bool) error {
	for key := range spec.Linux.Sysctl {
		key = strings.ReplaceAll(key, "/", ".")
		var needed specs.LinuxNamespaceType
		switch {
		case strings.Contains(key, ".."):
			return errdefs.Invalid("sysctl %q is not a name", key)
		case strings.HasPrefix(key, "net."):
			needed = specs.NetworkNamespace
		case key == "kernel.domainname" || key == "kernel.hostname":
			needed = specs.UTSNamespace
		case ipcSysctl(key):
			needed = specs.IPCNamespace
		case strings.HasPrefix(key, "user."):
			needed = specs.UserNamespace
		default:
			return errdefs.Invalid("sysctl %q is not in a separate kernel namespace", key)
		}
		if !have[needed] {
			return errdefs.Invalid("sysctl %q is not allowed: the container has no %s namespace of its own", key, needed)
		}
	}
	return nil
}

func ipcSysctl(key string) bool {
	switch key {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id":
		return true
	}
	return strings.HasPrefix(key, "fs.mqueue.")
}

func validateMounts(spec *specs.Spec) error {
	for _, m := range spec.Mounts {
		if m.Destination == "" {
			return errdefs.Invalid("a mount has no destination")
		}
		o := parseOptions(m.Options)
		if (o.bind || m.Type == "bind") && m.Source == "" {
			return errdefs.Invalid("bind mount at %s has no source", m.Destination)
		}
		if (len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0) && !o.bind && m.Type != "bind" {
			return errdefs.Invalid("mount at %s: only bind mounts can be idmapped", m.Destination)
		}
	}
	return nil
}

func validatePaths(spec *specs.Spec) error {
	for _, list := range [][]string{spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths} {
		for _, p := range list {
			if !path.IsAbs(p) {
				return errdefs.Invalid("masked and read-only paths must be absolute: %q", p)
			}
		}
	}
	switch spec.Linux.RootfsPropagation {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
		return nil
	}
	return errdefs.Invalid("unknown rootfsPropagation %q", spec.Linux.RootfsPropagation)
}
