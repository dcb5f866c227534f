package probe

import (
	"os"
	"testing"
)

// optional are the features that a new enough kernel may still lack, by its configuration.
var optional = map[Feature]bool{AppArmor: true, SELinux: true}

// TestNewKernelsHaveIt fails when a probe says no on a kernel that is newer than the claimed minimum: then
// the probe or the claim is wrong. It fails, too, when a probe says yes on an older one.
func TestNewKernelsHaveIt(t *testing.T) {
	facts, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Linux %s, cgroups %s, capabilities %#x", facts.Release, facts.Cgroups, uint64(facts.Capabilities))
	for feature, r := range facts.Features {
		t.Logf("%-32s since %-5v %v", feature, r.Minimum, r.Err)
		newEnough := facts.Kernel.AtLeast(r.Minimum)
		if r.Err != nil && newEnough && !optional[feature] {
			t.Errorf("%s: %v, on a kernel newer than %v", feature, r.Err, r.Minimum)
		}
		if r.Err == nil && !newEnough {
			t.Errorf("%s works on %v, older than the claimed %v", feature, facts.Kernel, r.Minimum)
		}
		if facts.Has(feature) != (r.Err == nil) {
			t.Errorf("Has(%s) = %v", feature, facts.Has(feature))
		}
	}
	if len(facts.Features) != len(probes) {
		t.Errorf("%d of %d probes answered", len(facts.Features), len(probes))
	}
}

func TestProbesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := In(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestVersions(t *testing.T) {
	for s, want := range map[string]Version{"6.18.44-fc": {6, 18}, "5.4": {5, 4}, "6.1.0-13-amd64": {6, 1}} {
		if got, err := parseRelease(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := parseRelease("x"); err == nil {
		t.Error("x was read as a version")
	}
	if (Version{5, 12}).AtLeast(Version{5, 13}) || !(Version{6, 0}).AtLeast(Version{5, 19}) {
		t.Error("versions are compared wrongly")
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := In(b.TempDir()); err != nil {
			b.Fatal(err)
		}
	}
}
