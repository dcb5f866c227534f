package ref

import (
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"davit/oci/errdefs"
)

var samples = []string{
	"ubuntu", "ubuntu:14.04", "docker.io/library/ubuntu:trusty", "index.docker.io/ubuntu", "docker.io/ubuntu",
	"subicura/vertx3:3.3.1", "localhost/app", "localhost:5000/app:v1", "host:5000/a/b@sha256:" + strings.Repeat("ab", 32),
	"a.b/c", "a/b/c/d", "[::1]:5000/app", "[2001:db8::1]/app:x", "A/b", "Host.example/app", "ubuntu:", ":tag", "",
	"a//b", "a/", "/a", "UPPER", "a/UPPER", "a__b", "a___b", "a..b", "a--b", "a._b", "-a", "a-", "a:.x", "a:x/y",
	"a:" + strings.Repeat("x", 128), "a:" + strings.Repeat("x", 129), "a@sha256:xyz", "a@md5:00", "a:t@sha256:" + strings.Repeat("0", 64),
	strings.Repeat("a", 64), strings.Repeat("a", 256), "host:port/a", "host:/a", "h_st.x/a", "-h.x/a", "h..x/a", "a b", "a:b c", "http://x/y",
	"docker.io/library/a/b", "gcr.io/a", "1.2.3.4:80/x", "a@sha512:" + strings.Repeat("0", 128), "[::1/app",
}

// oracle parses with the distribution project's parser. It takes "h_st.x/a" for a path without a
// registry, which it can neither print in full nor pull; davit refuses the bad host name instead.
func oracle(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err == nil && reference.Domain(named) == "" {
		return nil, errors.New("no domain")
	}
	return named, err
}

// Same verdict, same canonical and familiar forms as the oracle.
func TestParseAgreesWithDistribution(t *testing.T) {
	for _, s := range samples {
		got, err := Parse(s)
		want, wantErr := oracle(s)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("Parse(%q): error %v, oracle %v", s, err, wantErr)
			continue
		}
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("Parse(%q): error %v is not ErrInvalid", s, err)
			}
			continue
		}
		if got.String() != want.String() || got.Familiar() != reference.FamiliarString(want) || got.FamiliarName() != reference.FamiliarName(want) {
			t.Errorf("Parse(%q) = %s (%s), oracle %s (%s)", s, got, got.Familiar(), want, reference.FamiliarString(want))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		want, wantErr := oracle(s)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Parse(%q): error %v, oracle %v", s, err, wantErr)
		}
		if err == nil && got.String() != want.String() {
			t.Fatalf("Parse(%q) = %s, oracle %s", s, got, want)
		}
	})
}

func TestWithDefaultTag(t *testing.T) {
	for in, want := range map[string]string{
		"ubuntu": "docker.io/library/ubuntu:latest", "ubuntu:1": "docker.io/library/ubuntu:1",
		"a/b@sha256:" + strings.Repeat("0", 64): "docker.io/a/b@sha256:" + strings.Repeat("0", 64),
	} {
		r, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.WithDefaultTag().String(); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
