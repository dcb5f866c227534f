package ociruntime

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/seccomp"
	"davit/oci/errdefs"
)

// compileFilter compiles a container's seccomp profile; nil means none.
func (r *Runtime) compileFilter(profile *specs.LinuxSeccomp) (seccomp.Program, error) {
	if profile == nil {
		return seccomp.Program{}, nil
	}
	p, err := r.filters.Compile(profile)
	if err != nil {
		return p, fmt.Errorf("compile seccomp profile: %w", err)
	}
	if p.Notify && profile.ListenerPath == "" {
		return p, errdefs.Invalid("the seccomp profile notifies a listener but names none")
	}
	return p, nil
}
