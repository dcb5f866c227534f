package task

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// profiles remembers the seccomp profile that was sent last: it is most of a spec's text, and nearly always
// the same.
type profiles struct {
	mu      sync.Mutex
	profile *specs.LinuxSeccomp
	text    json.RawMessage
	key     string
	known   bool // the monitor has it
}

// detach moves the seccomp profile of a request's spec into Profile and ProfileKey. The caller's spec stays
// as it is, and a profile that was sent is not written to any more.
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
		sum := sha256.Sum256(text)
		p.profile, p.text, p.key, p.known = r.Spec.Linux.Seccomp, text, hex.EncodeToString(sum[:]), false
	}
	spec, linux := *r.Spec, *r.Spec.Linux
	linux.Seccomp, spec.Linux = nil, &linux
	r.Spec, r.ProfileKey = &spec, p.key
	if !p.known {
		r.Profile = p.text
	}
	return r, nil
}

// learned notes whether the monitor has the profile with a key.
func (p *profiles) learned(key string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == key {
		p.known = known
	}
}

// Profiles decodes seccomp profiles and remembers what it decoded, by key. The zero value is ready.
type Profiles struct {
	mu      sync.Mutex
	decoded map[string]*specs.LinuxSeccomp
}

// profilesKept is how many different profiles are remembered.
const profilesKept = 8

// Assemble puts a request's profile back into its spec, where it must not be written to. When only its key
// came and is not known (any more) the error is errdefs.ErrNotFound.
func (p *Profiles) Assemble(r *CreateRequest) error {
	if r.ProfileKey == "" {
		return nil
	}
	if r.Spec == nil || r.Spec.Linux == nil {
		return errdefs.Invalid("a seccomp profile came without a spec")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	profile := p.decoded[r.ProfileKey]
	if profile == nil {
		var err error
		if profile, err = decodeProfile(r); err != nil {
			return err
		}
		if p.decoded == nil || len(p.decoded) >= profilesKept {
			p.decoded = map[string]*specs.LinuxSeccomp{}
		}
		p.decoded[r.ProfileKey] = profile
	}
	r.Spec.Linux.Seccomp, r.Profile = profile, nil
	return nil
}

func decodeProfile(r *CreateRequest) (*specs.LinuxSeccomp, error) {
	if len(r.Profile) == 0 {
		return nil, errdefs.NotFound("seccomp profile %s is not known here", r.ProfileKey)
	}
	if sum := sha256.Sum256(r.Profile); hex.EncodeToString(sum[:]) != r.ProfileKey {
		return nil, errdefs.Invalid("the seccomp profile is not that of key %s", r.ProfileKey)
	}
	profile := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(r.Profile, profile); err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "decode seccomp profile: %w", err)
	}
	return profile, nil
}
