package cap

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"davit/oci/errdefs"
)

// TestTableEndsWithTheKernel holds the table against the running kernel's last capability.
func TestTableEndsWithTheKernel(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Fatal(err)
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if last > len(names)-1 {
		t.Errorf("the kernel knows capability %d, the table ends at %d (%s)", last, len(names)-1, names[len(names)-1])
	}
}

func TestNumbers(t *testing.T) {
	for name, want := range map[string]int{"CAP_CHOWN": 0, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_CHECKPOINT_RESTORE": 40} {
		if n, ok := Number(name); !ok || n != want || Name(n) != name {
			t.Errorf("%s = %d, %v", name, n, ok)
		}
	}
	if Name(63) != "CAP_63" {
		t.Errorf("Name(63) = %s", Name(63))
	}
	set, err := SetOf(Default())
	if err != nil || set != 0xa80425fb {
		t.Errorf("Docker's default set is %#x, %v; want 0xa80425fb", uint64(set), err)
	}
}

func TestTweak(t *testing.T) {
	everything := Set(1<<len(names) - 1)
	for _, tc := range []struct {
		name      string
		add, drop []string
		want      func([]string) bool
	}{
		{"nothing", nil, nil, func(c []string) bool { return slices.Equal(c, Default()) }},
		{"prefix and case", []string{"net_admin", "CAP_SYS_TIME"}, []string{"Chown"}, func(c []string) bool {
			return slices.Contains(c, "CAP_NET_ADMIN") && slices.Contains(c, "CAP_SYS_TIME") && !slices.Contains(c, "CAP_CHOWN") && len(c) == 15
		}},
		{"add what is there", []string{"CHOWN", "chown"}, nil, func(c []string) bool { return slices.Equal(c, Default()) }},
		{"add all", []string{"all"}, nil, func(c []string) bool { return len(c) == len(names) }},
		{"add all but one", []string{"ALL"}, []string{"SYS_ADMIN"}, func(c []string) bool { return len(c) == len(names)-1 && !slices.Contains(c, "CAP_SYS_ADMIN") }},
		{"drop all", nil, []string{"all"}, func(c []string) bool { return len(c) == 0 }},
		{"drop all but one", []string{"kill"}, []string{"ALL"}, func(c []string) bool { return slices.Equal(c, []string{"CAP_KILL"}) }},
	} {
		got, err := Tweak(Default(), tc.add, tc.drop, everything)
		if err != nil || !tc.want(got) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
	_, err := Tweak(Default(), []string{"SING"}, nil, everything)
	if !errors.Is(err, errdefs.ErrInvalid) || err.Error() != `invalid CapAdd: unknown capability: "SING"` {
		t.Errorf("unknown capability: %v", err)
	}
}

func TestBounding(t *testing.T) {
	s, err := Bounding()
	if err != nil || s == 0 {
		t.Fatalf("%v, %v", s, err)
	}
	if got := Within([]string{"CAP_CHOWN", "CAP_KILL", "CAP_NOBODY"}, 1<<5); !slices.Equal(got, []string{"CAP_KILL"}) {
		t.Errorf("Within: %v", got)
	}
}
