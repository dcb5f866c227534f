package task

import (
	"encoding/json"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// profiles remembers the text of the seccomp profile that was sent last.
type profiles struct {
	mu      sync.Mutex
	profile *specs.LinuxSeccomp
	text    json.RawMessage
}

// detach moves the seccomp profile of a request's spec into Profile. The caller's spec stays as it is,
// and a profile that was sent is not written to any more.
func (p *profiles) detach(r CreateRequest) (CreateRequest, error) {
	if r.Spec == nil || r.Spec.Linux == nil || r.Spec.Linux.Seccomp == nil {
		return r, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.profile != r.Spec.Linux.Seccomp {
		text, err := json.Marshal(r.Spec.Linux.Seccomp)
		if err != nil {
			return r, errdefs.New(errdefs.ErrInvalid, "encode seccomp profile: %w", err)
		}
		p.profile, p.text = r.Spec.Linux.Seccomp, text
	}
	spec, linux := *r.Spec, *r.Spec.Linux
	linux.Seccomp, spec.Linux = nil, &linux
	r.Spec, r.Profile = &spec, p.text
	return r, nil
}

// Profiles decodes seccomp profiles and remembers what it decoded. The zero value is ready.
type Profiles struct {
	mu      sync.Mutex
	decoded map[string]*specs.LinuxSeccomp
}

// profilesKept is how many different profiles are remembered.
const profilesKept = 8

// Assemble puts a request's profile back into its spec, where it must not be written to.
func (p *Profiles) Assemble(r *CreateRequest) error {
	if len(r.Profile) == 0 || r.Spec == nil || r.Spec.Linux == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	profile := p.decoded[string(r.Profile)]
	if profile == nil {
		profile = &specs.LinuxSeccomp{}
		if err := json.Unmarshal(r.Profile, profile); err != nil {
			return errdefs.New(errdefs.ErrInvalid, "decode seccomp profile: %w", err)
		}
		if p.decoded == nil || len(p.decoded) >= profilesKept {
			p.decoded = map[string]*specs.LinuxSeccomp{}
		}
		p.decoded[string(r.Profile)] = profile
	}
	r.Spec.Linux.Seccomp, r.Profile = profile, nil
	return nil
}
