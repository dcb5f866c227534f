package seccomp

import (
	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Default returns Docker's default profile for a container with the capabilities ("CAP_..." names) in
// its bounding set.
func Default(capabilities []string) (*specs.LinuxSeccomp, error) {
	return mobyseccomp.GetDefaultProfile(withCapabilities(capabilities))
}

// Load reads a profile as --security-opt seccomp=FILE takes it, JSON with conditions on capabilities,
// architectures and kernels, for a container with the capabilities. It is nil when the text asks for no
// filter.
func Load(text []byte, capabilities []string) (*specs.LinuxSeccomp, error) {
	profile, err := mobyseccomp.LoadProfile(string(text), withCapabilities(capabilities))
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	return profile, nil
}

func withCapabilities(names []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: names}}}
}
