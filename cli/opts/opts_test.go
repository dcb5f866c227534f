package opts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/mount"
)

func TestPorts(t *testing.T) {
	for value, want := range map[string]string{
		"80":                              "80/tcp=:",
		"8080:80":                         "80/tcp=:8080",
		"127.0.0.1:8080:80/udp":           "80/udp=127.0.0.1:8080",
		"[::1]:8080:80":                   "80/tcp=::1:8080",
		"127.0.0.1::80":                   "80/tcp=127.0.0.1:",
		"8000-8002:80-82":                 "80/tcp=:8000 81/tcp=:8001 82/tcp=:8002",
		"8000-8010:80":                    "80/tcp=:8000-8010",
		"published=8080,target=80":        "80/tcp=:8080",
		"target=80,protocol=udp":          "80/udp=:",
		"":                                "error",
		"x:80":                            "error",
		"80:99999":                        "error",
		"80/icmp":                         "error",
		"1.2.3:80:80":                     "error",
		"8000-8001:80-82":                 "error",
		"published=1,target=80,nonsense=": "error",
	} {
		if got := ports(value); got != want {
			t.Errorf("Ports(%q) = %s, want %s", value, got, want)
		}
	}
}

func ports(value string) string {
	_, bindings, err := Ports([]string{value})
	if err != nil {
		return "error"
	}
	var words []string
	for port, list := range bindings {
		for _, b := range list {
			ip := ""
			if b.HostIP.IsValid() {
				ip = b.HostIP.String()
			}
			words = append(words, fmt.Sprintf("%s=%s:%s", port, ip, b.HostPort))
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestMount(t *testing.T) {
	m, err := Mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rshared,bind-recursive=disabled")
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != mount.TypeBind || m.Source != "/a" || m.Target != "/b" || !m.ReadOnly || m.BindOptions.Propagation != "rshared" || !m.BindOptions.NonRecursive {
		t.Errorf("got %+v %+v", m, m.BindOptions)
	}
	m, err = Mount(`source=data,"target=/with,comma",volume-opt=type=nfs,volume-nocopy=true`)
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != mount.TypeVolume || m.Target != "/with,comma" || m.VolumeOptions.DriverConfig.Options["type"] != "nfs" || !m.VolumeOptions.NoCopy {
		t.Errorf("got %+v %+v", m, m.VolumeOptions)
	}
	for value, words := range map[string]string{
		"type=bind,src=/a":                    "target is required",
		"type=tmpfs,dst=/a,bind-nonrecursive": "cannot mix 'bind-*' options with mount type 'tmpfs'",
		"dst=/a,what=ever":                    "unexpected key 'what'",
		"dst=/a,readonly=maybe":               "invalid value for readonly: maybe",
		"type=tmpfs,dst=/a,tmpfs-mode=9":      "invalid value for tmpfs-mode: 9",
	} {
		if _, err := Mount(value); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("Mount(%q): %v, want %q", value, err, words)
		}
	}
}

func TestVolumes(t *testing.T) {
	binds, anonymous, err := Volumes([]string{"/anonymous", "name:/data:ro", "./here:/there"})
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("here")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"name:/data:ro", here + ":/there"}; !slices.Equal(binds, want) {
		t.Errorf("binds %q, want %q", binds, want)
	}
	if _, ok := anonymous["/anonymous"]; !ok || len(anonymous) != 1 {
		t.Errorf("anonymous %v", anonymous)
	}
}

func TestEnv(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\n\nA=1\nINHERITED\nABSENT\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INHERITED", "yes")
	got, err := Env([]string{file}, []string{"B=2=3", "ABSENT_TOO"})
	if want := []string{"A=1", "INHERITED=yes", "B=2=3"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if _, err := Env(nil, []string{"=x"}); err == nil {
		t.Error("a variable without a name was taken")
	}
}

func TestValues(t *testing.T) {
	if n, err := CPUs("1.5"); n != 1_500_000_000 || err != nil {
		t.Errorf("CPUs: %d, %v", n, err)
	}
	if _, err := CPUs("0.0000000001"); err == nil {
		t.Error("more precise than a billionth was taken")
	}
	if n, err := Swap("-1"); n != -1 || err != nil {
		t.Errorf("Swap: %d, %v", n, err)
	}
	if d, err := Device("/dev/fuse:rw"); err != nil || d.PathInContainer != "/dev/fuse" || d.CgroupPermissions != "rw" {
		t.Errorf("Device: %+v, %v", d, err)
	}
	if _, err := Device("/dev/a:/dev/b:rwx"); err == nil {
		t.Error("device mode x was taken")
	}
	if p, err := Restart("on-failure:3"); err != nil || p.MaximumRetryCount != 3 {
		t.Errorf("Restart: %+v, %v", p, err)
	}
	n, err := ParseNetwork("name=front,alias=web,ip=10.0.0.9,gw-priority=2")
	if err != nil || n.Name != "front" || n.Settings.IPAMConfig.IPv4Address.String() != "10.0.0.9" || n.Settings.GwPriority != 2 {
		t.Errorf("ParseNetwork: %+v, %v", n, err)
	}
	if _, err := ParseNetwork("alias=web"); err == nil {
		t.Error("a network without a name was taken")
	}
}
