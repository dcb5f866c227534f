package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

func allow(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
}

func deny(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := allow(kind, major, minor, access)
	r.Allow = false
	return r
}

var (
	denyAll  = specs.LinuxDeviceCgroup{Access: "rwm"}
	allowAll = specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
)

// try runs shell commands inside g and returns those whose exit was 0.
func try(t *testing.T, g *Group, commands ...string) string {
	t.Helper()
	script := "read go\n"
	for i, c := range commands {
		script += fmt.Sprintf("( %s ) 2>&- && echo %d\n", c, i)
	}
	c := exec.Command("sh", "-c", script)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	c.Wait() // its exit code is that of the last command
	return strings.Join(strings.Fields(out.String()), "")
}

// TestDeviceRulesAreEnforced opens and makes real devices under several rule lists, one after the other
// on the same group, as an update would.
func TestDeviceRulesAreEnforced(t *testing.T) {
	g := newGroup(t, nil)
	node := filepath.Join(t.TempDir(), "zero")
	if err := syscall.Mknod(node, syscall.S_IFCHR|0o666, 1<<8|5); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "made")
	commands := []string{
		"exec 3< " + node,   // 0: read zero (1:5)
		"exec 3> " + node,   // 1: write zero
		"exec 3< /dev/full", // 2: read full (1:7)
		fmt.Sprintf("mknod %s c 1 5 && rm %s", made, made), // 3
	}
	null := allow("c", 1, 3, "rwm") // the shell's own descriptors
	for _, tc := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{"everything", []specs.LinuxDeviceCgroup{allowAll}, "0123"},
		{"nothing", []specs.LinuxDeviceCgroup{denyAll, null}, ""},
		{"read only", []specs.LinuxDeviceCgroup{denyAll, null, allow("c", 1, 5, "r")}, "0"},
		{"a major number", []specs.LinuxDeviceCgroup{denyAll, allow("c", 1, anyNumber, "rw")}, "012"},
		{"taken back", []specs.LinuxDeviceCgroup{denyAll, null, allow("c", 1, 5, "rwm"), deny("c", 1, 5, "w")}, "03"},
		{"all but one", []specs.LinuxDeviceCgroup{allowAll, deny("c", 1, 5, "w")}, "023"},
		{"defaults", append([]specs.LinuxDeviceCgroup{denyAll}, DefaultDevices()...), "0123"},
		{"nothing again", []specs.LinuxDeviceCgroup{denyAll, null}, ""},
	} {
		if err := g.Set(&specs.LinuxResources{Devices: tc.rules}); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if got := try(t, g, commands...); got != tc.want {
			t.Errorf("%s: commands that worked: %q, want %q", tc.name, got, tc.want)
		}
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("a device node was left behind")
	}
}

// A group is made without rules first, and gets them before a container's program runs.
func TestDevicesAfterCreate(t *testing.T) {
	g := newGroup(t, nil)
	if got := try(t, g, "exec 3< /dev/full"); got != "0" {
		t.Fatalf("a group without rules: %q", got)
	}
	if err := g.SetDevices([]specs.LinuxDeviceCgroup{denyAll, allow("c", 1, 3, "rwm"), allow("c", 1, 5, "r")}); err != nil {
		t.Fatal(err)
	}
	if got := try(t, g, "exec 3< /dev/full", "exec 3< /dev/zero"); got != "1" {
		t.Errorf("with zero allowed alone: %q", got)
	}
}

func TestBadDeviceRules(t *testing.T) {
	for _, r := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Type: "c", Access: "rx"}} {
		if _, err := resolveDevices([]specs.LinuxDeviceCgroup{r}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%+v: %v, want invalid", r, err)
		}
	}
}

// TestDeviceWrites checks that an update between two allow lists writes the differences only.
func TestDeviceWrites(t *testing.T) {
	resolve := func(rules ...specs.LinuxDeviceCgroup) deviceList {
		l, err := resolveDevices(rules)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	have := resolve(allow("c", 1, 3, "rwm"), allow("c", 1, 5, "r"), allow("b", 8, 0, "rw"))
	want := resolve(allow("c", 1, 3, "rwm"), allow("c", 1, 5, "rw"))
	var got []string
	for _, w := range deviceWrites(have, want) {
		got = append(got, w.file+" "+w.value)
	}
	if s := strings.Join(got, "; "); s != "devices.allow c 1:5 w; devices.deny b 8:0 rw" {
		t.Errorf("writes: %s", s)
	}
}
