package image

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
)

// HostPlatform returns the platform of this machine.
func HostPlatform() oci.Platform {
	return normalize(oci.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatform reads os[/arch[/variant]] or an architecture alone, as --platform takes it. Errors are
// errdefs.ErrInvalid.
func ParsePlatform(s string) (oci.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return oci.Platform{}, errdefs.Invalid("%q is an invalid component of %q: platform specifier component must match \"^[A-Za-z0-9_-]+$\": invalid argument", parts[len(parts)-1], s)
	}
	p := oci.Platform{OS: parts[0]}
	if len(parts) == 1 {
		p = oci.Platform{OS: runtime.GOOS, Architecture: parts[0]}
		if slices.Contains([]string{"linux", "windows", "darwin", "freebsd"}, parts[0]) {
			p = oci.Platform{OS: parts[0], Architecture: runtime.GOARCH}
		} else if !slices.Contains(architectures(), normalize(p).Architecture) {
			return oci.Platform{}, errdefs.Invalid("%q: unknown operating system or architecture: invalid argument", s)
		}
	}
	if len(parts) > 1 {
		p.Architecture = parts[1]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	return normalize(p), nil
}

// architectures are those that a platform of one word may name, as Go calls them.
func architectures() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}
}

// normalize brings other spellings of architectures to Go's, and leaves out default variants.
func normalize(p oci.Platform) oci.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686":
		p.Architecture, p.Variant = "386", ""
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	case p.Architecture == "arm64" && (p.Variant == "8" || p.Variant == "v8"):
		p.Variant = ""
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	}
	return p
}

// runsOn lists the platforms whose programs run on p, the best first: older variants of the same
// architecture, then the 32-bit one.
func runsOn(p oci.Platform) []oci.Platform {
	p = normalize(p)
	all := []oci.Platform{p}
	older := map[string][]string{
		"amd64": {"v4", "v3", "v2", ""},
		"arm":   {"v8", "v7", "v6", "v5"},
	}[p.Architecture]
	if i := slices.Index(older, p.Variant); i >= 0 {
		for _, variant := range older[i+1:] {
			all = append(all, oci.Platform{OS: p.OS, Architecture: p.Architecture, Variant: variant})
		}
	}
	switch p.Architecture {
	case "amd64":
		all = append(all, oci.Platform{OS: p.OS, Architecture: "386"})
	case "arm64":
		if p.Variant != "" {
			all = append(all, oci.Platform{OS: p.OS, Architecture: "arm64"})
		}
		all = append(all, runsOn(oci.Platform{OS: p.OS, Architecture: "arm", Variant: "v8"})...)
	}
	return all
}

// Matches says whether an image of the platform have can be taken where want is asked for.
func Matches(want, have oci.Platform) bool { return rank(want, have) >= 0 }

// rank returns have's place in runsOn(want), or -1.
func rank(want, have oci.Platform) int {
	have = normalize(have)
	return slices.IndexFunc(runsOn(want), func(p oci.Platform) bool {
		return p.OS == have.OS && p.Architecture == have.Architecture && p.Variant == have.Variant
	})
}

// choose returns the manifest of an index that suits the platform best. An entry without platform
// counts only if it is the sole one.
func choose(index oci.Index, want oci.Platform) (oci.Descriptor, error) {
	best, found := oci.Descriptor{}, -1
	for _, desc := range index.Manifests {
		if desc.Platform == nil {
			if len(index.Manifests) == 1 {
				return desc, nil
			}
			continue
		}
		if r := rank(want, *desc.Platform); r >= 0 && (found < 0 || r < found) {
			best, found = desc, r
		}
	}
	if found < 0 {
		return oci.Descriptor{}, errdefs.NotFound("no matching manifest for %s in the manifest list entries", platformText(want))
	}
	return best, nil
}

// platformText writes a platform with the variant that arm64 has by default, as Docker does.
func platformText(p oci.Platform) string {
	if p = normalize(p); p.Architecture == "arm64" && p.Variant == "" {
		p.Variant = "v8"
	}
	return p.String()
}

// decodeIndex reads an index.
func decodeIndex(b []byte) (oci.Index, error) {
	var index oci.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return oci.Index{}, fmt.Errorf("read image index: %w", err)
	}
	return index, nil
}

// decodeManifest reads an image manifest and checks what later steps rely on.
func decodeManifest(b []byte) (oci.Manifest, error) {
	var m oci.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return oci.Manifest{}, fmt.Errorf("read image manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return oci.Manifest{}, errdefs.Invalid("the image manifest has schema version %d: only version 2 is supported", m.SchemaVersion)
	}
	for _, desc := range append([]oci.Descriptor{m.Config}, m.Layers...) {
		if _, err := oci.ParseDigest(string(desc.Digest)); err != nil {
			return oci.Manifest{}, fmt.Errorf("read image manifest: %w", err)
		}
		if desc.Size < 0 {
			return oci.Manifest{}, errdefs.Invalid("the image manifest gives %s a negative size", desc.Digest)
		}
	}
	return m, nil
}

// decodeConfig reads an image configuration and checks it against its manifest.
func decodeConfig(b []byte, m oci.Manifest) (oci.Image, error) {
	var config oci.Image
	if err := json.Unmarshal(b, &config); err != nil {
		return oci.Image{}, fmt.Errorf("read image configuration: %w", err)
	}
	if config.RootFS.Type != "layers" {
		return oci.Image{}, errdefs.Invalid("this is not a container image: its configuration (%s) has no root file system", m.Config.MediaType)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return oci.Image{}, errdefs.Invalid("the image's manifest has %d layers, its configuration %d", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	for _, id := range config.RootFS.DiffIDs {
		if _, err := oci.ParseDigest(string(id)); err != nil {
			return oci.Image{}, fmt.Errorf("read image configuration: %w", err)
		}
	}
	return config, nil
}
