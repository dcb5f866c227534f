package image

import (
	"errors"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64",
		"linux/arm": "linux/arm/v7", "linux/armel": "linux/arm/v6", "Linux/ARM/7": "linux/arm/v7", "windows/amd64": "windows/amd64",
	} {
		if got, err := ParsePlatform(in); err != nil || got.String() != want {
			t.Errorf("ParsePlatform(%s) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "linux/", "a/b/c/d", "bogus"} {
		if _, err := ParsePlatform(in); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("ParsePlatform(%q) = %v", in, err)
		}
	}
}

func TestChoose(t *testing.T) {
	entry := func(platform string) oci.Descriptor {
		p, err := ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		return oci.Descriptor{Digest: oci.DigestOf([]byte(platform)), Platform: &p}
	}
	index := func(platforms ...string) oci.Index {
		var i oci.Index
		for _, p := range platforms {
			i.Manifests = append(i.Manifests, entry(p))
		}
		// What buildx adds for provenance.
		return oci.Index{Manifests: append(i.Manifests, oci.Descriptor{Digest: "sha256:x", Platform: &oci.Platform{OS: "unknown", Architecture: "unknown"}})}
	}
	cases := []struct {
		want string
		have []string
		pick string
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64"}, "linux/amd64"},
		{"linux/amd64/v3", []string{"linux/386", "linux/amd64", "linux/amd64/v2"}, "linux/amd64/v2"},
		{"linux/amd64", []string{"linux/amd64/v3", "linux/386"}, "linux/386"},
		{"linux/arm/v7", []string{"linux/arm/v5", "linux/arm/v6", "linux/arm64"}, "linux/arm/v6"},
		{"linux/arm/v6", []string{"linux/arm/v7"}, ""},
		{"linux/arm64", []string{"linux/arm/v7", "linux/arm64/v8"}, "linux/arm64/v8"},
		{"windows/amd64", []string{"linux/amd64"}, ""},
	}
	for _, c := range cases {
		want, err := ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose(index(c.have...), want)
		if c.pick == "" {
			if !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%s of %v: %v, %v", c.want, c.have, got.Platform, err)
			}
		} else if err != nil || got.Digest != entry(c.pick).Digest {
			t.Errorf("%s of %v: %v, %v", c.want, c.have, got.Platform, err)
		}
	}
	_, err := choose(index("linux/amd64"), oci.Platform{OS: "linux", Architecture: "arm64"})
	if err == nil || err.Error() != "no matching manifest for linux/arm64/v8 in the manifest list entries" {
		t.Errorf("message: %v", err)
	}
}
