// Package seccomp compiles the seccomp section of an OCI spec to the classic BPF that seccomp(2) loads,
// and has the default profile.
//
//	profile (names, arguments, actions) --Compile--> Program (struct sock_filter array, flags)
//
// The program looks at the architecture first, then finds the system call's number in a binary tree of
// ranges with one action, about eight comparisons deep, and looks at arguments only where a rule does.
//
// Meaning of a profile, where the specification is silent, is that of runc with libseccomp, so that
// profiles written for Docker work the same:
//   - names and architectures that are unknown here are ignored;
//   - a rule with the default action is ignored;
//   - a rule's conditions must all hold, unless two are on one argument: then each is a rule of its own;
//   - of several rules for a call, one whose conditions hold goes before one without conditions; among
//     those with conditions the first in the profile wins;
//   - a call newer than every call that the profile names is answered with ENOSYS, not the default
//     action, so that libraries fall back to older calls;
//   - arguments are compared with all their bits on x32 too;
//   - a call of an architecture that the profile does not list kills the thread.
package seccomp

import (
	"encoding/binary"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

//go:generate go run ./gensyscalls

// Program is a compiled filter.
type Program struct {
	// Filter is an array of struct sock_filter in the host's byte order, 8 bytes each.
	Filter []byte
	// Flags are seccomp(2)'s SECCOMP_FILTER_FLAG_*, without NEW_LISTENER.
	Flags uint64
	// Notify is set when a rule asks a listener: load with SECCOMP_FILTER_FLAG_NEW_LISTENER.
	Notify bool
}

// Actions of seccomp(2); the low 16 bits carry an errno or a tracer's value.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000

	errnoEPERM  = 1
	errnoENOSYS = 38
)

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

// Compile translates a profile for this host's architecture. Errors are errdefs.ErrInvalid.
func Compile(profile *specs.LinuxSeccomp) (Program, error) {
	return compileFor(profile, native(runtime.GOARCH))
}

// compileFor translates a profile for a kernel whose native architecture comes first in family.
func compileFor(profile *specs.LinuxSeccomp, family []*arch) (Program, error) {
	if len(family) == 0 {
		return Program{}, errdefs.New(errdefs.ErrUnsupported, "seccomp filters are not supported on %s", runtime.GOARCH)
	}
	flags, err := flagBits(profile.Flags)
	if err != nil {
		return Program{}, err
	}
	filters, notify, err := resolve(profile, family)
	if err != nil {
		return Program{}, err
	}
	code := assemble(filters)
	if len(code) > maxInstructions {
		return Program{}, errdefs.Invalid("the seccomp profile needs %d instructions, the kernel takes %d", len(code), maxInstructions)
	}
	buf := make([]byte, 0, 8*len(code))
	for _, in := range code {
		buf = binary.NativeEndian.AppendUint16(buf, in.op)
		buf = append(buf, in.jt, in.jf)
		buf = binary.NativeEndian.AppendUint32(buf, in.k)
	}
	return Program{Filter: buf, Flags: flags, Notify: notify}, nil
}

// Flags of seccomp(2).
const (
	flagTsync            = 1 << 0
	flagLog              = 1 << 1
	flagSpecAllow        = 1 << 2
	flagWaitKillableRecv = 1 << 5
)

// flagBits translates the flags. Without any, speculation mitigations stay as they are for the process:
// kernels before 5.16 would otherwise slow every filtered process down.
func flagBits(flags []specs.LinuxSeccompFlag) (uint64, error) {
	if flags == nil {
		return flagSpecAllow, nil
	}
	bits := uint64(0)
	for _, f := range flags {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			bits |= flagTsync
		case specs.LinuxSeccompFlagLog:
			bits |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			bits |= flagWaitKillableRecv
		default:
			return 0, errdefs.Invalid("unknown seccomp flag %q", f)
		}
	}
	return bits, nil
}

// actionValue returns what the filter returns for an action.
func actionValue(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	code := uint32(errnoEPERM)
	if errno != nil {
		code = uint32(*errno) & 0xffff
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActErrno:
		return retErrno | code, nil
	case specs.ActTrace:
		return retTrace | code, nil
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, errdefs.Invalid("unknown seccomp action %q", a)
}
