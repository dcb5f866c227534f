package container

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// initAnnotation asks the runtime for a tiny init as process 1 (--init).
const initAnnotation = "org.davit.init"

// BuildSpec says what the kernel shall do for a container. It is a pure function of its input.
func BuildSpec(in SpecInput) (*specs.Spec, error) {
	security, err := ParseSecurity(in.Record.HostConfig.SecurityOpt)
	if err != nil {
		return nil, err
	}
	b := builder{SpecInput: in, security: security}
	s := &specs.Spec{
		Version:     specs.Version,
		Hostname:    b.hostname(),
		Domainname:  in.Record.Config.Domainname,
		Root:        &specs.Root{Path: "rootfs", Readonly: in.Record.HostConfig.ReadonlyRootfs},
		Linux:       &specs.Linux{},
		Annotations: maps.Clone(in.Record.HostConfig.Annotations),
	}
	if init := in.Record.HostConfig.Init; init != nil && *init {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[initAnnotation] = "true"
	}
	if s.Hostname == "" {
		s.Domainname = ""
	}
	for _, step := range []func(*specs.Spec) error{b.process, b.namespaces, b.mounts, b.confine, b.resources, b.sysctls} {
		if err := step(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// builder carries the input through the steps, each of which fills its part of the spec.
type builder struct {
	SpecInput
	security Security
}

// hostname is empty when the host's UTS namespace is shared.
func (b builder) hostname() string {
	if b.Record.HostConfig.UTSMode.IsHost() {
		return ""
	}
	return b.Record.Config.Hostname
}

func (b builder) process(s *specs.Spec) error {
	c, h := b.Record.Config, b.Record.HostConfig
	args := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(args) == 0 {
		return errdefs.Invalid("no command specified")
	}
	capabilities, err := Capabilities(b.Facts.Capabilities, h.CapAdd, h.CapDrop, h.Privileged)
	if err != nil {
		return err
	}
	s.Process = &specs.Process{
		Terminal: c.Tty,
		User: specs.User{
			UID: b.User.UID, GID: b.User.GID, AdditionalGids: b.User.Groups, Umask: h.Umask,
		},
		Args:            args,
		Env:             Environment(append(slices.Clone(b.LinkEnv), c.Env...), b.hostname(), b.User.Home, c.Tty),
		Cwd:             c.WorkingDir,
		Capabilities:    capabilitySets(capabilities, b.User.UID),
		NoNewPrivileges: b.security.NoNewPrivileges,
		ApparmorProfile: b.security.AppArmor,
	}
	if b.security.AppArmor != "" && b.Facts.HasPath != nil && !b.Facts.HasPath("/sys/kernel/security/apparmor") {
		s.Process.ApparmorProfile = "" // nothing is confined on this host, and Docker ignores the profile
	}
	if s.Process.Cwd == "" {
		s.Process.Cwd = "/"
	}
	if c.Tty && h.ConsoleSize[0] != 0 && h.ConsoleSize[1] != 0 {
		s.Process.ConsoleSize = &specs.Box{Height: h.ConsoleSize[0], Width: h.ConsoleSize[1]}
	}
	for _, u := range h.Ulimits {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Hard: uint64(u.Hard), Soft: uint64(u.Soft),
		})
	}
	if h.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &h.OomScoreAdj
	}
	return nil
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environment puts the variables of every container before the user's. A user's entry without "="
// removes the variable.
func Environment(user []string, hostname, home string, tty bool) []string {
	env := []string{defaultPath}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if tty {
		env = append(env, "TERM=xterm")
	}
	env = MergeEnv(env, user)
	if home != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// MergeEnv returns base with the entries of over replacing those of the same name.
func MergeEnv(base, over []string) []string {
	merged := slices.Clone(base)
	for _, entry := range over {
		name, _, isSet := strings.Cut(entry, "=")
		at := slices.IndexFunc(merged, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		switch {
		case isSet && at >= 0:
			merged[at] = entry
		case isSet:
			merged = append(merged, entry)
		case at >= 0:
			merged = slices.Delete(merged, at, at+1)
		}
	}
	return merged
}

func (b builder) namespaces(s *specs.Spec) error {
	h, u := b.Record.HostConfig, b.Record.UserNS
	add := func(t specs.LinuxNamespaceType, path string) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
	}
	if u.Mode != UserHost {
		add(specs.UserNamespace, b.Join.User)
		mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: u.Base, Size: u.Size}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = mapping, mapping
	}
	add(specs.MountNamespace, "")
	if !h.PidMode.IsHost() {
		add(specs.PIDNamespace, b.Join.PID)
	}
	if !h.NetworkMode.IsHost() {
		add(specs.NetworkNamespace, b.Join.Net)
	}
	if !h.IpcMode.IsHost() {
		add(specs.IPCNamespace, b.Join.IPC)
	}
	if !h.UTSMode.IsHost() {
		add(specs.UTSNamespace, "")
	}
	if !h.CgroupnsMode.IsHost() {
		add(specs.CgroupNamespace, "")
	}
	return nil
}

// sysctls are the user's; a namespace of its own gets Docker's defaults, so that any program may
// listen on any port and use ping.
func (b builder) sysctls(s *specs.Spec) error {
	h := b.Record.HostConfig
	ownNet := !h.NetworkMode.IsHost() && b.Join.Net == ""
	s.Linux.Sysctl = map[string]string{}
	if ownNet {
		s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
		if b.Record.UserNS.Mode != UserHost {
			s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 65535"
		}
	}
	for name, value := range h.Sysctls {
		if err := allowedSysctl(name, !h.NetworkMode.IsHost(), !h.IpcMode.IsHost()); err != nil {
			return err
		}
		s.Linux.Sysctl[name] = value
	}
	return nil
}

// allowedSysctl refuses settings that are the host's and not a namespace's.
func allowedSysctl(name string, privateNet, privateIPC bool) error {
	ipc := strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "kernel.msg") ||
		strings.HasPrefix(name, "kernel.sem") || strings.HasPrefix(name, "kernel.shm")
	switch {
	case strings.HasPrefix(name, "net.") && privateNet, ipc && privateIPC:
		return nil
	case strings.HasPrefix(name, "net."):
		return errdefs.Invalid("sysctl %q not allowed in host network namespace", name)
	case ipc:
		return errdefs.Invalid("sysctl %q not allowed in host ipc namespace", name)
	case name == "kernel.domainname" || name == "kernel.hostname":
		return nil
	}
	return errdefs.Invalid("sysctl %q is not in a separate kernel namespace", name)
}
